"""What loading a checkpoint of a published size takes of memory: written with random weights, loaded in a process of its own.

    python benchmarks/load_memory.py FOLDER [--preset janus-pro-7b] [--quantize int4]

FOLDER needs room for the checkpoint (15 GB for janus-pro-7b); one that is there already is used. Prints one JSON object: seconds,
and the peak of the process in GiB, all of it and without what the system can drop at any time (the mapped file).
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from torch import Tensor

from openjanus.bench.models import preset, processor_for, repeated
from openjanus.checkpoints.layouts import slots
from openjanus.checkpoints.load import build_empty
from openjanus.checkpoints.save import Source, write_checkpoint
from openjanus.checkpoints.writing import MAX_SHARD_SIZE
from openjanus.janus import load


def write(folder: Path, name: str) -> None:
    """A checkpoint of the preset's sizes in bfloat16, of random numbers that repeat."""
    config = preset(name)
    wanted = slots(build_empty(config))
    tile = torch.randn(1 << 20).mul_(0.02).bfloat16()

    def read(tensor: str) -> Tensor:
        return repeated(tile, torch.Size(wanted[tensor].shape))

    write_checkpoint(
        folder,
        config,
        Source(wanted, dict.fromkeys(wanted, torch.bfloat16), read),
        processor_for(config),
        None,
        layout="deepseek",
        dtype=torch.bfloat16,
        max_shard_size=MAX_SHARD_SIZE,
        untrained=True,
    )


def measure(folder: Path, quantize: str) -> dict[str, float]:
    """Load in this process, watching its memory."""
    peaks = {"VmRSS": 0, "RssAnon": 0}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], int(value.split()[0]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    load(folder, "cpu", quantize=quantize)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    whole, own = (round(peaks[name] / 2**20, 2) for name in ("VmRSS", "RssAnon"))
    return {"seconds": round(seconds, 1), "peak_gib": whole, "peak_without_file_gib": own}


def main() -> None:
    """Write if need be, load, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", default="janus-pro-7b")
    parser.add_argument("--quantize", default="int4")
    parser.add_argument("--loads", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loads:
        print(json.dumps(measure(arguments.folder, arguments.quantize)))
        return
    if not arguments.folder.exists():
        write(arguments.folder, arguments.preset)
    command = [sys.executable, __file__, str(arguments.folder), "--quantize", arguments.quantize, "--loads"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(json.dumps({"preset": arguments.preset, "quantize": arguments.quantize, **result}))


if __name__ == "__main__":
    main()
