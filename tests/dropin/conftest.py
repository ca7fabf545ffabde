"""Checkpoint folders as the drop-in's users have them: published layout, small sizes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import goldens
import tiny
from janus.models.modeling_vlm import MultiModalityConfig

TOWER = {"image_size": 16, "patch_size": 4, "width": 32, "layers": 2, "heads": 4, "mlp_ratio": 4}
LANGUAGE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "max_position_embeddings": 2048,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "vocab_size": 352,
    "rope_theta": 5000.0,
    "torch_dtype": "float32",
    # As shipped: must not stop a machine that has no flash attention.
    "_attn_implementation": "flash_attention_2",
}
Values = dict[str, Any]


def projector(input_dim: int, width: int) -> Values:
    """The published kind of adaptor."""
    return {"cls": "MlpProjector", "params": {"depth": 2, "input_dim": input_dim, "n_embed": width, "projector_type": "mlp_gelu"}}


def janus_config(side: int, multipliers: list[int]) -> Values:
    """config.json of a small Janus for images of `side` pixels, 16 x 16 or 4 x 4 patches."""
    tower = TOWER | {"image_size": side, "patch_size": 16 if side > 16 else 4, "select_layer": -1, "select_feature": "same"}
    return {
        "model_type": "multi_modality",
        "architectures": ["MultiModalityCausalLM"],
        "torch_dtype": "float32",
        "vision_config": {"cls": "CLIPVisionTower", "model_type": "vision", "params": tower},
        "aligner_config": projector(32, 64) | {"model_type": "aligner"},
        "gen_vision_config": {
            "cls": "VQ-16",
            "model_type": "gen_vision",
            "params": {
                "image_token_size": 64,
                "n_embed": 8,
                "ch": 32,
                "ch_mult": multipliers,
                "num_res_blocks": 1,
                "z_channels": 16,
            },
        },
        "gen_aligner_config": projector(8, 64) | {"model_type": "gen_aligner"},
        "gen_head_config": {
            "cls": "vision_head",
            "model_type": "gen_head",
            "params": {"image_token_embed": 48, "image_token_size": 64, "n_embed": 64},
        },
        "language_config": LANGUAGE,
    }


def flow_config(side: int) -> Values:
    """config.json of a small JanusFlow; its latent is given by the caller of the sampling loop."""
    tower = TOWER | {"image_size": side, "patch_size": 16 if side > 16 else 4, "select_layer": -1, "select_feature": "same"}
    block = {"block_out_channels": [32], "layers_in_middle": 1, "hidden_size": 64}
    return {
        "model_type": "multi_modality",
        "architectures": ["MultiModalityCausalLM"],
        "torch_dtype": "float32",
        "vision_und_enc_config": {"cls": "CLIPVisionTower", "model_type": "vision_und_enc", "params": tower},
        "vision_gen_enc_config": {
            "cls": "ShallowUViTEncoder",
            "model_type": "vision_gen_enc",
            "params": {"input_channels": 4, "stride": 2, "kernel_size": 2, "padding": 0, "latent_size": 48, **block},
        },
        "vision_gen_dec_config": {
            "cls": "ShallowUViTDecoder",
            "model_type": "vision_gen_dec",
            "params": {"in_channels": 32, "out_channels": 4, "upsamples": 1, **block},
        },
        "language_config": LANGUAGE,
    }


def write_processor(folder: Path, side: int, tokens: int, min_size: int = 4) -> None:
    """The tokenizer and processor files of a checkpoint."""
    for file in tiny.TOKENIZER.iterdir():
        shutil.copy(file, folder)
    half = [0.5, 0.5, 0.5]
    preprocessor = {
        "background_color": [127, 127, 127],
        "do_normalize": True,
        "image_mean": half,
        "image_processor_type": "VLMImageProcessor",
        "image_size": side,
        "image_std": half,
        "min_size": min_size,
        "processor_class": "VLChatProcessor",
        "rescale_factor": 0.00392156862745098,
    }
    processor = {
        "add_special_token": False,
        "ignore_id": -100,
        "image_tag": "<image_placeholder>",
        "mask_prompt": True,
        "num_image_tokens": tokens,
        "processor_class": "VLChatProcessor",
        "sft_format": "deepseek",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    (folder / "processor_config.json").write_text(json.dumps(processor))


def write_random(folder: Path, config: Values, side: int, tokens: int) -> Path:
    """A checkpoint of random weights, the same every time; large enough that inputs matter."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MultiModalityConfig.from_dict(json.loads(json.dumps(config))))
    for name, parameter in model.language_model.named_parameters():
        if "norm" not in name:
            parameter.data.mul_(4)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors", {"format": "pt"}
    )
    (folder / "config.json").write_text(json.dumps(config))
    write_processor(folder, side, tokens)
    return folder


def write_golden(folder: Path, name: str) -> Path:
    """The checkpoint whose outputs the reference pack records; skips without the pack."""
    notes, tensors = goldens.fixture(name)
    config = notes["config"]
    tower = "vision_config" if name == "janus" else "vision_und_enc_config"
    config[tower]["params"] |= notes["siglip_fx_j" if name == "janus" else "siglip_fx_f"]
    if name == "janus":
        sizes = {key: notes["vq"][key] for key in ("ch", "ch_mult", "num_res_blocks", "z_channels")}
        config["gen_vision_config"]["params"] |= sizes
    folder.mkdir(parents=True, exist_ok=True)
    save_file(goldens.part(tensors, "weights."), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    write_processor(folder, notes["processor"]["image_size"], notes["processor"]["num_image_tokens"])
    for file in (goldens.FIXTURES / "tokenizer").iterdir():
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Checkpoint folders by name, made once; "-384" ones fit the constants that published scripts hold."""
    root = tmp_path_factory.mktemp("dropin")
    writers: dict[str, Callable[[Path], Path]] = {
        "janus": lambda folder: write_random(folder, janus_config(16, [1, 1]), 16, 16),
        "janusflow": lambda folder: write_random(folder, flow_config(16), 16, 16),
        "janus-384": lambda folder: write_random(folder, janus_config(384, [1, 1, 1, 1, 1]), 384, 576),
        "janusflow-384": lambda folder: write_random(folder, flow_config(384), 384, 576),
        "golden janus": lambda folder: write_golden(folder, "janus"),
        "golden janusflow": lambda folder: write_golden(folder, "janusflow"),
    }

    def find(name: str) -> Path:
        folder = root / name
        return folder if (folder / "config.json").exists() else writers[name](folder)

    return find
