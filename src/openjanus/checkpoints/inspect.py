"""What a checkpoint is, told from its small files and the headers of its weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from openjanus.checkpoints.companions import read_companions
from openjanus.checkpoints.files import Weights, has_weights, open_weights
from openjanus.checkpoints.layouts import VAE_LAYOUTS, Fit, Layout, Slot, layouts_of, nearest, only_vae, slots, without_vae
from openjanus.checkpoints.load import build_empty, find_config
from openjanus.checkpoints.locate import SDXL_VAE, find_description
from openjanus.checkpoints.processors import load_processor
from openjanus.config import PRESETS, FlowGenerationConfig, JanusConfig
from openjanus.errors import CheckpointError, ConfigError
from openjanus.models.cache import bytes_per_entry
from openjanus.models.janus import JanusModel
from openjanus.processing.prompts import Processor
from openjanus.processing.tokenizer import GENERATION_START


@dataclass
class Inspection:
    """A checkpoint's description. Sizes are bytes, parameters are counts of numbers.

    cache_of_image, cache_of_context: keys and values of a row that holds an image, or as much as the context allows.
    dtype: what it is loaded in if nobody says otherwise. memory: what it takes to run, which those fill in who know that.
    downloaded: false for a hub id whose weights are not in the cache; what only they could tell is then empty. missing, extra and
    misshapen name every tensor that is.
    """

    name: str
    folder: str
    variant: str
    same_sizes_as: list[str]
    layout: str = ""
    format: str = ""
    downloaded: bool = True
    files: dict[str, int] = field(default_factory=dict)
    dtypes: dict[str, int] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    dtype: str = ""
    cache_of_image: int = 0
    cache_of_context: int = 0
    vae: str = ""
    special_tokens: dict[str, int] = field(default_factory=dict)
    template: str = ""
    roles: list[str] = field(default_factory=list)
    untrained: bool = False
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    misshapen: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong, so that it would load."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Everything as a JSON object."""
        return asdict(self)

    def to_text(self, memory: str = "") -> str:
        """Everything as lines for people; memory: what it takes to run."""
        sizes = f" (sizes of {' and '.join(self.same_sizes_as)})" if self.same_sizes_as else ""
        lines = [
            ("name", self.name + (", untrained" if self.untrained else "")),
            ("folder", self.folder),
            ("variant", self.variant + sizes),
            ("layout", f"{self.layout}, {self.format}" if self.layout else "none that fits" if self.downloaded else "unknown"),
            ("weights", self._weights()),
            ("dtype", ", ".join(f"{dtype} ({_megabytes(size)})" for dtype, size in self.dtypes.items())),
            *(
                (("parameters" if not i else ""), f"{count:>15,}  {part}")
                for i, (part, count) in enumerate(self.parameters.items())
            ),
            ("", f"{sum(self.parameters.values()):>15,}  in all"),
            ("cache", self._cache()),
            ("memory", memory),
            ("vae", self.vae),
            ("special tokens", ", ".join(f"{token} {id}" for token, id in self.special_tokens.items())),
            ("template", f"{self.template}: {' / '.join(self.roles)}" if self.template else ""),
            *((("problems" if not i else ""), problem) for i, problem in enumerate(self.problems or ["none"])),
        ]
        return "\n".join(f"{label:<15} {text}".rstrip() for label, text in lines if text)

    def _weights(self) -> str:
        if not self.downloaded:
            return "not downloaded; layout and number format can be told once they are"
        return f"{_list(self.files)}: {_megabytes(sum(self.files.values()))}" if self.files else "none"

    def _cache(self) -> str:
        image, context = _megabytes(self.cache_of_image), _megabytes(self.cache_of_context)
        return f"{image} a row of an image, {context} a row as long as the context"


def _list(files: Mapping[str, int], most: int = 3) -> str:
    """The names of a few files, or how many there are and the first."""
    names = list(files)
    return ", ".join(names) if len(names) <= most else f"{len(names)} files, the first {names[0]}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def inspect_checkpoint(name: str | Path) -> Inspection:
    """The description of a bundled name, a folder or a hub id. What is wrong with its weights or tokenizer is part of it.

    Of a hub id only small files are fetched; weights are examined if the cache holds them.
    CheckpointError or ConfigError only if there is no such checkpoint or its config.json describes no model.
    """
    folder, from_hub = find_description(name)
    companions = read_companions(folder)
    vae_folder, config = find_config(folder, companions, fetch_vae=False)
    model = build_empty(config)
    report = Inspection(
        name=str(name),
        folder=str(folder),
        variant="JanusFlow" if isinstance(config.generation, FlowGenerationConfig) else "Janus",
        same_sizes_as=[preset for preset, sizes in PRESETS.items() if sizes == config],
        parameters=_parameters(model),
        untrained=companions.untrained,
    )
    wanted = slots(model)
    fitted = _examine(report, folder, from_hub, layouts_of(config.generation), without_vae(wanted))
    if fitted is not None:
        report.layout, report.format = fitted[0].layout.name, fitted[1].format
    # Of a hub id that is not there: as the published ones.
    dtype = fitted[1].dtype if fitted is not None else torch.bfloat16
    report.dtype = str(dtype).removeprefix("torch.")
    position = bytes_per_entry(config.language, dtype)
    report.cache_of_image = config.generation.positions * position
    report.cache_of_context = config.language.max_position_embeddings * position
    if isinstance(config.generation, FlowGenerationConfig):
        report.vae = str(vae_folder) if vae_folder else f"{SDXL_VAE} (not bundled): fetched when the model is loaded"
        if vae_folder is not None:
            _examine(report, vae_folder, from_hub, VAE_LAYOUTS, only_vae(wanted))
    try:
        _tell_processor(report, load_processor(folder, companions, config, str(name)), config)
    except (CheckpointError, ConfigError) as error:
        report.problems.append(str(error))
    return report


def _parameters(model: JanusModel) -> dict[str, int]:
    """Parameters of each part; buffers do not count."""
    parts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        levels = name.split(".")
        part = levels[0] if levels[0] == "language" else ".".join(levels[:2])
        parts[part] = parts.get(part, 0) + parameter.numel()
    return parts


def _examine(
    report: Inspection, folder: Path, from_hub: bool, layouts: tuple[Layout, ...], wanted: Mapping[str, Slot]
) -> tuple[Fit, Weights] | None:
    """Add what the weight files of a folder are, and what is wrong with them; None if they cannot be read."""
    absent = not has_weights(folder)
    if absent and from_hub:
        report.downloaded = False
        return None
    try:
        weights = open_weights(folder)
    except CheckpointError as error:
        report.problems.append(str(error))
        if absent:
            report.missing += nearest(layouts, wanted, {}).missing
        return None
    report.files |= {
        str(path.relative_to(folder.parent) if path.parent.name == "vae" else path.name): path.stat().st_size
        for path in weights.paths
    }
    try:
        for format, size in weights.formats.items():
            report.dtypes[format] = report.dtypes.get(format, 0) + size
    except CheckpointError as error:
        report.problems.append(str(error))
        return None
    best = nearest(layouts, wanted, weights.shapes)
    report.missing += best.missing
    report.extra += best.extra
    report.misshapen |= {name: {"came": list(came), "wanted": list(shape)} for name, came, shape in best.misshapen}
    if best.problems:
        report.problems.append(f"the weights in {folder} do not fit: {best.describe()}. Nearest is the {best.layout.name} layout")
    return best, weights


def _tell_processor(report: Inspection, processor: Processor, config: JanusConfig) -> None:
    tokenizer = processor.tokenizer
    report.special_tokens = {
        tokenizer.bos_tag: tokenizer.bos,
        tokenizer.eos_tag: tokenizer.eos,
        tokenizer.pad_tag: tokenizer.pad,
        tokenizer.image_tag: tokenizer.image,
        tokenizer.image_start_tag: tokenizer.image_start,
        tokenizer.image_end_tag: tokenizer.image_end,
    }
    generation = tokenizer.id_of(GENERATION_START)
    if generation is not None and isinstance(config.generation, FlowGenerationConfig):
        report.special_tokens[GENERATION_START] = generation
    report.template = processor.chat.name
    report.roles = list(processor.chat.roles or processor.chat.template.roles)
