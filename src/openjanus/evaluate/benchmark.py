"""The one concept of this room: a benchmark reads its official files, yields cases, judges samples, and measures judgements.

cases = benchmark.cases(data)                       # Question or Painting, prompts as the protocol words them
samples = ...                                       # sampling.py: answers and pictures of a model
judgements = benchmark.judge(done, tools)           # each sample against what its case expects
measures = benchmark.measures(judgements)           # scores, with the evidence that intervals and comparisons need
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from PIL import Image

from openjanus.errors import ConfigError
from openjanus.evaluate.intervals import Evidence, Statistic, ratio
from openjanus.evaluate.tools import Tools

Picture = Callable[[], Image.Image]
"""An image that is opened when it is wanted; ImageError if it cannot be."""

ANSWER_TOKENS = 2048  # as the papers' protocol allows


@dataclass(frozen=True)
class Question:
    """Something to answer. text: the user's turn, with an image placeholder for each image, or none for images in front.

    task: whose score it counts for. group: what belongs together as evidence ("" is the case alone). facts: what judging needs,
    as JSON. system_prompt: None is the template's own.
    """

    id: str
    task: str
    text: str
    images: tuple[Picture, ...]
    facts: Mapping[str, Any]
    group: str = ""
    system_prompt: str | None = None
    max_tokens: int = ANSWER_TOKENS

    @property
    def count(self) -> int:
        """Samples of the case: an answer is greedy, so there is one."""
        return 1


@dataclass(frozen=True)
class Painting:
    """Something to paint, `count` times: picture i from seed + i.

    files: where the pictures go, in the official layout: one each, or one that holds all of them, tiled. beside: text files that
    the layout wants too. Else as in Question.
    """

    id: str
    task: str
    text: str
    facts: Mapping[str, Any]
    count: int
    files: tuple[str, ...]
    group: str = ""
    beside: Mapping[str, str] = field(default_factory=dict)


Case = Question | Painting


@dataclass(frozen=True)
class Sample:
    """What a model gave for a case: text, or the picture in `image` (below the benchmark's folder); or why there is nothing."""

    case: str
    number: int
    text: str = ""
    image: str = ""
    seed: int | None = None
    error: str = ""


@dataclass(frozen=True)
class Judgement:
    """What a sample is worth. value: 0 to 1; read: what was read in it; wrong: what is wrong with it.

    skipped: why it has no value and counts for no score. facts: what else measuring needs, as JSON.
    """

    case: str
    number: int
    task: str
    group: str
    value: float = 0.0
    read: str = ""
    expected: str = ""
    wrong: str = ""
    skipped: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a line of judgements.jsonl."""
        return asdict(self)


@dataclass(frozen=True)
class Measure:
    """A score to be: `scale` times a statistic of the sums of some evidence; count: samples that it is of.

    scale: 100 for per cent, or whatever the papers write. fixed: the value itself, where it is of no sum over samples and so has
    no interval (FID). higher: whether more is better.
    """

    name: str
    strata: tuple[Evidence, ...] = ()
    count: int = 0
    statistic: Statistic = ratio
    scale: float = 100.0
    higher: bool = True
    fixed: float | None = None


@dataclass(frozen=True)
class Settings:
    """How a benchmark is run: what everybody must set alike to get the same number.

    limit: only the first so many cases of each task. batch: prompts or pictures that run together; a part of the settings because
    sums of another order may round otherwise. guidance, temperature, steps: of pictures; None is the model's own. size: pixels of
    scenes that a benchmark draws itself; None is what the model reads. threads: of each process on a CPU; a part of
    them for the same reason, and one because every machine and every launcher would choose another number.
    """

    protocol: str = ""
    seed: int = 0
    limit: int | None = None
    images_per_prompt: int | None = None
    batch: int = 32
    guidance: float | None = None
    temperature: float = 1.0
    steps: int = 30
    size: int | None = None
    threads: int = 1


Done = Sequence[tuple[Case, Sequence[Sample]]]


class Benchmark(ABC):
    """A benchmark under one protocol. It knows its settings and the files that `cases` found, and nothing of a run."""

    name: ClassVar[str]
    title: ClassVar[str]
    """One line: what it measures, of how many cases."""
    source: ClassVar[str]
    """Where people get its files, and what they are called."""
    protocols: ClassVar[tuple[str, ...]] = ("official",)
    """The first is the papers'."""
    roles: ClassVar[tuple[str, str] | None] = None
    """Role words of the protocol, where they are not the checkpoint's own."""
    tied: ClassVar[bool] = False
    """Whether a group counts only as a whole: one skipped sample then takes the others along."""

    def __init__(self, settings: Settings) -> None:
        protocol = settings.protocol or self.protocols[0]
        if protocol not in self.protocols:
            raise ConfigError(f"{self.name} has no protocol {protocol!r}; there is {', '.join(self.protocols)}")
        self.settings = settings
        self.protocol = protocol

    @abstractmethod
    def cases(self, data: Path | None) -> list[Case]:
        """All cases, in the official order; DataError for files that are missing, broken or of another kind."""

    @abstractmethod
    def judge(self, done: Done, tools: Tools) -> Iterator[Judgement]:
        """A judgement of every sample, in order. `tools` hold what it takes: judges, pictures, a memory of verdicts."""

    @abstractmethod
    def measures(self, judgements: Sequence[Judgement]) -> list[Measure]:
        """The scores, the headline first, of judgements none of which is skipped."""

    def warnings(self, cases: Sequence[Case]) -> list[str]:
        """What makes scores of these cases differ from the papers', such as files of another version; told in the report."""
        return []

    def fit(self, image_size: int) -> None:  # noqa: B027
        """Told, before sampling, how large the images are that the model reads."""

    def wanted(self, tools: Tools) -> None:  # noqa: B027
        """Load what judging will take, so that what is missing is known before hours of sampling; errors say what it is."""

    def export(self, done: Done, folder: Path) -> list[Path]:
        """Files that the benchmark's own server or scripts take, written into a folder; their paths."""
        return []


C = TypeVar("C", bound=Case)


def limited(cases: Sequence[C], limit: int | None) -> list[C]:
    """The first `limit` cases of each task; evidence that belongs together stays together."""
    if limit is None:
        return list(cases)
    seen: dict[str, dict[str, None]] = {}
    kept = []
    for case in cases:
        groups = seen.setdefault(case.task, {})
        group = case.group or case.id
        if group in groups or len(groups) < limit:
            groups[group] = None
            kept.append(case)
    return kept


def valued(judgements: Iterable[Judgement], value: Callable[[Judgement], Sequence[float]]) -> Evidence:
    """Evidence of judgements: the sums of some numbers of each, by group."""
    return Evidence.of((one.group, value(one)) for one in judgements)


def accuracy(judgements: Iterable[Judgement]) -> Evidence:
    """Evidence whose ratio is the mean value."""
    return valued(judgements, lambda one: (one.value, 1.0))


def mean(name: str, judgements: Sequence[Judgement], scale: float = 100.0) -> Measure:
    """The measure that is the mean value of some judgements."""
    return Measure(name, (accuracy(judgements),), len(judgements), scale=scale)


def mean_of_tasks(name: str, judgements: Sequence[Judgement], scale: float = 100.0) -> Measure:
    """The measure that is the unweighted mean of the tasks' mean values."""
    return Measure(name, tuple(accuracy(ones) for ones in by_task(judgements).values()), len(judgements), scale=scale)


def by_task(judgements: Sequence[Judgement]) -> dict[str, list[Judgement]]:
    """Judgements of each task, tasks in order of appearance."""
    tasks: dict[str, list[Judgement]] = {}
    for one in judgements:
        tasks.setdefault(one.task, []).append(one)
    return tasks
