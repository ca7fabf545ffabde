"""The language model's part of a config.json (`language_config`, `text_config`) <-> LanguageConfig."""

from collections.abc import Mapping
from typing import Any

from openjanus.checkpoints.fields import Field, Section, merge
from openjanus.config import LanguageConfig

# Language models that are Llamas in all but name, as long as their attention looks everywhere.
LLAMAS = ("llama", "mistral")


def parse_language_model(values: Mapping[str, Any]) -> tuple[LanguageConfig, bool]:
    """The Llama of a language model's own config.json, and whether its text head is its table of embeddings.

    ConfigError for another model or a feature ours does not have.
    """
    # Where transformers' Mistral says nothing of a window, it has one.
    section = Section({"sliding_window": 4096, **values} if values.get("model_type") == "mistral" else values, "")
    section.only("model_type", LLAMAS, f"a Janus can be built on {' or '.join(LLAMAS)}")
    section.only("sliding_window", (), "openjanus attends to everything before a token")
    tied = section.flag("tie_word_embeddings", False)
    return parse_language(Section({**values, "model_type": "llama", "tie_word_embeddings": False}, "")), tied


def parse_language(section: Section) -> LanguageConfig:
    """A plain Llama, completed with LlamaConfig's defaults; ConfigError for another model or a feature ours does not have."""
    section.only("model_type", ("llama",), "the language model of a Janus is a 'llama'")
    section.only("hidden_act", ("silu", "swish"), "openjanus runs 'silu'")
    for key in ("attention_bias", "mlp_bias", "tie_word_embeddings"):
        section.only(key, (False,), "openjanus runs Llamas without it")
    scaling = section.section("rope_scaling", {})
    rope = section.section("rope_parameters", {})
    for block in (scaling, rope):
        for key in ("rope_type", "type"):
            block.only(key, ("default",), "openjanus runs plain rotary positions ('default')")
        block.only("partial_rotary_factor", (1,), "openjanus turns whole heads")
    default = LanguageConfig()
    return LanguageConfig(
        vocab_size=section.integer("vocab_size", default.vocab_size),
        hidden_size=section.integer("hidden_size", default.hidden_size),
        intermediate_size=section.integer("intermediate_size", default.intermediate_size),
        num_hidden_layers=section.integer("num_hidden_layers", default.num_hidden_layers),
        num_attention_heads=section.integer("num_attention_heads", default.num_attention_heads),
        num_key_value_heads=section.integer("num_key_value_heads", None),
        head_dim=section.integer("head_dim", None),
        max_position_embeddings=section.integer("max_position_embeddings", default.max_position_embeddings),
        rms_norm_eps=section.number("rms_norm_eps", default.rms_norm_eps, above=0),
        rope_theta=rope.number("rope_theta", section.number("rope_theta", default.rope_theta, above=0), above=0),
    )


def language_json(config: LanguageConfig, base: Mapping[str, Any] | None, dtype: str | None) -> dict[str, Any]:
    """A `language_config`: `base` with the model's sizes in it, rope_theta where a reader of any version finds it."""
    default = LanguageConfig()
    written = merge(
        base,
        {
            "hidden_size": Field(config.hidden_size, default.hidden_size, published=True),
            "intermediate_size": Field(config.intermediate_size, default.intermediate_size, published=True),
            "max_position_embeddings": Field(config.max_position_embeddings, default.max_position_embeddings, published=True),
            "model_type": Field("llama", "llama", published=True),
            "num_attention_heads": Field(config.num_attention_heads, default.num_attention_heads, published=True),
            "num_hidden_layers": Field(config.num_hidden_layers, default.num_hidden_layers, published=True),
            "num_key_value_heads": Field(config.kv_heads, config.num_attention_heads, published=True),
            "vocab_size": Field(config.vocab_size, default.vocab_size, published=True),
            "head_dim": Field(config.head_size, config.hidden_size // config.num_attention_heads),
            "rms_norm_eps": Field(config.rms_norm_eps, default.rms_norm_eps),
            **dtype_fields(base, dtype),
        },
    )
    if isinstance(written.get("rope_parameters"), Mapping):
        written["rope_parameters"] = {**written["rope_parameters"], "rope_theta": config.rope_theta}
    return merge(written, {"rope_theta": Field(config.rope_theta, default.rope_theta)})


def dtype_fields(base: Mapping[str, Any] | None, dtype: str | None) -> dict[str, Field]:
    """The dtype under the key that stood there: transformers 5 writes `dtype`, everyone before `torch_dtype`."""
    if dtype is None:
        return {}
    key = "dtype" if base and "dtype" in base and "torch_dtype" not in base else "torch_dtype"
    return {key: Field(dtype)}
