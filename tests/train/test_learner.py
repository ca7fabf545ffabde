"""A step: what it moves, by which losses, and what stops it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from openjanus.errors import ConfigError, TrainingError
from openjanus.train.learner import Learner
from openjanus.train.losses import add_up, backward
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage
from openjanus.train.task import Batch, Loss, Phase

from .game import GAME, Game
from .running import ALONE, toy
from .toy import RECIPE, Lesson, Toy


def learner_of(recipe: Recipe, stage: int = 0) -> Learner:
    return Learner(recipe, recipe.stages[stage], ALONE)


def take(learner: Learner, step: int = 0) -> dict[str, float]:
    batches = learner.task.batches(learner.stage, step, 0, 1)
    return learner.learn(step, batches).losses


def copied(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.task.module.state_dict().items()}


@pytest.mark.parametrize(
    ("frozen", "still"),
    [
        ("encoder", {"encoder.weight", "encoder.bias"}),
        ("layers.0,sign.bias", {"layers.0.0.weight", "layers.0.0.bias", "layers.0.1.weight", "layers.0.1.bias", "sign.bias"}),
        ("", set()),
    ],
)
def test_frozen_parts_never_move_and_all_others_do(frozen: str, still: set[str]):
    learner = learner_of(toy(f"stages.adapt.frozen={frozen}", "stages.adapt.weight_decay=0.1"))
    before = copied(learner)
    for step in range(3):
        take(learner, step)
    after = learner.task.module.state_dict()
    assert {name for name in before if torch.equal(before[name], after[name])} == still


def test_whoever_watches_the_weights_sees_that_they_were_written_to():
    learner = learner_of(toy("stages.adapt.frozen="))
    before = {name: parameter._version for name, parameter in learner.task.module.named_parameters()}
    take(learner)
    assert all(parameter._version > before[name] for name, parameter in learner.task.module.named_parameters())


@pytest.mark.parametrize("flushed", [True, False])
def test_a_step_leaves_the_arithmetic_of_others_as_it_was(flushed: bool):
    learner = learner_of(toy())
    torch.set_flush_denormal(flushed)
    try:
        take(learner)
        assert ((torch.tensor(1e-38) / 10).item() == 0) == flushed
    finally:
        torch.set_flush_denormal(False)


def test_a_frozen_part_is_in_eval_mode_and_the_rest_in_training():
    module = learner_of(toy("stages.adapt.frozen=encoder,layers.1")).task.module
    modes = {name: part.training for name, part in module.named_modules()}
    assert not any(modes[name] for name in ("encoder", "layers.1", "layers.1.0", "layers.1.1"))
    assert modes[""] and modes["layers"] and modes["layers.0"] and modes["dropout"]


def test_a_frozen_part_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"stages.adapt.frozen names 'encodre', .*did you mean encoder\?"):
        learner_of(toy("stages.adapt.frozen=encodre"))
    with pytest.raises(ConfigError, match="no parameter begins so"):
        learner_of(toy("stages.adapt.frozen=enc"))
    with pytest.raises(ConfigError, match="freezes everything"):
        learner_of(toy("stages.adapt.frozen=encoder,layers,number,sign"))


@pytest.mark.parametrize("micro", ["none", "1", "3", "7"])
def test_micro_batches_make_the_step_that_one_batch_makes(micro: str):
    whole, parts = (learner_of(toy(f"stages.adapt.micro_batch={size}")) for size in ("none", micro))
    for step in range(3):
        assert take(parts, step) == pytest.approx(take(whole, step), rel=1e-5)
    for name, tensor in whole.task.module.state_dict().items():
        torch.testing.assert_close(parts.task.module.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)


def test_losses_are_means_over_their_own_counts_of_the_whole_step():
    learner = learner_of(toy())
    batches = learner.task.batches(learner.stage, 0, 0, 1)
    assert len(batches) == 3
    inputs, number, sign, known = (torch.cat(one) for one in zip(*(vars(b.content).values() for b in batches), strict=True))
    with torch.no_grad():
        guess, side = learner.task.module.answers(inputs)
    expected = {
        "number": F.mse_loss(guess, number).item(),
        "sign": F.binary_cross_entropy_with_logits(side[known], sign[known]).item(),
    }
    outcome = learner.learn(0, batches)
    assert outcome.losses == pytest.approx(expected, rel=1e-5)
    assert outcome.loss == pytest.approx(0.5 * expected["number"] + expected["sign"], rel=1e-5)
    assert outcome.tokens == 32


def test_two_losses_over_one_count_weigh_every_position_the_same():
    weight = torch.nn.Parameter(torch.tensor([1.0]))

    def losses(content: Tensor) -> dict[str, Loss]:
        return {"text": Loss((weight * content[:1]).sum(), over="both"), "image": Loss((weight * content[1:]).sum(), over="both")}

    contents = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0])]
    counts = [{"text": 1, "image": len(one) - 1, "both": len(one)} for one in contents]
    total = add_up([Batch(one, count) for one, count in zip(contents, counts, strict=True)], ALONE)
    lowered, means, bad = backward(Phase("all", losses), contents, total, toy().stages[0], ALONE)
    assert lowered == pytest.approx(15 / 5) and bad == ()
    assert means == pytest.approx({"text": 5 / 2, "image": 10 / 3})
    assert float(weight.grad) == pytest.approx(15 / 5)


def test_a_loss_over_something_that_batches_do_not_count_is_our_own_mistake():
    total = add_up([Batch(torch.ones(1), {"text": 1})], ALONE)
    phase = Phase("all", lambda content: {"txet": Loss(content.sum())})
    with pytest.raises(AssertionError, match="divided by txet"):
        backward(phase, [torch.ones(1)], total, toy().stages[0], ALONE)


def test_two_phases_make_the_updates_of_two_optimizers_in_turn():
    learner = learner_of(GAME)
    torch.manual_seed(GAME.seed)
    by_hand = Game(GAME)
    maker, judge = by_hand.module["maker"], by_hand.module["judge"]
    optimizers = [torch.optim.AdamW(part.parameters(), 1e-2, (0.9, 0.95), 1e-8, 0.0) for part in (maker, judge)]
    for step in range(6):
        (batch,) = by_hand.batches(GAME.stages[0], step, 0, 1)
        noise = batch.content
        fooling = -judge(maker(noise)).mean()
        judge_before = judge.weight.detach().clone()
        by_hand.module.zero_grad()
        fooling.backward()
        optimizers[0].step()
        assert torch.equal(judge.weight, judge_before)
        telling = F.relu(1 + judge(maker(noise).detach())).mean() + F.relu(1 - judge(noise[:, :2])).mean()
        by_hand.module.zero_grad()
        telling.backward()
        optimizers[1].step()
        outcome = learner.learn(step, learner.task.batches(learner.stage, step, 0, 1))
        assert outcome.losses == pytest.approx({"fooling": fooling.item(), "telling": telling.item()}, abs=1e-5)
        assert set(outcome.gradient_norms) == {"maker", "judge"}
    for name, tensor in by_hand.module.state_dict().items():
        torch.testing.assert_close(learner.task.module.state_dict()[name], tensor, atol=1e-5, rtol=1e-4)


def test_a_phase_with_nothing_left_to_train_is_refused():
    with pytest.raises(ConfigError, match="leaves the phase judge nothing to train"):
        learner_of(replace(GAME, stages=(replace(GAME.stages[0], frozen=("judge",)),)))


def test_a_loss_that_is_no_number_moves_nothing_and_says_which():
    learner = learner_of(toy("settings.poison_at=1"))
    take(learner, 0)
    before = copied(learner)
    with pytest.raises(TrainingError, match=r"the loss number is nan; .*stages.adapt.rate \(now 0.01\)"):
        take(learner, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.task.module.state_dict().items())


class Steep(Toy):
    """A loss of 0 where its slope is infinite."""

    def losses(self, content: Lesson) -> dict[str, Loss]:
        number, sign = self.module.answers(content.inputs)
        return {"number": Loss((number - number.detach()).sqrt().sum()), "sign": Loss(sign.sum())}


@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_a_gradient_that_is_no_number_moves_nothing_though_the_loss_is_one(clip: float):
    learner = learner_of(replace(RECIPE, task=Steep, stages=(replace(RECIPE.stages[0], clip=clip),)))
    before = copied(learner)
    with pytest.raises(TrainingError, match=r"the gradient's norm is (nan|inf); the step was not taken.*stages\.adapt\.rate"):
        take(learner)
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.task.module.state_dict().items())


class Found(Toy):
    """Samples that were found somewhere, three to a micro-batch; in step 1 those of the places in `poisoned` give no number."""

    poisoned: tuple[int, ...] = ()

    def batches(self, stage: Stage, step: int, rank: int, world: int) -> list[Batch[Lesson]]:
        made = []
        for place, batch in enumerate(super().batches(stage, step, rank, world)):
            if step == 1 and place in self.poisoned:
                batch.content.number[-1] = float("inf")
            numbers = range(3 * place, 3 * place + len(batch.content.number))
            made.append(replace(batch, origins=tuple(f"a.jsonl, record {number}" for number in numbers)))
        return made


@pytest.mark.parametrize(
    ("poisoned", "words"),
    [
        ((0,), "It came with a.jsonl, record 0; a.jsonl, record 1; a.jsonl, record 2 (stages.adapt.micro_batch=1 tells which): "),
        ((2,), "It came with a.jsonl, record 6; a.jsonl, record 7 (stages"),
        ((1, 2), "It came with a.jsonl, record 3; a.jsonl, record 4; a.jsonl, record 5; a.jsonl, record 6; a.jsonl, record 7 ("),
        ((0, 1), "; a.jsonl, record 4; and 1 more (stages"),
    ],
)
def test_a_loss_that_is_no_number_names_the_records_of_its_micro_batches(poisoned: tuple[int, ...], words: str):
    learner = learner_of(replace(RECIPE, task=Found))
    learner.task.poisoned = poisoned
    take(learner, 0)
    with pytest.raises(TrainingError) as told:
        take(learner, 1)
    assert str(told.value).startswith("the loss number is inf; the step was not taken. It came with ")
    assert words in str(told.value) and "A lower stages.adapt.rate (now 0.01)" in str(told.value)


def test_a_gradient_alone_that_is_no_number_names_records_of_the_whole_step():
    class Both(Found, Steep):
        pass

    with pytest.raises(
        TrainingError, match=r"norm is (nan|inf); the step was not taken\. The step held a\.jsonl, record 0; .*; and 3 more: look"
    ):
        take(learner_of(replace(RECIPE, task=Both)))


def test_a_step_without_anything_to_learn_is_refused():
    with pytest.raises(TrainingError, match="step 1 of stage adapt has nothing to learn from"):
        take(learner_of(toy("settings.empty_at=1")), 1)
    learner = learner_of(toy())
    with pytest.raises(TrainingError, match=r"leaves a process without samples: stages.adapt.batch is 8"):
        learner.learn(0, [])


def test_chance_inside_the_module_depends_on_the_step_and_the_seed_alone():
    recipe = toy("settings.dropout=0.5")
    torch.manual_seed(1)
    first = take(learner_of(recipe), 3)
    torch.manual_seed(2)
    assert take(learner_of(recipe), 3) == first
    assert take(learner_of(recipe), 4) != first
    assert take(learner_of(replace(recipe, seed=1)), 3) != first


def test_a_preview_leaves_weights_and_modes_as_they_were(tmp_path: Path):
    learner = learner_of(toy(), stage=1)
    take(learner)
    before, modes = copied(learner), [part.training for part in learner.task.module.modules()]
    learner.preview(tmp_path, 1)
    assert (tmp_path / "answer.txt").read_text().endswith("False")
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.task.module.state_dict().items())
    assert modes == [part.training for part in learner.task.module.modules()]


def test_the_result_is_the_average_where_there_is_one():
    learner = learner_of(toy("stages.tune.ema=0.5"), stage=1)
    start = copied(learner)
    take(learner)
    own, result = copied(learner), learner.result()
    torch.testing.assert_close(result["sign.weight"], (start["sign.weight"] + own["sign.weight"]) / 2)
    assert result["seen"].item() == 1
    assert not torch.equal(result["sign.weight"], own["sign.weight"])


def test_checkpointing_changes_memory_and_not_the_step():
    plain, again = learner_of(toy("settings.dropout=0.5")), learner_of(toy("settings.dropout=0.5", "stages.checkpointing=true"))
    for step in range(3):
        assert take(plain, step) == take(again, step)
    assert copied(plain).keys() == copied(again).keys()


def test_bfloat16_is_of_the_arithmetic_and_not_of_the_weights():
    learner = learner_of(toy("stages.adapt.precision=bfloat16"))
    exact = learner_of(toy())
    rounded = take(learner)
    assert rounded == pytest.approx(take(exact), rel=2e-2) and rounded != take(exact)
    assert {tensor.dtype for tensor in learner.tensors().values() if tensor.is_floating_point()} == {torch.float32}


def test_a_step_too_large_for_the_memory_says_what_to_set(monkeypatch: pytest.MonkeyPatch):
    learner = learner_of(toy())

    def exhaust(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(learner.task, "after_step", exhaust)
    with pytest.raises(TrainingError, match=r"stage adapt does not fit into the memory of cpu; set stages.adapt.micro_batch"):
        take(learner)
