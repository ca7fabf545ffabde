"""The processor of a checkpoint is what its small files say, and what is known where they are silent."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

import tiny
from openjanus.checkpoints.companions import read_companions
from openjanus.checkpoints.processors import load_processor
from openjanus.errors import CheckpointError, ConfigError
from openjanus.processing.chat import SYSTEM_PROMPT
from openjanus.processing.images import CLIP_MEAN
from openjanus.processing.prompts import Processor

from .conftest import Save

PRO, PLAIN = ("<|User|>", "<|Assistant|>"), ("User", "Assistant")


def edit(folder: Path, name: str, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    values = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def read(folder: Path, variant: str = "janus", name: str = "") -> Processor:
    return load_processor(folder, read_companions(folder), tiny.CONFIGS[variant], name)


def test_stated_roles_count_most(save: Save, variant: str):
    folder = save(variant)
    edit(folder, "processor_config.json", roles=["Human", "Robot"])
    (folder / "chat_template.jinja").write_text("<|User|>")
    assert read(folder, variant, "deepseek-ai/Janus-1.3B").chat.roles == ("Human", "Robot")
    for wrong in ("User", ["User"], [1, 2]):
        edit(folder, "processor_config.json", roles=wrong)
        with pytest.raises(ConfigError, match="roles"):
            read(folder, variant)


@pytest.mark.parametrize("template", ["chat_template.jinja", "chat_template.json"])
def test_then_a_chat_template_that_shows_them(save: Save, variant: str, template: str):
    folder = save(variant)
    edit(folder, "processor_config.json", roles=None)
    (folder / template).write_text('{"chat_template": "<|User|>: "}')
    assert read(folder, variant, "janus-1.3b").chat.roles == PRO


def test_then_what_is_known_of_the_published_model(save: Save):
    folder, flow = save("janus", "janus"), save("janusflow", "flow")
    for each in (folder, flow):
        edit(each, "processor_config.json", roles=None)
    assert read(flow, "janusflow").chat.roles == PLAIN
    for name in ("deepseek-ai/Janus-1.3B", "/models/janus-1.3b", "my-janus-1.3b/"):
        assert read(folder, name=name).chat.roles == PLAIN
    assert read(folder, name="deepseek-ai/Janus-Pro-1B").chat.roles == PRO
    folder.rename(folder.parent / "Janus-1.3B")
    assert read(folder.parent / "Janus-1.3B").chat.roles == PLAIN


def test_at_last_what_the_vocabulary_shows(save: Save):
    folder = save("janus")
    edit(folder, "processor_config.json", roles=None)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["content"] != "<|User|>"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert read(folder).chat.roles == PLAIN


def test_without_processor_files_the_published_values_hold(save: Save, variant: str):
    folder = save(variant)
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        (folder / name).unlink()
    processor = read(folder, variant)
    images = processor.images.config
    assert (images.image_size, images.min_size, images.image_mean, images.image_std) == (16, 14, (0.5,) * 3, (0.5,) * 3)
    assert images.fill == (127, 127, 127) and images.do_normalize
    assert (processor.chat.name, processor.chat.system_prompt, processor.add_special_token) == ("deepseek", SYSTEM_PROMPT, False)
    assert processor.slots_per_image == tiny.CONFIGS[variant].understanding.slots
    assert processor.begin_is_slot == (variant == "janusflow")


def test_a_partial_preprocessor_config_is_completed_as_the_published_class_does(save: Save):
    folder = save("janus")
    (folder / "preprocessor_config.json").write_text('{"image_size": 16}')
    assert read(folder).images.config.image_mean == CLIP_MEAN


def test_images_of_another_size_than_the_tower_reads_are_refused(save: Save):
    folder = save("janus")
    edit(folder, "preprocessor_config.json", image_size=384)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json makes images of 384 .* reads 16"):
        read(folder)


def test_an_unknown_chat_template_is_refused_with_the_known_ones(save: Save):
    folder = save("janus")
    edit(folder, "processor_config.json", sft_format="chatml")
    with pytest.raises(ConfigError, match=r"chatml.*deepseek"):
        read(folder)


def test_options_of_the_published_processor_are_read(save: Save):
    folder = save("janus")
    edit(folder, "processor_config.json", sft_format="deepseek_old", add_special_token=True, roles=None, image_tag="<|User|>")
    processor = read(folder)
    assert (processor.chat.name, processor.add_special_token) == ("deepseek_old", True)
    assert processor.tokenizer.image == processor.tokenizer.id_of("<|User|>")


def test_a_missing_tokenizer_is_named(save: Save):
    folder = save("janus")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        read(folder)


def add_token_behind_the_embeddings(folder: Path, variant: str) -> tuple[str, int]:
    """A token that the tokenizer knows and the model has no row for; its id is the number of rows."""
    rows = tiny.CONFIGS[variant].language.vocab_size
    path = str(folder / "tokenizer.json")
    backend = tokenizers.Tokenizer.from_file(path)
    backend.add_special_tokens([f"<extra {id}>" for id in range(backend.get_vocab_size(), rows + 1)])
    backend.save(path)
    assert backend.token_to_id(f"<extra {rows}>") == rows
    return f"<extra {rows}>", rows


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("tokenizer_config.json", "bos_token"),
        ("tokenizer_config.json", "eos_token"),
        ("processor_config.json", "pad_tag"),
        ("processor_config.json", "image_start_tag"),
        ("processor_config.json", "image_end_tag"),
    ],
)
def test_a_special_token_behind_the_models_last_embedding_is_refused_by_name(save: Save, variant: str, file: str, key: str):
    folder = save(variant)
    token, rows = add_token_behind_the_embeddings(folder, variant)
    read(folder, variant)
    edit(folder, file, **{key: token})
    with pytest.raises(CheckpointError) as error:
        read(folder, variant)
    assert all(word in str(error.value) for word in (token, f"the id {rows}", f"vocab_size {rows}")), str(error.value)


def test_an_image_tag_behind_the_models_last_embedding_is_fine_because_it_is_never_embedded(save: Save, variant: str):
    folder = save(variant)
    token, rows = add_token_behind_the_embeddings(folder, variant)
    edit(folder, "processor_config.json", image_tag=token)
    assert read(folder, variant).tokenizer.image == rows


def test_transformers_silence_about_the_system_prompt_is_kept(save: Save):
    folder = save("janus")
    edit(folder, "processor_config.json", use_default_system_prompt=False)
    assert read(folder).chat.system_prompt == ""


def test_transformers_5_writes_the_image_processor_into_the_processor_config(save: Save):
    folder = save("janus")
    (folder / "preprocessor_config.json").unlink()
    images = {"size": {"height": 16, "width": 16}, "image_mean": [0.25] * 3, "image_std": [0.5] * 3}
    edit(folder, "processor_config.json", image_processor=images)
    assert read(folder).images.config.image_mean == (0.25,) * 3
