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
    """The folder of a bundled model ("janus-tiny"), a folder, or a Hugging Face id ("deepseek-ai/Janus-Pro-1B").

    A bundled name wins over a folder of that name here; write ./janus-tiny for the folder. CheckpointError says what to do.
    """
    text = str(name)
    if text in BUNDLED and (ASSETS / text / "config.json").exists():
        return ASSETS / text
    path = Path(text).expanduser()
    if text and path.is_dir():
        return path
    if path.is_file():
        raise CheckpointError(f"{text} is a file; give the folder it lies in, with config.json and the tokenizer beside it")
    if not _HUB_ID.fullmatch(text):
        raise CheckpointError(
            f"there is no folder {text!r}; give a folder, a Hugging Face id such as deepseek-ai/Janus-Pro-1B, "
            f"or one of {', '.join(BUNDLED)}"
        )
    return _fetch_checkpoint(text)


def _fetch_checkpoint(hub_id: str) -> Path:
    folder = _fetch(hub_id, _SMALL_FILES)
    if not (folder / "config.json").exists():
        raise CheckpointError(f"{hub_id} on the Hugging Face hub has no config.json, so it is no Janus checkpoint")
    for pattern in _WEIGHT_FILES:
        folder = _fetch(hub_id, [*_SMALL_FILES, pattern])
        if has_weights(folder):
            return folder
    raise CheckpointError(f"{hub_id} has no weights in the local cache or on the Hugging Face hub; choose another repository")


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


def find_vae(folder: Path) -> Path | None:
    """The folder of a JanusFlow's VAE: `vae/` in the checkpoint, else stabilityai/sdxl-vae from the cache or the hub, else None.

    A `vae/` without weights is an unfinished copy: CheckpointError.
    """
    own = folder / "vae"
    if own.is_dir():
        if not has_weights(own):
            raise CheckpointError(f"{own} holds no weights; put those of {SDXL_VAE} there, or remove the folder")
        return own
    for local in (True, False):
        for pattern in _WEIGHT_FILES[:2]:
            try:
                found = _fetch(SDXL_VAE, ["config.json", f"diffusion_pytorch_model{pattern[1:]}"], local)
            except CheckpointError:
                break
            if has_weights(found):
                return found
    return None
