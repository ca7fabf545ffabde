"""`openjanus serve` in a process of its own."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from serve.live import eventually

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def command(
    *arguments: str,
    port: int = 0,
    page: bool = False,
    program: tuple[str, ...] = ("-m", "openjanus"),
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server, and where it is."""
    own = {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, *program, "serve", "--port", str(port), *([] if page else ["--no-page"]), *arguments]
    settings: dict[str, Any] = {"env": os.environ | own | dict(environment or {}), "cwd": cwd}
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, **settings) as process:
        try:
            said: list[str] = []
            assert process.stderr is not None
            for line in process.stderr:
                said.append(line)
                if line.startswith("note: serving"):
                    break
            assert said and said[-1].startswith("note: serving"), "".join(said)
            # Its log is read to the end, else it would wait for somebody to read it.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            url = said[-1].split(" at ")[1].split(" ")[0]
            assert eventually(lambda: _answers(url), 60)
            yield process, url
        finally:
            process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.HTTPError:
        return False
