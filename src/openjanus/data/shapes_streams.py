"""Endless streams of the synthetic world: what lies at place k is a function of the stream, the seed and k alone.

Training reads the streams below; evaluation has streams of its own (names beginning with "held out"), so no scene is in both.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np

from openjanus.data.samples import Sample
from openjanus.data.shapes import CANVAS, Scene, draw
from openjanus.data.shapes_compositions import (
    TRAINING_TASKS,
    Composition,
    compose_for_training,
    contents,
    sample_scene,
)
from openjanus.data.shapes_lookups import lookups
from openjanus.data.shapes_questions import KINDS, Turn, converse
from openjanus.data.shapes_rivals import rival
from openjanus.data.shapes_talk import chat, story, told
from openjanus.data.shapes_text import caption, describe
from openjanus.types import Message

# One number a stream, never used again for another.
_STREAMS = {
    "scene": 1,
    "category": 2,
    "painting": 3,
    "reading": 4,
    "chat": 5,
    "story": 6,
    "told": 7,
    "lookups": 8,
    "rival": 9,
    "held out prompts": 101,
    "held out questions": 102,
}


def stream(name: str, seed: int, k: int) -> np.random.Generator:
    """The source of randomness of place k of a stream."""
    return np.random.Generator(np.random.PCG64([_STREAMS[name], seed, k]))


@dataclass(frozen=True, slots=True)
class Painting:
    """A scene and a text that asks for it; rival: a text that asks for something else, "" if there is none."""

    scene: Scene
    composition: Composition
    text: str
    rival: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """A scene and some questions about it, in a row."""

    scene: Scene
    turns: tuple[Turn, ...]


def scene(seed: int, k: int) -> Scene:
    """Any scene without withheld pairs: for tokenizers, encoders and their dense labels."""
    return sample_scene(stream("scene", seed, k))


def category(seed: int, k: int) -> Painting:
    """A scene of one object and its bare name, as in "red circle": the place that ImageNet's class names have in the papers."""
    rng = stream("category", seed, k)
    composition = compose_for_training(rng, {"colors": 1})
    (mention,) = composition.mentions
    return Painting(sample_scene(rng, composition), composition, f"{mention.colour} {mention.shape}")


def painting(seed: int, k: int, tasks: Mapping[str, float] = TRAINING_TASKS, long: float = 0.1, rivals: bool = False) -> Painting:
    """A caption and a scene that holds exactly what it says.

    tasks: shares of GenEval's tasks and "free" among the captions. long: share of texts of several sentences instead.
    rivals: with texts that ask for something else, but for those of several sentences.
    """
    rng = stream("painting", seed, k)
    if rng.random() < long:
        while True:
            made = sample_scene(rng)
            if (text := describe(rng, made)) is not None:
                return Painting(made, contents(made.objects), text)
    composition = compose_for_training(rng, tasks)
    made = sample_scene(rng, composition)
    # In the same words, as near as can be.
    words = deepcopy(rng)
    other = caption(words, rival(stream("rival", seed, k), composition)) if rivals else ""
    return Painting(made, composition, caption(rng, composition), other)


def reading(seed: int, k: int, turns: int = 1, kinds: Sequence[str] = (*KINDS, "description")) -> Reading:
    """A scene with one to `turns` questions of the given kinds (as many as it leaves room for)."""
    rng = stream("reading", seed, k)
    while True:
        made = sample_scene(rng)
        asked = converse(rng, made, turns, kinds)
        if asked:
            return Reading(made, tuple(asked))


def talk(seed: int, k: int) -> tuple[Turn, ...]:
    """One to three turns without a picture."""
    return tuple(chat(stream("chat", seed, k)))


def plain_text(seed: int, k: int) -> str:
    """A few sentences about a scene nobody sees."""
    return story(stream("story", seed, k))


# -- the same as samples of the trainer -------------------------------------------------


@dataclass(frozen=True)
class PaintingSource:
    """Texts and pictures of size x size.

    categories: single objects by their bare names (the papers' ImageNet phase). rivals: with texts that do not
    describe the pictures, to learn from by contrast.
    """

    seed: int = 0
    size: int = CANVAS
    tasks: Mapping[str, float] = field(default_factory=TRAINING_TASKS.copy)
    long: float = 0.1
    categories: bool = False
    rivals: bool = False

    def __getitem__(self, k: int) -> Sample:
        made = category(self.seed, k) if self.categories else painting(self.seed, k, self.tasks, self.long, self.rivals)
        picture = draw(made.scene, self.size)
        return Sample("generation", (Message("user", made.text),), _sample_seed(self.seed, k), picture, made.rival)


@dataclass(frozen=True)
class ReadingSource:
    """Pictures of size x size, each with up to `turns` questions and answers in a row."""

    seed: int = 0
    size: int = CANVAS
    turns: int = 3
    kinds: Sequence[str] = (*KINDS, "description")

    def __getitem__(self, k: int) -> Sample:
        made = reading(self.seed, k, self.turns, self.kinds)
        return Sample("understanding", _messages(made.turns, draw(made.scene, self.size)), _sample_seed(self.seed, k))


@dataclass(frozen=True)
class TalkSource:
    """Conversations without pictures."""

    seed: int = 0

    def __getitem__(self, k: int) -> Sample:
        return Sample("text", _messages(talk(self.seed, k)), _sample_seed(self.seed, k))


def _messages(turns: Sequence[Turn], image: object = None) -> tuple[Message, ...]:
    """Questions and answers as messages; the image stands before the first question."""
    messages = []
    for number, turn in enumerate(turns):
        images = (image,) if image is not None and number == 0 else ()
        messages += [Message("user", turn.question, images), Message("assistant", turn.answer)]
    return tuple(messages)


def _sample_seed(seed: int, k: int) -> int:
    """Different for each sample of a run, and for the same sample of two runs with different seeds."""
    return (seed << 40) + k


@dataclass(frozen=True)
class ToldSource:
    """Scenes told in words, each with up to `turns` questions and answers in a row."""

    seed: int = 0
    turns: int = 6

    def __getitem__(self, k: int) -> Sample:
        turns = told(stream("told", self.seed, k), self.turns)
        return Sample("text", _messages(turns), _sample_seed(self.seed, k))


@dataclass(frozen=True)
class LookupSource:
    """Words asked for by what stands beside them, in `turns` lists."""

    seed: int = 0
    turns: int = 3

    def __getitem__(self, k: int) -> Sample:
        turns = lookups(stream("lookups", self.seed, k), self.turns)
        return Sample("text", _messages(turns), _sample_seed(self.seed, k))


@dataclass(frozen=True)
class StorySource:
    """Plain text about the synthetic world, without questions: what a language model learns to speak from."""

    seed: int = 0

    def __getitem__(self, k: int) -> Sample:
        return Sample("text", (Message("assistant", plain_text(self.seed, k)),), _sample_seed(self.seed, k))
