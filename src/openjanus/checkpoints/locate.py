"""From a name to a folder: bundled models, folders, Hugging Face ids."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from openjanus.checkpoints.files import has_weights
from openjanus.errors import CheckpointError

ASSETS = Path(__file__).resolve().parents[1] / "assets"
BUNDLED = ("janus-tiny", "janusflow-tiny")
# JanusFlow's published checkpoint holds no VAE; it was trained on the latents of this one.
SDXL_VAE = "stabilityai/sdxl-vae"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SMALL_FILES = ["*.json", "*.jinja"]
# In order of preference: later kinds are fetched only if a repository has none of the earlier ones.
_WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pdparams")


def find_checkpoint(name: str | Path) -> Path:
    """The folder of a bundled model ("janus-tiny"), a folder, or a Hugging Face id ("deepseek-ai/Janus-Pro-1B"), then fetched.

    A bundled name wins over a folder of that name here; write ./janus-tiny for the folder. CheckpointError says what to do.
    """
    return _find_folder(name) or _fetch_checkpoint(str(name))


def find_description(name: str | Path) -> tuple[Path, bool]:
    """The folder of a checkpoint and whether it is of the hub; no weights are fetched.

    Of a Hugging Face id it is what the cache holds, weights included, else the small files alone. Errors as `find_checkpoint`.
    """
    folder = _find_folder(name)
    return (_fetch_description(str(name)), True) if folder is None else (folder, False)


def find_adapter(name: str | Path) -> Path:
    """The folder of an adapter in PEFT's format: a folder, or a Hugging Face id, then fetched; else CheckpointError."""
    path = expand_path(name)
    hub = not path.is_dir() and _HUB_ID.fullmatch(str(name))
    folder = _fetch(str(name), ["adapter_config.json", "adapter_model.*"]) if hub else path
    if not (folder / "adapter_config.json").exists():
        raise CheckpointError(
            f"{name} holds no adapter_config.json, so it is no adapter; give the folder of one, such as RUN/final/adapter"
        )
    return folder


def expand_path(path: str | Path) -> Path:
    """A path as a person wrote it, with ~ written out; CheckpointError for one the system cannot look at."""
    try:
        expanded = Path(path).expanduser()
        expanded.stat()
    except (FileNotFoundError, NotADirectoryError):
        return expanded
    except (RuntimeError, ValueError, OSError) as error:  # ~nobody, a null byte, a name too long, no permission
        shown = repr(str(path))
        shown = shown if len(shown) <= 120 else f"{shown[:117]}..."
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise CheckpointError(
            f"{shown} is no path that can be used here ({reason}); write it out in full, or choose another"
        ) from error
    return expanded


def _find_folder(name: str | Path) -> Path | None:
    """The folder of a bundled model or the folder itself, None if it may be a hub id; CheckpointError if it can be nothing."""
    text = str(name)
    if text in BUNDLED and (ASSETS / text / "config.json").exists():
        return ASSETS / text
    path = expand_path(text)
    if text and path.is_dir():
        return path
    if path.is_file():
        raise CheckpointError(f"{text} is a file; give the folder it lies in, with config.json and the tokenizer beside it")
    if not _HUB_ID.fullmatch(text):
        raise CheckpointError(
            f"there is no folder {text!r}; give a folder, a Hugging Face id such as deepseek-ai/Janus-Pro-1B, "
            f"or one of {', '.join(BUNDLED)}"
        )
    return None


def _fetch_checkpoint(hub_id: str) -> Path:
    _fetch_small_files(hub_id)
    for pattern in _WEIGHT_FILES:
        folder = _fetch(hub_id, [*_SMALL_FILES, pattern])
        if has_weights(folder):
            return folder
    raise CheckpointError(f"{hub_id} has no weights in the local cache or on the Hugging Face hub; choose another repository")


def _fetch_description(hub_id: str) -> Path:
    """What the cache holds of a repository, if weights are among it, else its small files; offline, those that are there."""
    cached = _cached(hub_id)
    if cached is not None and has_weights(cached):
        return cached
    try:
        return _fetch_small_files(hub_id)
    except CheckpointError:
        if cached is None:
            raise
        return cached


def _fetch_small_files(hub_id: str) -> Path:
    folder = _fetch(hub_id, _SMALL_FILES)
    if not (folder / "config.json").exists():
        raise CheckpointError(f"{hub_id} on the Hugging Face hub has no config.json, so it is no checkpoint that can be read")
    return folder


def _cached(hub_id: str) -> Path | None:
    """The snapshot's folder in the cache, None if there is none with a config.json."""
    try:
        folder = _fetch(hub_id, ["config.json"], local=True)
    except CheckpointError:
        return None
    return folder if (folder / "config.json").exists() else None


def _fetch(hub_id: str, patterns: list[str], local: bool = False) -> Path:
    """The snapshot's folder, downloaded or from the cache; any failure becomes one line that says what to do."""
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns, local_files_only=local))
    except Exception as error:  # hub, network, disk and offline errors have no common base
        raise CheckpointError(
            f"{hub_id} is neither a folder nor in the local Hugging Face cache, and it could not be downloaded "
            f"({type(error).__name__}). Check the name and the network, unset HF_HUB_OFFLINE if it is set, or download it "
            "elsewhere and give its folder"
        ) from error


def find_vae(folder: Path, fetch: bool = True) -> Path | None:
    """The folder of a JanusFlow's VAE: `vae/` in the checkpoint, else stabilityai/sdxl-vae from the cache or the hub, else None.

    fetch False: never from the hub. A `vae/` without a config.json is an unfinished copy: CheckpointError.
    """
    own = folder / "vae"
    if own.is_dir():
        if not (own / "config.json").exists():
            raise CheckpointError(f"{own} holds no config.json; put the files of {SDXL_VAE} there, or remove the folder")
        return own
    cached = _cached(SDXL_VAE)
    if cached is not None and has_weights(cached):
        return cached
    return _fetch_sdxl_vae() if fetch else None


def _fetch_sdxl_vae() -> Path | None:
    """SDXL's VAE from the hub, None if it cannot be had."""
    for suffix in (".safetensors", ".bin"):
        try:
            folder = _fetch(SDXL_VAE, ["config.json", f"diffusion_pytorch_model{suffix}"])
        except CheckpointError:
            return None
        if has_weights(folder):
            return folder
    return None
