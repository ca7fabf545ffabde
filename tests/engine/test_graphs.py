"""Recorded steps: played again they are the steps that would have been taken."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import tiny
from openjanus.engine.engine import Engine, EngineOptions
from openjanus.engine.graphs import Recorder, filled_up, recorder_of
from openjanus.engine.request import ImageRequest
from openjanus.engine.runner import Runner
from openjanus.janus import Janus, load
from openjanus.models.token_generation import TokenGeneration
from openjanus.types import ImageOptions

from .test_engine import finish, mixed, painting, question

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


class Tape:
    """Records on a CPU: what is played is the very function that was recorded, with the Python values of that time."""

    def __init__(self) -> None:
        self.recorded = self.played = 0

    def __call__(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.recorded += 1

        def play() -> Tensor:
            self.played += 1
            return step()

        return play


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Tape:
    """What engines record their steps on in this test."""
    tape = Tape()
    monkeypatch.setattr("openjanus.engine.batch.recorder_of", lambda device: Recorder(lambda: tape))
    return tape


def plus(x: Sequence[Tensor]) -> Tensor:
    return x[0] + x[1]


def test_the_first_step_of_a_shape_is_not_recorded_and_all_others_are_played():
    tape = Tape()
    recorder = Recorder(lambda: tape)
    for number in range(5):
        inputs = torch.tensor([number]), torch.tensor([10])
        assert recorder.run("one", plus, inputs).tolist() == [10 + number]
    assert (tape.recorded, tape.played) == (1, 4)


def test_what_was_given_first_is_not_written_to():
    recorder = Recorder(Tape)
    first = torch.tensor([1]), torch.tensor([2])
    for inputs in (first, first, (torch.tensor([5]), torch.tensor([6]))):
        recorder.run("one", plus, inputs)
    assert [x.tolist() for x in first] == [[1], [2]]


def test_too_many_recordings_and_all_are_forgotten_but_not_for_shapes_met_once():
    tapes: list[Tape] = []

    def begin() -> Tape:
        tapes.append(Tape())
        return tapes[-1]

    recorder = Recorder(begin, most=2)
    inputs = torch.tensor([1]), torch.tensor([2])
    for shape in ("a", "a", *range(100), "b", "b", "a"):
        recorder.run(shape, plus, inputs)
    assert [(tape.recorded, tape.played) for tape in tapes] == [(2, 3)]
    for shape in ("c", "c", "a", "a"):
        recorder.run(shape, plus, inputs)
    assert [(tape.recorded, tape.played) for tape in tapes] == [(2, 3), (2, 2)]


@pytest.mark.parametrize("options", [{}, {"lanes": 4, "chunk": 7}])
def test_requests_come_to_the_same_when_their_steps_are_played(janus: Janus, tape: Tape, options: dict[str, Any]):
    alone = [finish(Engine(janus.model, janus.processor), [request])[0] for request in mixed(janus)]
    engine = Engine(janus.model, janus.processor, EngineOptions(**options))
    assert finish(engine, mixed(janus)) == alone
    # What was recorded for others is played for these.
    assert finish(engine, mixed(janus)[::-1]) == alone[::-1]
    assert tape.played > 3 * tape.recorded > 0


def test_a_second_picture_is_played_from_the_recordings_of_the_first(janus: Janus, tape: Tape):
    engine = Engine(janus.model, janus.processor)
    finish(engine, [painting("a red cube", seed=1)])
    finish(engine, [painting("a red cube", seed=1)])
    recorded = tape.recorded
    finish(engine, [painting("a red cube", seed=2)])
    assert tape.recorded == recorded


def test_steps_are_filled_up_so_that_few_sizes_are_recorded(janus: Janus, tape: Tape, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(janus.processor.tokenizer, "eos", -1)
    engine = Engine(janus.model, janus.processor, EngineOptions(lanes=16, entries=60))
    hello, plain = question(janus, "Hello", max_tokens=9), painting("b", guidance=1.0)
    answer, picture = (finish(Engine(janus.model, janus.processor), [one])[0] for one in (hello, plain))
    for requests in ([hello] * 8, [plain] * 8, [painting("a", n=7), plain, plain]):
        finish(engine, requests)
        finish(engine, requests)
    recorded = tape.recorded
    for count in (5, 6, 7):
        assert finish(engine, [hello] * count) == [answer] * count
    if isinstance(janus.model.generation, TokenGeneration):
        assert finish(engine, [plain] * 7) == [picture] * 7
        assert finish(engine, [painting("a", n=6), plain, plain, plain])[1:] == [picture] * 3
    assert tape.recorded == recorded


def test_a_blank_row_that_is_none_belongs_to_an_image_that_is_none(tape: Tape):
    janus = tiny.tiny_janus("janus")
    engine = Engine(janus.model, janus.processor)
    # The images alone would need no filling up.
    for request in [painting("a", n=5), *[painting("b", guidance=1.0)] * 3]:
        engine.submit(request)
    for _ in range(4):
        engine.step()
    members = engine._batch._members
    assert members is not None
    pairs = members.inputs.paired.tolist()
    assert len(set(pairs[:5])) == 5 and max(pairs[:5]) < 8 and pairs[5:] == [9, 9, 9]
    assert members.inputs.images[8:].tolist() == [engine._batch.runner.cache.lanes] * 2


def test_edits_that_are_filled_up_come_to_what_they_are_alone(tape: Tape):
    janus = tiny.tiny_janus("janus")
    image = Image.new("RGB", (20, 30), "red")
    edit = ImageRequest("make it blue", ImageOptions(seed=3, guidance=3.0), images=(image,))
    unguided = replace(edit, options=ImageOptions(seed=3, guidance=1.0))
    plain = painting("a red cube", guidance=2.0)
    alone = [finish(Engine(janus.model, janus.processor), [one])[0] for one in (edit, unguided, plain)]
    engine = Engine(janus.model, janus.processor)
    # All run at once: three rows that lack codes are filled up to four, and so are three blank ones.
    together = [edit, plain, edit, unguided]
    for _ in range(2):
        assert finish(engine, together) == [alone[(edit, unguided, plain).index(one)] for one in together]
    assert tape.played > 0


def test_what_a_step_is_filled_up_with_leaves_no_trace_in_a_cache_that_grows():
    model = tiny.tiny_model("janus")
    runner = Runner(model, 2, 62)
    x = torch.ones(2, model.config.language.hidden_size)
    runner.settle(0, 0, 0)
    for _ in range(3):
        runner.run(torch.tensor([0, 2]), x, slice(0, 2), 64, [], [])
    runner.grow(4, 120)
    runner.cache.keys.fill_(1)
    for _ in range(3):
        runner.run(torch.tensor([0, 4]), x, slice(0, 4), 64, [], [])
    changed = (runner.cache.keys[:, :, :, : runner.cache.nowhere] != 1).flatten(2).any(2).any(0)
    assert changed.tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("count", "filled"), [(0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (8, 8), (9, 10), (16, 16), (17, 20), (33, 40), (100, 112)]
)
def test_few_rows_run_for_nothing(count: int, filled: int):
    assert filled_up(count) == filled and filled_up(filled) == filled


def test_a_played_step_of_pictures_is_told_nothing_new(janus: Janus, tape: Tape, monkeypatch: pytest.MonkeyPatch):
    engine = Engine(janus.model, janus.processor)
    number = engine.submit(painting("a red cube", seed=1, n=2, steps=12))
    for _ in range(6):
        engine.step()
    played = tape.played
    with monkeypatch.context() as patch:
        for name in ("tensor", "from_numpy", "as_tensor"):
            patch.setattr(torch, name, lambda *_, **__: pytest.fail("something was made for the device"))
        patch.setattr(Tensor, "to", _same_device)
        for _ in range(4):
            engine.step()
    assert tape.played == played + 4
    engine.cancel(number)


_TO = Tensor.to


def _same_device(x: Tensor, *given: Any, **named: Any) -> Tensor:
    devices = [one for one in (*given, *named.values()) if isinstance(one, torch.device | str)]
    assert not devices, "something was moved to the device"
    return _TO(x, *given, **named)


def test_a_cache_that_has_grown_is_recorded_anew(janus: Janus, monkeypatch: pytest.MonkeyPatch):
    tapes: list[Tape] = []

    def begin() -> Tape:
        tapes.append(Tape())
        return tapes[-1]

    monkeypatch.setattr("openjanus.engine.batch.recorder_of", lambda device: Recorder(begin))
    engine = Engine(janus.model, janus.processor, EngineOptions(entries=200))
    first = finish(engine, [question(janus, "Hello")])
    before = tapes[-1]
    assert before.played
    played = before.played
    assert finish(engine, [question(janus, "Hello")] * 6) == first * 6
    after = tapes[-1]
    assert after is not before and after.played
    assert finish(engine, [question(janus, "Hello")]) == first
    assert before.played == played, "nothing that was recorded before is played again"


def test_only_gpus_are_recorded():
    assert recorder_of(torch.device("cpu")) is None


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("name", ["janus-tiny", "janusflow-tiny"])
def test_a_gpu_plays_what_it_would_have_done(name: str, monkeypatch: pytest.MonkeyPatch):
    requests = mixed(load(name, "cuda", "float32"))
    played = finish(Engine((model := load(name, "cuda", "float32")).model, model.processor), requests)
    monkeypatch.setattr("openjanus.engine.batch.recorder_of", lambda device: None)
    assert finish(Engine(model.model, model.processor), requests) == played


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("name", ["janus-tiny", "janusflow-tiny"])
def test_a_step_of_pictures_asks_a_gpu_nothing(name: str):
    janus = load(name, "cuda", "bfloat16")
    engine = Engine(janus.model, janus.processor)
    engine.submit(painting("a red cube", seed=1, n=4, steps=60))
    for _ in range(8):
        engine.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(40):
            engine.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("quantize", ["none", "int8", "int4"])
@pytest.mark.parametrize("name", ["janus-tiny", "janusflow-tiny"])
def test_bundled_models_run_on_a_gpu(name: str, quantize: str):
    janus = load(name, "cuda", "bfloat16", quantize=quantize)
    images = janus.generate("a red circle", seed=0, n=2)
    assert [image.mode for image in images] == ["RGB"] * 2
    assert isinstance(janus.understand("How many circles are there?", images[:1]), str)
