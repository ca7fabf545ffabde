"""What judging takes beside a sample: the judges that were asked for, and a memory of their verdicts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from openjanus.evaluate.judges.clip import CLIP
from openjanus.evaluate.judges.detector import DETECTOR, Detector
from openjanus.evaluate.judges.inception import Inception
from openjanus.evaluate.judges.text import TextJudge
from openjanus.evaluate.judges.vqa import VisualJudge, visual_judge
from openjanus.files import append_line, read_lines
from openjanus.processing.images import open_image

T = TypeVar("T")


@dataclass(frozen=True)
class JudgeOptions:
    """Which judges to use. Paths are folders or files here; other names are Hugging Face ids.

    judge: URL#MODEL of an OpenAI-compatible server, "" for none. vqa: the same for questions about pictures, or mplug[:PATH].
    clip: "" is the benchmark's usual one. inception: the file of the FID weights. reference: a file of statistics of real
    pictures, made if it is not there. timeout: seconds.
    """

    judge: str = ""
    vqa: str = ""
    detector: str = DETECTOR
    clip: str = ""
    inception: str = ""
    reference: str = ""
    device: str = "auto"
    timeout: float = 60.0


class Verdicts:
    """What judges have said, kept in a file as they say it, so that nothing is asked twice, whatever happens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Any] | None = None

    def get(self, key: str, ask: Callable[[], Any]) -> Any:
        """The verdict of that key: as it was, or what `ask` says, which is JSON. What it raises is not kept."""
        if self._known is None:
            self._known = {line["key"]: line["verdict"] for line in read_lines(self.path)}
        if key not in self._known:
            verdict = ask()
            append_line(self.path, {"key": key, "verdict": verdict})
            self._known[key] = verdict
        return self._known[key]


class Tools:
    """Judges, loaded when a benchmark first wants them; each raises an error that names what is missing."""

    def __init__(self, folder: Path, options: JudgeOptions | None = None) -> None:
        self.folder = folder
        self.options = options or JudgeOptions()
        self.verdicts = Verdicts(folder / "verdicts.jsonl")
        self._clips: dict[str, CLIP] = {}

    def picture(self, name: str) -> Image.Image:
        """A painted picture, by its place in the benchmark's folder; ImageError if it cannot be read."""
        return open_image(self.folder / name)

    @cached_property
    def text_judge(self) -> TextJudge | None:
        """What grades answers, None if none was asked for."""
        return TextJudge(self.options.judge, self.options.timeout) if self.options.judge else None

    @cached_property
    def visual_judge(self) -> VisualJudge:
        """What answers questions about pictures."""
        return visual_judge(self.options.vqa, self.options.timeout)

    @cached_property
    def detector(self) -> Detector:
        """What finds objects."""
        return Detector(self.options.detector, self.options.device)

    def clip(self, usual: str) -> CLIP:
        """What compares pictures with words: the one that was asked for, or the usual one of a benchmark."""
        name = self.options.clip or usual
        if name not in self._clips:
            self._clips[name] = CLIP(name, self.options.device)
        return self._clips[name]

    @cached_property
    def inception(self) -> Inception:
        """What turns pictures into the features of an FID."""
        return Inception.read(self.options.inception, self.options.device)


def key_of(*parts: object) -> str:
    """One key of several parts."""
    return json.dumps([str(part) for part in parts], ensure_ascii=False)
