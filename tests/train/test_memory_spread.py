"""A large model that is spread over processes is never whole in float32 in any of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# One process that takes itself for the first of eight. Sixteen blocks, each 8 MiB in bfloat16, of which every second one moves.
SPREADING = """
from collections import OrderedDict

import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from openjanus.train.parallel import World, spread
from openjanus.train.stage import Stage
from openjanus.train.task import Task


class Wide(Task):
    blocks = ("blocks",)

    def __init__(self):
        blocks = nn.Sequential(*(nn.Linear(2048, 2048, bias=False, dtype=torch.bfloat16) for _ in range(16)))
        for block in blocks[::2]:
            block.requires_grad_(False)
        self.module = nn.Sequential(OrderedDict(blocks=blocks, head=nn.Linear(2048, 8, dtype=torch.bfloat16)))

    def precision(self, name):
        return torch.float32

    def batches(self, *place):
        return []

    def export(self, *what):
        pass


def mib(key):
    (line,) = [line for line in open("/proc/self/status") if line.startswith(key)]
    return int(line.split()[1]) / 1024


dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
task = Wide()
before, peak = mib("VmRSS"), mib("VmHWM")
spread(task, Stage("tune", steps=1, batch=8, rate=1e-3), World(0, 8, torch.device("cpu")))
parameters = dict(task.module.named_parameters())
assert {one.dtype for one in parameters.values()} == {torch.float32} and len(parameters) == 18
assert all(one.to_local().numel() * 8 == one.numel() for one in parameters.values())
print(max(mib("VmHWM") - max(before, peak), 0), before - mib("VmRSS"))
"""


@pytest.mark.multiproc
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from where Linux tells it")
def test_a_process_holds_no_more_than_the_file_and_one_block_at_a_time():
    # Blocks have memory of their own, which goes back to the system with them.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", SPREADING], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    more, less = map(float, done.stdout.split())
    # 128 MiB came; whole in float32 they are 256. One block is 16, an eighth of all 32.
    assert more < 64
    assert less > 32
