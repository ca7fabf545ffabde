"""What a preview of unified training shows: pictures of prompts, answers to questions."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from openjanus.data.samples import Kind, Sample
from openjanus.janus import Janus
from openjanus.types import Message, TextOptions

PAINTED: tuple[Kind, ...] = ("generation", "editing")
# So many held-out records of each kind are shown where nobody has said what to show.
FEW = 2
# So many tokens an answer may have.
_ANSWER = 48


def chosen(prompts: Sequence[str], questions: Sequence[str], image: str) -> list[Sample]:
    """What a person wants to see: prompts, and questions about one image or none ("")."""
    painted = [Sample("generation", (Message("user", prompt),), 0) for prompt in prompts]
    images = (image,) if image else ()
    return painted + [Sample("understanding", (Message("user", question, images),), 0) for question in questions]


def asking(samples: Iterable[Sample]) -> list[Sample]:
    """A few records without what they teach: the prompts of pictures, conversations up to their last answer. Plain text asks
    nothing."""
    asked = (one if one.kind in PAINTED else replace(one, messages=one.messages[:-1]) for one in samples)
    return list(islice((one for one in asked if one.messages and one.messages[-1].role == "user"), FEW))


def show(janus: Janus, samples: Sequence[Sample], folder: Path | None) -> None:
    """Paint and answer, and write what comes into a folder: 0.png and so on, preview.txt. None: only run along."""
    painted = [sample for sample in samples if sample.kind in PAINTED]
    prompts = [sample.messages[0] for sample in painted]
    pictures = janus.generate([one.text for one in prompts], [one.images for one in prompts], seed=0) if prompts else []
    lines = [f"{number}.png: {_said(sample)}" for number, sample in enumerate(painted)]
    for sample in samples:
        if sample.kind not in PAINTED:
            answer = "".join(janus.chat(sample.messages, TextOptions(max_tokens=_ANSWER))).strip()
            lines.append(f"{_said(sample)}\n  {answer}")
    if folder is None:
        return
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
    (folder / "preview.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _said(sample: Sample) -> str:
    """The text that is painted or answered, and where its images and its own answer are to be found."""
    text = sample.messages[-1].text
    return f"{text} ({sample.origin})" if sample.origin else text
