"""What a run of the shapes benchmark leaves in a folder: report.json, and contact sheets of what was painted and answered."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from openjanus.errors import ImageError
from openjanus.evaluate.shapes import Answered, Painted, Report
from openjanus.evaluate.sheets import SheetRow, sheet

PROMPTS_SHOWN = 16  # of each task
QUESTIONS_SHOWN = 6  # of each kind


@dataclass
class Gallery:
    """Keeps the first samples of each task while a benchmark runs, for `write`."""

    painted: dict[str, dict[str, list[tuple[Image.Image, bool]]]] = field(default_factory=dict)
    answered: dict[str, list[SheetRow]] = field(default_factory=dict)

    def keep(self, sample: Painted | Answered, image: Image.Image) -> None:
        """Remember a sample, unless there are enough like it. Fits `run_benchmark`'s keep."""
        if isinstance(sample, Painted):
            prompts = self.painted.setdefault(sample.task, {})
            if sample.prompt in prompts or len(prompts) < PROMPTS_SHOWN:
                prompts.setdefault(sample.prompt, []).append((image, sample.right))
            return
        rows = self.answered.setdefault(sample.kind, [])
        if len(rows) < QUESTIONS_SHOWN:
            expected = "" if sample.right else f" (expected: {sample.expected})"
            rows.append(SheetRow(f"{sample.question}\n> {sample.answer[:200]}{expected}", [(image, sample.right)]))

    def write(self, report: Report, folder: Path) -> list[Path]:
        """Write report.json and the sheets into a folder that `new_folder` has made, and return their paths."""
        paths = [folder / "report.json"]
        try:
            paths[0].write_text(json.dumps(report.to_json(), ensure_ascii=False, indent=1), encoding="utf-8")
            for task, prompts in self.painted.items():
                paths.append(folder / f"painted_{task}.png")
                sheet([SheetRow(prompt, pictures) for prompt, pictures in prompts.items()]).save(paths[-1])
            if self.answered:
                paths.append(folder / "answered.png")
                sheet([row for rows in self.answered.values() for row in rows], across=QUESTIONS_SHOWN, side=72).save(paths[-1])
        except OSError as error:
            raise ImageError(f"cannot write {paths[-1]}: {error.strerror or error}; choose another place with -o") from error
        return paths


def new_folder(folder: Path) -> Path:
    """The folder of a run, made if need be. ImageError if it cannot be made, or holds a report already."""
    if (folder / "report.json").exists():
        raise ImageError(f"{folder} holds a report already; choose another place with -o, or move it away")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".openjanus-write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ImageError(f"cannot write to {folder}: {error.strerror or error}; choose another place with -o") from error
    return folder
