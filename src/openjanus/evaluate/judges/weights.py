"""From the name of a judge to its files: a folder here, or a Hugging Face id that is fetched."""

import importlib.util
from pathlib import Path

from openjanus.checkpoints.locate import expand_path
from openjanus.errors import CheckpointError

_PATTERNS = ["*.json", "*.safetensors", "*.bin", "*.txt"]


def find_weights(name: str, what: str, option: str) -> Path:
    """The folder of a judge's weights and config; CheckpointError says which file or id is wanted, and how to name it.

    what: what it is for, as a person says it; option: of the command line.
    """
    folder = expand_path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder} has no config.json; {option} wants a folder of {what} in transformers' layout")
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"there is no folder {name!r}; {option} wants {what}: a folder, or a Hugging Face id")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_PATTERNS))
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"the weights of {what} are not here and cannot be fetched ({reason}); wanted is the Hugging Face repository {name}: "
            f"fetch it where there is a network (hf download {name} --local-dir FOLDER) and say {option} FOLDER"
        ) from error


def need_transformers(what: str) -> None:
    """CheckpointError if the package that runs a judge is not installed."""
    for package in ("transformers", "scipy"):
        if importlib.util.find_spec(package) is None:
            raise CheckpointError(f"{what} runs on {package}, which is not installed; pip install 'openjanus[evaluate]'")
