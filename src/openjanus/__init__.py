"""openjanus: DeepSeek's Janus, Janus-Pro and JanusFlow, in one package.

    model = openjanus.load("deepseek-ai/Janus-Pro-1B", device="cuda", dtype="bfloat16")
    text = model.understand("How many circles are there?", images=["scene.png"])
    images = model.generate("three red circles", n=4, seed=0, guidance=5.0)

Importing this costs nothing: torch comes in with the first name that needs it (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openjanus.errors import CheckpointError as CheckpointError
    from openjanus.errors import ConfigError as ConfigError
    from openjanus.errors import ImageError as ImageError
    from openjanus.errors import JanusError as JanusError
    from openjanus.errors import PromptError as PromptError
    from openjanus.errors import TrainingError as TrainingError
    from openjanus.janus import Janus as Janus
    from openjanus.janus import load as load
    from openjanus.types import ImageOptions as ImageOptions
    from openjanus.types import Message as Message
    from openjanus.types import TextOptions as TextOptions

__version__ = "0.1.0"

_HOME = {
    "Janus": "openjanus.janus",
    "load": "openjanus.janus",
    "ImageOptions": "openjanus.types",
    "Message": "openjanus.types",
    "TextOptions": "openjanus.types",
    "CheckpointError": "openjanus.errors",
    "ConfigError": "openjanus.errors",
    "ImageError": "openjanus.errors",
    "JanusError": "openjanus.errors",
    "PromptError": "openjanus.errors",
    "TrainingError": "openjanus.errors",
}
__all__ = ["__version__", *_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'openjanus' has no attribute {name!r}; it has {', '.join(sorted(__all__))}")


def __dir__() -> list[str]:
    return sorted(__all__)
