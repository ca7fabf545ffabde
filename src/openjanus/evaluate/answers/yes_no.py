"""Yes or no: the word an answer comes to, by three scorers' rules."""

from openjanus.evaluate.answers.vqa import strip_punctuation


def by_words(answer: str) -> str:
    """VLMEvalKit's rule: "yes" or "no" if exactly one of the two words occurs, else ""."""
    words = strip_punctuation(answer.lower()).split()
    said = [word for word in ("yes", "no") if word in words]
    return said[0] if len(said) == 1 else ""


def by_negation(answer: str) -> str:
    """POPE's own rule: "no" if the first sentence has the word No, no or not, else "yes"."""
    words = answer.split(".", maxsplit=1)[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def by_beginning(answer: str) -> str:
    """MME's rule as lmms-eval has it: the answer itself, its one letter, or what its first four letters hold; else ""."""
    said = answer.lower().strip().replace(".", "")
    if said in ("yes", "no"):
        return said
    if len(said) == 1:
        return {"y": "yes", "n": "no"}.get(said, "")
    return next((word for word in ("yes", "no") if word in said[:4]), "")
