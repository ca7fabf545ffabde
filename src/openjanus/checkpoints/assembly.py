"""A model to be: a checkpoint, a checkpoint with parts in the place of its own, or parts alone.

Parts keep their sizes; the adaptors and heads between them get those that fit. Of parts alone a model is put together as the
published ones are: a VQ tokenizer makes it a Janus, a VAE a JanusFlow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from openjanus.checkpoints.load import load_checkpoint, load_without_weights
from openjanus.checkpoints.parts import KNOWN, LANGUAGE, NAMES, TOKENIZER, TOWER, VAE, Part, Sizes, find_part
from openjanus.checkpoints.processors import HALF, PLAIN_ROLES
from openjanus.config import (
    PRESETS,
    FlowGenerationConfig,
    GenerationConfig,
    JanusConfig,
    LanguageConfig,
    TokenGenerationConfig,
    TowerConfig,
    VAEConfig,
    VQConfig,
)
from openjanus.errors import CheckpointError
from openjanus.models.janus import JanusModel
from openjanus.processing.chat import ChatFormat
from openjanus.processing.images import ImageProcessor, ImageProcessorConfig
from openjanus.processing.prompts import Processor
from openjanus.processing.tokenizer import ROLES


@dataclass(frozen=True)
class Assembly:
    """What a model is to be, and what surrounds it; the checkpoint's model, if there is one, and the parts."""

    config: JanusConfig
    processor: Processor
    checkpoint: JanusModel | None
    parts: tuple[Part, ...]


def assemble(names: Sequence[str], weights: bool = True) -> Assembly:
    """What is to be put together of a checkpoint or parts: folders, files, bundled names, Hugging Face ids.

    weights False: nothing but small files is fetched of ids, and there is no checkpoint's model. CheckpointError and ConfigError
    if something cannot be read, is there twice, is missing or does not fit.
    """
    found = {name: find_part(name, weights) for name in names}
    parts = tuple(part for part in found.values() if part is not None)
    whole = [name for name, part in found.items() if part is None]
    if len(whole) > 1:
        raise CheckpointError(f"{whole[0]} and {whole[1]} are both a whole Janus; begin with one of them, and parts beside it")
    by_place: dict[str, Part] = {}
    for part in parts:
        other = by_place.setdefault(part.place, part)
        if other is not part:
            raise CheckpointError(f"{other.source} and {part.source} are both {NAMES[part.place]}; give one of them")
    if not whole:
        _check_complete(by_place)
        published = PRESETS["janus-pro-1b" if TOKENIZER in by_place else "janusflow-1.3b"]
        config = _sized(published, by_place, alone=True)
        return Assembly(config, _surround(None, config, by_place), None, parts)
    model = None
    if weights:
        checkpoint = load_checkpoint(whole[0])
        model, processor, config = checkpoint.model, checkpoint.processor, checkpoint.config
    else:
        processor, config = load_without_weights(whole[0])
    painter, wrong = ("codes", VAE) if isinstance(config.generation, TokenGenerationConfig) else ("latents", TOKENIZER)
    if wrong in by_place:
        raise CheckpointError(f"{whole[0]} paints with {painter}, and {by_place[wrong].source} is {NAMES[wrong]}; leave it out")
    config = _sized(config, by_place, alone=False)
    return Assembly(config, _surround(processor, config, by_place), model, parts)


def _check_complete(parts: Mapping[str, Part]) -> None:
    """CheckpointError unless the parts alone make a model."""
    painters = [place for place in (TOKENIZER, VAE) if place in parts]
    if len(painters) == 2:
        raise CheckpointError(
            f"{parts[TOKENIZER].source} is for painting with codes, {parts[VAE].source} with latents; give one of them"
        )
    lacking = [NAMES[place] for place in (LANGUAGE, TOWER) if place not in parts]
    lacking += [] if painters else [f"{NAMES[TOKENIZER]} or {NAMES[VAE]}"]
    if lacking:
        given = " and ".join(part.source for part in parts.values())
        raise CheckpointError(f"beside {given} a Janus needs {' and '.join(lacking)}; give a whole Janus first, or {KNOWN}")


# -- sizes ---------------------------------------------------------------------------


def _sized(config: JanusConfig, parts: Mapping[str, Part], alone: bool) -> JanusConfig:
    """The configuration with the parts' sizes. alone: pictures are painted at the size that the tower reads."""
    reading = config.understanding
    language, tower = _of(parts, LANGUAGE, config.language), _of(parts, TOWER, reading.encoder)
    assert isinstance(language, LanguageConfig) and isinstance(tower, TowerConfig)
    width = language.hidden_size
    adaptor = replace(reading.adaptor, input_dim=tower.width, n_embed=width)
    pixels = (tower.image_size, tower.image_size) if alone else config.generation.image_size
    return JanusConfig(
        language,
        replace(reading, encoder=tower, adaptor=adaptor),
        _painting(config.generation, parts, pixels, width, width == config.language.hidden_size),
    )


def _of(parts: Mapping[str, Part], place: str, kept: Sizes) -> Sizes:
    return parts[place].config if place in parts else kept


def _painting(
    config: GenerationConfig, parts: Mapping[str, Part], pixels: tuple[int, int], width: int, same: bool
) -> GenerationConfig:
    """The generation pathway for pictures of a size in a language model of a width. same: the width is what it was."""
    if isinstance(config, TokenGenerationConfig):
        codes = _of(parts, TOKENIZER, config.tokenizer)
        assert isinstance(codes, VQConfig)
        return replace(
            config,
            tokenizer=codes,
            adaptor=replace(config.adaptor, input_dim=codes.codebook_dim, n_embed=width),
            head_dim=config.head_dim if same else width,
            grid=_cells(pixels, codes.stride, 1),
        )
    vae = _of(parts, VAE, config.vae)
    assert isinstance(vae, VAEConfig)
    return replace(
        config,
        encoder=replace(config.encoder, input_channels=vae.latent_channels, hidden_size=width),
        decoder=replace(config.decoder, out_channels=vae.latent_channels, hidden_size=width),
        latent_size=_cells(pixels, vae.stride, config.encoder.stride),
        vae=vae,
    )


def _cells(pixels: tuple[int, int], stride: int, multiple: int) -> tuple[int, int]:
    """Cells down and across of so many pixels each, in whole multiples; CheckpointError if a picture has none."""
    height, width = (side // stride // multiple * multiple for side in pixels)
    if not height or not width:
        raise CheckpointError(
            f"pictures of {pixels[0]} x {pixels[1]} pixels are smaller than the cells of {stride * multiple} pixels that "
            "they are painted in; choose a tower that reads larger ones, or another image tokenizer"
        )
    return height, width


# -- what surrounds it ---------------------------------------------------------------


def _surround(base: Processor | None, config: JanusConfig, parts: Mapping[str, Part]) -> Processor:
    """The processor of a model: the checkpoint's with the language model's tokenizer, at the size that the tower reads."""
    language = parts.get(LANGUAGE)
    vocabulary = language.vocabulary if language else None
    if vocabulary is not None:
        tokenizer = vocabulary.tokenizer
    elif base is not None and base.vocab_size == config.language.vocab_size:
        tokenizer = base.tokenizer
    else:
        assert language is not None
        raise CheckpointError(
            f"{language.source} has no tokenizer.json beside its {config.language.vocab_size} embeddings; write its tokenizer "
            "there: transformers.AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)"
        )
    size = config.understanding.encoder.image_size
    images = base.images.config if base else ImageProcessorConfig(size, image_mean=HALF, image_std=HALF)
    flow = isinstance(config.generation, FlowGenerationConfig)
    return Processor(
        tokenizer,
        ImageProcessor(replace(images, image_size=size)),
        base.chat if base else ChatFormat(roles=PLAIN_ROLES if flow else ROLES),
        slots_per_image=config.understanding.slots,
        begin_is_slot=config.understanding.begin,
        add_special_token=base.add_special_token if base else False,
        context=config.language.max_position_embeddings,
        vocab_size=config.language.vocab_size,
    )
