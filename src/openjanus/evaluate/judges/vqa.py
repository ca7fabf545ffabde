"""A judge of pictures: answers short questions about them. mPLUG as DPG-Bench has it, or any server that sees images."""

import importlib.util
from base64 import b64encode
from io import BytesIO
from typing import Any, Protocol

from PIL import Image

from openjanus.errors import CheckpointError
from openjanus.evaluate.judges.text import JudgeError, Server

MPLUG = "damo/mplug_visual-question-answering_coco_large_en"


class VisualJudge(Protocol):
    """Answers questions about pictures. name: for the report, and to tell one judge's verdicts from another's."""

    name: str

    def answer(self, image: Image.Image, question: str) -> str:
        """One or a few words, lower case; JudgeError if there are none."""


def visual_judge(name: str, timeout: float) -> VisualJudge:
    """The judge of a name: mplug, mplug:FOLDER or URL#MODEL; CheckpointError says what is wanted where there is none."""
    if name.startswith(("http://", "https://")):
        return ServedVisualJudge(name, timeout)
    kind, _, folder = name.partition(":")
    if kind == "mplug":
        return Mplug(folder or MPLUG)
    said = f"there is no judge {name!r}" if name else "no judge is named"
    raise CheckpointError(
        f"{said} to answer questions about pictures; say --vqa mplug (the official one, {MPLUG}, which runs on the package "
        "modelscope), --vqa mplug:FOLDER, or --vqa URL#MODEL of an OpenAI-compatible server that sees images"
    )


class Mplug:
    """mPLUG-large, fine-tuned on VQA, through modelscope's pipeline."""

    def __init__(self, weights: str) -> None:
        if importlib.util.find_spec("modelscope") is None:
            raise CheckpointError(
                f"mPLUG ({MPLUG}) runs on the package modelscope, which is not installed; install it in an environment of its "
                "own (pip install modelscope) and score there with --score-only, or name another judge with --vqa URL#MODEL"
            )
        from modelscope.pipelines import pipeline  # type: ignore[import-not-found]

        self.name = f"mplug:{weights}"
        self._pipeline: Any = pipeline("visual-question-answering", model=weights)

    def answer(self, image: Image.Image, question: str) -> str:
        """mPLUG's own words."""
        try:
            return str(self._pipeline({"image": image, "question": question})["text"])
        except Exception as error:
            raise JudgeError(f"mPLUG failed on {question!r}: {error}") from error


class ServedVisualJudge:
    """A model that sees images, behind an OpenAI-compatible server. Not the official judge: scores are for comparing alone."""

    def __init__(self, name: str, timeout: float = 60.0) -> None:
        self.name = name
        self._server = Server.of(name, timeout)

    def answer(self, image: Image.Image, question: str) -> str:
        """Its first word, lower case and without punctuation."""
        buffer = BytesIO()
        image.save(buffer, format="PNG")
        url = f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": f"{question}\nAnswer yes or no."},
        ]
        words = self._server.complete(content, temperature=0.0, max_tokens=8).split()
        return words[0].lower().strip(".,;:!\"'") if words else ""
