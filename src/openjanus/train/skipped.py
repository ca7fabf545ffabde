"""skipped.txt: the records that a run could not use, a line each, in the order in which it came to them."""

import os
import re
from collections.abc import Sequence
from math import inf
from pathlib import Path

from openjanus.train.folder import partial_of, writing


class Skipped:
    """The list of a run. Opening it drops what came after `step`, which the run is about to do again."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "skipped.txt"
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        kept = [line for line in lines if _step(line) <= step]
        self._known = {line.strip().partition(": ")[2] for line in kept}
        if len(kept) < len(lines):
            with writing(self.path):
                partial_of(self.path).write_text("".join(kept), encoding="utf-8")
                partial_of(self.path).replace(self.path)

    def __len__(self) -> int:
        """Different records so far."""
        return len(self._known)

    def add(self, step: int, texts: Sequence[str]) -> None:
        """Write down what is wrong with the records skipped in a step; one that came before is there already."""
        new = [line for line in dict.fromkeys(" ".join(text.split()) for text in texts) if line not in self._known]
        if not new:
            return
        with writing(self.path), self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(f"step {step}: {line}\n" for line in new)
            file.flush()
            # It must outlive the machine as the state does that follows on it.
            os.fsync(file.fileno())
        self._known.update(new)


def _step(line: str) -> float:
    """The step of a line; a line that was cut off belongs to one that was not saved."""
    found = re.match(r"step (\d+): ", line)
    return int(found[1]) if found and line.endswith("\n") else inf
