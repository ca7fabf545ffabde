"""A name becomes a folder, or an error that says what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError

from openjanus.checkpoints import locate
from openjanus.checkpoints.locate import find_checkpoint, find_description, find_vae
from openjanus.errors import CheckpointError


def hub(monkeypatch: pytest.MonkeyPatch, folder: Path, files: list[str]) -> list[list[str]]:
    """A hub whose every repository holds these files; the patterns that were asked for."""
    asked: list[list[str]] = []

    def download(name: str, allow_patterns: list[str], local_files_only: bool) -> str:
        asked.append(allow_patterns)
        for file in files:
            if any(Path(file).match(pattern) for pattern in allow_patterns):
                (folder / file).touch()
        return str(folder)

    monkeypatch.setattr(locate, "snapshot_download", download)
    return asked


def test_a_folder_is_itself(tmp_path: Path):
    assert find_checkpoint(tmp_path) == tmp_path
    assert find_checkpoint(str(tmp_path)) == tmp_path


def test_a_home_folder_may_be_written_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert find_checkpoint("~/model") == tmp_path / "model"


def test_a_bundled_name_wins_over_a_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for place in ("assets", "here"):
        (tmp_path / place / "janus-tiny").mkdir(parents=True)
        (tmp_path / place / "janus-tiny" / "config.json").touch()
    monkeypatch.setattr(locate, "ASSETS", tmp_path / "assets")
    monkeypatch.chdir(tmp_path / "here")
    assert find_checkpoint("janus-tiny") == tmp_path / "assets" / "janus-tiny"
    assert find_checkpoint("./janus-tiny") == Path("janus-tiny")


def test_a_hub_id_is_fetched_with_safetensors_before_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = hub(monkeypatch, tmp_path, ["config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin"])
    assert find_checkpoint("deepseek-ai/Janus-Pro-1B") == tmp_path
    assert not (tmp_path / "pytorch_model.bin").exists()
    assert asked[-1] == ["*.json", "*.jinja", "*.safetensors"]


def test_a_hub_id_with_bin_files_only_is_fetched_with_those(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hub(monkeypatch, tmp_path, ["config.json", "pytorch_model.bin"])
    assert find_checkpoint("deepseek-ai/Janus-Pro-1B") == tmp_path
    assert (tmp_path / "pytorch_model.bin").exists()


@pytest.mark.parametrize("files", [["README.md"], ["config.json"]])
def test_a_repository_that_is_no_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str]):
    hub(monkeypatch, tmp_path, files)
    with pytest.raises(CheckpointError, match=r"some/one .*has no config|some/one has no weights"):
        find_checkpoint("some/one")


@pytest.mark.parametrize(
    "make",
    [
        lambda: OfflineModeIsEnabled("offline\nmode"),
        lambda: LocalEntryNotFoundError("not\nhere"),
        lambda: RepositoryNotFoundError("404 Client Error\n\nRepository Not Found", response=_response()),
        lambda: ConnectionError("no\nroute"),
        lambda: OSError(28, "No space left on device"),
    ],
    ids=["offline", "not cached", "unknown", "no network", "disk full"],
)
def test_a_hub_that_gives_nothing_is_one_line_that_says_what_to_do(
    make: Callable[[], Exception], monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object, **__: object) -> str:
        raise make()

    monkeypatch.setattr(locate, "snapshot_download", refuse)
    with pytest.raises(CheckpointError) as error:
        find_checkpoint("deepseek-ai/Janus-Pro-1B")
    text = str(error.value)
    assert "\n" not in text
    for words in ("deepseek-ai/Janus-Pro-1B", "HF_HUB_OFFLINE", "folder"):
        assert words in text, text


def _response() -> object:
    import httpx

    return httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co/x"))


@pytest.mark.parametrize("name", ["~nobody-of-that-name", "~nobody-of-that-name/model", "a\0b", "a" * 5000, "\ud800"])
def test_a_name_that_is_no_path_is_one_line(name: str):
    with pytest.raises(CheckpointError, match="no path that can be used here") as error:
        find_checkpoint(name)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    str(error.value).encode()


def test_a_hub_id_whose_index_is_a_small_file_is_fetched_with_its_bin_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}')
    hub(monkeypatch, tmp_path, ["config.json", "pytorch_model-00001-of-00001.bin"])
    find_checkpoint("deepseek-ai/Janus-Pro-7B")
    assert (tmp_path / "pytorch_model-00001-of-00001.bin").exists()


def test_a_description_fetches_small_files_only_and_nothing_if_the_cache_holds_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = hub(monkeypatch, tmp_path, ["config.json", "tokenizer.json", "model.safetensors"])
    assert find_description(str(tmp_path)) == (tmp_path, False)
    assert find_description("deepseek-ai/Janus-Pro-1B") == (tmp_path, True)
    assert asked == [["config.json"], ["*.json", "*.jinja"]]
    assert not (tmp_path / "model.safetensors").exists()
    (tmp_path / "model.safetensors").touch()
    find_description("deepseek-ai/Janus-Pro-1B")
    assert len(asked) == 3


def test_a_description_is_made_of_what_the_cache_holds_where_the_hub_gives_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "config.json").touch()

    def download(name: str, local_files_only: bool, **_: object) -> str:
        if not local_files_only:
            raise ConnectionError("no route")
        return str(tmp_path)

    monkeypatch.setattr(locate, "snapshot_download", download)
    assert find_description("deepseek-ai/Janus-Pro-1B") == (tmp_path, True)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match="could not be downloaded"):
        find_description("deepseek-ai/Janus-Pro-1B")


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "/no/such/place", "a/b/c", "https://huggingface.co/a/b", ""])
def test_a_name_that_is_nothing_says_what_a_name_may_be(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="janus-tiny"):
        find_checkpoint(name)


def test_a_weight_file_is_answered_with_its_folder(tmp_path: Path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match="give the folder it lies in"):
        find_checkpoint(tmp_path / "model.safetensors")


def test_the_vae_is_looked_for_in_the_folder_then_the_cache_then_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert find_vae(tmp_path) is None
    (tmp_path / "cache").mkdir()
    asked: list[bool] = []

    def download(name: str, allow_patterns: list[str], local_files_only: bool) -> str:
        asked.append(local_files_only)
        if not local_files_only:
            for file in allow_patterns:
                (tmp_path / "cache" / file).touch()
        elif not any((tmp_path / "cache").iterdir()):
            raise LocalEntryNotFoundError("not cached")
        return str(tmp_path / "cache")

    monkeypatch.setattr(locate, "snapshot_download", download)
    assert find_vae(tmp_path, fetch=False) is None
    assert asked == [True]
    assert find_vae(tmp_path) == tmp_path / "cache"
    assert asked == [True, True, False]
    assert find_vae(tmp_path) == find_vae(tmp_path, fetch=False) == tmp_path / "cache"
    assert asked[3:] == [True, True]
    (tmp_path / "vae").mkdir()
    with pytest.raises(CheckpointError, match="vae holds no config"):
        find_vae(tmp_path)
    (tmp_path / "vae" / "config.json").touch()
    assert find_vae(tmp_path) == tmp_path / "vae"
