"""config.json of every layout: read with its defaults, written back without loss, refused with a name."""

import copy
from dataclasses import replace
from typing import Any

import pytest

import tiny
from openjanus.checkpoints.companions import Companions
from openjanus.checkpoints.schema import parse_published, to_published
from openjanus.checkpoints.transformers_schema import parse_transformers, to_transformers
from openjanus.checkpoints.vae_schema import parse_vae, to_vae
from openjanus.config import (
    PRESETS,
    FlowGenerationConfig,
    JanusConfig,
    LanguageConfig,
    ProjectorConfig,
    TokenGenerationConfig,
    VAEConfig,
    VQConfig,
)
from openjanus.errors import ConfigError

JSON = dict[str, Any]
TOKENS = {"bos": 1, "eos": 2, "pad": 3, "image": 4}


def published(name: str = "janus-pro-1b") -> JSON:
    return to_published(PRESETS[name])


def changed(values: JSON, path: str, value: Any) -> JSON:
    """A copy with another value at a.dotted.path; None removes the key."""
    values = copy.deepcopy(values)
    *sections, key = path.split(".")
    place = values
    for section in sections:
        place = place.setdefault(section, {})
    place[key] = value
    if value is None:
        del place[key]
    return values


def unusual() -> JanusConfig:
    """A Janus with every setting away from its default."""
    config = tiny.CONFIGS["janus"]
    tower = replace(
        config.understanding.encoder, pixel_mean=(0.1, 0.2, 0.3), pixel_std=(1.0, 2.0, 3.0), ignore_head=False, select_layer=-2
    )
    codes = VQConfig(48, 8, False, False, 0.5, 0.1, 32, (1, 2), (2, 1), 1, 16, 0.25)
    assert isinstance(config.generation, TokenGenerationConfig)
    return JanusConfig(
        replace(config.language, head_dim=20, rms_norm_eps=1e-5),
        replace(config.understanding, encoder=tower, adaptor=ProjectorConfig(24, 32, "linear")),
        replace(config.generation, tokenizer=codes),
    )


@pytest.mark.parametrize("name", [*PRESETS, *tiny.VARIANTS, "unusual"])
def test_what_is_written_is_read_back_as_the_same_model(name: str):
    config = unusual() if name == "unusual" else {**PRESETS, **tiny.CONFIGS}[name]
    vae = config.generation.vae if isinstance(config.generation, FlowGenerationConfig) else None
    assert parse_published(to_published(config), vae) == config


def test_keys_of_others_survive_a_write(variant: str):
    base = to_published(tiny.CONFIGS[variant])
    part = "vision_config" if variant == "janus" else "vision_und_enc_config"
    for path in ("my_key", "language_config.my_key", f"{part}.my_key", f"{part}.params.my_key"):
        base = changed(base, path, {"note": 1})
    larger = replace(tiny.CONFIGS[variant], language=replace(tiny.CONFIGS[variant].language, num_hidden_layers=3))
    assert to_published(larger, base) == changed(base, "language_config.num_hidden_layers", 3)


@pytest.mark.parametrize("variant", ["janus", "janusflow"])
def test_the_default_guidance_of_a_checkpoint_is_its_own_where_it_says(variant: str):
    config = tiny.CONFIGS[variant]
    own = replace(config, generation=replace(config.generation, default_guidance=3.25))
    vae = config.generation.vae if isinstance(config.generation, FlowGenerationConfig) else None
    assert parse_published(to_published(own), vae) == own
    assert "guidance" not in str(to_published(config))


def test_a_size_that_returns_to_its_default_does_not_leave_the_old_one_behind():
    base = to_published(tiny.CONFIGS["janus"])
    assert parse_published(to_published(PRESETS["janus-pro-1b"], base)) == PRESETS["janus-pro-1b"]


def test_a_partial_language_config_is_completed_as_the_published_code_does():
    # What the 7B's config.json really says.
    values = published("janus-pro-7b")
    values["language_config"] = {
        "max_position_embeddings": 16384,
        "model_type": "llama",
        "num_hidden_layers": 30,
        "vocab_size": 102400,
    }
    assert parse_published(values) == PRESETS["janus-pro-7b"]
    assert to_published(PRESETS["janus-pro-7b"], values) == values
    assert parse_published(changed(values, "language_config", {})).language == LanguageConfig()


@pytest.mark.parametrize(
    "extra",
    [
        {"rope_theta": 5000.0},
        {"rope_theta": 5000},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}},
        {"rope_parameters": {"rope_theta": 5000.0}, "rope_scaling": None},
    ],
)
def test_the_rotary_base_is_read_from_either_place(extra: JSON):
    values = published()
    values["language_config"] |= extra
    config = parse_published(values)
    assert config.language.rope_theta == 5000.0
    larger = replace(config, language=replace(config.language, rope_theta=7000.0))
    assert parse_published(to_published(larger, values)) == larger


def test_keys_that_say_how_to_run_are_not_read():
    values = published()
    values["language_config"] |= {"_attn_implementation": "flash_attention_2", "use_cache": True, "torch_dtype": "float16"}
    values["vision_config"]["params"] |= {"select_feature": "patch", "weight_init": "skip"}
    assert parse_published(values) == PRESETS["janus-pro-1b"]


def test_class_names_are_matched_by_substring():
    values = changed(published(), "aligner_config.cls", "janus.models.projector.MlpProjector")
    assert parse_published(values) == PRESETS["janus-pro-1b"]
    assert to_published(PRESETS["janus-pro-1b"], values) == values


def test_sizes_beside_the_model_name_override_its_table():
    values = changed(published(), "vision_config.params.layers", 3)
    assert parse_published(values).understanding.encoder.layers == 3
    values = changed(published(), "vision_config.params.model_name", "siglip_so400m_patch14_384")
    values = changed(values, "aligner_config.params.input_dim", 1152)
    tower = parse_published(values).understanding.encoder
    assert (tower.patch_size, tower.width, tower.layers, tower.heads, tower.mlp_ratio) == (14, 1152, 27, 16, 3.7362)


def test_an_unknown_tower_with_all_its_sizes_is_read():
    values = published()
    values["vision_config"]["params"] |= {"model_name": "siglip_tiny", "patch_size": 8, "width": 1024, "layers": 2, "heads": 2}
    config = parse_published(values)
    assert config.understanding.encoder.mlp_ratio == 4
    assert parse_published(to_published(config)) == config


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("vision_config.params.model_name", "siglip_huge", ["siglip_huge", "siglip_large_patch16_384", "patch_size"]),
        ("vision_config.params.image_size", "384", ["vision_config.params.image_size", "'384'", "whole number"]),
        ("vision_config.params.image_size", 8, ["image_size 8"]),
        ("vision_config.params.width", 1000, ["width"]),
        ("vision_config.cls", "SAMTower", ["SAMTower", "CLIPVisionTower"]),
        ("vision_config", None, ["vision_config"]),
        ("aligner_config.params.n_embed", 7, ["n_embed", "7", "2048"]),
        ("gen_aligner_config.params.input_dim", 7, ["input_dim", "7", "8"]),
        ("gen_head_config.params.image_token_size", 7, ["image_token_size", "7", "16384"]),
        ("gen_head_config.params.image_token_embed", None, ["gen_head_config.params.image_token_embed"]),
        ("gen_vision_config.params.ch_mult", [], ["ch_mult"]),
        ("gen_vision_config.params.grid_size", [1, 2, 3], ["grid_size", "[height, width]"]),
        ("gen_vision_config.params.guidance", 0, ["guidance", "above 0"]),
        ("gen_vision_config.params.num_res_blocks", -1, ["num_res_blocks", "0 or more"]),
        ("gen_vision_config.params.grid_size", True, ["grid_size", "True", "[height, width]"]),
        ("gen_vision_config.params.grid_size", [24, True], ["grid_size", "[height, width]"]),
        ("vision_config.params.pixel_mean", [0.5, 0.5], ["pixel_mean", "[0.5, 0.5]", "3 numbers"]),
        ("vision_config.params.pixel_std", [0.5, 0.5, float("nan")], ["pixel_std", "3 numbers"]),
        ("language_config.rms_norm_eps", 0, ["rms_norm_eps", "0", "above 0"]),
        ("language_config.rms_norm_eps", -1e-6, ["rms_norm_eps", "-1e-06", "above 0"]),
        ("language_config.rope_theta", 0.0, ["rope_theta", "0.0", "above 0"]),
        ("language_config.rope_parameters", {"rope_theta": -1}, ["rope_parameters.rope_theta", "-1", "above 0"]),
        ("language_config.hidden_act", "gelu", ["hidden_act", "gelu", "silu"]),
        ("language_config.attention_bias", True, ["attention_bias"]),
        ("language_config.tie_word_embeddings", True, ["tie_word_embeddings"]),
        ("language_config.rope_scaling", {"type": "linear", "factor": 2}, ["rope_scaling.type", "linear"]),
        ("language_config.rope_parameters", {"rope_type": "yarn"}, ["rope_parameters.rope_type", "yarn"]),
        ("language_config.model_type", "qwen2", ["qwen2", "llama"]),
        ("language_config.num_hidden_layers", 0, ["num_hidden_layers", "0"]),
        ("language_config.hidden_size", True, ["hidden_size", "True"]),
        ("language_config", [], ["language_config"]),
        ("gen_vision_config", None, ["gen_vision_config", "vision_gen_enc_config"]),
    ],
)
def test_an_impossible_config_is_refused_by_name(path: str, value: Any, words: list[str]):
    with pytest.raises(ConfigError) as error:
        parse_published(changed(published(), path, value))
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("vision_gen_enc_config.params.hidden_size", 7, ["vision_gen_enc_config", "7", "2048"]),
        ("vision_gen_dec_config.params.out_channels", 3, ["out_channels", "3", "4"]),
        ("vision_gen_enc_config.params.latent_size", 0, ["latent_size"]),
        ("vision_gen_dec_config.cls", "Unet", ["Unet", "ShallowUViTDecoder"]),
    ],
)
def test_an_impossible_flow_config_is_refused_by_name(path: str, value: Any, words: list[str]):
    with pytest.raises(ConfigError) as error:
        parse_published(changed(published("janusflow-1.3b"), path, value))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_latent_size_may_be_a_number_or_a_pair():
    for value, size in ((8, (8, 8)), ([6, 10], (6, 10))):
        config = parse_published(changed(published("janusflow-1.3b"), "vision_gen_enc_config.params.latent_size", value))
        assert isinstance(config.generation, FlowGenerationConfig)
        assert config.generation.latent_size == size


def test_the_dtype_goes_where_it_stood():
    assert to_published(PRESETS["janus-pro-1b"], {"dtype": "float32"}, "bfloat16")["dtype"] == "bfloat16"
    assert to_published(PRESETS["janus-pro-1b"], None, "bfloat16")["torch_dtype"] == "bfloat16"


# -- transformers' and the VAE's --------------------------------------------------------------


@pytest.mark.parametrize("name", ["janus-1.3b", "janus-pro-1b", "janus-pro-7b"])
def test_a_transformers_config_describes_the_same_model(name: str):
    values = to_transformers(PRESETS[name], TOKENS, {"my_key": 1}, "bfloat16")
    assert parse_transformers(values) == PRESETS[name]
    assert values["my_key"] == 1
    assert values["image_token_id"] == 4
    assert values["tie_word_embeddings"] is values["text_config"]["tie_word_embeddings"] is False


def test_an_empty_transformers_config_is_completed_with_the_defaults_of_transformers():
    values = {"model_type": "janus", "text_config": {"hidden_size": 2048, "num_attention_heads": 16}}
    config = parse_transformers(values)
    preset = PRESETS["janus-pro-1b"]
    assert (config.understanding, config.generation) == (preset.understanding, preset.generation)


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        ("vision_config.use_qk_norm", True, "use_qk_norm"),
        ("vision_config.hidden_act", "relu", "relu"),
        ("vq_config.double_latent", True, "double_latent"),
        ("vq_config.projection_dim", 7, "projection_dim"),
        ("text_config.model_type", "qwen2", "qwen2"),
    ],
)
def test_a_transformers_model_that_is_not_ours_is_refused_by_name(path: str, value: Any, word: str):
    values = to_transformers(PRESETS["janus-pro-1b"], TOKENS)
    with pytest.raises(ConfigError, match=word):
        parse_transformers(changed(values, path, value))


def test_what_transformers_cannot_run_is_refused_by_name():
    with pytest.raises(ConfigError, match="JanusFlow"):
        to_transformers(PRESETS["janusflow-1.3b"], TOKENS)
    for config, word in ((unusual(), "pooling head"), (tiny.CONFIGS["janus"], "image head")):
        with pytest.raises(ConfigError, match=word):
            to_transformers(config, TOKENS)


def test_a_kept_published_config_of_another_model_does_not_count():
    values = to_transformers(PRESETS["janus-pro-1b"], TOKENS)
    kept = to_published(PRESETS["janus-pro-7b"])
    companions = Companions("transformers", values, published={"config.json": kept})
    assert companions.model_config() == PRESETS["janus-pro-1b"]


def test_a_kept_published_config_that_transformers_cannot_hold_does_not_count():
    values = to_transformers(PRESETS["janus-pro-1b"], TOKENS)
    for kept in (published("janusflow-1.3b"), changed(published(), "gen_vision_config.params.grid_size", 7), {}):
        companions = Companions("transformers", values, published={"config.json": kept})
        assert companions.model_config() == PRESETS["janus-pro-1b"]


def test_the_vae_config_is_read_and_written_in_the_diffusers_schema():
    for config in (VAEConfig(), VAEConfig(block_out_channels=(32, 48), layers_per_block=1, norm_num_groups=16)):
        assert parse_vae(to_vae(config)) == config
    for key, value in (
        ("_class_name", "VQModel"),
        ("shift_factor", 0.1),
        ("up_block_types", ["Other"]),
        ("use_quant_conv", False),
    ):
        with pytest.raises(ConfigError, match=key):
            parse_vae({**to_vae(VAEConfig()), key: value})
