"""Programs written for deepseek-ai/Janus, with nothing changed but the path of the model (SPEC sections 4 to 7).

Each is written here from the description of what such programs do; constants are theirs: 384 pixels, 576 codes, 24 x 24 grids.
Only counts of pictures and steps are smaller. The checkpoints are random and small, so what is looked at is form, not meaning.
"""

import importlib.util
import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import janus.janusflow.models
from janus.models import MultiModalityCausalLM, VLChatProcessor
from janus.utils.io import load_pil_images, load_pretrained_model

needs_diffusers = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")


@pytest.fixture
def picture(tmp_path: Path) -> str:
    """A PNG file."""
    path = tmp_path / "equation.png"
    pixels = np.random.default_rng(0).integers(0, 255, (40, 70, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path)
    return str(path)


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts write into the folder they run in."""
    monkeypatch.chdir(tmp_path)


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


# -- the understanding script of the README --------------------------------------------------------------------------------------


def understanding(model_path: str, image: str, question: str) -> str:
    vl_chat_processor = VLChatProcessor.from_pretrained(model_path)
    tokenizer = vl_chat_processor.tokenizer
    vl_gpt = AutoModelForCausalLM.from_pretrained(model_path, trust_remote_code=True)
    vl_gpt = vl_gpt.to(torch.bfloat16).to(device()).eval()
    conversation = [
        {"role": "<|User|>", "content": f"<image_placeholder>\n{question}", "images": [image]},
        {"role": "<|Assistant|>", "content": ""},
    ]
    pil_images = load_pil_images(conversation)
    prepare_inputs = vl_chat_processor(conversations=conversation, images=pil_images, force_batchify=True).to(vl_gpt.device)
    inputs_embeds = vl_gpt.prepare_inputs_embeds(**prepare_inputs)
    outputs = vl_gpt.language_model.generate(
        inputs_embeds=inputs_embeds,
        attention_mask=prepare_inputs.attention_mask,
        pad_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        max_new_tokens=16,
        do_sample=False,
        use_cache=True,
    )
    answer = tokenizer.decode(outputs[0].cpu().tolist(), skip_special_tokens=True)
    return f"{prepare_inputs['sft_format'][0]}{answer}"


def test_the_understanding_script(folders: Any, picture: str) -> None:
    written = understanding(str(folders("janus-384")), picture, "Convert the formula into latex code.")
    assert "<|User|>: <image_placeholder>\nConvert the formula into latex code.\n\n<|Assistant|>:" in written
    assert written == understanding(str(folders("janus-384")), picture, "Convert the formula into latex code.")


# -- the generation script of the README -----------------------------------------------------------------------------------------


@torch.inference_mode()
def generate(
    mmgpt: MultiModalityCausalLM,
    vl_chat_processor: VLChatProcessor,
    prompt: str,
    temperature: float = 1,
    parallel_size: int = 16,
    cfg_weight: float = 5,
    image_token_num_per_image: int = 576,
    img_size: int = 384,
    patch_size: int = 16,
) -> None:
    input_ids = vl_chat_processor.tokenizer.encode(prompt)
    input_ids = torch.LongTensor(input_ids)
    tokens = torch.zeros((parallel_size * 2, len(input_ids)), dtype=torch.int).to(device())
    for i in range(parallel_size * 2):
        tokens[i, :] = input_ids
        if i % 2 != 0:
            tokens[i, 1:-1] = vl_chat_processor.pad_id
    inputs_embeds = mmgpt.language_model.get_input_embeddings()(tokens)
    generated_tokens = torch.zeros((parallel_size, image_token_num_per_image), dtype=torch.int).to(device())
    for i in range(image_token_num_per_image):
        outputs = mmgpt.language_model.model(
            inputs_embeds=inputs_embeds,
            use_cache=True,
            past_key_values=outputs.past_key_values if i != 0 else None,  # noqa: F821
        )
        hidden_states = outputs.last_hidden_state
        logits = mmgpt.gen_head(hidden_states[:, -1, :])
        logit_cond = logits[0::2, :]
        logit_uncond = logits[1::2, :]
        logits = logit_uncond + cfg_weight * (logit_cond - logit_uncond)
        probs = torch.softmax(logits / temperature, dim=-1)
        next_token = torch.multinomial(probs, num_samples=1)
        generated_tokens[:, i] = next_token.squeeze(dim=-1)
        next_token = torch.cat([next_token.unsqueeze(dim=1), next_token.unsqueeze(dim=1)], dim=1).view(-1)
        img_embeds = mmgpt.prepare_gen_img_embeds(next_token)
        inputs_embeds = img_embeds.unsqueeze(dim=1)
    dec = mmgpt.gen_vision_model.decode_code(
        generated_tokens.to(dtype=torch.int), shape=[parallel_size, 8, img_size // patch_size, img_size // patch_size]
    )
    dec = dec.to(torch.float32).cpu().numpy().transpose(0, 2, 3, 1)
    dec = np.clip((dec + 1) / 2 * 255, 0, 255)
    visual_img = np.zeros((parallel_size, img_size, img_size, 3), dtype=np.uint8)
    visual_img[:, :, :] = dec
    os.makedirs("generated_samples", exist_ok=True)  # noqa: PTH103 (as scripts write it)
    for i in range(parallel_size):
        save_path = os.path.join("generated_samples", f"img_{i}.jpg")  # noqa: PTH118
        PIL.Image.fromarray(visual_img[i]).save(save_path)


def test_the_generation_script(folders: Any, tmp_path: Path) -> None:
    model_path = str(folders("janus-384"))
    vl_chat_processor = VLChatProcessor.from_pretrained(model_path)
    vl_gpt = AutoModelForCausalLM.from_pretrained(model_path, trust_remote_code=True).to(torch.bfloat16).to(device()).eval()
    conversation = [
        {"role": "<|User|>", "content": "A stunning princess from kabul in red, white traditional clothing, blue eyes"},
        {"role": "<|Assistant|>", "content": ""},
    ]
    sft_format = vl_chat_processor.apply_sft_template_for_multi_turn_prompts(
        conversations=conversation, sft_format=vl_chat_processor.sft_format, system_prompt=""
    )
    prompt = sft_format + vl_chat_processor.image_start_tag
    generate(vl_gpt, vl_chat_processor, prompt, parallel_size=2)
    pictures = sorted((tmp_path / "generated_samples").iterdir())
    assert [path.name for path in pictures] == ["img_0.jpg", "img_1.jpg"]
    assert all(PIL.Image.open(path).size == (384, 384) for path in pictures)


# -- the JanusFlow script of the README ------------------------------------------------------------------------------------------


@torch.inference_mode()
def generate_flow(
    vl_gpt: Any,
    vl_chat_processor: Any,
    vae: Any,
    prompt: str,
    cfg_weight: float = 5.0,
    num_inference_steps: int = 30,
    batchsize: int = 5,
) -> Any:
    input_ids = vl_chat_processor.tokenizer.encode(prompt)
    input_ids = torch.LongTensor(input_ids)
    tokens = torch.stack([input_ids] * 2 * batchsize).to(device())
    tokens[batchsize:, 1:] = vl_chat_processor.pad_id
    inputs_embeds = vl_gpt.language_model.get_input_embeddings()(tokens)
    # The last token stands for the image and is not used.
    inputs_embeds = inputs_embeds[:, :-1, :]

    z = torch.randn((batchsize, 4, 48, 48), dtype=torch.bfloat16).to(device())
    dt = 1.0 / num_inference_steps
    dt = torch.zeros_like(z).to(device()).to(torch.bfloat16) + dt
    attention_mask = torch.ones((2 * batchsize, inputs_embeds.shape[1] + 577)).to(vl_gpt.device)
    attention_mask[batchsize:, 1 : inputs_embeds.shape[1]] = 0
    attention_mask = attention_mask.int()

    for step in range(num_inference_steps):
        z_input = torch.cat([z, z], dim=0)
        t = step / num_inference_steps * 1000.0
        t = torch.tensor([t] * z_input.shape[0]).to(dt)
        z_enc = vl_gpt.vision_gen_enc_model(z_input, t)
        z_emb, t_emb, hs = z_enc[0], z_enc[1], z_enc[2]
        z_emb = z_emb.view(z_emb.shape[0], z_emb.shape[1], -1).permute(0, 2, 1)
        z_emb = vl_gpt.vision_gen_enc_aligner(z_emb)
        llm_emb = torch.cat([inputs_embeds, t_emb.unsqueeze(1), z_emb], dim=1)
        if step == 0:
            outputs = vl_gpt.language_model.model(
                inputs_embeds=llm_emb, use_cache=True, attention_mask=attention_mask, past_key_values=None
            )
            past_key_values: Any = []
            for kv_cache in past_key_values:
                k, v = kv_cache[0], kv_cache[1]
                past_key_values.append((k[:, :, : inputs_embeds.shape[1], :], v[:, :, : inputs_embeds.shape[1], :]))
            past_key_values = tuple(past_key_values)
        else:
            outputs = vl_gpt.language_model.model(
                inputs_embeds=llm_emb, use_cache=True, attention_mask=attention_mask, past_key_values=past_key_values
            )
        hidden_states = outputs.last_hidden_state
        hidden_states = vl_gpt.vision_gen_dec_aligner(vl_gpt.vision_gen_dec_aligner_norm(hidden_states[:, -576:, :]))
        hidden_states = hidden_states.reshape(z_emb.shape[0], 24, 24, -1).permute(0, 3, 1, 2)
        v = vl_gpt.vision_gen_dec_model(hidden_states, hs, t_emb)
        v_cond, v_uncond = torch.chunk(v, 2)
        v = cfg_weight * v_cond - (cfg_weight - 1.0) * v_uncond
        z = z + dt * v
    decoded_image = vae.decode(z / vae.config.scaling_factor).sample
    return decoded_image.clip_(-1.0, 1.0) * 0.5 + 0.5


@needs_diffusers
def test_the_janusflow_script(folders: Any) -> None:
    from diffusers.models import AutoencoderKL

    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=4, layers_per_block=1, scaling_factor=0.13025,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).to(torch.bfloat16).to(device()).eval()  # fmt: skip
    model_path = str(folders("janusflow-384"))
    vl_chat_processor = janus.janusflow.models.VLChatProcessor.from_pretrained(model_path)
    vl_gpt = janus.janusflow.models.MultiModalityCausalLM.from_pretrained(model_path).to(torch.bfloat16).to(device()).eval()
    conversation = [{"role": "User", "content": "A stunning princess from kabul"}, {"role": "Assistant", "content": ""}]
    sft_format = vl_chat_processor.apply_sft_template_for_multi_turn_prompts(
        conversations=conversation, sft_format=vl_chat_processor.sft_format, system_prompt=""
    )
    for tag in (vl_chat_processor.image_gen_tag, vl_chat_processor.image_start_tag):
        torch.manual_seed(0)
        prompt = sft_format + tag
        images = generate_flow(vl_gpt, vl_chat_processor, vae, prompt, cfg_weight=2.0, num_inference_steps=3, batchsize=2)
        assert images.shape == (2, 3, 384, 384)
        assert bool(((images >= 0) & (images <= 1)).all())


def test_the_janusflow_understanding_script(folders: Any, picture: str) -> None:
    model_path = str(folders("janusflow-384"))
    vl_chat_processor = janus.janusflow.models.VLChatProcessor.from_pretrained(model_path)
    tokenizer = vl_chat_processor.tokenizer
    vl_gpt = janus.janusflow.models.MultiModalityCausalLM.from_pretrained(model_path).to(torch.bfloat16).to(device()).eval()
    conversation = [
        {"role": "User", "content": "<image_placeholder>\nWhat is in the image?", "images": [picture]},
        {"role": "Assistant", "content": ""},
    ]
    prepare_inputs = vl_chat_processor(conversations=conversation, images=load_pil_images(conversation), force_batchify=True)
    prepare_inputs = prepare_inputs.to(vl_gpt.device)
    outputs = vl_gpt.language_model.generate(
        inputs_embeds=vl_gpt.prepare_inputs_embeds(**prepare_inputs),
        attention_mask=prepare_inputs.attention_mask,
        pad_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        max_new_tokens=8,
        do_sample=False,
        use_cache=True,
    )
    assert isinstance(tokenizer.decode(outputs[0].cpu().tolist(), skip_special_tokens=True), str)


# -- the interactive script ------------------------------------------------------------------------------------------------------


def create_prompt(user_input: str, vl_chat_processor: VLChatProcessor) -> str:
    conversation = [{"role": "<|User|>", "content": user_input}, {"role": "<|Assistant|>", "content": ""}]
    sft_format = vl_chat_processor.apply_sft_template_for_multi_turn_prompts(
        conversations=conversation, sft_format=vl_chat_processor.sft_format, system_prompt=""
    )
    return str(sft_format + vl_chat_processor.image_start_tag)


def interactive(model_path: str, ask: Any, pictures: int) -> None:
    vl_chat_processor = VLChatProcessor.from_pretrained(model_path)
    vl_gpt = AutoModelForCausalLM.from_pretrained(model_path, trust_remote_code=True).to(torch.bfloat16).to(device()).eval()
    while True:
        user_input = ask("Please describe the image you'd like to generate (or type 'exit' to quit): ")
        if user_input.lower() == "exit":
            return
        prompt = create_prompt(user_input, vl_chat_processor)
        generate(vl_gpt, vl_chat_processor, prompt, parallel_size=pictures)
        short = re.sub(r"\W+", "_", user_input)[:50]
        for i in range(pictures):
            os.rename(f"generated_samples/img_{i}.jpg", f"generated_samples/img_{short}_{i}.jpg")  # noqa: PTH104


def test_the_interactive_script(folders: Any, tmp_path: Path) -> None:
    answers = iter(["a red cube, small", "exit"])
    interactive(str(folders("janus-384")), lambda _: next(answers), pictures=1)
    assert [path.name for path in (tmp_path / "generated_samples").iterdir()] == ["img_a_red_cube_small_0.jpg"]


# -- the two endpoints of the FastAPI demo ---------------------------------------------------------------------------------------


class Demo:
    """The demo's module: what it loads at import, and its functions."""

    def __init__(self, model_path: str) -> None:
        config = AutoConfig.from_pretrained(model_path)
        language_config = config.language_config
        language_config._attn_implementation = "eager"
        self.vl_gpt = AutoModelForCausalLM.from_pretrained(model_path, language_config=language_config, trust_remote_code=True)
        self.vl_gpt = self.vl_gpt.to(torch.bfloat16).to(device())
        self.vl_chat_processor = VLChatProcessor.from_pretrained(model_path)
        self.tokenizer = self.vl_chat_processor.tokenizer

    @torch.inference_mode()
    def understand(
        self, image_data: bytes, question: str, seed: int = 42, top_p: float = 0.95, temperature: float = 0.1
    ) -> dict[str, str]:
        torch.manual_seed(seed)
        np.random.seed(seed)
        conversation = [
            {"role": "User", "content": f"<image_placeholder>\n{question}", "images": [image_data]},
            {"role": "Assistant", "content": ""},
        ]
        # Not converted to RGB: the demo forgets to.
        pil_images = [PIL.Image.open(io.BytesIO(image_data))]
        prepare_inputs = self.vl_chat_processor(conversations=conversation, images=pil_images, force_batchify=True)
        prepare_inputs = prepare_inputs.to(device(), dtype=torch.bfloat16)
        outputs = self.vl_gpt.language_model.generate(
            inputs_embeds=self.vl_gpt.prepare_inputs_embeds(**prepare_inputs),
            attention_mask=prepare_inputs.attention_mask,
            pad_token_id=self.tokenizer.eos_token_id,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            max_new_tokens=8,
            do_sample=temperature != 0,
            use_cache=True,
            temperature=temperature,
            top_p=top_p,
        )
        return {"response": self.tokenizer.decode(outputs[0].cpu().tolist(), skip_special_tokens=True)}

    @torch.inference_mode()
    def generate_image(
        self, prompt: str, seed: int | None = None, guidance: float = 5.0, parallel_size: int = 5
    ) -> list[PIL.Image.Image]:
        torch.manual_seed(12345 if seed is None else seed)
        width = height = 384
        messages = [{"role": "User", "content": prompt}, {"role": "Assistant", "content": ""}]
        text = self.vl_chat_processor.apply_sft_template_for_multi_turn_prompts(
            conversations=messages, sft_format=self.vl_chat_processor.sft_format, system_prompt=""
        )
        input_ids = torch.LongTensor(self.tokenizer.encode(text + self.vl_chat_processor.image_start_tag))
        tokens = torch.zeros((parallel_size * 2, len(input_ids)), dtype=torch.int).to(device())
        for i in range(parallel_size * 2):
            tokens[i, :] = input_ids
            if i % 2 != 0:
                tokens[i, 1:-1] = self.vl_chat_processor.pad_id
        inputs_embeds = self.vl_gpt.language_model.get_input_embeddings()(tokens)
        generated = torch.zeros((parallel_size, 576), dtype=torch.int).to(device())
        pkv = None
        for i in range(576):
            outputs = self.vl_gpt.language_model.model(inputs_embeds=inputs_embeds, use_cache=True, past_key_values=pkv)
            pkv = outputs.past_key_values
            logits = self.vl_gpt.gen_head(outputs.last_hidden_state[:, -1, :])
            logits = logits[1::2, :] + guidance * (logits[0::2, :] - logits[1::2, :])
            next_token = torch.multinomial(torch.softmax(logits, dim=-1), num_samples=1)
            generated[:, i] = next_token.squeeze(dim=-1)
            next_token = torch.cat([next_token.unsqueeze(dim=1), next_token.unsqueeze(dim=1)], dim=1).view(-1)
            inputs_embeds = self.vl_gpt.prepare_gen_img_embeds(next_token).unsqueeze(dim=1)
        dec = self.vl_gpt.gen_vision_model.decode_code(
            generated.to(dtype=torch.int), shape=[parallel_size, 8, width // 16, height // 16]
        )
        levels = np.clip((dec.to(torch.float32).cpu().numpy().transpose(0, 2, 3, 1) + 1) / 2 * 255, 0, 255)
        visual_img = np.zeros((parallel_size, width, height, 3), dtype=np.uint8)
        visual_img[:, :, :] = levels
        return [PIL.Image.fromarray(image).resize((1024, 1024), PIL.Image.LANCZOS) for image in visual_img]

    def generate_images(self, prompt: str, seed: int | None = None, guidance: float = 5.0, parallel_size: int = 5) -> bytes:
        """The body of the streamed response: PNG files one after the other."""
        body = io.BytesIO()
        for image in self.generate_image(prompt, seed, guidance, parallel_size):
            image.save(body, format="PNG")
        return body.getvalue()


@pytest.fixture(scope="module")
def demo(folders: Any) -> Demo:
    """The demo, started once."""
    return Demo(str(folders("janus-384")))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_the_understanding_endpoint(demo: Demo, picture: str, mode: str) -> None:
    assert demo.vl_gpt.language_model.config._attn_implementation == "eager"
    data = io.BytesIO()
    PIL.Image.open(picture).convert(mode).save(data, format="PNG")
    answer = demo.understand(data.getvalue(), "What is this?")
    assert answer == demo.understand(data.getvalue(), "What is this?")
    assert isinstance(demo.understand(data.getvalue(), "What is this?", temperature=0)["response"], str)


def test_the_generation_endpoint(demo: Demo) -> None:
    body = demo.generate_images("a red cube", seed=None, guidance=5.0, parallel_size=2)
    assert body.count(b"\x89PNG\r\n\x1a\n") == 2
    first = PIL.Image.open(io.BytesIO(body))
    assert first.size == (1024, 1024)


# -- janus.utils.io --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["janus", "janusflow"])
def test_load_pretrained_model_gives_all_three_on_the_best_device(folders: Any, name: str) -> None:
    tokenizer, processor, model = load_pretrained_model(str(folders(name)))
    assert tokenizer is processor.tokenizer
    assert model.device.type == device()
    assert model.dtype == torch.bfloat16
    assert not model.training
    batch = processor(prompt="<image_placeholder> hi", images=[PIL.Image.new("RGB", (9, 9))]).to(model.device)
    assert model.prepare_inputs_embeds(**batch).dtype == torch.bfloat16
