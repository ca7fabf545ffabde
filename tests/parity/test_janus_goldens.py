"""Golden numbers of a whole Janus and a whole JanusFlow (reference pack, janus.* and janusflow.*), float32 on the CPU.

Single modules to 2e-5, logits to 1e-4; ids, codes and template strings exact; uint8 images within 1.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from torch import Tensor

from goldens import FIXTURES, fixture, part
from openjanus.checkpoints.layouts import DEEPSEEK, DEEPSEEK_FLOW, VAE_PREFIX, Layout, slots
from openjanus.checkpoints.schema import parse_published
from openjanus.config import VAEConfig
from openjanus.engine.engine import Engine
from openjanus.engine.request import Finished, ImageRequest, TextRequest
from openjanus.janus import Janus
from openjanus.models import flow_generation
from openjanus.models.attention import causal_mask
from openjanus.models.decoding import TextDecoding
from openjanus.models.flow_generation import FlowDecoding
from openjanus.models.janus import JanusModel
from openjanus.models.sampling import Manner, guide
from openjanus.processing.chat import ChatFormat
from openjanus.processing.images import ImageProcessor, ImageProcessorConfig, to_images
from openjanus.processing.prompts import Processor
from openjanus.processing.tokenizer import Tokenizer
from openjanus.types import ImageOptions, Message, Prompt, TextOptions
from plain import Rows, collate, embed


def close(ours: Tensor, golden: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours, golden, rtol=0, atol=tolerance)


def config_of(meta: dict[str, Any]) -> dict[str, Any]:
    """The fixture's config.json, with the sizes that the published code hard-wires as this package's extra keys."""
    config: dict[str, Any] = meta["config"]
    if "vq" in meta:
        vq = meta["vq"]
        tower = meta["siglip_fx_j"]
        config["vision_config"]["params"] |= {key: tower[key] for key in ("patch_size", "width", "layers", "heads", "mlp_ratio")}
        config["gen_vision_config"]["params"] |= {key: vq[key] for key in ("ch", "ch_mult", "num_res_blocks", "z_channels")}
    else:
        tower = meta["siglip_fx_f"]
        params = config["vision_und_enc_config"]["params"]
        params |= {key: tower[key] for key in ("patch_size", "width", "layers", "heads", "mlp_ratio")}
        config["vision_gen_enc_config"]["params"]["latent_size"] = meta["hard_coded_dims_in_official"]["latent grid 48x48"]
    return config


def load_golden(name: str, layout: Layout) -> tuple[Janus, dict[str, Any], dict[str, Tensor]]:
    """The fixture's model with its processor, its notes and its tensors."""
    meta, tensors = fixture(name)
    # The fixture has no VAE of its own (sdxl_like_vae.* is another); a small one stands in, and no golden number depends on it.
    config = parse_published(config_of(meta), VAEConfig(block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=8))
    flow = config.understanding.begin
    model = JanusModel(config).eval().requires_grad_(False)
    weights = part(tensors, "weights.")
    own = {name: slot for name, slot in slots(model).items() if not name.startswith(VAE_PREFIX)}
    state = {ours: weights.pop(stored.names[0]) for ours, stored in layout.table(own).items() if stored}
    assert set(model.load_state_dict(state, strict=False).missing_keys) == set(slots(model)) - set(own)
    assert not weights, f"weights of the fixture that no part of ours has: {list(weights)}"
    tokenizer = Tokenizer(
        tokenizers.Tokenizer.from_file(str(FIXTURES / "tokenizer" / "tokenizer.json")),
        extra_tags=("<｜begin▁of▁generation｜>",) if flow else (),
        pad_fallback=flow,
    )
    settings = meta["processor"]
    mean, std = settings.get("image_mean", [0.5] * 3), settings.get("image_std", [0.5] * 3)
    images = ImageProcessorConfig.from_json(
        {"image_size": settings["image_size"], "min_size": settings["min_size"], "image_mean": mean, "image_std": std}
    )
    roles = meta["conversations"][0][0]["role"], meta["conversations"][0][1]["role"]
    chat = ChatFormat(settings["sft_format"], roles, settings["system_prompt"])
    processor = Processor(tokenizer, ImageProcessor(images), chat, config.understanding.slots, begin_is_slot=flow)
    return Janus(model, processor, name), meta, tensors


def prompts(janus: Janus, meta: dict[str, Any]) -> list[Prompt]:
    """The fixture's two conversations, with one and two images."""
    files = iter(meta["images"])
    made = []
    for turns in meta["conversations"]:
        images = tuple(str(FIXTURES / next(files)) for _ in turns[0]["images"])
        made.append(janus.processor.understanding_prompt([Message("user", turns[0]["content"], images)]))
    return made


@pytest.fixture(scope="module", params=[("janus", DEEPSEEK), ("janusflow", DEEPSEEK_FLOW)], ids=["janus", "janusflow"])
def golden(request: pytest.FixtureRequest) -> tuple[Janus, dict[str, Any], dict[str, Tensor]]:
    return load_golden(*request.param)


@pytest.fixture(scope="module")
def janus() -> tuple[Janus, dict[str, Any], dict[str, Tensor]]:
    return load_golden("janus", DEEPSEEK)


@pytest.fixture(scope="module")
def flow() -> tuple[Janus, dict[str, Any], dict[str, Tensor]]:
    return load_golden("janusflow", DEEPSEEK_FLOW)


def test_conversations_become_the_golden_strings_and_rows(golden):
    janus, meta, tensors = golden
    for turns, expected in zip(meta["conversations"], meta["sft_strings"], strict=True):
        messages = [Message("user", turns[0]["content"])]
        assert janus.processor.chat.render(messages, add_reply=True) == expected
    rows = collate(prompts(janus, meta), janus.processor.tokenizer.pad)
    assert torch.equal(rows.ids, tensors["in.batch.input_ids"])
    assert torch.equal(rows.attended, tensors["in.batch.attention_mask"].bool())
    assert torch.equal(rows.slots, tensors["in.batch.images_seq_mask"])
    golden_pixels = tensors["in.batch.pixel_values"].flatten(0, 1)
    used = tensors["in.batch.images_emb_mask"].flatten(0, 1).any(dim=-1)
    assert torch.equal(rows.pixels, golden_pixels[used])


def test_special_tokens_have_the_golden_ids(golden):
    janus, meta, _ = golden
    tokenizer, ids = janus.processor.tokenizer, meta["token_ids"]
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (ids["bos"], ids["eos"], ids["pad"])
    assert (tokenizer.image, tokenizer.image_start, tokenizer.image_end) == (ids["image"], ids["image_start"], ids["image_end"])


def test_embeddings_and_logits_of_a_padded_batch_with_images(golden):
    janus, meta, tensors = golden
    rows = collate(prompts(janus, meta), janus.processor.tokenizer.pad)
    # The golden forward ran at positions 0..T-1 whatever the padding.
    positions = torch.arange(rows.ids.shape[1]).expand_as(rows.ids)
    embeddings = embed(janus.model, rows)
    hidden = janus.model.language(embeddings, positions, causal_mask(rows.attended, rows.ids.shape[1]))
    logits = janus.model.language.logits(hidden)
    own = rows.attended
    close(embeddings[own], tensors["out.inputs_embeds"][own], 2e-5)
    close(logits[own], tensors["out.logits_plain_forward"][own], 1e-4)
    if "aux.final_norm_hidden" in tensors:
        close(hidden[own], tensors["aux.final_norm_hidden"][own], 2e-5)


def test_greedy_answers_are_the_golden_ids(golden, monkeypatch):
    janus, meta, tensors = golden
    sequences = tensors["out.generate.sequences"]
    logits: list[Tensor] = []
    take = TextDecoding.take

    def watched(self: TextDecoding, lanes: Tensor, hidden: Tensor, uniform: Tensor, manner: Manner) -> Tensor:
        logits.append(janus.model.language.logits(hidden[:, -1]))
        return take(self, lanes, hidden, uniform, manner)

    monkeypatch.setattr(TextDecoding, "take", watched)
    options = TextOptions(max_tokens=sequences.shape[1])
    events = Engine(janus.model, janus.processor).run([TextRequest(prompt, options) for prompt in prompts(janus, meta)])
    answers = [event.result for event in events if isinstance(event, Finished)]
    assert [list(answer.ids) for answer in answers] == sequences.tolist()
    assert [answer.text for answer in answers] == [janus.processor.tokenizer.decode(row).strip() for row in sequences.tolist()]
    if "out.generate.step_logits" not in tensors:
        return
    for prompt, expected in zip(prompts(janus, meta), tensors["out.generate.step_logits"], strict=True):
        logits.clear()
        list(Engine(janus.model, janus.processor).run([TextRequest(prompt, options)]))
        close(torch.cat(logits), expected, 1e-4)


def test_a_text_without_image_slots_is_embedded_by_the_table_alone(janus):
    model, _, tensors = janus[0].model, *janus[1:]
    ids = tensors["in.single.input_ids"]
    close(model.language.embed(ids), tensors["out.text_embed_only"], 0)


def test_one_prompt_alone_has_the_golden_embeddings_and_logits(janus):
    loaded, meta, tensors = janus
    rows = collate(prompts(loaded, meta)[:1], loaded.processor.tokenizer.pad)
    assert torch.equal(rows.ids, tensors["in.single.input_ids"])
    embeddings = embed(loaded.model, rows)
    close(embeddings, tensors["out.single.inputs_embeds"], 2e-5)
    hidden = loaded.model.language(embeddings, rows.positions)
    close(loaded.model.language.logits(hidden), tensors["out.single.logits"], 1e-4)


def test_images_are_read_as_in_the_golden_intermediates(janus):
    model, _, tensors = janus[0].model, *janus[1:]
    pixels = tensors["in.batch.pixel_values"].flatten(0, 1)
    close(model.understanding.encoder(pixels), tensors["aux.vision_features"], 2e-5)
    close(model.understanding.read(pixels), tensors["aux.aligned_features"], 2e-5)


def test_layers_give_the_golden_intermediates(janus):
    loaded, meta, tensors = janus
    rows = collate(prompts(loaded, meta), loaded.processor.tokenizer.pad)
    seen: list[Tensor] = []
    hook = loaded.model.language.model.layers[0].register_forward_hook(lambda *parts: seen.append(parts[2]))
    positions = torch.arange(rows.ids.shape[1]).expand_as(rows.ids)
    loaded.model.language(embed(loaded.model, rows), positions, causal_mask(rows.attended, rows.ids.shape[1]))
    hook.remove()
    close(seen[0][rows.attended], tensors["aux.hidden_after_layer0"][rows.attended], 2e-5)


# -- painting with codes -------------------------------------------------------------


def generation_rows(janus: Janus, meta: dict[str, Any], copies: int) -> Rows:
    """The fixture's image prompt: `copies` conditional rows, then as many blank ones."""
    processor, text = janus.processor, meta["generation"]["prompt"]
    prompt = processor.prompt(text)
    blank = processor.blank(prompt)
    attends = [torch.ones(len(prompt), dtype=torch.bool)] * copies
    attended = torch.full((len(blank),), janus.model.config.generation.attends_blank)
    attended[[0, -1]] = True
    return collate([prompt] * copies + [blank] * copies, processor.tokenizer.pad, attends + [attended] * copies)


def conditional_and_blank(interleaved: Tensor) -> Tensor:
    """Rows in our order (conditional ones first) of a golden whose rows alternate."""
    return torch.cat((interleaved[0::2], interleaved[1::2]))


def test_the_image_prompt_and_its_blank_row_are_the_golden_ids(golden):
    janus, meta, tensors = golden
    rows = generation_rows(janus, meta, copies=2)
    tokens = tensors["out.gen.cfg_tokens"]
    if meta["fixture"] == "janus":
        assert torch.equal(rows.ids, conditional_and_blank(tokens))
        assert rows.attended.all(), "the pads of Janus' blank prompt are attended to"
    else:
        # The last token is dropped in both: the first step stands in its place.
        assert torch.equal(rows.ids[:, :-1], tokens[:, :-1])
        assert torch.equal(rows.attended, tensors["out.gen.attention_mask"].bool()[:, : rows.ids.shape[1]])
    assert torch.equal(rows.ids[0], tensors["in.gen.input_ids"]) or meta["fixture"] == "janusflow"


def test_generation_prompts_follow_from_the_words_alone(golden):
    janus, meta, _ = golden
    words = meta["generation"]["prompt"].split(": ", 1)[1].split("\n\n")[0]
    prompt = janus.processor.generation_prompt(words)
    golden_prompt = janus.processor.prompt(meta["generation"]["prompt"])
    assert torch.equal(prompt.ids[:-1], golden_prompt.ids[:-1])


def step_through_codes(janus: Janus, meta: dict[str, Any], choose: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Conditional/blank logits [4, 64] and guided ones [2, 64] of every step, `choose` picking the codes [2]."""
    model, generation = janus.model, janus.model.generation
    rows = generation_rows(janus, meta, copies=2)
    embeddings = embed(model, rows)
    for step in range(meta["generation"]["n_tokens"]):
        positions = torch.arange(embeddings.shape[1]).expand(4, -1)
        logits = generation.logits(model.language(embeddings, positions)[:, -1])
        guided = guide(*logits.chunk(2), meta["generation"]["cfg_weight"])
        yield logits, guided
        codes = choose(step, guided)
        embeddings = torch.cat((embeddings, generation.embed_codes(codes[:, None]).repeat(2, 1, 1)), dim=1)


def test_embeddings_of_codes_are_golden(janus):
    model, _, tensors = janus[0].model, *janus[1:]
    close(model.generation.embed_codes(tensors["in.gen.forced_tokens"]), tensors["out.prepare_gen_img_embeds"], 2e-5)


def test_likeliest_codes_their_logits_and_the_image_are_golden(janus):
    loaded, meta, tensors = janus
    codes: list[Tensor] = []
    plain, guided_logits = [], []

    def choose(step: int, guided: Tensor) -> Tensor:
        codes.append(guided.argmax(dim=-1))
        return codes[-1]

    for logits, guided in step_through_codes(loaded, meta, choose):
        plain.append(logits)
        guided_logits.append(guided)
    assert torch.equal(torch.stack(codes, dim=1), tensors["out.gen.argmax_tokens"].long())
    close(torch.stack(guided_logits[:8], dim=1), tensors["out.gen.step_logits_cfg"], 1e-4)
    expected = conditional_and_blank(tensors["out.gen.step_logits_interleaved"])
    close(torch.stack(plain[:8], dim=1), expected, 1e-4)

    # The same codes and the same image by the engine, cached, at temperature 0.
    options = ImageOptions(n=2, seed=0, temperature=0.0, guidance=meta["generation"]["cfg_weight"])
    words = meta["generation"]["prompt"].split(": ", 1)[1].split("\n\n")[0]
    pictures = loaded.paint(words, options)
    close(loaded.model.generation.decode(tensors["out.gen.argmax_tokens"].long()), tensors["out.gen.decoded"], 2e-5)
    for picture, image in zip(pictures, tensors["out.gen.decoded_uint8"].numpy(), strict=True):
        assert np.abs(np.asarray(picture.image).astype(int) - image).max() <= 1


def test_forced_codes_give_the_golden_logits_and_image(janus):
    loaded, meta, tensors = janus
    forced = tensors["in.gen.forced_tokens"]
    steps = step_through_codes(loaded, meta, lambda step, _: forced[:, step])
    close(torch.stack([guided for _, guided in steps], dim=1), tensors["out.gen.forced_step_logits_cfg"], 1e-4)
    pixels = loaded.model.generation.decode(forced)
    close(pixels, tensors["out.gen.forced_decoded"], 2e-5)
    for image, expected in zip(to_images(pixels), tensors["out.gen.forced_decoded_uint8"].numpy(), strict=True):
        assert np.abs(np.asarray(image).astype(int) - expected).max() <= 1


def test_codes_sampled_with_the_references_own_draws_are_golden(janus):
    loaded, meta, tensors = janus
    torch.manual_seed(77)
    codes: list[Tensor] = []

    def choose(step: int, guided: Tensor) -> Tensor:
        codes.append(torch.multinomial((guided / 0.9).softmax(dim=-1), num_samples=1)[:, 0])
        return codes[-1]

    for _ in step_through_codes(loaded, meta, choose):
        pass
    assert torch.equal(torch.stack(codes, dim=1), tensors["out.gen.sampled_tokens_seed77_temp0.9"].long())


# -- painting with a flow ------------------------------------------------------------


class GivenNoise:
    """A source of randomness that hands out one golden noise."""

    def __init__(self, noise: Tensor) -> None:
        self.noise = noise

    def standard_normal(self, shape: Sequence[int], dtype: Any) -> np.ndarray[Any, Any]:
        assert tuple(shape) == tuple(self.noise.shape)
        return self.noise.numpy().astype(dtype)


def test_the_flow_follows_the_golden_trajectory(flow, monkeypatch):
    loaded, meta, tensors = flow
    words = meta["generation"]["prompt"].split(": ", 1)[1].split("\n\n")[0]
    settings = meta["generation"]
    options = ImageOptions(n=2, seed=0, guidance=settings["cfg_weight"], steps=settings["steps"])
    latents: list[Tensor] = []
    take = FlowDecoding.take

    def watched(self: FlowDecoding, lanes: Tensor, hidden: Tensor, paired: Tensor | None, manner: None) -> None:
        take(self, lanes, hidden, paired, manner)
        latents.append(self.latent[lanes])

    monkeypatch.setattr(FlowDecoding, "take", watched)
    monkeypatch.setattr(flow_generation, "source", lambda seed: GivenNoise(tensors["in.gen.z0"][seed]))
    close(tensors["out.gen.trajectory"][0], tensors["in.gen.z0"], 0)
    for _ in Engine(loaded.model, loaded.processor).run([ImageRequest(words, options)]):
        pass
    assert len(latents) == options.steps
    close(torch.stack(latents), tensors["out.gen.trajectory"][1:], 2e-5)


def test_single_flow_steps_give_the_golden_time_embeddings_and_velocities(flow):
    loaded, meta, tensors = flow
    model, generation = loaded.model, loaded.model.generation
    rows = generation_rows(loaded, meta, copies=2)
    text = embed(model, rows)[:, :-1]
    attended = tensors["out.gen.attention_mask"].bool()
    for step, latent in enumerate(tensors["out.gen.trajectory"][:-1]):
        tokens, skip, time = generation.encode(latent, torch.full((2,), step / meta["generation"]["steps"]))
        close(time[0], tensors["out.gen.t_emb"][step], 2e-5)
        inputs = torch.cat((text, tokens.repeat(2, 1, 1)), dim=1)
        positions = torch.arange(inputs.shape[1]).expand(4, -1)
        hidden = model.language(inputs, positions, causal_mask(attended, inputs.shape[1]))[:, text.shape[1] :]
        velocity = generation.velocity(hidden, skip.repeat(2, 1, 1, 1), time.repeat(2, 1))
        close(velocity, tensors["out.gen.velocity_rows"][step], 2e-5)
        if step == 1:
            close(inputs, tensors["aux.step1.llm_input"], 2e-5)
            close(tokens[:, 1:].repeat(2, 1, 1), tensors["aux.step1.z_emb_aligned"], 2e-5)
            close(hidden[:, 1:], tensors["aux.step1.last_hidden_image_part"], 2e-5)
            features = generation.decoder_adaptor(generation.decoder_norm(hidden[:, 1:]))
            grid = features.transpose(1, 2).unflatten(2, skip.shape[-2:])
            close(grid, tensors["aux.step1.decoder_input"], 2e-5)
