"""AdamW with moments of 8 bits: near AdamW, and exact under resume on any number of processes."""

import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from openjanus.errors import ConfigError
from openjanus.train.eight_bits import fits, plain_tensors
from openjanus.train.folder import states
from openjanus.train.optimizer import build_optimizers, set_rate
from openjanus.train.parts import trainable
from openjanus.train.recipe_files import load_recipe
from openjanus.train.stage import Stage

from .running import HERE, curve, run, start, weights

STAGE = Stage("adapt", steps=10, batch=4, rate=1e-2, weight_decay=0.1, optimizer="adamw8bit")

# The toy behind a layer whose moments fit: 16 rows of one block each.
WIDE = f"""
import os
import sys
from dataclasses import replace

import torch
from torch import nn

if "RANK" in os.environ:  # a process of its own, which the test cannot reach
    torch.compile = lambda function, **options: function
sys.path.insert(0, {str(HERE.parent)!r})
from train.toy import RECIPE as TOY
from train.toy import Network, Toy


class Wider(Network):
    def __init__(self, dropout):
        super().__init__(dropout)
        self.encoder = nn.Sequential(nn.Linear(4, 256), nn.Linear(256, 16), nn.Linear(16, 8))


class Wide(Toy):
    def __init__(self, recipe):
        super().__init__(recipe)
        self.module = Wider(self.settings.dropout)


RECIPE = replace(TOY, task=Wide, stages=tuple(replace(stage, optimizer="adamw8bit", frozen=()) for stage in TOY.stages))
"""


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchao compiles a step for each shape, which takes minutes and changes no number that matters here."""
    pytest.importorskip("torchao", reason="torchao has the optimizer")
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


def test_rows_of_whole_blocks_fit():
    shapes = {(16, 256): True, (2, 2048): True, (8, 256): False, (4096,): False, (64, 100): False, (16, 64, 2, 2): True}
    assert {shape: fits(torch.empty(shape)) for shape in shapes} == shapes


def test_steps_are_near_those_of_adamw_and_take_a_quarter_of_its_state(uncompiled: None):
    module, exact = nn.Linear(512, 32), nn.Linear(512, 32)
    exact.load_state_dict(module.state_dict())
    narrow, plain = build_optimizers(module, trainable(module), STAGE)
    (adamw,) = build_optimizers(exact, trainable(exact), Stage("adapt", steps=10, batch=4, rate=1e-2, weight_decay=0.1))
    chance = torch.Generator().manual_seed(0)
    start = module.weight.detach().clone()
    for _ in range(5):
        for one, other in zip(module.parameters(), exact.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=chance)
            other.grad = one.grad.clone()
        for optimizer in (narrow, plain, adamw):
            set_rate(optimizer, 5e-3)
            optimizer.step()
    assert torch.equal(module.bias, exact.bias)
    off, moved = (module.weight - exact.weight).abs(), (exact.weight - start).abs()
    assert 0 < off.mean() < 0.05 * moved.mean()
    held = plain_tensors(narrow, module.weight)
    assert {key: tensor.dtype for key, tensor in held.items() if key.endswith("codes")} == {
        "exp_avg.codes": torch.uint8,
        "exp_avg_sq.codes": torch.uint8,
    }
    assert held["exp_avg.scales"].shape == (32, 2)
    assert sum(tensor.nbytes for tensor in held.values()) < 0.26 * 8 * module.weight.numel()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_compiled_step_is_one_that_is_not(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torchao", reason="torchao has the optimizer")
    if shutil.which("g++") is None:
        pytest.skip("there is no compiler for what torch writes")
    compiled, plain = nn.Linear(512, 32, bias=False), nn.Linear(512, 32, bias=False)
    plain.load_state_dict(compiled.state_dict())
    gradient = torch.randn(32, 512, generator=torch.Generator().manual_seed(0))
    for module in (compiled, plain):
        if module is plain:
            monkeypatch.setattr(torch, "compile", lambda function, **options: function)
        (optimizer,) = build_optimizers(module, trainable(module), STAGE)
        for sign in (1, 1, -1):
            module.weight.grad = sign * gradient
            optimizer.step()
    torch.testing.assert_close(compiled.weight, plain.weight, atol=1e-4, rtol=1e-4)


def test_a_run_goes_on_exactly(uncompiled: None, tmp_path: Path):
    (tmp_path / "wide.py").write_text(WIDE, encoding="utf-8")
    recipe = load_recipe(str(tmp_path / "wide.py"))
    run(tmp_path / "straight", recipe=recipe)
    shutil.copytree(tmp_path / "straight", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "final")
    shutil.rmtree(tmp_path / "cut" / "state" / "00000020")
    run(tmp_path / "cut", recipe=recipe)
    assert curve(tmp_path / "cut") == curve(tmp_path / "straight")
    tensors = weights(tmp_path / "straight")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in weights(tmp_path / "cut").items())


@pytest.mark.multiproc
@pytest.mark.xdist_group("processes")
@pytest.mark.timeout(900)
def test_two_processes_give_the_curve_of_one_which_goes_on_from_their_state(uncompiled: None, tmp_path: Path):
    (tmp_path / "wide.py").write_text(WIDE, encoding="utf-8")
    recipe, together = load_recipe(str(tmp_path / "wide.py")), tmp_path / "together"
    process = start(together, [], processes=2, recipe=tmp_path / "wide.py")
    run(tmp_path / "alone", recipe=recipe)
    _, told = process.communicate(timeout=600)
    assert process.returncode == 0, told
    shutil.rmtree(together / "final")
    shutil.rmtree(states(together / "state")[0])
    run(together, recipe=recipe)
    for line, expected in zip(curve(together), curve(tmp_path / "alone"), strict=True):
        # A rounding of a gradient may move a code to its neighbour.
        assert math.isclose(line["loss"], expected["loss"], abs_tol=1e-3), line["step"]


def test_without_torchao_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    module = nn.Linear(512, 32)
    with pytest.raises(ConfigError, match=r"stages.adapt.optimizer is adamw8bit, which needs torchao: pip install 'openjanus"):
        build_optimizers(module, trainable(module), STAGE)
