"""Many clients at a time against a server on this machine: answers checked, memory watched, throughput against one at a time.

    python benchmarks/serve_load.py [--model janus-tiny] [--clients 32] [--seconds 180]

Starts `openjanus serve` on a free port of 127.0.0.1, asks each of its questions and prompts once, one after the other, and then
lets the clients ask them at random for so long (before that one client, alone, for a third of it). Some clients leave in the
middle of an answer. Prints one JSON object. An answer that is not the one it got alone, but another's, is counted as crossed;
one that is nobody's, as changed: rounding depends on what a prompt's beginning was read beside, and may flip a choice. One that
ends before it is whole is lost. Errors, crossed and lost answers make the exit code 1.
"""

import argparse
import base64
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ROOT / "examples" / "images" / "shapes.png"
COLORS = ("red", "green", "blue", "yellow")
CHAT, IMAGES = "/v1/chat/completions", "/v1/images/generations"


class Lost(Exception):
    """An answer ended before it was whole."""


@dataclass(frozen=True)
class Job:
    """Something to ask."""

    path: str
    body: dict[str, Any]


def jobs() -> list[Job]:
    """Questions with and without a picture, greedy and drawn, streamed and not; prompts, one picture and two."""
    url = "data:image/png;base64," + base64.b64encode(SHAPES.read_bytes()).decode()
    made = []
    for number, color in enumerate(COLORS):
        picture = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": f"Is there a {color} circle?"}]
        shown, drawn = {"role": "user", "content": picture}, {"role": "user", "content": f"What is {color}?"}
        made.append(Job(CHAT, {"messages": [shown], "max_tokens": 32, "stream": number % 2 == 0}))
        made.append(
            Job(CHAT, {"messages": [drawn], "max_tokens": 48, "temperature": 1.0, "seed": number, "stream": number % 2 == 1})
        )
        made.append(Job(CHAT, {"messages": [shown], "max_tokens": 32, "temperature": 0.8, "seed": number}))
        made.append(Job(IMAGES, {"prompt": f"a {color} circle", "seed": number, "n": 1 + number % 2}))
        made.append(Job(IMAGES, {"prompt": f"a {color} star", "seed": number, "stream": True, "partial_images": 1}))
    return made


def ask(client: httpx.Client, job: Job, leaves: bool = False) -> Any:
    """What a job comes to: a text, or pixels of pictures. httpx.HTTPStatusError for a refusal, None if we left; Lost."""
    if not job.body.get("stream"):
        answer = client.post(job.path, json=job.body)
        answer.raise_for_status()
        found = answer.json()
        if job.path == CHAT:
            return found["choices"][0]["message"]["content"]
        return _whole(job, [_pixels(one["b64_json"]) for one in found["data"]])
    text, pictures, ended = "", [], False
    with client.stream("POST", job.path, json=job.body) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if leaves:
                return None
            ended |= line == "data: [DONE]"
            if not line.startswith("data: ") or ended:
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(event["error"]["message"])
            if job.path == CHAT:
                text += event["choices"][0]["delta"].get("content", "")
            elif event["type"] == "image_generation.completed":
                pictures.append(_pixels(event["b64_json"]))
    if job.path == IMAGES:
        return _whole(job, pictures)
    if not ended:
        raise Lost(f"a stream ended after {text[-80:]!r}")
    return text.strip()


def _whole(job: Job, pictures: list[Any]) -> list[Any]:
    """The pictures, if they are as many as were asked for."""
    asked = job.body.get("n", 1)
    if len(pictures) < asked:
        raise Lost(f"{len(pictures)} of {asked} pictures of {job.body['prompt']!r}")
    return pictures


def _pixels(data: str) -> Any:
    return np.asarray(Image.open(BytesIO(base64.b64decode(data)))).astype(int)


def same(one: Any, other: Any) -> bool:
    """Whether two answers are the same, pictures up to a mean of a fifth of a level."""
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and isinstance(other, str) and one == other
    return len(one) == len(other) and all(np.abs(a - b).mean() < 0.2 for a, b in zip(one, other, strict=True))


@dataclass
class Tally:
    """What many clients have seen."""

    done: int = 0
    left: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    crossed: list[str] = field(default_factory=list)
    changed: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def failed(self) -> bool:
        """Whether anything was seen that may not be."""
        return bool(self.errors or self.lost or self.crossed)


def client_of(url: str) -> httpx.Client:
    """A client that waits long and asks no proxy."""
    return httpx.Client(base_url=url, timeout=600, trust_env=False)


def busy(url: str, alone: list[tuple[Job, Any]], tally: Tally, until: float, seed: int) -> None:
    """One client, until its time is over. One in twenty streams it leaves in the middle."""
    chance = random.Random(seed)
    with client_of(url) as client:
        while time.monotonic() < until:
            job, expected = chance.choice(alone)
            leaves = bool(job.body.get("stream")) and chance.random() < 0.05
            began = time.monotonic()
            try:
                found = ask(client, job, leaves)
            except httpx.HTTPStatusError as error:
                with tally.lock:
                    tally.statuses[error.response.status_code] += 1
                time.sleep(float(error.response.headers.get("retry-after", 1)))
                continue
            except Lost as error:
                with tally.lock:
                    tally.lost.append(str(error))
                continue
            except (httpx.HTTPError, RuntimeError) as error:
                with tally.lock:
                    tally.errors.append(repr(error)[:200])
                continue
            with tally.lock:
                tally.left += leaves
                if not leaves:
                    tally.done += 1
                    tally.seconds.append(time.monotonic() - began)
                    if not same(found, expected):
                        what = f"{job.path} {str(job.body)[-120:]}"
                        # A word that several answers are alike in tells nothing.
                        if sum(same(found, other) for one, other in alone if one.path == job.path) == 1:
                            tally.crossed.append(what)
                        else:
                            tally.changed[job.path] += 1


def load(url: str, alone: list[tuple[Job, Any]], clients: int, seconds: float) -> tuple[Tally, float]:
    """So many clients for so long; what they saw, and how many answers a second they got."""
    tally, began = Tally(), time.monotonic()
    threads = [threading.Thread(target=busy, args=(url, alone, tally, began + seconds, seed)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally, tally.done / (time.monotonic() - began)


class Memory(threading.Thread):
    """The server's memory, in MiB, every second."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._file = Path(f"/proc/{process}/status")
        self.seen: list[float] = []

    def run(self) -> None:
        """Look until the process is gone."""
        while self._file.exists():
            lines = [line for line in self._file.read_text(encoding="ascii").splitlines() if line.startswith("VmRSS")]
            self.seen += [int(line.split()[1]) / 1024 for line in lines]
            time.sleep(1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="janus-tiny")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=180)
    arguments = parser.parse_args()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "openjanus", "serve", "--port", "0", "--no-page", "--model", arguments.model]
    server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        for line in server.stderr:
            if line.startswith("note: serving"):
                break
        url = line.split(" at ")[1].split(" ")[0]
        # Its log is read, so that it never waits for us.
        threading.Thread(target=lambda stream: [None for _ in stream], args=(server.stderr,), daemon=True).start()
        memory = Memory(server.pid)
        memory.start()
        with httpx.Client(base_url=url, timeout=600, trust_env=False, transport=httpx.HTTPTransport(retries=20)) as client:
            alone = [(job, ask(client, job)) for job in jobs()]
        _, single = load(url, alone, 1, arguments.seconds / 3)
        start = len(memory.seen)
        tally, together = load(url, alone, arguments.clients, arguments.seconds)
        # The first fifth fills the cache and the allocator; from then on it must be flat.
        seen = memory.seen[start + (len(memory.seen) - start) // 5 :]
        time.sleep(2)
        with client_of(url) as client:
            rest = client.get("/metrics").text
    finally:
        server.terminate()
        server.wait(60)
    half = len(seen) // 2
    report = {
        "model": arguments.model,
        "clients": arguments.clients,
        "seconds": arguments.seconds,
        "answers": tally.done,
        "left": tally.left,
        "refused": dict(tally.statuses),
        "errors": tally.errors,
        "lost": tally.lost,
        "crossed": tally.crossed,
        "changed": dict(tally.changed),
        "median_s": round(median(tally.seconds), 2) if tally.seconds else None,
        "answers_per_s": {"together": round(together, 2), "one_at_a_time": round(single, 2)},
        "ratio": round(together / single, 2) if single else None,
        "memory_mib": {
            "first_half": round(median(seen[:half]), 1),
            "second_half": round(median(seen[half:]), 1),
            "most": max(seen),
        }
        if half
        else None,
        "open_at_the_end": [line.split()[1] for line in rest.splitlines() if line.startswith("openjanus_open{")],
    }
    print(json.dumps(report))
    sys.exit(1 if tally.failed else 0)


if __name__ == "__main__":
    main()
