"""Errors: one family. Each message says what came, what is allowed and what to do next, in one line.

The command line prints the message alone and exits with 2; nothing else in the package catches these.
"""


class JanusError(Exception):
    """Base of everything a user can cause and mend."""


class CheckpointError(JanusError):
    """A checkpoint cannot be found, read, matched to a model, or written."""


class ConfigError(JanusError):
    """A configuration names an unknown part or an impossible size."""


class ImageError(JanusError):
    """An image cannot be found, decoded, or is too large to decode safely."""


class PromptError(JanusError):
    """A prompt, or an option of a request, is outside what the model allows."""


class EngineError(JanusError):
    """A request cannot be taken or finished: too little memory, or too late."""


class TrainingError(JanusError):
    """A training run cannot go on: a loss that is no number, a full disk, too little memory."""


class DataError(JanusError):
    """Data to learn from or to be measured on is missing, broken or of another kind than it should be."""
