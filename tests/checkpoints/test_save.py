"""A save is whole or not at all, and nothing that a user had is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tiny
from openjanus.checkpoints import writing
from openjanus.checkpoints.files import open_weights
from openjanus.checkpoints.load import load_checkpoint
from openjanus.checkpoints.save import save_checkpoint
from openjanus.errors import CheckpointError, ConfigError

from .conftest import Save, assert_same_tensors, convertible_model
from .spoiling import WHOLE


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_saved_is_loaded_with_every_bit(save: Save, variant: str, dtype: torch.dtype):
    folder = save(variant, dtype=dtype)
    loaded = load_checkpoint(folder)
    wanted = tiny.tiny_model(variant, dtype).state_dict()
    # A float16 VAE is read as float32.
    wanted = {name: loaded.model.state_dict()[name] if name.startswith("generation.vae.") else wanted[name] for name in wanted}
    assert_same_tensors(loaded.model.state_dict(), wanted)
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == str(dtype).removeprefix("torch.")


def test_the_processor_comes_back_as_it_was(save: Save, variant: str):
    came, wanted = load_checkpoint(save(variant)).processor, tiny.tiny_processor(variant)
    assert came.chat.template == wanted.chat.template
    assert came.chat.system_prompt == wanted.chat.system_prompt
    assert came.chat.roles == (wanted.chat.roles or wanted.chat.template.roles)
    assert came.images.config == wanted.images.config
    assert came.tokenizer.encode("how many <image_placeholder>?") == wanted.tokenizer.encode("how many <image_placeholder>?")
    for name in ("slots_per_image", "begin_is_slot", "add_special_token", "context", "vocab_size"):
        assert getattr(came, name) == getattr(wanted, name), name


def test_large_models_are_split_into_shards_with_an_index(save: Save, variant: str):
    folder = save(variant, max_shard_size=100_000)
    shards = sorted(folder.glob("model-*.safetensors"))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(shards) > 2 and not (folder / WHOLE).exists()
    assert {path.name for path in shards} == set(index["weight_map"].values())
    for path in shards:
        names = set(load_file(path))
        assert names == {name for name, home in index["weight_map"].items() if home == path.name}
        assert path.stat().st_size < 120_000 or len(names) == 1
    assert index["metadata"]["total_size"] == sum(header.bytes for header in open_weights(folder).headers.values())
    assert_same_tensors(load_checkpoint(folder).model.state_dict(), tiny.tiny_model(variant).state_dict())


def test_mixed_dtypes_lie_where_they_can_be_mapped(tmp_path: Path):
    folder = tmp_path / "mixed"
    model = convertible_model(torch.bfloat16)
    model.language.model.norm.weight.data = model.language.model.norm.weight.data.float()
    model.understanding.encoder.vision_tower.norm.bias.data = torch.zeros(24, dtype=torch.float64)
    save_checkpoint(model, tiny.tiny_processor("janus"), folder)
    content = (folder / WHOLE).read_bytes()
    length = int.from_bytes(content[:8], "little")
    sizes = {"BF16": 2, "F32": 4, "F64": 8}
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__")
    assert all((8 + length + entry["data_offsets"][0]) % sizes[entry["dtype"]] == 0 for entry in header.values())
    assert load_file(folder / WHOLE)["language_model.model.norm.weight"].dtype == torch.float32


def test_keys_and_files_of_the_checkpoint_it_came_from_are_kept(save: Save, tmp_path: Path, variant: str):
    folder = save(variant)
    for name in ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, "my_key": name}))
    for name in ("special_tokens_map.json", "chat_template.jinja", "generation_config.json"):
        (folder / name).write_text('{"mine": true}\n')
    loaded = load_checkpoint(folder)
    save_checkpoint(loaded.model, loaded.processor, tmp_path / "again", companions=loaded.companions)
    for path in folder.glob("*.json*"):
        assert json.loads((tmp_path / "again" / path.name).read_text()) == json.loads(path.read_text()), path.name
    assert (tmp_path / "again" / "chat_template.jinja").read_text() == '{"mine": true}\n'
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_a_checkpoint_may_say_that_it_is_untrained(save: Save, tmp_path: Path):
    loaded = load_checkpoint(save("janus", untrained=True))
    assert loaded.untrained
    save_checkpoint(loaded.model, loaded.processor, tmp_path / "trained", companions=loaded.companions)
    assert not load_checkpoint(tmp_path / "trained").untrained


def test_a_checkpoint_saved_over_another_replaces_it_and_keeps_what_else_lay_there(save: Save, variant: str):
    folder = save(variant, max_shard_size=100_000)
    (folder / "README.md").write_text("mine")
    (folder / "logs" / "deep").mkdir(parents=True)
    (folder / "logs" / "deep" / "loss.txt").write_text("0.5")
    (folder / "chat_template.jinja").write_text("of the old one")
    save(variant, dtype=torch.bfloat16)
    assert (folder / "README.md").read_text() == "mine"
    assert (folder / "logs" / "deep" / "loss.txt").read_text() == "0.5"
    assert not list(folder.glob("model-*")) and not (folder / "chat_template.jinja").exists()
    assert load_checkpoint(folder).model.dtype == torch.bfloat16
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_model_may_be_saved_over_the_checkpoint_it_is_mapped_from(saved: Path, variant: str):
    loaded = load_checkpoint(saved)
    save_checkpoint(loaded.model, loaded.processor, saved, companions=loaded.companions)
    wanted = tiny.tiny_model(variant).state_dict()
    assert_same_tensors(loaded.model.state_dict(), wanted)
    assert_same_tensors(load_checkpoint(saved).model.state_dict(), wanted)


def test_a_link_to_a_checkpoint_stays_a_link(saved: Path, variant: str, tmp_path: Path):
    (tmp_path / "link").symlink_to(saved)
    save_checkpoint(tiny.tiny_model(variant), tiny.tiny_processor(variant), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    load_checkpoint(saved)


@pytest.mark.parametrize("fails_in", ["write_safetensors", "_sync_folder", "_swap", "_carry_over"])
def test_a_save_that_fails_leaves_the_old_checkpoint_and_nothing_else(
    saved: Path, variant: str, monkeypatch: pytest.MonkeyPatch, fails_in: str
):
    (saved / "README.md").write_text("mine")
    before = everything(saved)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, fails_in, fail)
    with pytest.raises(CheckpointError, match="No space left on device") as error:
        save_checkpoint(tiny.tiny_model(variant, torch.bfloat16), tiny.tiny_processor(variant), saved)
    assert "\n" not in str(error.value)
    assert everything(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_rename_that_fails_puts_the_old_checkpoint_back(saved: Path, variant: str, monkeypatch: pytest.MonkeyPatch):
    before = everything(saved)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(CheckpointError, match="Input/output error"):
        save_checkpoint(tiny.tiny_model(variant, torch.bfloat16), tiny.tiny_processor(variant), saved)
    assert everything(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


_SAVER = """
import sys, time
import tiny
from pathlib import Path
from openjanus.checkpoints import save, writing

write = writing.write_safetensors
def slowly(path, groups):
    write(path, groups)
    print("written", flush=True)
    time.sleep(60)
writing.write_safetensors = slowly
save.save_checkpoint(tiny.tiny_model("janus"), tiny.tiny_processor("janus"), Path(sys.argv[1]))
"""


@pytest.mark.multiproc
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_save_killed_in_the_middle_leaves_the_old_checkpoint(save: Save, kill: signal.Signals):
    folder = save("janus", dtype=torch.bfloat16)
    before = everything(folder)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "tests"]), "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", _SAVER, str(folder)], cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        time.sleep(0.1)
        process.send_signal(kill)
    assert everything(folder) == before
    # An interrupted save tidies up; one that was killed cannot.
    assert len(list(folder.parent.iterdir())) == (1 if kill == signal.SIGINT else 2)
    save("janus")
    assert load_checkpoint(folder).model.dtype == torch.float32


def test_a_folder_with_something_else_in_it_is_refused_untouched(tmp_path: Path, variant: str):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.tex").write_text("mine")
    (folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        save_checkpoint(tiny.tiny_model(variant), tiny.tiny_processor(variant), folder)
    assert everything(folder) == {"chapter1.tex": b"mine", "config.json": b"{}"}


@pytest.mark.parametrize("config", ['{"model_type": "llama"}', '{"model_type": ["janus"]}', "{}", "no JSON"])
def test_another_models_checkpoint_is_refused_untouched(tmp_path: Path, config: str):
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(config)
    (folder / WHOLE).write_text("X")
    with pytest.raises(CheckpointError, match="holds no checkpoint of Janus"):
        save_checkpoint(tiny.tiny_model("janus"), tiny.tiny_processor("janus"), folder)
    assert everything(folder) == {"config.json": config.encode(), WHOLE: b"X"}


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path: Path, variant: str):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b" / "c"):
        save_checkpoint(tiny.tiny_model(variant), tiny.tiny_processor(variant), folder)
        load_checkpoint(folder)


def test_a_file_in_the_way_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CheckpointError) as error:
            save_checkpoint(tiny.tiny_model("janus"), tiny.tiny_processor("janus"), path)
        assert "\n" not in str(error.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_unknown_layout_and_a_model_it_cannot_hold_are_refused_before_anything_is_written(tmp_path: Path):
    for variant, layout, word in (
        ("janus", "onnx", "deepseek, transformers"),
        ("janusflow", "transformers", "JanusFlow"),
        ("janus", "transformers", "image head"),
    ):
        with pytest.raises(ConfigError, match=word):
            save_checkpoint(tiny.tiny_model(variant), tiny.tiny_processor(variant), tmp_path / "new", layout=layout)
    assert not list(tmp_path.iterdir())


def test_a_model_saved_in_the_transformers_layout_is_loaded_with_every_bit(tmp_path: Path):
    model = convertible_model()
    save_checkpoint(model, tiny.tiny_processor("janus"), tmp_path / "there", layout="transformers", max_shard_size=100_000)
    loaded = load_checkpoint(tmp_path / "there")
    assert loaded.layout == "transformers"
    assert loaded.config == model.config
    assert_same_tensors(loaded.model.state_dict(), model.state_dict())
    save_checkpoint(loaded.model, loaded.processor, tmp_path / "back", companions=loaded.companions)
    assert_same_tensors(load_checkpoint(tmp_path / "back").model.state_dict(), model.state_dict())
