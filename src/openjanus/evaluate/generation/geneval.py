"""GenEval: six tasks of composition, judged by a detector and colours by CLIP (Ghosh et al. 2023)."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from openjanus.errors import DataError, ImageError
from openjanus.evaluate.benchmark import Benchmark, Case, Done, Judgement, Measure, Painting, by_task, mean, mean_of_tasks
from openjanus.evaluate.files.finding import data_folder, fields, read_json_lines, require
from openjanus.evaluate.generation.geneval_rules import CLASSES, COLOURS, kept, wrong_with
from openjanus.evaluate.judges.clip import CLIP, CLIP_L14
from openjanus.evaluate.judges.detector import Detected
from openjanus.evaluate.tools import Tools, key_of

TASKS = {"single_object": 80, "two_object": 99, "counting": 80, "colors": 94, "position": 100, "color_attr": 100}
IMAGES_PER_PROMPT = 4
BACKGROUND = "#999"
_WORDINGS = ("a photo of a {colour} {name}", "a photo of a {colour}-colored {name}", "a photo of a {colour} object")


class GenEval(Benchmark):
    """A task's score is the share of right pictures; overall is the unweighted mean of the six tasks."""

    name = "geneval"
    title = "GenEval: 553 prompts in six tasks, four pictures each"
    source = "evaluation_metadata.jsonl of github.com/djghosh13/geneval (folder prompts)"

    def cases(self, data: Path | None) -> list[Case]:
        """A prompt a line of the official file; pictures in its layout, NNNNN/samples/0000.png beside NNNNN/metadata.jsonl."""
        path = require(data_folder(data, self.name, self.source), self.name, self.source, "evaluation_metadata.jsonl")
        count = self.settings.images_per_prompt or IMAGES_PER_PROMPT
        made: list[Case] = []
        for number, record in enumerate(read_json_lines(path)):
            tag, prompt, include = fields(record, ("tag", "prompt", "include"), f"{path} line {number + 1}")
            _check(record, include, f"{path} line {number + 1}")
            files = tuple(f"{number:05d}/samples/{image:04d}.png" for image in range(count))
            beside = {f"{number:05d}/metadata.jsonl": json.dumps(record) + "\n"}
            made.append(Painting(f"{number:05d}", tag, prompt, {"metadata": record}, count, files, beside=beside))
        return made

    def warnings(self, cases: Sequence[Case]) -> list[str]:
        """Another number of prompts; the caveat that scores of this detector need."""
        counts = Counter(case.task for case in cases)
        told = [
            f"task {task} has {counts[task]} prompts; the official file has {count}"
            for task, count in TASKS.items()
            if counts[task] != count
        ]
        return [
            *told,
            "the detector is transformers' port of the official weights, and scores of the official script depend on its set-up "
            "too: compare with a run of published weights under the same command, and not with the papers alone",
        ]

    def wanted(self, tools: Tools) -> None:
        """The detector and CLIP."""
        _ = tools.detector, tools.clip(CLIP_L14)

    def judge(self, done: Done, tools: Tools) -> Iterator[Judgement]:
        """What is wrong with each picture, by the rules; verdicts are kept as they come."""
        namer = ColourNamer(tools)
        for case, samples in done:
            metadata = case.facts["metadata"]
            for one in samples:
                key = key_of(tools.options.detector, tools.options.clip or CLIP_L14, one.image)
                try:
                    verdict = tools.verdicts.get(key, partial(_verdict, one.image, metadata, namer, tools))
                except ImageError as error:
                    yield Judgement(case.id, one.number, case.task, case.id, expected=case.text, skipped=str(error))
                    continue
                seen = ", ".join(f"{len(scores)} {name}" for name, scores in verdict["found"].items()) or "nothing"
                wrong = verdict["wrong"]
                yield Judgement(case.id, one.number, case.task, case.id, not wrong, seen, case.text, wrong)

    def measures(self, judgements: Sequence[Judgement]) -> list[Measure]:
        """The mean of the tasks, and each of them, as fractions."""
        tasks = by_task(judgements)
        return [mean_of_tasks("overall", judgements, scale=1.0), *(mean(task, ones, scale=1.0) for task, ones in tasks.items())]


class ColourNamer:
    """Names the colour of objects with CLIP, as GenEval does: cut out of the picture, all else grey."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._classifiers: dict[str, Tensor] = {}

    def colours(self, image: Image.Image, objects: Sequence[Detected], name: str) -> list[str]:
        """The likeliest of COLOURS for each object of a class."""
        clip = self._tools.clip(CLIP_L14)
        if name not in self._classifiers:
            self._classifiers[name] = colour_classifier(clip, name)
        features = clip.images([cut_out(image, one) for one in objects])
        best = (features @ self._classifiers[name].T).argmax(1).tolist()
        return [COLOURS[place] for place in best]


def colour_classifier(clip: CLIP, name: str) -> Tensor:
    """Unit weights [10, D] of the colours an object of a class may have."""
    return clip.classifier([[text.format(colour=colour, name=name) for text in _WORDINGS] for colour in COLOURS])


def cut_out(image: Image.Image, one: Detected) -> Image.Image:
    """The box of an object, with everything outside its mask grey."""
    if one.mask is not None:
        grey = Image.new("RGB", image.size, BACKGROUND)
        image = Image.composite(image, grey, Image.fromarray((one.mask * 255).astype(np.uint8)))
    return image.crop(one.box)


def _verdict(file: str, metadata: Mapping[str, Any], namer: ColourNamer, tools: Tools) -> dict[str, Any]:
    """What is wrong with a picture, and how sure the detector is of what it found."""
    image = tools.picture(file)
    found = kept(tools.detector.detect(image), metadata["tag"])
    wrong = wrong_with(found, metadata, lambda objects, name: namer.colours(image, objects, name))
    return {"wrong": wrong, "found": {name: [round(one.score, 4) for one in ones] for name, ones in found.items()}}


def _check(record: Mapping[str, Any], include: Any, where: str) -> None:
    if record["tag"] not in TASKS:
        raise DataError(f"{where} has the tag {record['tag']!r}; GenEval's are {', '.join(TASKS)}: this is another version")
    for wanted in [*include, *record.get("exclude", ())]:
        name, _ = fields(wanted, ("class", "count"), where)
        if name not in CLASSES:
            raise DataError(f"{where} asks for a {name!r}, which the detector does not know: this is another version")
