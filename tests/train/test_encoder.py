"""The vision tower's task: the sigmoid loss by hand, captions in company, labels, single objects and scenes, exports."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from openjanus.checkpoints.parts import load_part
from openjanus.config import TowerConfig
from openjanus.data.shapes_streams import category, painting
from openjanus.errors import ConfigError
from openjanus.models.siglip import SiglipTower
from openjanus.train.captioned import hashed
from openjanus.train.encoder import POSITIONS, EncoderSettings, EncoderTask, sigmoid_loss
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage

LABELS = {"colour", "shape", "place", "heart"}
TOWER = TowerConfig(image_size=16, patch_size=4, width=16, layers=1, heads=2, select_layer=-1)
STAGE = Stage("learn", steps=2, batch=4, rate=1e-3, mix={"single": 1, "scenes": 3})


def words_of(texts: list[str]) -> Tensor:
    return pad_sequence([torch.tensor(hashed(text)) for text in texts], batch_first=True)


def task_of(**settings: Any) -> EncoderTask:
    torch.manual_seed(0)
    return EncoderTask(Recipe("encoder", EncoderTask, (STAGE,), EncoderSettings(TOWER, **settings)))


def test_the_sigmoid_loss_is_a_yes_or_no_for_every_pair() -> None:
    pictures, captions = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    found = sigmoid_loss(pictures, captions, torch.eye(2, dtype=torch.bool), torch.tensor(10.0), torch.tensor(-10.0))
    cosines = [[1.0, 0.6], [0.0, 0.8]]
    expected = 0.0
    for row in range(2):
        for column in range(2):
            logit = (10 * cosines[row][column] - 10) * (1 if row == column else -1)
            expected += math.log(1 + math.exp(-logit))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_it_begins_at_siglips_temperature_and_bias() -> None:
    module = task_of().module
    assert float(module.log_scale.detach()) == pytest.approx(math.log(10)) and float(module.bias.detach()) == -10


def test_equal_captions_are_true_of_each_others_pictures() -> None:
    task = task_of(labels=0.0)
    (batch,) = task.batches(STAGE, 0, 0, 1)
    lesson = batch.content
    alike = replace(lesson, words=lesson.words[:1].expand(4, -1))
    with torch.no_grad():
        task.module.bias.fill_(10.0)
    # All pairs are right ones, and at this bias all are called so.
    assert float(task.losses(alike)["captions"].sum) < 16 * math.log(1 + math.exp(-0.0))
    assert float(task.losses(lesson)["captions"].sum) > 12 * 5


@pytest.mark.parametrize("text_layers", [0, 1])
def test_a_caption_is_the_same_in_any_company(text_layers: int) -> None:
    alone, together = words_of(["A red circle."]), words_of(["a red circle", "two circles left of a blue star"])
    assert torch.equal(alone[0], together[0, :3]) and together[0, 3:].eq(0).all()
    read = task_of(text_layers=text_layers).module.text
    torch.testing.assert_close(read(alone)[0], read(together)[0])


def test_of_a_long_caption_the_blocks_read_the_first_words() -> None:
    long = words_of([" ".join(f"word{k}" for k in range(POSITIONS + 30))])
    read = task_of(text_layers=1).module.text
    assert torch.equal(read(long), read(long[:, :POSITIONS]))
    assert not torch.equal(read(long), read(long[:, : POSITIONS - 1]))


def test_a_run_that_nobody_teaches_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"settings\.captions and settings\.labels are both 0"):
        task_of(captions=0.0, labels=0.0)


def test_of_every_four_samples_one_is_a_single_object() -> None:
    task = task_of()
    (batch,) = task.batches(STAGE, 1, 0, 1)
    shown = [category(0, 4), *(painting(0, k) for k in (5, 6, 7))]
    assert torch.equal(batch.content.words, words_of([one.text for one in shown]))
    assert batch.counts == {"captions": 4, "colour": 64, "shape": 64, "place": 64, "heart": 64}


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"names text; an encoder learns from single and scenes"):
        task_of().batches(Stage("learn", steps=1, batch=1, rate=1e-3, mix={"text": 1}), 0, 0, 1)


@pytest.mark.parametrize(
    ("settings", "names"),
    [({}, {"captions", *LABELS}), ({"captions": 0.0}, LABELS), ({"labels": 0.0}, {"captions"})],
)
def test_each_teacher_can_be_left_out(settings: dict[str, float], names: set[str]) -> None:
    task = task_of(**settings)
    (batch,) = task.batches(STAGE, 0, 0, 1)
    assert set(task.losses(batch.content)) == names


@pytest.mark.parametrize("text_layers", [0, 1])
def test_labels_are_learned(text_layers: int) -> None:
    task = task_of(text_layers=text_layers)
    (batch,) = task.batches(STAGE, 0, 0, 1)
    optimizer = torch.optim.AdamW(task.module.parameters(), lr=3e-3)
    curve = []
    for _ in range(30):
        total = torch.stack([loss.sum / batch.counts[name] for name, loss in task.losses(batch.content).items()]).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        curve.append(float(total))
    assert curve[-1] < curve[0] / 2


def test_the_tower_loads_back_bit_for_bit(tmp_path: Path) -> None:
    task = task_of()
    task.export(tmp_path, task.module.state_dict())
    again = SiglipTower(TOWER)
    again.load_state_dict({name.removeprefix("understanding.encoder."): tensor for name, tensor in load_part(tmp_path).items()})
    for name, tensor in task.module.tower.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_a_preview_says_how_much_is_read_right(tmp_path: Path) -> None:
    task = task_of()
    task.module.eval()
    with torch.no_grad():
        task.preview(tmp_path, 0)
        assert set(task.measure(8)) == {"colour", "shape", "background"}
    assert "shape 0." in (tmp_path / "patches.txt").read_text(encoding="utf-8")
