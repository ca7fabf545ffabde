"""Random models give what transformers' own Janus gives with the same weights; where it differs, a test says how.

The version is pinned to 5.17: every test of the second half shows a difference, so a later version that mends one is noticed.
"Ours" and "theirs" hold the same numbers, carried over by the table of the transformers layout.
"""

import functools
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from openjanus.checkpoints.layouts import TRANSFORMERS, slots
from openjanus.checkpoints.transformers_schema import parse_transformers, to_transformers
from openjanus.config import (
    JanusConfig,
    LanguageConfig,
    ProjectorConfig,
    TokenGenerationConfig,
    TowerConfig,
    UnderstandingConfig,
    VQConfig,
)
from openjanus.engine.engine import Engine
from openjanus.engine.request import Finished, ImageRequest, TextRequest
from openjanus.janus import Janus
from openjanus.models.attention import causal_mask
from openjanus.models.janus import JanusModel
from openjanus.models.sampling import guide
from openjanus.models.token_generation import CodeDecoding
from openjanus.models.vq import VQTokenizer
from openjanus.processing.chat import ChatFormat
from openjanus.processing.images import ImageProcessor, ImageProcessorConfig, to_images
from openjanus.processing.prompts import Processor
from openjanus.processing.tokenizer import Tokenizer
from openjanus.types import ImageOptions, Message, Prompt, TextOptions
from plain import collate, embed
from tiny import TOKENIZER

transformers = pytest.importorskip("transformers", reason="transformers, which is compared with, is not installed")
VERSION = importlib.metadata.version("transformers")
pytestmark = [
    # Their classes take seconds to import: in one worker only.
    pytest.mark.xdist_group("transformers"),
    pytest.mark.skipif(
        not VERSION.startswith("5.17."), reason=f"transformers is {VERSION}; what it shares with us was pinned for 5.17"
    ),
]

# Most pieces are equal to the last bit; what is left is the order of sums inside attention.
TOLERANCE = 2e-5

# Sizes a careless mapping would trip over: shared key heads, widths that divide differently, adaptors of every depth, a tower
# that is cut (select_layer) or rounds its MLP, levels that widen and narrow.
CONFIGS = {
    "grouped": JanusConfig(
        LanguageConfig(352, 32, 64, 2, 4, 2, max_position_embeddings=320, rope_theta=5000.0),
        UnderstandingConfig(TowerConfig(16, 4, 24, 2, 2, 2, select_layer=-1), ProjectorConfig(24, 32, depth=2)),
        TokenGenerationConfig(
            VQConfig(48, ch=32, encoder_ch_mult=(1, 1), decoder_ch_mult=(1, 1), num_res_blocks=1, z_channels=16),
            ProjectorConfig(8, 32, depth=2),
            head_dim=32,
            grid=(4, 4),
        ),
    ),
    "deep": JanusConfig(
        LanguageConfig(352, 48, 80, 4, 6, 2, head_dim=10, max_position_embeddings=320, rms_norm_eps=1e-5, rope_theta=1e6),
        UnderstandingConfig(TowerConfig(15, 5, 36, 4, 3, 3.7362, select_layer=-2), ProjectorConfig(36, 48, depth=3)),
        TokenGenerationConfig(
            VQConfig(70, 6, ch=32, encoder_ch_mult=(1, 2, 1), decoder_ch_mult=(1, 2, 1), num_res_blocks=2, z_channels=24),
            ProjectorConfig(6, 48, depth=1),
            head_dim=48,
            grid=(3, 3),
        ),
    ),
    "plain": JanusConfig(
        LanguageConfig(352, 64, 96, 1, 2, max_position_embeddings=320),
        UnderstandingConfig(TowerConfig(10, 2, 16, 3, 4, 4, select_layer=1), ProjectorConfig(16, 64, depth=1)),
        TokenGenerationConfig(
            VQConfig(33, 4, ch=32, encoder_ch_mult=(1, 1, 2, 2, 4), decoder_ch_mult=(1, 1, 2, 2, 4), z_channels=8),
            ProjectorConfig(4, 64, depth=3),
            head_dim=64,
            grid=(5, 5),
        ),
    ),
}
CASES = [("grouped", 0), ("grouped", 1), ("deep", 2), ("plain", 3)]

BOS, EOS, PAD, IMAGE, BEGIN = 340, 341, 342, 343, 344
TOKEN_IDS = {"bos": BOS, "eos": EOS, "pad": PAD, "image": IMAGE}
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, repr=False)
class Pair:
    """One model twice, and the processor of ours."""

    ours: JanusModel
    theirs: Any
    processor: Processor

    @property
    def image_size(self) -> int:
        """Side of the images the tower reads."""
        return self.ours.config.understanding.encoder.image_size

    @property
    def painting(self) -> TokenGenerationConfig:
        """The configuration of the generation pathway."""
        assert isinstance(self.ours.config.generation, TokenGenerationConfig)
        return self.ours.config.generation


def randomise(model: nn.Module, seed: int) -> None:
    """Weights that keep signals near unit size, so that every one matters to the result; norms are not 1, biases not 0."""
    randomness = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=randomness)
        if "norm" in name and name.endswith("weight"):
            values = 1 + 0.3 * values
        elif parameter.ndim == 1:
            values = 0.3 * values
        elif "embed" not in name or parameter.ndim > 2:  # not a table of embeddings
            values = 1.5 * values / parameter[0].numel() ** 0.5
        with torch.no_grad():
            parameter.copy_(values)


def their_weights(model: JanusModel, tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Tensors under our names as theirs; what their layout has no place for is left out."""
    stored = {}
    for name, place in TRANSFORMERS.table(slots(model)).items():
        tensor = tensors[name]
        if place is not None and tensor is not None:
            stored.update(zip(place.names, place.scatter(tensor), strict=True))
    return {name: tensor.contiguous() for name, tensor in stored.items()}


def processor_of(config: JanusConfig) -> Processor:
    """Ours, with the test tokenizer."""
    images = ImageProcessorConfig(config.understanding.encoder.image_size, min_size=4, image_mean=HALF, image_std=HALF)
    return Processor(
        Tokenizer(tokenizers.Tokenizer.from_file(str(TOKENIZER / "tokenizer.json"))),
        ImageProcessor(images),
        ChatFormat(),
        config.understanding.slots,
        begin_is_slot=False,
    )


def make_pair(name: str, seed: int) -> Pair:
    """The same random model in both packages."""
    config = CONFIGS[name]
    ours = JanusModel(config).eval()
    randomise(ours, seed)
    theirs = transformers.JanusForConditionalGeneration(transformers.JanusConfig(**to_transformers(config, TOKEN_IDS))).eval()
    theirs.load_state_dict(their_weights(ours, ours.state_dict()), strict=True)
    theirs.generation_config.generation_kwargs = {"boi_token_id": BEGIN}
    return Pair(ours, theirs, processor_of(config))


shared_pair = functools.cache(make_pair)


@pytest.fixture(params=CASES, ids=[f"{name}-{seed}" for name, seed in CASES])
def pair(request: pytest.FixtureRequest) -> Pair:
    """The same model twice, in several sizes and with several weights."""
    return shared_pair(*request.param)


@pytest.fixture
def one() -> Pair:
    """The same model twice, in one size, for differences that no size changes."""
    return shared_pair("grouped", 0)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def codes_of(pair: Pair, images: int, seed: int = 0) -> Tensor:
    """Random codes [images, N] on the model's grid."""
    rows, columns = pair.painting.grid
    randomness = torch.Generator().manual_seed(seed)
    return torch.randint(pair.painting.tokenizer.codebook_size, (images, rows * columns), generator=randomness)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


def picture(seed: int, width: int = 20, height: int = 30) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def questions(pair: Pair) -> list[Prompt]:
    """Prompts of different lengths: one image, none, two."""
    messages = [
        Message("user", "What is it?", (picture(0),)),
        Message("user", "Is this text without an image?"),
        Message("user", "Which of <image_placeholder> and <image_placeholder> is the larger one?", (picture(1), picture(2))),
    ]
    return [pair.processor.understanding_prompt([message]) for message in messages]


def their_inputs(prompts: list[Prompt]) -> dict[str, Tensor]:
    """A batch as their model takes it."""
    rows = collate(prompts, PAD)
    inputs = {"input_ids": rows.ids, "attention_mask": rows.attended.long()}
    return inputs | ({"pixel_values": rows.pixels} if len(rows.pixels) else {})


def our_logits(pair: Pair, prompts: list[Prompt]) -> tuple[Tensor, Tensor]:
    """Text logits [R, T, vocabulary] and which of the positions are no padding, bool [R, T]."""
    rows = collate(prompts, PAD)
    mask = causal_mask(rows.attended, rows.ids.shape[1])
    hidden = pair.ours.language(embed(pair.ours, rows), rows.positions, mask)
    return pair.ours.language.logits(hidden), rows.attended


def our_tokens(pair: Pair, prompts: list[Prompt], count: int, eos: int = EOS) -> list[list[int]]:
    """Greedy tokens of every prompt, through the engine."""
    tokenizer = pair.processor.tokenizer
    tokenizer.eos, before = eos, tokenizer.eos
    events = Engine(pair.ours, pair.processor).run([TextRequest(prompt, TextOptions(count)) for prompt in prompts])
    made = {event.request: list(event.result.ids) for event in events if isinstance(event, Finished)}
    tokenizer.eos = before
    return [made[number] for number in range(len(prompts))]


def their_tokens(pair: Pair, prompts: list[Prompt], count: int, eos: int = EOS) -> list[list[int]]:
    """The same through theirs, up to the end of each."""
    inputs = their_inputs(prompts)
    out = pair.theirs.generate(**inputs, max_new_tokens=count, do_sample=False, eos_token_id=eos)
    new = out[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: row.index(eos)] if eos in row else row for row in new]


def our_codes(pair: Pair, texts: list[str], guidance: float) -> list[list[int]]:
    """Likeliest codes of an image of each text, through the engine."""
    engine = Engine(pair.ours, pair.processor)
    options = ImageOptions(guidance=guidance, temperature=0.0, seed=0)
    seen: dict[int, list[int]] = {}
    picture, lanes = CodeDecoding.picture, len(texts) * (1 if guidance == 1 else 2)

    def watched(self: CodeDecoding, lane: int) -> Callable[[], Tensor]:
        seen[lane] = self.codes[lane].tolist()
        return picture(self, lane)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CodeDecoding, "picture", watched)
        list(engine.run([ImageRequest(text, options) for text in texts]))
    assert set(seen) <= set(range(lanes))
    return [seen[lane] for lane in sorted(seen)]


@contextmanager
def mended(theirs: Any) -> Iterator[None]:
    """Their image generation with the argument that 5.17 forgets to pass."""
    theirs._prepare_static_cache = functools.partial(theirs._prepare_static_cache, prefill_chunk_size=None)
    try:
        yield
    finally:
        del theirs._prepare_static_cache


def their_codes(pair: Pair, prompts: list[Prompt], **settings: Any) -> Tensor:
    """Likeliest codes [B, N] of an image of each prompt, through theirs."""
    with mended(pair.theirs):
        return pair.theirs.generate(**their_inputs(prompts), generation_mode="image", do_sample=False, **settings)


def their_image_processor(size: int, **settings: Any) -> Any:
    return transformers.JanusImageProcessorPil(size={"height": size, "width": size}, image_mean=HALF, image_std=HALF, **settings)


def their_processor(pair: Pair, **settings: Any) -> Any:
    """Theirs, with the same tokenizer and image settings."""
    names = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(TOKENIZER / "tokenizer.json"),
        bos_token="<｜begin▁of▁sentence｜>",
        eos_token="<｜end▁of▁sentence｜>",
        pad_token="<｜▁pad▁｜>",
        extra_special_tokens=names,
    )
    images = their_image_processor(pair.image_size, min_size=4)
    slots_per_image = pair.ours.config.understanding.slots
    return transformers.JanusProcessor(images, tokenizer, num_image_tokens=slots_per_image, **settings)


# -- what is equal -------------------------------------------------------------------


def test_the_table_fills_every_weight_of_theirs_and_reads_ours_back(pair: Pair) -> None:
    stored, ours = pair.theirs.state_dict(), pair.ours.state_dict()
    table = TRANSFORMERS.table(slots(pair.ours))
    assert {name for place in table.values() if place for name in place.names} == set(stored)
    for name, place in table.items():
        assert place is None or torch.equal(place.gather(stored.__getitem__), ours[name]), name


def test_their_config_reads_back_as_a_model_of_the_same_shapes(pair: Pair) -> None:
    reread = parse_transformers(pair.theirs.config.to_dict())
    assert reread.language == pair.ours.config.language
    assert reread.generation == pair.ours.config.generation
    # They store the blocks that are left of a cut tower, not where it was cut.
    tower = pair.ours.config.understanding.encoder
    assert reread.understanding.encoder == replace(tower, layers=tower.depth, select_layer=-1)
    assert reread.understanding.adaptor == pair.ours.config.understanding.adaptor


@torch.no_grad()
def test_the_vision_tower_is_equal(pair: Pair) -> None:
    pixels = noise(3, 3, pair.image_size, pair.image_size)
    close(pair.ours.understanding.encoder(pixels), pair.theirs.model.vision_model(pixels).last_hidden_state)


@torch.no_grad()
def test_the_embeddings_of_images_are_equal(pair: Pair) -> None:
    pixels = noise(3, 3, pair.image_size, pair.image_size)
    close(pair.ours.understanding.read(pixels), pair.theirs.model.get_image_features(pixels).pooler_output)


@torch.no_grad()
def test_text_logits_of_a_left_padded_batch_with_images_are_equal(pair: Pair) -> None:
    prompts = questions(pair)
    assert len({len(prompt) for prompt in prompts}) == len(prompts)
    logits, attended = our_logits(pair, prompts)
    close(logits[attended], pair.theirs(**their_inputs(prompts)).logits[attended])


def test_gradients_of_a_text_loss_are_equal(pair: Pair) -> None:
    prompts = questions(pair)
    rows = collate(prompts, PAD)
    # Every word but the first of a row, which padding would have to predict.
    labels = rows.ids.masked_fill(~rows.attended | rows.slots | (rows.positions == 0), -100)
    logits, _ = our_logits(pair, prompts)
    ours = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    theirs = pair.theirs(**their_inputs(prompts), labels=labels).loss
    close(ours, theirs)
    try:
        ours.backward()
        theirs.backward()
        expected = {name: parameter.grad for name, parameter in pair.theirs.named_parameters() if parameter.grad is not None}
        given = {name: parameter.grad for name, parameter in pair.ours.named_parameters()}
        actual = their_weights(pair.ours, given | dict.fromkeys(dict(pair.ours.named_buffers())))
        assert set(actual) == set(expected)
        assert any("vision_model" in name for name in actual)
        for name, gradient in actual.items():
            scale = max(1.0, float(expected[name].abs().max()))
            assert float((gradient - expected[name]).abs().max()) < TOLERANCE * scale, name
    finally:
        pair.ours.zero_grad()
        pair.theirs.zero_grad()


@torch.no_grad()
def test_embeddings_and_logits_of_codes_are_equal(pair: Pair) -> None:
    codes, hidden = codes_of(pair, 2), noise(2, 7, pair.ours.config.language.hidden_size)
    close(pair.ours.generation.embed_codes(codes), pair.theirs.prepare_embeddings_for_image_generation(codes))
    close(pair.ours.generation.logits(hidden), pair.theirs.model.generation_head(hidden))


@torch.no_grad()
def test_the_latent_of_the_vq_encoder_is_equal(pair: Pair) -> None:
    stride = pair.painting.tokenizer.stride
    pixels, (ours, theirs) = noise(2, 3, 2 * stride, 3 * stride), (pair.ours.generation.tokenizer, pair.theirs.model.vqmodel)
    close(ours.encoder(pixels), theirs.encoder(pixels))
    close(ours.quant_conv(ours.encoder(pixels)), theirs.quant_conv(theirs.encoder(pixels)))


@torch.no_grad()
def test_pixels_of_codes_are_equal(pair: Pair) -> None:
    codes = codes_of(pair, 2)
    close(pair.ours.generation.decode(codes), pair.theirs.model.vqmodel.decode(codes))


def test_greedy_text_is_equal_through_both_loops(pair: Pair) -> None:
    prompts = questions(pair)
    ours = our_tokens(pair, prompts, 16)
    assert ours == their_tokens(pair, prompts, 16)
    assert len({tuple(tokens) for tokens in ours}) == 3, "the prompts should lead to different answers, or this shows little"


def test_rows_that_end_early_end_at_the_same_token_in_both_loops(pair: Pair) -> None:
    prompts = questions(pair)
    eos = our_tokens(pair, prompts, 16)[2][4]
    ours = our_tokens(pair, prompts, 16, eos)
    assert ours == their_tokens(pair, prompts, 16, eos)
    assert len(ours[2]) <= 4 < max(map(len, ours))


@pytest.mark.parametrize("guidance", [5.0, 2.0])
def test_likeliest_codes_of_different_prompts_are_equal_through_both_loops(pair: Pair, guidance: float) -> None:
    texts = ["a red cube", "two blue balls and a green star"]
    prompts = [pair.processor.generation_prompt(text) for text in texts]
    ours = our_codes(pair, texts, guidance)
    assert ours == their_codes(pair, prompts, guidance_scale=guidance).tolist()
    assert ours[0] != ours[1]
    assert len({code for codes in ours for code in codes}) > 4


def test_pixels_become_the_same_bytes() -> None:
    pixels = noise(2, 3, 64, 48)
    pixels[0, 0, 0, :3] = torch.tensor([-1.0, 1.0, 0.0])
    theirs = their_image_processor(64).postprocess(list(pixels), return_tensors="PIL.Image.Image")["pixel_values"]
    for image, other in zip(to_images(pixels), theirs, strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(other))


@torch.no_grad()
def test_painted_images_are_equal_to_the_byte_but_where_a_level_is_whole(pair: Pair) -> None:
    texts = ["a red cube", "two blue balls and a green star"]
    ours = [np.asarray(painted.image) for painted in Janus(pair.ours, pair.processor).paint(texts, ImageOptions(temperature=0.0))]
    codes = their_codes(pair, [pair.processor.generation_prompt(text) for text in texts], guidance_scale=5.0)
    pixels = pair.theirs.decode_image_tokens(codes).movedim(-1, 1)
    theirs = their_image_processor(pair.image_size).postprocess(list(pixels), return_tensors="PIL.Image.Image")["pixel_values"]
    # Bytes are truncated, not rounded: next to a whole level, the last bits of a float make one of 255.
    levels = ((pixels + 1) / 2 * 255).movedim(1, -1).numpy()
    tellable = np.abs(levels - np.rint(levels)) > 0.01
    assert tellable.mean() > 0.9
    assert np.array_equal(np.stack(ours)[tellable], np.stack([np.asarray(image) for image in theirs])[tellable])
    assert np.std(ours) > 10


def half_precision(dtype: torch.dtype, keep_rotary: bool) -> tuple[Pair, Pair]:
    """The same model in float32 and in `dtype`; theirs there with or without its rotary frequencies cast as well."""
    half = make_pair("deep", 2)
    rotary = half.theirs.model.language_model.rotary_emb
    frequencies = rotary.inv_freq
    half.ours.to(dtype)
    half.theirs.to(dtype)
    if keep_rotary:
        rotary.inv_freq = frequencies
    return shared_pair("deep", 2), half


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_in_the_same_places(dtype: torch.dtype) -> None:
    # On one machine these are equal to the last bit; any other order of casts would stray as far as float32 is away.
    exact, half = half_precision(dtype, keep_rotary=True)
    pixels, prompts = noise(3, 3, half.image_size, half.image_size), questions(half)[:1]
    runs = [
        (
            exact.ours.understanding.read(pixels),
            half.ours.understanding.read(pixels.to(dtype)),
            half.theirs.model.get_image_features(pixels).pooler_output,
        ),
        (our_logits(exact, prompts)[0], our_logits(half, prompts)[0], half.theirs(**their_inputs(prompts)).logits),
    ]
    for reference, ours, theirs in runs:
        assert ours.dtype == theirs.dtype == dtype
        assert (ours - theirs).abs().float().mean() < (theirs - reference).abs().mean() / 4


@torch.no_grad()
@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"encoder_ch_mult": (1,), "decoder_ch_mult": (1,), "num_res_blocks": 3}, 6),
        ({"encoder_ch_mult": (2, 1, 3), "decoder_ch_mult": (2, 1, 3), "num_res_blocks": 1, "codebook_dim": 2}, 12),
        ({"ch": 64, "encoder_ch_mult": (1, 2), "decoder_ch_mult": (1, 2), "z_channels": 5}, 10),
    ],
    ids=["one level", "levels that narrow", "wide"],
)
def test_image_tokenizers_of_other_shapes_are_equal(changes: dict[str, Any], size: int) -> None:
    config = VQConfig(**{"codebook_size": 50, "ch": 32, "z_channels": 16} | changes)
    painting = replace(CONFIGS["grouped"].generation, tokenizer=config, adaptor=ProjectorConfig(config.codebook_dim, 32))
    values = to_transformers(replace(CONFIGS["grouped"], generation=painting), TOKEN_IDS)["vq_config"]
    side = size // config.stride
    theirs = transformers.models.janus.modeling_janus.JanusVQVAE(transformers.JanusVQVAEConfig(**values | {"num_patches": side}))
    ours = VQTokenizer(config).eval()
    randomise(ours, 0)
    whole = nn.ModuleDict({"generation": nn.ModuleDict({"tokenizer": ours})})
    stored = {name.removeprefix("model.vqmodel."): tensor for name, tensor in their_weights(whole, whole.state_dict()).items()}
    theirs.eval().load_state_dict(stored, strict=True)
    pixels, codes = noise(2, 3, size, size), torch.arange(2 * side * side).view(2, -1) % 50
    close(ours.encoder(pixels), theirs.encoder(pixels))
    close(ours.decode_codes(codes.unflatten(1, (side, side))), theirs.decode(codes))


# -- what differs --------------------------------------------------------------------


@torch.no_grad()
def test_their_rotary_frequencies_are_rounded_by_a_cast_of_the_model_and_ours_are_not() -> None:
    exact, half = half_precision(torch.bfloat16, keep_rotary=False)
    assert half.theirs.model.language_model.rotary_emb.inv_freq.dtype == torch.bfloat16
    prompts = questions(half)[:1]
    reference, ours = our_logits(exact, prompts)[0], our_logits(half, prompts)[0]
    theirs = half.theirs(**their_inputs(prompts)).logits
    assert (ours - theirs).abs().float().mean() > (theirs - reference).abs().mean() / 4


def test_their_image_generation_crashes_for_a_forgotten_argument(one: Pair) -> None:
    inputs = their_inputs([one.processor.generation_prompt("a red cube")])
    with pytest.raises(TypeError, match="prefill_chunk_size"):
        one.theirs.generate(**inputs, generation_mode="image", guidance_scale=5.0)


@torch.no_grad()
def test_their_vq_encoder_finds_the_nearest_code_without_normalising(one: Pair) -> None:
    pixels, tokenizer = noise(4, 3, 8, 8), one.ours.generation.tokenizer
    ours, theirs = tokenizer.encode(pixels).codes.flatten(), one.theirs.model.vqmodel.encode(pixels).image_tokens
    latent = tokenizer.quant_conv(tokenizer.encoder(pixels)).movedim(1, -1).flatten(0, 2)
    rows = tokenizer.quantize.embedding.weight
    assert torch.equal(theirs, torch.cdist(latent, rows).argmin(-1))
    assert torch.equal(ours, (nn.functional.normalize(latent, dim=-1) @ nn.functional.normalize(rows, dim=-1).T).argmax(-1))
    assert 0 < (ours == theirs).float().mean() < 1


@torch.no_grad()
def test_their_vq_encoder_gives_one_loss_weighted_the_other_way_and_outside_training_too(one: Pair) -> None:
    pixels, tokenizer = noise(4, 3, 8, 8), one.ours.generation.tokenizer
    latent = tokenizer.quant_conv(tokenizer.encoder(pixels)).movedim(1, -1)
    out = one.theirs.model.vqmodel.encode(pixels)
    nearest = tokenizer.quantize.embedding(out.image_tokens).view(latent.shape)
    # Without gradients both of their terms are the same number; the gradients say which one carries the 0.25.
    close(out.embedding_loss, 1.25 * (nearest - latent).square().mean())
    assert tokenizer.encode(pixels).losses is None


def test_their_quantiser_pulls_the_encoder_harder_than_the_codebook(one: Pair) -> None:
    latent = noise(1, 8, 4, 4).requires_grad_()
    quantizer = one.theirs.model.vqmodel.quantize
    _, loss, codes = quantizer(latent)
    encoder, codebook = torch.autograd.grad(loss, (latent, quantizer.embedding.weight))
    nearest = quantizer.embedding.weight[codes].detach()
    error = latent.detach().movedim(1, -1).flatten(0, 2) - nearest
    close(encoder.movedim(1, -1).flatten(0, 2), 2 * error / error.numel())
    close(codebook.sum(0), -0.25 * 2 * error.sum(0) / error.numel())
    # Ours, as the published code: the codebook moves with weight 1, the encoder with commit_loss_beta.
    losses = one.ours.generation.tokenizer.quantize.train()(latent).losses
    one.ours.generation.tokenizer.quantize.eval()
    assert losses is not None
    close(losses.commitment, 0.25 * losses.codebook)
    assert torch.autograd.grad(losses.codebook, latent, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(losses.commitment, latent)[0].abs().max() > 0


def test_they_round_the_shorter_side_of_an_image_where_ours_drops_the_fraction() -> None:
    ours = ImageProcessor(ImageProcessorConfig(32, image_mean=HALF, image_std=HALF))
    theirs = their_image_processor(32)
    for width, height, equal in ((64, 64, True), (128, 64, True), (20, 30, True), (97, 130, False), (130, 97, False)):
        image = picture(0, width, height)
        given, other = ours.pixels([image])[0], theirs(image)["pixel_values"][0]
        assert given.shape == other.shape
        assert (np.abs(given - other).max() < 1e-6) == equal, (width, height)
    # 97 / 130 * 32 is 23.9: the rows that are no background.
    background = (127 / 255 - 0.5) / 0.5
    filled = [(np.abs(pixels - background) > 1e-6).any((0, 2)).sum() for pixels in (given, np.asarray(other))]
    assert filled == [23, 24]


def test_they_stack_conditional_and_blank_rows_but_the_order_does_not_matter() -> None:
    conditional, blank = noise(3, 40), noise(3, 40, seed=1)
    theirs = transformers.ClassifierFreeGuidanceLogitsProcessor(5.0)(torch.zeros(3, 1), torch.cat((conditional, blank)))
    interleaved = torch.stack((conditional, blank), dim=1).flatten(0, 1)
    torch.testing.assert_close(guide(conditional, blank, 5.0), theirs)
    torch.testing.assert_close(guide(interleaved[0::2], interleaved[1::2], 5.0), theirs)


@contextmanager
def embedded_ids(theirs: Any) -> Iterator[list[Tensor]]:
    """The ids that pass through their embedding table while the context is open."""
    seen: list[Tensor] = []
    hook = theirs.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    try:
        yield seen
    finally:
        hook.remove()


def test_their_blank_prompt_is_ours_for_an_ordinary_prompt(one: Pair) -> None:
    prompt = one.processor.generation_prompt("a red cube")
    with embedded_ids(one.theirs) as seen:
        their_codes(one, [prompt], guidance_scale=5.0)
    assert torch.equal(seen[0], torch.stack((prompt.ids, one.processor.blank(prompt).ids)))


def test_their_blank_prompt_keeps_inner_bos_and_begin_of_image_which_ours_blanks(one: Pair) -> None:
    prompt = one.processor.generation_prompt("a red <begin_of_image> cube <｜begin▁of▁sentence｜> !")
    with embedded_ids(one.theirs) as seen:
        their_codes(one, [prompt], guidance_scale=5.0)
    blank = one.processor.blank(prompt).ids
    differ = seen[0][1] != blank
    assert prompt.ids[differ].tolist() == seen[0][1][differ].tolist() == [BEGIN, BOS]
    assert blank[differ].tolist() == [PAD, PAD]


@pytest.mark.parametrize("guidance", [1.0, 0.5])
def test_their_image_generation_breaks_with_guidance_of_1_or_less(one: Pair, guidance: float) -> None:
    prompts = [one.processor.generation_prompt(text) for text in ("a red cube", "a blue ball")]
    with pytest.raises(RuntimeError, match="size"):
        their_codes(one, prompts, guidance_scale=guidance)
    codes = our_codes(one, ["a red cube", "a blue ball"], guidance)
    almost = our_codes(one, ["a red cube", "a blue ball"], guidance + 1e-6)
    assert codes == almost


def test_their_guidance_is_5_when_not_given_as_ours(one: Pair) -> None:
    prompts = [one.processor.generation_prompt("a red cube")]
    assert one.theirs.generation_config.guidance_scale is None
    assert torch.equal(their_codes(one, prompts), their_codes(one, prompts, guidance_scale=one.painting.default_guidance))


def test_their_generation_config_must_hold_the_id_of_begin_of_image(one: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one.theirs.generation_config, "generation_kwargs", {})
    with pytest.raises(KeyError, match="boi_token_id"):
        their_codes(one, [one.processor.generation_prompt("a red cube")])


def test_their_processor_makes_our_ids_and_pixels_of_an_already_written_prompt(one: Pair) -> None:
    text = "<|User|>: <image_placeholder>\nWhat is <image_placeholder>?\n\n<|Assistant|>:"
    images = [picture(0, 16, 16), picture(1, 32, 16)]
    ours, theirs = one.processor.prompt(text, images), their_processor(one)(text=[text], images=images)
    assert theirs["input_ids"][0].tolist() == ours.ids.tolist()
    torch.testing.assert_close(theirs["pixel_values"].float(), ours.pixels, rtol=0, atol=1e-6)
    assert torch.equal(theirs["input_ids"][0] == IMAGE, ours.slots)


def test_their_processor_puts_the_system_prompt_before_written_text_where_ours_has_it_in_the_template(one: Pair) -> None:
    text = "<|User|>: What is it?\n\n<|Assistant|>:"
    ours = one.processor.understanding_prompt([Message("user", "What is it?")])
    with_default, without = (their_processor(one, use_default_system_prompt=use) for use in (True, False))
    assert with_default(text=[text])["input_ids"][0].tolist() == ours.ids.tolist()
    assert without(text=[text])["input_ids"][0].tolist() == one.processor.prompt(text).ids.tolist() != ours.ids.tolist()


def test_their_processor_appends_begin_of_image_in_image_mode_and_then_no_system_prompt(one: Pair) -> None:
    text = "<|User|>: a red cube\n\n<|Assistant|>:"
    theirs = their_processor(one, use_default_system_prompt=True)(text=[text], generation_mode="image")
    assert theirs["input_ids"][0].tolist() == one.processor.generation_prompt("a red cube").ids.tolist()


def test_their_processor_takes_a_single_string_for_a_list_of_letters(one: Pair) -> None:
    theirs = their_processor(one)(text="cube", generation_mode="image")
    letters = [one.processor.prompt(letter + "<begin_of_image>").ids.tolist() for letter in "cube"]
    assert theirs["input_ids"].tolist() == letters


def test_their_processor_pads_a_batch_on_the_left_as_ours(one: Pair) -> None:
    texts = ["<|User|>: a\n\n<|Assistant|>:", "<|User|>: a much longer one\n\n<|Assistant|>:"]
    theirs = their_processor(one)(text=texts, padding=True)
    rows = collate([one.processor.prompt(text) for text in texts], PAD)
    assert torch.equal(theirs["input_ids"], rows.ids)
    assert torch.equal(theirs["attention_mask"].bool(), rows.attended)


def test_their_config_ties_the_text_head_to_the_embeddings_unless_told_otherwise(one: Pair) -> None:
    assert transformers.JanusConfig().tie_word_embeddings
    values = to_transformers(one.ours.config, TOKEN_IDS)
    assert values["tie_word_embeddings"] is values["text_config"]["tie_word_embeddings"] is False
    del values["tie_word_embeddings"]
    tied = transformers.JanusForConditionalGeneration(transformers.JanusConfig(**values))
    assert tied.lm_head.weight is tied.get_input_embeddings().weight
    assert one.theirs.lm_head.weight is not one.theirs.get_input_embeddings().weight


def test_their_loader_does_not_tie_matrices_that_a_checkpoint_holds_both_of(one: Pair, tmp_path: Path) -> None:
    values = to_transformers(one.ours.config, TOKEN_IDS)
    del values["tie_word_embeddings"]
    transformers.JanusConfig(**values).save_pretrained(tmp_path)
    save_file(their_weights(one.ours, one.ours.state_dict()), tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = transformers.JanusForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded.lm_head.weight, one.ours.language.lm_head.weight)
    assert torch.equal(loaded.get_input_embeddings().weight, one.ours.language.model.embed_tokens.weight)


@torch.no_grad()
def test_their_pooler_output_is_the_first_patch_normed_twice_and_then_the_aligned_patches(one: Pair) -> None:
    pixels, tower = noise(2, 3, 16, 16), one.theirs.model.vision_model
    out = tower(pixels)
    torch.testing.assert_close(out.pooler_output, tower.post_layernorm(out.last_hidden_state[:, 0]))
    assert one.theirs.model.get_image_features(pixels).pooler_output.shape == (2, 16, 32)


def test_their_layout_has_no_place_for_the_unused_pooling_head_and_usage_buffer(one: Pair) -> None:
    dropped = [name for name, place in TRANSFORMERS.table(slots(one.ours)).items() if place is None]
    head = "understanding.encoder.vision_tower.attn_pool."
    assert [name for name in dropped if not name.startswith(head)] == ["generation.tokenizer.quantize.codebook_used"]
    assert len(dropped) == 14
    assert not any("attn_pool" in name or "codebook_used" in name for name in one.theirs.state_dict())


@torch.no_grad()
def test_text_alone_runs_in_both_without_the_vision_tower(one: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    for tower in (one.ours.understanding.encoder, one.theirs.model.vision_model):
        monkeypatch.setattr(tower, "forward", lambda *_, **__: pytest.fail("the vision tower ran"))
    prompts = [one.processor.understanding_prompt([Message("user", text)]) for text in ("Hello", "Is anybody there?")]
    logits, attended = our_logits(one, prompts)
    close(logits[attended], one.theirs(**their_inputs(prompts)).logits[attended])
    assert our_tokens(one, prompts, 4) == their_tokens(one, prompts, 4)


def test_their_decoded_images_have_channels_last_which_their_own_postprocessing_refuses(one: Pair) -> None:
    pixels = list(one.theirs.decode_image_tokens(codes_of(one, 1)))
    assert pixels[0].shape == (8, 8, 3)
    with pytest.raises(ValueError, match="mean must have 8 elements"):
        their_processor(one).post_process_multimodal_output(torch.stack(pixels), generation_mode="image")


@torch.no_grad()
def test_they_paint_on_the_grid_of_the_tower_whatever_the_config_says(one: Pair) -> None:
    values = to_transformers(one.ours.config, TOKEN_IDS)
    values["vq_config"]["num_patches"] = 7
    assert transformers.JanusConfig(**values).vq_config.num_patches == one.ours.config.understanding.encoder.grid == 4
    with pytest.raises(ValueError, match="16"):
        one.theirs.model.vqmodel.decode(torch.zeros(1, 15, dtype=torch.long))
    assert one.ours.generation.tokenizer.decode_codes(torch.zeros(1, 3, 5, dtype=torch.long)).shape == (1, 3, 6, 10)
