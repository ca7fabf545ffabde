"""FID benchmarks: COCO-30K and MJHQ-30K, one picture a prompt, with CLIP scores of the same pictures."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from openjanus.errors import DataError, ImageError
from openjanus.evaluate.benchmark import Benchmark, Case, Done, Judgement, Measure, Painting, Sample, Settings, mean
from openjanus.evaluate.files.finding import check_ids, check_images, data_folder, fields, read_json, require
from openjanus.evaluate.generation.fid import (
    Statistics,
    distance,
    features,
    read_statistics,
    square,
    write_statistics,
)
from openjanus.evaluate.judges.clip import CLIP_B32
from openjanus.evaluate.tools import Tools, key_of
from openjanus.processing.images import open_image

LEAST = 2  # pictures of a covariance
CAPTIONED = "A photo depicts "  # in front of a prompt, for CLIP scores
TOGETHER = 50
# How pictures come to the size they are compared at: ours as the authors of Janus say, real ones as GigaGAN's script does.
PAINTED, REAL = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS

Readable = Sequence[tuple[Case, Sample]]


class PicturesAgainstReal(Benchmark):
    """What both have in common: pictures against real ones, by FID, and against their prompts, by CLIP.

    An FID has no interval: it is of no sum over samples, and drawing pictures again would raise it by itself.
    """

    side: int

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._real: list[Path] = []

    def wanted(self, tools: Tools) -> None:
        """Inception and CLIP."""
        _ = tools.inception, tools.clip(CLIP_B32)

    def judge(self, done: Done, tools: Tools) -> Iterator[Judgement]:
        """CLIP's cosine for each picture and its prompt. The first one's facts carry the distances, which are of all pictures."""
        readable = []
        for case, (sample,) in done:
            try:
                tools.picture(sample.image)
            except ImageError as error:
                yield Judgement(case.id, 0, case.task, case.id, expected=case.text, skipped=str(error))
            else:
                readable.append((case, sample))
        facts = {"distances": self.distances(readable, tools)}
        for start in range(0, len(readable), TOGETHER):
            batch = readable[start : start + TOGETHER]
            key = key_of(tools.options.clip or CLIP_B32, *(sample.image for _, sample in batch))
            cosines = tools.verdicts.get(key, partial(_cosines, batch, tools))
            for (case, _), cosine in zip(batch, cosines, strict=True):
                yield Judgement(case.id, 0, case.task, case.id, cosine, f"{cosine:.4f}", case.text, facts=facts)
                facts = {}

    def measures(self, judgements: Sequence[Judgement]) -> list[Measure]:
        """FID overall (and of each category), and the mean CLIP score times 100."""
        told: dict[str, tuple[float, int]] = next((one.facts["distances"] for one in judgements if one.facts), {})
        made = [Measure(name, count=count, fixed=value, higher=False) for name, (value, count) in told.items()]
        return [*made, mean("CLIP score", judgements)]

    def distances(self, readable: Readable, tools: Tools) -> dict[str, tuple[float, int]]:
        """FIDs by name, each with the number of its pictures."""
        if len(readable) < LEAST:
            return {}
        names = [sample.image for _, sample in readable]
        own = features(names, tools.picture, square(self.side, PAINTED), tools.inception, tools.folder / "features")
        return {"FID": (distance(Statistics.of(own), self._reference(tools)), len(own))}

    def _reference(self, tools: Tools) -> Statistics:
        """Statistics of the real pictures: of the file that was named, or made and kept."""
        given = Path(tools.options.reference) if tools.options.reference else None
        path = given or tools.folder / "reference.npz"
        if path.is_file():
            return read_statistics(path)
        names = [str(one) for one in self._real]
        made = Statistics.of(features(names, open_image, square(self.side, REAL), tools.inception, tools.folder / "reference"))
        write_statistics(path, made)
        return made


def _cosines(batch: Readable, tools: Tools) -> list[float]:
    pictures = tools.clip(CLIP_B32).images([tools.picture(sample.image) for _, sample in batch])
    words = tools.clip(CLIP_B32).texts([CAPTIONED + case.text for case, _ in batch])
    return [float(one) for one in (pictures * words).sum(-1)]


class COCO30K(PicturesAgainstReal):
    """30,000 captions of COCO val2014, drawn by chance from our seed, against all of its images.

    As GigaGAN's evaluation does it: the real ones cut to their centre, both at 256 pixels.
    """

    name = "coco30k"
    title = "COCO-30K: FID of 30,000 captions' pictures against val2014, and CLIP score"
    source = "captions_val2014.json (COCO's annotations) with its images val2014"
    side = 256
    captions: ClassVar[int] = 30_000
    draw: ClassVar[int] = 0  # seed of the choice of captions, apart from that of the pictures

    def cases(self, data: Path | None) -> list[Case]:
        """The captions drawn, in the file's order."""
        folder = data_folder(data, self.name, self.source)
        path = require(folder, self.name, self.source, "captions_val2014.json")
        records = [fields(one, ("id", "caption"), str(path)) for one in fields(read_json(path), ("annotations",), str(path))[0]]
        check_ids((number for number, _ in records), path)
        self._real = sorted(require(folder, self.name, self.source, "val2014").glob("*.jpg"))
        if len(self._real) < LEAST:
            raise DataError(f"{folder}/val2014 has {len(self._real)} images; fetch COCO's val2014 again")
        rng = np.random.default_rng(self.draw)
        drawn = rng.permutation(len(records))[: self.captions]
        chosen = [records[place] for place in sorted(drawn)]
        return [
            Painting(str(number), "captions", " ".join(caption.split()), {}, 1, (f"images/{number}.png",))
            for number, caption in chosen
        ]

    def warnings(self, cases: Sequence[Case]) -> list[str]:
        """Fewer captions or images than COCO has."""
        told = [] if len(cases) == self.captions else [f"there are {len(cases)} captions; FID depends on their number (30,000)"]
        return told + ([] if len(self._real) == 40_504 else [f"val2014 has {len(self._real)} images here; COCO's has 40,504"])


class MJHQ30K(PicturesAgainstReal):
    """Ten categories of 3,000 prompts and images of Midjourney. Protocols: gigagan at 256 pixels as JanusFlow followed it, and
    playground at 1024, as the data set's authors compute it."""

    name = "mjhq30k"
    title = "MJHQ-30K: FID against Midjourney's pictures, overall and in ten categories, and CLIP score"
    source = "meta_data.json and the folder mjhq30k_imgs of Hugging Face's playgroundai/MJHQ-30K"
    protocols = ("gigagan", "playground")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._categories: dict[str, list[Path]] = {}
        self.side = 1024 if self.protocol == "playground" else 256

    def cases(self, data: Path | None) -> list[Case]:
        """A prompt for each image, with its category as task."""
        folder = data_folder(data, self.name, self.source)
        path = require(folder, self.name, self.source, "meta_data.json")
        images = require(folder, self.name, self.source, "mjhq30k_imgs")
        made: list[Case] = []
        self._categories = {}
        for name, record in read_json(path).items():
            category, prompt = fields(record, ("category", "prompt"), f"{path} record {name}")
            self._categories.setdefault(category, []).append(images / category / f"{name}.jpg")
            made.append(Painting(name, category, prompt, {}, 1, (f"images/{category}/{name}.png",)))
        self._real = [one for ones in self._categories.values() for one in ones]
        check_images(self._real, self.name)
        return made

    def warnings(self, cases: Sequence[Case]) -> list[str]:
        """Another number of prompts."""
        return [] if len(cases) == 30_000 else [f"there are {len(cases)} prompts; FID depends on their number (30,000)"]

    def distances(self, readable: Readable, tools: Tools) -> dict[str, tuple[float, int]]:
        """Overall, and of each category."""
        made = super().distances(readable, tools)
        for category, paths in self._categories.items():
            names = [sample.image for case, sample in readable if case.task == category]
            if len(names) < LEAST or len(paths) < LEAST:
                continue
            own = features(
                names, tools.picture, square(self.side, PAINTED), tools.inception, tools.folder / "features" / category
            )
            real = [str(one) for one in paths]
            theirs = features(real, open_image, square(self.side, REAL), tools.inception, tools.folder / "reference" / category)
            made[f"FID {category}"] = (distance(Statistics.of(own), Statistics.of(theirs)), len(own))
        return made
