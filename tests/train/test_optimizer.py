"""AdamW, clipping and the moving average against formulas written out."""

import pytest
import torch
from torch import nn

from openjanus.train.optimizer import Average, build_optimizers, clip
from openjanus.train.parts import trainable
from openjanus.train.stage import Stage

STAGE = Stage("adapt", steps=10, batch=4, rate=1e-2, weight_decay=0.1, epsilon=1e-6)


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.linear = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)
        self.convolution = nn.Conv2d(1, 2, 3)
        self.begin = nn.Parameter(torch.ones(1, 4))


def test_only_the_matrices_that_multiply_decay():
    module = Parts()
    (optimizer,) = build_optimizers(module, trainable(module), STAGE)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    decay = {names[id(one)]: group["weight_decay"] for group in optimizer.param_groups for one in group["params"]}
    assert {name for name, value in decay.items() if value} == {"linear.weight", "convolution.weight"}
    assert set(decay) == set(names.values())


def test_two_steps_are_adamw_as_loshchilov_and_hutter_wrote_it():
    module = nn.Linear(2, 1, bias=False)
    (optimizer,) = build_optimizers(module, trainable(module), STAGE)
    weight = module.weight.detach().clone().double()
    first, second = torch.zeros(2).double(), torch.zeros(2).double()
    for step, gradient in enumerate((torch.tensor([[0.5, -2.0]]), torch.tensor([[0.1, 1.0]])), start=1):
        module.weight.grad = gradient
        optimizer.step()
        first = 0.9 * first + 0.1 * gradient.double()
        second = 0.95 * second + 0.05 * gradient.double() ** 2
        weight = weight - 1e-2 * 0.1 * weight
        weight = weight - 1e-2 * (first / (1 - 0.9**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-6)
    torch.testing.assert_close(module.weight.detach().double(), weight, atol=1e-7, rtol=1e-6)


def test_the_state_is_whole_before_the_first_step():
    module = Parts()
    parameters = trainable(module)
    (optimizer,) = build_optimizers(module, parameters, STAGE)
    before = {key for state in optimizer.state.values() for key in state}
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert {key for state in optimizer.state.values() for key in state} == before == {"step", "exp_avg", "exp_avg_sq"}
    assert {float(state["step"]) for state in optimizer.state.values()} == {1.0}


@pytest.mark.parametrize(("limit", "left"), [(1.0, [0.6, 0.8]), (10.0, [3.0, 4.0]), (0.0, [3.0, 4.0])])
def test_a_gradient_is_scaled_down_to_the_limit_and_never_up(limit: float, left: list[float]):
    one, other = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    one.grad, other.grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert clip({"one": one, "other": other}, limit) == pytest.approx(5.0)
    assert [float(one.grad), float(other.grad)] == pytest.approx(left, rel=1e-5)


def test_the_average_keeps_its_ratio_of_itself_each_step():
    parameter = nn.Parameter(torch.tensor([1.0]))
    average = Average({"w": parameter}, 0.9)
    expected = 1.0
    for value in (2.0, -3.0, 5.0):
        with torch.no_grad():
            parameter.fill_(value)
        average.update()
        expected = 0.9 * expected + 0.1 * value
    assert float(average.tensors["w"]) == pytest.approx(expected)


def test_the_average_stands_in_for_the_parameters_only_inside_the_block():
    parameter = nn.Parameter(torch.tensor([1.0]))
    average = Average({"w": parameter}, 0.5)
    with torch.no_grad():
        parameter.fill_(3.0)
    average.update()
    with pytest.raises(RuntimeError), average.in_place():
        assert parameter.item() == 2.0
        raise RuntimeError
    assert parameter.item() == 3.0


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 4)) for _ in range(2))
        self.head = nn.Linear(4, 5)


MUON = Stage("adapt", steps=10, batch=4, rate=1e-2, weight_decay=0.1, optimizer="muon")


def test_muon_moves_the_matrices_of_the_blocks_and_adamw_the_rest():
    module = Blocks()
    muon, adamw = build_optimizers(module, trainable(module), MUON, ("blocks",))
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    moved = {names[id(one)] for group in muon.param_groups for one in group["params"]}
    assert moved == {f"blocks.{block}.{part}.weight" for block in (0, 1) for part in (0, 2)}
    rest = {names[id(one)] for group in adamw.param_groups for one in group["params"]}
    assert rest == set(names.values()) - moved
    assert len(build_optimizers(module, trainable(module), STAGE, ("blocks",))) == 1


def test_a_step_of_muon_is_as_long_as_its_rate_says_in_every_direction():
    module = Blocks()
    muon, _ = build_optimizers(module, trainable(module), MUON, ("blocks",))
    weight = module.blocks[0][0].weight
    before = weight.detach().clone()
    weight.grad = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    muon.step()
    moved = (before * (1 - 1e-2 * 0.1) - weight.detach()) / (1e-2 * 0.2 * 6**0.5)
    # What Newton-Schulz makes of the gradient: its own singular vectors, with singular values near 1.
    values = torch.linalg.svdvals(moved)
    assert ((values > 0.5) & (values < 1.4)).all()
    left, _, right = torch.linalg.svd(weight.grad, full_matrices=False)
    diagonal = left.T @ moved @ right.T
    torch.testing.assert_close(diagonal, torch.diag(diagonal.diagonal()), atol=0.05, rtol=0)
    assert set(muon.state[weight]) == {"momentum_buffer"}
