"""Models of the published sizes with random weights, made in the time it takes to write them."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from openjanus.checkpoints.load import Placed, build_empty, load_checkpoint, tell
from openjanus.config import PRESETS, JanusConfig
from openjanus.engine.linear import placing
from openjanus.engine.threads import settle_threads
from openjanus.errors import ConfigError
from openjanus.janus import Janus, load
from openjanus.models.quantization import Quantization
from openjanus.processing.images import ImageProcessor
from openjanus.processing.prompts import Processor

BUNDLED = {True: "janusflow-tiny", False: "janus-tiny"}


def preset(name: str) -> JanusConfig:
    """The configuration of a published model; ConfigError names those there are."""
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def random_janus(name: str, device: torch.device, dtype: torch.dtype, quantize: Quantization = "none") -> Janus:
    """A published model with random weights, layer by layer, and the text tokenizer of a bundled one."""
    config = preset(name)
    settle_threads(device)
    model = build_empty(config).eval().requires_grad_(False)
    fill(model, device, dtype, placing(quantize, config))
    return Janus(model, processor_for(config), f"{name} with random weights", untrained=True)


def janus_of(name: str, device: torch.device, dtype: torch.dtype, quantize: Quantization) -> Janus:
    """A preset with random weights, or a checkpoint of that name."""
    return random_janus(name, device, dtype, quantize) if name in PRESETS else load(name, device, dtype, quantize)


def fill(model: nn.Module, device: torch.device, dtype: torch.dtype, placed: Placed | None = None) -> None:
    """Give every tensor of a model on the meta device memory and random values; large ones repeat, which no kernel
    notices. placed: what takes a module's place, as in `load`."""
    randomness = torch.Generator().manual_seed(0)
    tile = torch.randn(1 << 20, generator=randomness).mul_(0.02)
    for path, module in list(model.named_modules()):
        for leaf, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None or not tensor.is_meta:
                continue
            filled = _filled(tensor, tile, leaf).to(device, dtype)
            if leaf in module._buffers:
                module._buffers[leaf] = filled
            else:
                module._parameters[leaf] = nn.Parameter(filled, requires_grad=False)
        if placed is not None:
            tell(model, path, placed)


def _filled(meta: Tensor, tile: Tensor, leaf: str) -> Tensor:
    if meta.dim() == 1 and leaf == "weight":
        return torch.ones(meta.shape)
    return repeated(tile, meta.shape)


def repeated(tile: Tensor, shape: torch.Size) -> Tensor:
    """A tensor of that shape in which the numbers of a tile, [n], come again and again."""
    return tile.repeat(-(-shape.numel() // len(tile)))[: shape.numel()].view(shape)


def processor_for(config: JanusConfig) -> Processor:
    """A bundled model's processor, made to fit the sizes."""
    processor = load_checkpoint(BUNDLED[config.understanding.begin]).processor
    processor.images = ImageProcessor(replace(processor.images.config, image_size=config.understanding.encoder.image_size))
    processor.slots_per_image = config.understanding.slots
    processor.context, processor.vocab_size = config.language.max_position_embeddings, config.language.vocab_size
    return processor
