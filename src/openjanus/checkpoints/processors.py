"""The processor of a checkpoint: its small files -> `Processor`, and back, in both layouts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openjanus.checkpoints.companions import (
    CHAT_TEMPLATES,
    GENERATION,
    PREPROCESSOR,
    PROCESSOR,
    TOKENIZER_SETTINGS,
    Companions,
)
from openjanus.checkpoints.fields import Field, Section, merge
from openjanus.config import FlowGenerationConfig, JanusConfig
from openjanus.errors import CheckpointError, ConfigError
from openjanus.processing.chat import SYSTEM_PROMPT, ChatFormat
from openjanus.processing.images import ImageProcessor, ImageProcessorConfig
from openjanus.processing.prompts import Processor
from openjanus.processing.tokenizer import FLOW_TAGS, PAD, ROLES, Tokenizer

PLAIN_ROLES = ("User", "Assistant")
# What published processor files say; a checkpoint without them was made for these.
HALF = (0.5, 0.5, 0.5)


def load_processor(folder: Path, companions: Companions, config: JanusConfig, name: str = "") -> Processor:
    """The processor of a checkpoint in `folder`; `name` is what the user called it, which tells Janus-1.3B's chat roles.

    CheckpointError without a tokenizer or a special token, or with one the model has no embedding for; ConfigError for impossible
    values.
    """
    values = {**companions.published.get(PROCESSOR, {}), **companions.json.get(PROCESSOR, {})}
    section = Section(values, PROCESSOR)
    flow = isinstance(config.generation, FlowGenerationConfig)
    tags = {key: section.text(key) for key in ("image_tag", "image_start_tag", "image_end_tag", "pad_tag") if values.get(key)}
    tokenizer = Tokenizer.from_folder(folder, extra_tags=FLOW_TAGS if flow else (), pad_fallback=flow, **tags)
    _check_embedded(tokenizer, config.language.vocab_size)
    silent = values.get("use_default_system_prompt") is False  # transformers' processor then prepends nothing
    return Processor(
        tokenizer=tokenizer,
        images=ImageProcessor(_images(folder, companions, config)),
        chat=ChatFormat(
            name=section.text("sft_format", "deepseek"),
            roles=_roles(values.get("roles"), companions, tokenizer, flow, name or folder.name),
            system_prompt="" if silent else section.text("system_prompt", SYSTEM_PROMPT),
        ),
        slots_per_image=config.understanding.slots,
        begin_is_slot=config.understanding.begin,
        add_special_token=section.flag("add_special_token", False),
        context=config.language.max_position_embeddings,
        vocab_size=config.language.vocab_size,
    )


def _check_embedded(tokenizer: Tokenizer, rows: int) -> None:
    """CheckpointError if a special token of every prompt lies behind the model's embeddings.

    The image tag may: it only stands where an image's embeddings go. So may JanusFlow's generation tag, which no prompt holds.
    """
    for tag, id in (
        (tokenizer.bos_tag, tokenizer.bos),
        (tokenizer.eos_tag, tokenizer.eos),
        (tokenizer.pad_tag, tokenizer.pad),
        (tokenizer.image_start_tag, tokenizer.image_start),
        (tokenizer.image_end_tag, tokenizer.image_end),
    ):
        if id >= rows:
            raise CheckpointError(
                f"{tokenizer.source} gives {tag} the id {id}, but config.json says vocab_size {rows}, so the model has no such "
                "token; use the tokenizer files published with this checkpoint"
            )


def _images(folder: Path, companions: Companions, config: JanusConfig) -> ImageProcessorConfig:
    size = config.understanding.encoder.image_size
    # Transformers 5 writes the image processor's values into processor_config.json.
    values = companions.json.get(PREPROCESSOR) or companions.json.get(PROCESSOR, {}).get("image_processor")
    if not isinstance(values, Mapping):
        return ImageProcessorConfig(size, image_mean=HALF, image_std=HALF)
    images = ImageProcessorConfig.from_json({"image_size": size, **values} if "size" not in values else values)
    if images.image_size != size:
        raise CheckpointError(
            f"{folder / PREPROCESSOR} makes images of {images.image_size} pixels, but config.json says the tower reads {size}; "
            "make them equal"
        )
    return images


def _roles(stated: Any, companions: Companions, tokenizer: Tokenizer, flow: bool, name: str) -> tuple[str, str]:
    """The chat roles: what the checkpoint says, else what is known of the published one it seems to be."""
    if stated is not None:
        if not isinstance(stated, list) or len(stated) != 2 or not all(isinstance(role, str) for role in stated):
            raise ConfigError(f"{PROCESSOR}: roles is {stated!r}; it must be two strings, for user and assistant")
        return stated[0], stated[1]
    if any(ROLES[0].encode() in companions.files.get(template, b"") for template in CHAT_TEMPLATES):
        return ROLES
    if flow or Path(name).name.lower().endswith("janus-1.3b"):
        return PLAIN_ROLES
    # Janus-Pro's vocabulary has them as tokens of their own.
    return ROLES if all(tokenizer.id_of(role) is not None for role in ROLES) else PLAIN_ROLES


# -- writing ----------------------------------------------------------------------------------


def published_files(processor: Processor, companions: Companions | None) -> dict[str, bytes]:
    """The published layout's small files of a processor, by name; keys and files of `companions` that are not ours are kept."""
    base = companions or Companions("deepseek", {})
    chat, images = processor.chat, processor.images.config
    fields = {
        "add_special_token": Field(processor.add_special_token, False, published=True),
        "ignore_id": Field(-100, -100, published=True),
        "image_tag": Field(processor.tokenizer.image_tag, "<image_placeholder>", published=True),
        "mask_prompt": Field(True, True, published=True),
        "num_image_tokens": Field(processor.slots_per_image - int(processor.begin_is_slot)),
        "processor_class": Field("VLChatProcessor", "VLChatProcessor", published=True),
        "roles": Field(list(_roles_of(processor))),
        "sft_format": Field(chat.name, published=True),
        "system_prompt": Field(chat.system_prompt, SYSTEM_PROMPT),
        "image_start_tag": Field(processor.tokenizer.image_start_tag, "<begin_of_image>"),
        "image_end_tag": Field(processor.tokenizer.image_end_tag, "<end_of_image>"),
        "pad_tag": Field(processor.tokenizer.pad_tag, PAD),
    }
    known = base.published_json(PROCESSOR)
    # Options of training that we do not use stay as they were found.
    kept = {key for key in ("ignore_id", "mask_prompt", "processor_class") if known and key in known}
    written = merge(known, {key: field for key, field in fields.items() if key not in kept})
    json_files = {
        PROCESSOR: written,
        PREPROCESSOR: {**(base.published_json(PREPROCESSOR) or {}), **images.to_json()},
    }
    generation = base.published_json(GENERATION)
    if generation is not None:
        json_files[GENERATION] = generation
    files = {name: as_json(values) for name, values in json_files.items()}
    templates = () if base.layout == "deepseek" else CHAT_TEMPLATES
    files |= {name: content for name, content in base.files.items() if name not in templates}
    return files | _tokenizer_files(processor.tokenizer, base)


def _roles_of(processor: Processor) -> tuple[str, str]:
    return processor.chat.roles or processor.chat.template.roles


def _tokenizer_files(tokenizer: Tokenizer, base: Companions) -> dict[str, bytes]:
    """The checkpoint's own tokenizer files where it has them: ours would hold the tags that were appended for JanusFlow."""
    settings = base.published_json(TOKENIZER_SETTINGS) or base.json.get(TOKENIZER_SETTINGS)
    if "tokenizer.json" in base.files:
        return {TOKENIZER_SETTINGS: as_json(settings)} if settings is not None else {}
    return {
        "tokenizer.json": tokenizer.backend.to_str(pretty=True).encode(),
        TOKENIZER_SETTINGS: as_json({**_settings(tokenizer), **(settings or {})}),
    }


def _settings(tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": tokenizer.bos_tag,
        "clean_up_tokenization_spaces": False,
        "eos_token": tokenizer.eos_tag,
        "pad_token": tokenizer.pad_tag,
        "tokenizer_class": "LlamaTokenizerFast",
        **tokenizer.settings,
    }


def token_ids(processor: Processor) -> dict[str, int]:
    """The special tokens' ids that a transformers config.json names."""
    tokenizer = processor.tokenizer
    return {"bos": tokenizer.bos, "eos": tokenizer.eos, "pad": tokenizer.pad, "image": tokenizer.image}


def transformers_files(processor: Processor, companions: Companions | None) -> dict[str, bytes]:
    """The transformers layout's small files of a Janus processor, by name."""
    base = companions or Companions("transformers", {})
    own = base.json if base.layout == "transformers" else {}
    tokenizer, images = processor.tokenizer, processor.images.config
    settings = own.get(TOKENIZER_SETTINGS) or {
        **_settings(tokenizer),
        # In transformers 5 the published class would build a tokenizer of its own and ignore how tokenizer.json splits text.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "padding_side": "left",
        "image_token": tokenizer.image_tag,
        "boi_token": tokenizer.image_start_tag,
        "eoi_token": tokenizer.image_end_tag,
        "extra_special_tokens": {
            "image_token": tokenizer.image_tag,
            "boi_token": tokenizer.image_start_tag,
            "eoi_token": tokenizer.image_end_tag,
        },
    }
    preprocessor = {
        "do_normalize": images.do_normalize,
        "image_mean": images.to_json()["image_mean"],
        "image_processor_type": "JanusImageProcessor",
        "image_std": images.to_json()["image_std"],
        "min_size": images.min_size,
        "processor_class": "JanusProcessor",
        "rescale_factor": images.rescale_factor,
        "size": {"height": images.image_size, "width": images.image_size},
    }
    shared = {
        "processor_class": "JanusProcessor",
        "num_image_tokens": processor.slots_per_image,
        "use_default_system_prompt": bool(processor.chat.system_prompt),
        "roles": list(_roles_of(processor)),
    }
    generation = {
        "bos_token_id": tokenizer.bos,
        "eos_token_id": tokenizer.eos,
        "pad_token_id": tokenizer.pad,
        "generation_kwargs": {"boi_token_id": tokenizer.image_start},
        "guidance_scale": 5,
        "temperature": 1.0,
    }
    files = {
        PROCESSOR: as_json({**own.get(PROCESSOR, {}), **shared}),
        PREPROCESSOR: as_json({**own.get(PREPROCESSOR, {}), **preprocessor}),
        TOKENIZER_SETTINGS: as_json(settings),
        GENERATION: as_json({**own.get(GENERATION, {}), **generation}),
        CHAT_TEMPLATES[0]: chat_template(processor.chat).encode(),
    }
    return _tokenizer_files(tokenizer, base) | base.files | files


def chat_template(chat: ChatFormat) -> str:
    """The checkpoint's way of writing turns as a Jinja template, for transformers' `apply_chat_template`.

    Contents may be strings or lists of text and image parts; an image is its placeholder on a line of its own. The system prompt
    is the processor's business there. ConfigError for a template that is not DeepSeek's.
    """
    template = chat.template
    if template.style != "deepseek":
        raise ConfigError(f"the transformers layout cannot hold the chat template {chat.name!r}; use --layout deepseek")
    user, assistant = chat.roles or template.roles
    names = json.dumps({"user": user, "assistant": assistant, "system": "System"}, ensure_ascii=False)
    separators = json.dumps([template.sep, template.sep2], ensure_ascii=False)
    return (
        f"{{%- set names = {names} -%}}{{%- set separators = {separators} -%}}"
        "{%- for message in messages -%}"
        "{%- set turn = namespace(text='') -%}"
        "{%- if message['content'] is string -%}{%- set turn.text = message['content'] -%}"
        "{%- else -%}{%- for part in message['content'] -%}"
        "{%- set turn.text = turn.text + ('<image_placeholder>\\n' if part['type'] == 'image' else part['text']) -%}"
        "{%- endfor -%}{%- endif -%}"
        "{%- set text = turn.text | trim -%}"
        "{{- names[message['role'] | lower] + ':' -}}"
        "{%- if text -%}{{- ' ' + text + separators[loop.index0 % 2] -}}{%- endif -%}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- names['assistant'] + ':' -}}{%- endif -%}"
    )


def as_json(values: Mapping[str, Any]) -> bytes:
    """A JSON file's content, as the published ones are written."""
    return (json.dumps(values, ensure_ascii=False, indent=2) + "\n").encode()
