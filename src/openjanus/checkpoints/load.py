"""Loading: a name becomes a model with its weights and a processor, strictly and without a second copy in memory.

The model is built on the meta device, which takes no memory, and every tensor is put in its place as it is read. Tensors that
need no change of dtype or device stay views of the file's memory map: pages come in when they are used.
"""

from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from openjanus.checkpoints.adapters import NO_ADAPTER, Adapter, read_adapter
from openjanus.checkpoints.companions import Companions, read_companions
from openjanus.checkpoints.files import EXTRA_FILE, SafetensorsFile, Weights, open_weights, read_json
from openjanus.checkpoints.layouts import (
    VAE_LAYOUTS,
    Fit,
    Layout,
    Slot,
    layouts_of,
    looks_like,
    nearest,
    only_vae,
    published_name,
    slots,
    without_vae,
)
from openjanus.checkpoints.locate import SDXL_VAE, find_checkpoint, find_description, find_vae
from openjanus.checkpoints.processors import load_processor
from openjanus.checkpoints.quantized import kind_of
from openjanus.checkpoints.schema import with_vae
from openjanus.checkpoints.vae_schema import parse_vae
from openjanus.config import FlowGenerationConfig, JanusConfig, VAEConfig
from openjanus.errors import CheckpointError, ConfigError
from openjanus.models.flow_generation import FlowGeneration
from openjanus.models.janus import JanusModel
from openjanus.models.quantization import Quantization
from openjanus.processing.prompts import Processor

_Module = TypeVar("_Module", bound=nn.Module)
# A module's name and the module -> what takes its place, None if it stays.
Placed = Callable[[str, nn.Module], nn.Module | None]


def _stays(name: str, module: nn.Module) -> None:
    return None


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: where it lay, what it is, and its small files as they were found."""

    folder: Path
    layout: str
    model: JanusModel
    processor: Processor
    companions: Companions

    @property
    def config(self) -> JanusConfig:
        """What the weights are."""
        return self.model.config

    @property
    def untrained(self) -> bool:
        """Whether the weights are random."""
        return self.companions.untrained


def load_checkpoint(
    name: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    placing: Callable[[JanusConfig], Placed] = lambda config: _stays,
    quantized: bool = False,
    adapter: str | Path | None = None,
) -> Checkpoint:
    """The checkpoint of a bundled name, a folder in any layout, or a Hugging Face id.

    dtype None is the checkpoint's own (of mixed ones, that of most bytes). A VAE in float16 becomes float32, where it does not
    overflow. A JanusFlow whose VAE is nowhere to be found loads without it: it reads images, and painting says what is missing.
    placing: what is told of every module of such a model, by its name, as soon as its weights are there, inner ones first; it may
    change it in place, and what it returns takes its place. quantized: it quantises, so weights that are stored as whole numbers
    come to it in float32, as exactly as it wants them. adapter: a folder or id of a LoRA (checkpoints/adapters.py) that is merged
    in.
    CheckpointError and ConfigError say in one line what is wrong and what to do.
    """
    folder = find_checkpoint(name)
    companions = read_companions(folder)
    vae_folder, config = find_config(folder, companions)
    processor = load_processor(folder, companions, config, str(name))
    weights = open_weights(folder)
    model = build_empty(config)
    if isinstance(model.generation, FlowGeneration) and vae_folder is None:
        model.generation.vae = None
    wanted = slots(model)
    main = fit_weights(folder, weights, layouts_of(config.generation), without_vae(wanted))
    change = NO_ADAPTER if adapter is None else read_adapter(adapter, without_vae(wanted), layouts_of(config.generation))
    place = _Placing(model, torch.device(device), placing(config), change)
    place.fill(main, weights, dtype or weights.dtype, open_extra(folder), exact=weights.quantized if quantized else ())
    if vae_folder is not None:
        vae_weights = open_weights(vae_folder)
        own = dtype or vae_weights.dtype
        # The published VAE's activations overflow in float16 (SPEC section 6.2).
        own = torch.float32 if own == torch.float16 else own
        place.fill(fit_weights(vae_folder, vae_weights, VAE_LAYOUTS, only_vae(wanted)), vae_weights, own)
    return Checkpoint(folder, main.layout.name, model, processor, companions)


def load_config(name: str | Path) -> JanusConfig:
    """What the weights of a checkpoint are; of a hub id only small files are fetched. Errors as for `load_checkpoint`."""
    folder, _ = find_description(name)
    return find_config(folder, read_companions(folder), fetch_vae=False)[1]


def load_without_weights(name: str | Path) -> tuple[Processor, JanusConfig]:
    """What surrounds the weights of a checkpoint, and what they are; of a hub id only small files are fetched.

    Errors as for `load_checkpoint`, as far as they do not concern weights.
    """
    folder, _ = find_description(name)
    companions = read_companions(folder)
    _, config = find_config(folder, companions, fetch_vae=False)
    return load_processor(folder, companions, config, str(name)), config


def stored_quantization(name: str | Path) -> Quantization:
    """What the weights of a checkpoint are, as its config.json says. Errors as for `load_checkpoint`."""
    return read_companions(find_description(name)[0]).quantization


def find_config(folder: Path, companions: Companions, fetch_vae: bool = True) -> tuple[Path | None, JanusConfig]:
    """The model's configuration, and for a JanusFlow the folder of its VAE, None if there is none. Errors name the file.

    fetch_vae False: a VAE that is neither in the folder nor in the cache is not downloaded.
    """
    try:
        config = companions.model_config()
        kind_of(companions.config)  # refuses the quantised weights of other programs
    except ConfigError as error:
        raise ConfigError(f"{folder / 'config.json'}: {error}") from error
    if not isinstance(config.generation, FlowGenerationConfig):
        return None, config
    vae_folder = find_vae(folder, fetch_vae)
    return vae_folder, config if vae_folder is None else with_vae(config, read_vae_config(vae_folder))


def read_vae_config(folder: Path) -> VAEConfig:
    """The configuration of a VAE folder."""
    try:
        return parse_vae(read_json(folder / "config.json"))
    except ConfigError as error:
        raise ConfigError(f"{folder / 'config.json'}: {error}; give the VAE of {SDXL_VAE}") from error


class _Undrawn(TorchFunctionMode):
    """Leaves new weights as they are. Drawing them where there is no memory changes nothing, and torch imports its compiler for
    it: more than a second of every command's start."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def build_empty(config: JanusConfig) -> JanusModel:
    """The model with shapes and without memory; ConfigError if its sizes cannot be built."""
    return empty(lambda: JanusModel(config))


def empty(build: Callable[[], _Module]) -> _Module:
    """What `build` makes, with shapes and without memory; ConfigError if its sizes cannot be built."""
    try:
        with torch.device("meta"), _Undrawn():
            return build()
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"no model can be built of this configuration: {error}") from error


def fit_weights(folder: Path, weights: Weights, layouts: tuple[Layout, ...], wanted: dict[str, Slot]) -> Fit:
    """The layout that the files fit without a remainder; otherwise CheckpointError with one report of what does not."""
    best = nearest(layouts, wanted, weights.shapes)
    if best.problems:
        raise CheckpointError(misfit(folder, weights, best))
    return best


def misfit(folder: Path, weights: Weights, best: Fit) -> str:
    """One line: what is missing, extra and misshapen, the nearest layout, what the names look like, what to do."""
    names = looks_like(weights.headers)
    hint = f" The names look like {names}." if names else ""
    return (
        f"the weights in {folder} do not fit its config.json: {best.describe()}. Nearest is the {best.layout.name} layout.{hint} "
        "Fetch config.json and weights from one place"
    )


def open_extra(folder: Path) -> SafetensorsFile | None:
    """What was kept beside the transformers layout, None if nothing was."""
    path = folder / EXTRA_FILE
    return SafetensorsFile(path) if path.exists() else None


def read_extra(name: str, slot: Slot, extra: SafetensorsFile | None, dtype: torch.dtype) -> Tensor:
    """A tensor the layout has no place for: what was kept beside it, else zeros in `dtype`. No Janus reads these."""
    published = published_name(name)
    if extra is not None and published in extra.headers and extra.headers[published].shape == slot.shape:
        return extra.read(published)
    return torch.zeros(slot.shape, dtype=dtype)


class _Placing:
    """Puts tensors into a model of the meta device, converting one at a time."""

    def __init__(self, model: nn.Module, device: torch.device, placed: Placed, adapter: Adapter) -> None:
        self.model = model
        self.device = device
        self.placed = placed
        self.adapter = adapter
        self.slots = slots(model)

    def fill(
        self,
        fit: Fit,
        weights: Weights,
        dtype: torch.dtype,
        extra: SafetensorsFile | None = None,
        exact: Container[str] = (),
    ) -> None:
        """Every tensor of the fit's table, read from `weights`. exact: stored tensors that stay in float32 until all is told."""
        waiting = []
        for name, stored in fit.table.items():
            tensor = stored.gather(weights.read) if stored else read_extra(name, self.slots[name], extra, dtype)
            tensor = self.adapter.changed(name, tensor)
            if stored and stored.names[0] in exact:
                waiting.append(name)
                self._assign(name, tensor.to(self.device))
            else:
                self._assign(name, tensor.to(self.device, dtype))
        left = dict(self.model.named_parameters())
        for name in waiting:
            if name in left and left[name].dtype != dtype:
                left[name].data = left[name].data.to(dtype)

    def _assign(self, name: str, tensor: Tensor) -> None:
        path, _, leaf = name.rpartition(".")
        module = self.model.get_submodule(path)
        if leaf in module._buffers:
            module._buffers[leaf] = tensor
        else:
            former = module._parameters[leaf]
            assert former is not None
            module._parameters[leaf] = nn.Parameter(tensor, requires_grad=former.requires_grad)
        tell(self.model, path, self.placed)


def tell(model: nn.Module, path: str, placed: Placed) -> None:
    """Tell of the module of that name if it is whole, and then of the one around it if that is whole now."""
    module = model.get_submodule(path)
    if not path or any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        return
    parent, _, last = path.rpartition(".")
    if (new := placed(path, module)) is not None:
        setattr(model.get_submodule(parent), last, new)
    tell(model, parent, placed)
