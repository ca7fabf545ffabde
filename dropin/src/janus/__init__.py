"""The import name of deepseek-ai/Janus, assembled from openjanus' parts and transformers' Llama.

Importing it does nothing: no patching of the standard library, no output, nothing heavy. `janus.models` and
`janus.janusflow.models` bring the models in and register them with transformers' Auto classes.
"""

from typing import NoReturn

__version__ = "1.0.0"  # of the published package whose names these are

# Names of the unrelated asyncio queue that PyPI calls `janus`.
_QUEUE_NAMES = frozenset({"Queue", "SyncQueue", "AsyncQueue", "SyncQueueEmpty", "AsyncQueueEmpty", "QueueShutDown"})


def __getattr__(name: str) -> NoReturn:
    hint = ""
    if name in _QUEUE_NAMES:
        hint = (
            "; this is DeepSeek's Janus from the distribution openjanus-dropin, not the asyncio queue that PyPI calls janus: "
            "keep the two in separate environments (python -m openjanus_dropin checks)"
        )
    raise AttributeError(f"module 'janus' has no attribute {name!r}{hint}")
