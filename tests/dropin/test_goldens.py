"""The reference's recorded numbers, through the names and loops of its own clients."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForCausalLM

import goldens
import janus.janusflow.models
import janus.models

CLOSE = {"atol": 2e-5, "rtol": 0.0}
LOGITS = {"atol": 1e-4, "rtol": 0.0}
PROCESSORS = {"janus": janus.models.VLChatProcessor, "janusflow": janus.janusflow.models.VLChatProcessor}


def load(name: str, folders: Any) -> SimpleNamespace:
    notes, tensors = goldens.fixture(name)
    folder = folders(f"golden {name}")
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    processor = PROCESSORS[name].from_pretrained(folder)
    images = [Image.open(goldens.FIXTURES / file).convert("RGB") for file in notes["images"]]
    return SimpleNamespace(name=name, notes=notes, tensors=tensors, model=model, processor=processor, images=images)


@pytest.fixture(scope="module")
def token(folders: Any) -> SimpleNamespace:
    """The recorded Janus."""
    return load("janus", folders)


@pytest.fixture(scope="module")
def flow(folders: Any) -> SimpleNamespace:
    """The recorded JanusFlow."""
    return load("janusflow", folders)


@pytest.fixture(params=["janus", "janusflow"])
def golden(request: pytest.FixtureRequest) -> SimpleNamespace:
    """Each in turn."""
    found: SimpleNamespace = request.getfixturevalue("token" if request.param == "janus" else "flow")
    return found


def batch_of(golden: SimpleNamespace) -> Any:
    first, second = golden.notes["conversations"]
    prepared = [
        golden.processor.process_one(conversations=first, images=golden.images[:1]),
        golden.processor.process_one(conversations=second, images=golden.images[1:]),
    ]
    return golden.processor.batchify(prepared).to("cpu", dtype=torch.float32)


def test_the_processor_builds_the_recorded_batch(golden: SimpleNamespace) -> None:
    batch = batch_of(golden)
    assert batch.sft_format == golden.notes["sft_strings"]
    for name in ("input_ids", "attention_mask", "images_seq_mask", "images_emb_mask"):
        assert torch.equal(batch[name], golden.tensors[f"in.batch.{name}"]), name
    assert torch.equal(batch.pixel_values, golden.tensors["in.batch.pixel_values"])


def test_embeddings_and_logits_are_the_recorded_ones(golden: SimpleNamespace) -> None:
    batch = batch_of(golden)
    with torch.inference_mode():
        embeddings = golden.model.prepare_inputs_embeds(**batch)
        logits = golden.model.language_model(inputs_embeds=embeddings, attention_mask=batch.attention_mask).logits
    torch.testing.assert_close(embeddings, golden.tensors["out.inputs_embeds"], **CLOSE)
    real = batch.attention_mask.bool()
    torch.testing.assert_close(logits[real], golden.tensors["out.logits_plain_forward"][real], **LOGITS)


def test_a_batch_of_one_is_the_recorded_one(token: SimpleNamespace) -> None:
    prompt = token.processor(conversations=token.notes["conversations"][0], images=token.images[:1], force_batchify=True)
    prompt = prompt.to(token.model.device, dtype=token.model.dtype)
    assert torch.equal(prompt.input_ids, token.tensors["in.single.input_ids"])
    with torch.inference_mode():
        embeddings = token.model.prepare_inputs_embeds(**prompt)
        logits = token.model.language_model(inputs_embeds=embeddings).logits
    torch.testing.assert_close(embeddings, token.tensors["out.single.inputs_embeds"], **CLOSE)
    torch.testing.assert_close(logits, token.tensors["out.single.logits"], **LOGITS)


def test_parts_called_on_their_own_give_the_recorded_features(token: SimpleNamespace) -> None:
    pixels = token.tensors["in.batch.pixel_values"].flatten(0, 1)
    with torch.inference_mode():
        features = token.model.vision_model(pixels)
        aligned = token.model.aligner(features)
    torch.testing.assert_close(features, token.tensors["aux.vision_features"], **CLOSE)
    torch.testing.assert_close(aligned, token.tensors["aux.aligned_features"], **CLOSE)


def test_greedy_answers_are_the_recorded_ones(golden: SimpleNamespace) -> None:
    batch, tokenizer = batch_of(golden), golden.processor.tokenizer
    expected = golden.tensors["out.generate.sequences"]
    with torch.inference_mode():
        outputs = golden.model.language_model.generate(
            inputs_embeds=golden.model.prepare_inputs_embeds(**batch),
            attention_mask=batch.attention_mask,
            pad_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            max_new_tokens=expected.shape[1],
            do_sample=False,
            use_cache=True,
        )
    assert torch.equal(outputs, expected)


# -- the token-by-token loop -----------------------------------------------------------------------------------------------------


def paint(token: SimpleNamespace, temperature: float, pick: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The published loop: codes [P, N], raw logits [2P, N, K], guided logits [P, N, K]."""
    model, processor, options = token.model, token.processor, token.notes["generation"]
    parallel, weight, count = options["parallel_size"], options["cfg_weight"], options["n_tokens"]
    input_ids = torch.LongTensor(processor.tokenizer.encode(options["prompt"]))
    assert torch.equal(input_ids, token.tensors["in.gen.input_ids"])

    tokens = torch.zeros((parallel * 2, len(input_ids)), dtype=torch.int)
    for i in range(parallel * 2):
        tokens[i, :] = input_ids
        if i % 2 != 0:
            tokens[i, 1:-1] = processor.pad_id
    assert torch.equal(tokens, token.tensors["out.gen.cfg_tokens"])

    inputs_embeds = model.language_model.get_input_embeddings()(tokens)
    generated, raw, guided, past = torch.zeros((parallel, count), dtype=torch.int), [], [], None
    for i in range(count):
        outputs = model.language_model.model(inputs_embeds=inputs_embeds, use_cache=True, past_key_values=past)
        past = outputs.past_key_values
        logits = model.gen_head(outputs.last_hidden_state[:, -1, :])
        conditional, unconditional = logits[0::2, :], logits[1::2, :]
        combined = unconditional + weight * (conditional - unconditional)
        next_token = pick(i, torch.softmax(combined / temperature, dim=-1))
        generated[:, i] = next_token.squeeze(dim=-1)
        raw.append(logits)
        guided.append(combined)
        next_token = torch.cat([next_token.unsqueeze(dim=1), next_token.unsqueeze(dim=1)], dim=1).view(-1)
        inputs_embeds = model.prepare_gen_img_embeds(next_token).unsqueeze(dim=1)
    return generated, torch.stack(raw, 1), torch.stack(guided, 1)


def as_uint8(decoded: Tensor) -> Any:
    """The published conversion: NHWC, truncated."""
    return np.clip((decoded.to(torch.float32).cpu().numpy().transpose(0, 2, 3, 1) + 1) / 2 * 255, 0, 255).astype(np.uint8)


@torch.inference_mode()
def test_the_likeliest_codes_are_the_recorded_ones(token: SimpleNamespace) -> None:
    codes, raw, guided = paint(token, 1.0, lambda _, probabilities: probabilities.argmax(dim=-1, keepdim=True))
    assert torch.equal(codes, token.tensors["out.gen.argmax_tokens"])
    steps = token.tensors["out.gen.step_logits_cfg"].shape[1]
    torch.testing.assert_close(raw[:, :steps], token.tensors["out.gen.step_logits_interleaved"], **LOGITS)
    # Guidance 5 multiplies the rounding of both branches.
    torch.testing.assert_close(guided[:, :steps], token.tensors["out.gen.step_logits_cfg"], atol=5e-4, rtol=0.0)


@torch.inference_mode()
def test_codes_drawn_with_the_recorded_seed_are_the_recorded_ones(token: SimpleNamespace) -> None:
    torch.manual_seed(77)
    codes, _, _ = paint(token, 0.9, lambda _, probabilities: torch.multinomial(probabilities, num_samples=1))
    assert torch.equal(codes, token.tensors["out.gen.sampled_tokens_seed77_temp0.9"])


@torch.inference_mode()
def test_forced_codes_give_the_recorded_logits(token: SimpleNamespace) -> None:
    forced = token.tensors["in.gen.forced_tokens"]
    _, _, guided = paint(token, 1.0, lambda i, _: forced[:, i : i + 1])
    torch.testing.assert_close(guided, token.tensors["out.gen.forced_step_logits_cfg"], atol=5e-4, rtol=0.0)


@torch.inference_mode()
def test_codes_become_the_recorded_pictures(token: SimpleNamespace) -> None:
    for codes, key in (("out.gen.argmax_tokens", "decoded"), ("in.gen.forced_tokens", "forced_decoded")):
        decoded = token.model.gen_vision_model.decode_code(token.tensors[codes].to(torch.int), shape=[2, 8, 4, 4])
        torch.testing.assert_close(decoded, token.tensors[f"out.gen.{key}"], **LOGITS)
        levels, expected = as_uint8(decoded), token.tensors[f"out.gen.{key}_uint8"].numpy()
        assert np.abs(levels.astype(int) - expected.astype(int)).max() <= 1


@torch.inference_mode()
def test_embedded_codes_are_the_recorded_ones_in_any_shape(token: SimpleNamespace) -> None:
    forced, expected = token.tensors["in.gen.forced_tokens"], token.tensors["out.prepare_gen_img_embeds"]
    for dtype in (torch.int32, torch.int64):
        torch.testing.assert_close(token.model.prepare_gen_img_embeds(forced.to(dtype)), expected, **CLOSE)
    torch.testing.assert_close(token.model.prepare_gen_img_embeds(forced[:, 3]), expected[:, 3], **CLOSE)


# -- rectified flow --------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("past", ["none", "empty tuple"])
def test_the_published_sampling_loop_follows_the_recorded_trajectory(flow: SimpleNamespace, past: str) -> None:
    model, processor, options = flow.model, flow.processor, flow.notes["generation"]
    batch, steps, weight = options["batch"], options["steps"], options["cfg_weight"]
    input_ids = torch.LongTensor(processor.tokenizer.encode(options["prompt"]))
    assert torch.equal(input_ids, flow.tensors["in.gen.input_ids"])
    tokens = torch.stack([input_ids] * 2 * batch)
    tokens[batch:, 1:] = processor.pad_id
    assert torch.equal(tokens, flow.tensors["out.gen.cfg_tokens"])

    inputs_embeds = model.language_model.get_input_embeddings()(tokens)[:, :-1, :]
    z, dt = flow.tensors["in.gen.z0"].clone(), 1.0 / steps
    image_tokens = flow.tensors["aux.step1.z_emb_aligned"].shape[1]
    attention_mask = torch.ones((2 * batch, inputs_embeds.shape[1] + 1 + image_tokens)).int()
    attention_mask[batch:, 1 : inputs_embeds.shape[1]] = 0
    assert torch.equal(attention_mask, flow.tensors["out.gen.attention_mask"])

    for step in range(steps):
        torch.testing.assert_close(z, flow.tensors["out.gen.trajectory"][step], **LOGITS)
        t = torch.tensor([step / steps * 1000.0] * 2 * batch)
        z_emb, t_emb, hs = model.vision_gen_enc_model(torch.cat([z, z], dim=0), t)
        torch.testing.assert_close(t_emb[0], flow.tensors["out.gen.t_emb"][step], **CLOSE)
        z_emb = model.vision_gen_enc_aligner(z_emb.view(*z_emb.shape[:2], -1).permute(0, 2, 1))
        llm_emb = torch.cat([inputs_embeds, t_emb.unsqueeze(1), z_emb], dim=1)
        outputs = model.language_model.model(
            inputs_embeds=llm_emb,
            use_cache=True,
            attention_mask=attention_mask,
            # What the published loop makes of its cache by looping over an empty list.
            past_key_values=() if past == "empty tuple" and step else None,
        )
        hidden = outputs.last_hidden_state[:, -image_tokens:, :]
        hidden = model.vision_gen_dec_aligner(model.vision_gen_dec_aligner_norm(hidden))
        side = int(image_tokens**0.5)
        hidden = hidden.reshape(hidden.shape[0], side, side, -1).permute(0, 3, 1, 2)
        v = model.vision_gen_dec_model(hidden, hs, t_emb)
        assert hs == []
        torch.testing.assert_close(v, flow.tensors["out.gen.velocity_rows"][step], **LOGITS)
        v_cond, v_uncond = torch.chunk(v, 2)
        z = z + dt * (weight * v_cond - (weight - 1.0) * v_uncond)
    torch.testing.assert_close(z, flow.tensors["out.gen.trajectory"][steps], **LOGITS)
