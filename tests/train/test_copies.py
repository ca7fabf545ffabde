"""Four processes that hold two copies of the model, two shards each (HSDP); a state of theirs goes on in one."""

import shutil
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader

from openjanus.errors import ConfigError
from openjanus.train.folder import states
from openjanus.train.parallel import World

from .running import curve, run, start, weights

# Of 7 samples one process gets fewer than the others.
SETTINGS = ("stages.batch=7", "stages.checkpointing=true")


def assert_close(one: Path, other: Path) -> None:
    for line, expected in zip(curve(one), curve(other), strict=True):
        assert line["losses"] == pytest.approx(expected["losses"], abs=1e-4), line["step"]
        assert line["gradient_norms"] == pytest.approx(expected["gradient_norms"], abs=1e-4)
    tensors = weights(other)
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, tensors[name], atol=1e-5, rtol=1e-4)


@pytest.mark.multiproc
@pytest.mark.xdist_group("processes")
@pytest.mark.timeout(900)
def test_copies_of_two_shards_give_the_curve_of_one_process_which_goes_on_from_their_state(tmp_path: Path):
    copies, alone = tmp_path / "copies", tmp_path / "alone"
    process = start(copies, [*SETTINGS, "--shards=2"], processes=4)
    run(alone, *SETTINGS)
    _, told = process.communicate(timeout=600)
    assert process.returncode == 0, told
    assert_close(copies, alone)
    described = FileSystemReader(states(copies / "state")[0]).read_metadata().state_dict_metadata
    assert len(described["module.encoder.weight"].chunks) == 2
    shutil.rmtree(copies / "final")
    shutil.rmtree(states(copies / "state")[0])
    run(copies, *SETTINGS)
    assert_close(copies, alone)


@pytest.mark.parametrize(("size", "shards", "said"), [(4, 3, "are 4 processes"), (1, 2, "is 1 process;"), (2, 0, "are 2")])
def test_shards_divide_the_processes(size: int, shards: int, said: str):
    with pytest.raises(ConfigError, match=rf"--shards is {shards}, and there {said}"):
        World(0, size, torch.device("cpu"), shards)
