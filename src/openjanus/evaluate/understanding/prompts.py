"""How questions are worded: the prompts of VLMEvalKit's Janus adapter, with which the papers' scores were reached.

Its conversation has the roles User and Assistant (for Janus-Pro too) and no system prompt; images stand before the text.
"""

from collections.abc import Mapping

TAG = "<image_placeholder>"
ROLES = ("User", "Assistant")
NO_SYSTEM = ""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SHORT = "\nAnswer the question using a single word or phrase."
_LETTER = "\nAnswer with the option's letter from the given choices directly."


def yes_no(question: str) -> str:
    """A question of a yes-or-no set (POPE, MME)."""
    return f"{TAG}\n{question}{_SHORT}"


def short(question: str) -> str:
    """A question of a VQA set, which the adapter leaves as the data set words it: no line break before it."""
    return f"{TAG}{question}{_SHORT}"


def choice(question: str, options: Mapping[str, str], hint: str = "", images: int = 1) -> str:
    """A question with options by letter; without any it is an open one."""
    head = f"\nHint: {hint}\n" if hint else "\n"
    listed = "".join(f"{letter}. {text}\n" for letter, text in options.items())
    return f"{TAG * images}{head}{question}\n" + (f"{listed}{_LETTER}" if options else "Answer the question directly. ")


def free(question: str) -> str:
    """A question whose answer may be long (MM-Vet)."""
    return f"{TAG}\n{question}"
