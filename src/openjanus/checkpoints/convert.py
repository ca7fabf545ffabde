"""Converting a checkpoint from any layout into the published one or transformers', tensor by tensor, every bit as it was.

Or quantising it: what every step reads becomes whole numbers, the rest stays as it was.
"""

from pathlib import Path

import torch
from torch import Tensor

from openjanus.checkpoints.adapters import NO_ADAPTER, read_adapter
from openjanus.checkpoints.companions import read_companions
from openjanus.checkpoints.files import SafetensorsFile, Weights, open_weights
from openjanus.checkpoints.layouts import VAE_LAYOUTS, Fit, Slot, layouts_of, only_vae, slots, without_vae
from openjanus.checkpoints.load import build_empty, find_config, fit_weights, open_extra, read_extra
from openjanus.checkpoints.locate import expand_path, find_checkpoint
from openjanus.checkpoints.processors import load_processor
from openjanus.checkpoints.save import Source, choose_layout, write_checkpoint
from openjanus.checkpoints.writing import MAX_SHARD_SIZE, is_filled
from openjanus.errors import CheckpointError
from openjanus.models.quantization import Quantization


def convert_checkpoint(
    source: str | Path,
    destination: str | Path,
    layout: str = "deepseek",
    max_shard_size: int = MAX_SHARD_SIZE,
    quantize: Quantization | None = None,
    adapter: str | Path | None = None,
) -> Quantization:
    """Write the checkpoint `source` (a name, folder or hub id, in any layout) into the folder `destination`.

    What the transformers layout has no place for (the unused attention pool, a usage buffer) is kept beside it in
    openjanus_extra.safetensors, so that converting there and back gives the same bits. Dtypes do not change, and no more than one
    tensor is in memory at a time. A JanusFlow keeps the VAE in its folder, if it has one.
    quantize: what the weights are written as that every step reads; None is as they are, "none" makes quantised ones real again,
    in the dtype of the others. What they are written as is returned. adapter: a LoRA in PEFT's format (a folder or an id) that is
    merged in: what it changes is added up in float32, and written in the dtype that it had.
    Errors as for loading and saving; CheckpointError too for a `destination` that is not empty, unless it is the source, which is
    then replaced.
    """
    folder = find_checkpoint(source)
    _check_destination(folder, destination)
    companions = read_companions(folder)
    vae_folder, config = find_config(folder, companions, fetch_vae=False)
    kind = companions.quantization if quantize is None else quantize
    choose_layout(layout, config, kind)
    processor = load_processor(folder, companions, config, str(source))
    weights = open_weights(folder)
    wanted = slots(build_empty(config))
    layouts = layouts_of(config.generation)
    change = NO_ADAPTER if adapter is None else read_adapter(adapter, without_vae(wanted), layouts)
    main = fit_weights(folder, weights, layouts, without_vae(wanted))
    origins = [_Origin(main, weights, wanted, open_extra(folder))]
    if vae_folder == folder / "vae":
        vae_weights = open_weights(vae_folder)
        vae = fit_weights(vae_folder, vae_weights, VAE_LAYOUTS, only_vae(wanted))
        origins.append(_Origin(vae, vae_weights, wanted, None))
    homes = {name: origin for origin in origins for name in origin.fit.table}
    held = {name: slot for name, slot in wanted.items() if name in homes}
    write_checkpoint(
        Path(destination),
        config,
        Source(
            held,
            {name: homes[name].dtype(name) for name in held},
            lambda name: change.changed(name, homes[name].read(name)),
            kind,
        ),
        processor,
        companions,
        layout=layout,
        dtype=weights.dtype,
        max_shard_size=max_shard_size,
        untrained=companions.untrained,
    )
    return kind


def _check_destination(source: Path, destination: str | Path) -> None:
    target = expand_path(destination)
    if is_filled(target) and not target.samefile(source):
        raise CheckpointError(
            f"{destination} is not empty; convert into a new or empty folder, or in place by giving {source} as both"
        )


class _Origin:
    """The tensors of one set of files, by our names."""

    def __init__(self, fit: Fit, weights: Weights, wanted: dict[str, Slot], extra: SafetensorsFile | None) -> None:
        self.fit = fit
        self._weights = weights
        self._wanted = wanted
        self._extra = extra

    def dtype(self, name: str) -> torch.dtype:
        """The dtype a tensor is stored in; of a quantised one, that of the others."""
        stored = self.fit.table[name]
        if stored is None:
            return self.read(name).dtype
        first = stored.names[0]
        return self._weights.dtype if first in self._weights.quantized else self._weights.headers[first].dtype

    def read(self, name: str) -> Tensor:
        """One tensor, as it is stored, or as near to that as float32 is."""
        stored = self.fit.table[name]
        if stored is not None:
            return stored.gather(self._weights.read)
        return read_extra(name, self._wanted[name], self._extra, self._weights.dtype)
