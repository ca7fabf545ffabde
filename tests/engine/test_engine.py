"""The engine's loop: requests that come, wait, share steps, end early, fail; and what they leave behind."""

import copy
import random
import threading
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from openjanus.engine.engine import Engine, EngineOptions
from openjanus.engine.memory import lane_bytes
from openjanus.engine.request import Answer, Event, Failed, Finished, ImageRequest, Piece, Preview, Progress, Request, TextRequest
from openjanus.errors import ConfigError, EngineError, PromptError
from openjanus.janus import Janus
from openjanus.models.cache import KeyValueCache
from openjanus.models.llama import Llama
from openjanus.types import ImageOptions, Message, Prompt, TextOptions


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8))


def question(janus: Janus, text: str, images: int = 0, **options: Any) -> TextRequest:
    prompt = janus.processor.understanding_prompt([Message("user", text, tuple(picture(i) for i in range(images)))])
    return TextRequest(prompt, TextOptions(**({"max_tokens": 12} | options)))


def painting(text: str, **options: Any) -> ImageRequest:
    return ImageRequest(text, ImageOptions(**({"seed": 3, "steps": 3} | options)))


def mixed(janus: Janus) -> list[Request]:
    """Requests of all kinds, lengths and settings."""
    return [
        question(janus, "Hello"),
        painting("a red cube", n=3),
        question(janus, "What is it, and what else can you see in this picture?", images=1, temperature=1.2, seed=4),
        painting("two balls of different colors on a long and narrow table", guidance=1.0, temperature=0.7, top_k=9),
        question(janus, "Which?", images=2, max_tokens=30, top_p=0.8, temperature=0.9, seed=1),
        painting("a red cube", guidance=3.0, steps=5, temperature=0.0),
        question(janus, "Hello", temperature=2.0, seed=9, max_tokens=5),
        painting("a", n=2, steps=2, top_p=0.9),
    ]


def plain(result: Any) -> Any:
    """Something to compare: an answer's text and ids, or pixels."""
    if isinstance(result, Answer):
        return result.text, result.ids, result.reason
    return [(np.asarray(one.image).tolist(), one.seed) for one in result]


def finish(engine: Engine, requests: Sequence[Request]) -> list[Any]:
    found = {event.request: event for event in engine.run(requests) if isinstance(event, Finished | Failed)}
    assert not [event for event in found.values() if isinstance(event, Failed)]
    return [plain(found[number].result) for number in sorted(found)]


def engine_of(janus: Janus, **options: Any) -> Engine:
    return Engine(janus.model, janus.processor, EngineOptions(**options))


@pytest.mark.parametrize("options", [{}, {"lanes": 4, "chunk": 7}, {"lanes": 3, "entries": 130, "chunk": 1}])
def test_requests_that_run_together_come_to_what_they_come_to_alone(janus: Janus, options: dict[str, Any]):
    alone = [finish(engine_of(janus), [request])[0] for request in mixed(janus)]
    assert finish(engine_of(janus, **options), mixed(janus)) == alone


def test_requests_that_come_and_go_at_any_time_come_to_the_same(janus: Janus):
    requests = mixed(janus)
    alone = [finish(engine_of(janus), [request])[0] for request in requests]
    engine, randomness = engine_of(janus, lanes=5, chunk=16), random.Random(0)
    results: dict[int, Any] = {}
    numbers: dict[int, int] = {}
    waiting = list(range(len(requests))) * 2
    while waiting or not engine.idle:
        if waiting and randomness.random() < 0.4:
            which = waiting.pop()
            numbers[engine.submit(requests[which])] = which
        if numbers and randomness.random() < 0.05:
            gone = randomness.choice(sorted(numbers))
            engine.cancel(gone)
            numbers.pop(gone)
        for event in engine.step():
            assert event.request in numbers, "a request that is cancelled is never heard of again"
            if isinstance(event, Finished):
                results[event.request] = plain(event.result)
    assert len(results) >= len(requests)
    assert all(result == alone[numbers[number]] for number, result in results.items() if number in numbers)
    assert engine.rows == engine.waiting == 0


class Watch:
    """How many positions went through the language model, step by step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.positions: list[int] = []
        step = Llama.step

        def watched(language: Llama, x: torch.Tensor, *rest: Any) -> torch.Tensor:
            self.positions.append(len(x))
            return step(language, x, *rest)

        monkeypatch.setattr(Llama, "step", watched)


def test_the_images_of_one_prompt_read_it_once(janus: Janus, monkeypatch: pytest.MonkeyPatch):
    text = "a prompt that is rather long for so small a model, and longer"
    watch = Watch(monkeypatch)
    engine = engine_of(janus, lanes=12)
    finish(engine, [painting(text, steps=1)])
    first = sum(watch.positions)
    watch.positions.clear()
    finish(engine, [painting(text, steps=1, n=6)])
    steps = 1 if janus.model.config.generation.replaces_begin else 15
    positions = 16 if janus.model.config.generation.replaces_begin else 1
    assert sum(watch.positions) == 12 * steps * positions, "what an earlier request has read is known"
    assert first > 2 * steps * positions
    watch.positions.clear()
    finish(engine_of(janus, lanes=12), [painting(text, steps=1, n=6)])
    assert sum(watch.positions) < first + 14 * steps * positions, "five of six images wait for the first to read the prompt"


def test_the_next_turn_of_a_chat_reads_only_what_is_new(janus: Janus, monkeypatch: pytest.MonkeyPatch):
    engine = engine_of(janus)
    monkeypatch.setattr(janus.processor.tokenizer, "eos", -1)
    first = question(janus, "What is it?", images=1)
    (answer,) = [event.result for event in engine.run([first]) if isinstance(event, Finished)]
    assert isinstance(answer, Answer)
    again = torch.cat((first.prompt.ids, torch.tensor(answer.ids), torch.tensor([5, 6, 7])))
    slots = torch.cat((first.prompt.slots, torch.zeros(len(answer.ids) + 3, dtype=torch.bool)))
    watch = Watch(monkeypatch)
    monkeypatch.setattr(type(janus.model.understanding), "read", lambda *_: pytest.fail("the picture was looked at again"))
    prompt = type(first.prompt)(again, slots, first.prompt.pixels)
    finish(engine, [TextRequest(prompt, TextOptions(max_tokens=1))])
    # The last token of an answer was never run; of the new ones the last takes part in the first step.
    assert sum(watch.positions) == 1 + 3


def test_a_chat_finds_its_beginning_after_other_requests(janus: Janus, monkeypatch: pytest.MonkeyPatch):
    engine = engine_of(janus, lanes=3, entries=200)
    chat = question(janus, "What is it, and where?", images=1)
    finish(engine, [chat])
    finish(engine, [question(janus, "Hello")])
    finish(engine, [question(janus, "Is it so?")])
    watch = Watch(monkeypatch)
    finish(engine, [TextRequest(chat.prompt, TextOptions(max_tokens=1))])
    assert sum(watch.positions) == 1, "they took lanes that nobody had used"


def test_a_guided_picture_reads_both_of_its_prompts_in_one_pass(janus: Janus, monkeypatch: pytest.MonkeyPatch):
    watch = Watch(monkeypatch)
    finish(engine_of(janus), [painting("a cube", steps=3)])
    steps = 3 if janus.model.config.generation.replaces_begin else 15
    assert len(watch.positions) == 1 + steps, "nobody waits for the begin of sentence"


def test_another_picture_is_another_prompt(janus: Janus):
    engine = engine_of(janus)
    ask = [
        TextRequest(janus.processor.understanding_prompt([Message("user", "What is it?", (picture(i),))]), TextOptions(12))
        for i in range(3)
    ]
    together = finish(engine, ask)
    assert together == [finish(engine_of(janus), [request])[0] for request in ask]
    assert len({text for text, *_ in together}) > 1


def test_a_long_prompt_never_keeps_others_waiting_for_more_than_a_chunk(janus: Janus, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(janus.processor.tokenizer, "eos", -1)
    engine = engine_of(janus, chunk=10)
    short = engine.submit(question(janus, "Hi", max_tokens=25))
    while not any(isinstance(event, Piece) for event in engine.step()):
        pass
    long = engine.submit(question(janus, "word " * 100))
    watch, seen = Watch(monkeypatch), []
    while not engine.idle:
        seen.append({event.request for event in engine.step()})
    assert max(watch.positions) <= 12
    reading = next(step for step, numbers in enumerate(seen) if long in numbers)
    assert reading > 9
    assert sum(short in numbers for numbers in seen[:reading]) >= 8, "the short answer goes on meanwhile"


@pytest.mark.parametrize("chunk", [5, 20])
def test_many_images_of_a_prompt_are_looked_at_over_many_steps(janus: Janus, monkeypatch: pytest.MonkeyPatch, chunk: int):
    engine, looked = engine_of(janus, chunk=chunk), []
    read = type(janus.model.understanding).read

    def watched(understanding: Any, pixels: torch.Tensor) -> torch.Tensor:
        looked.append(len(pixels))
        return read(understanding, pixels)

    monkeypatch.setattr(type(janus.model.understanding), "read", watched)
    request = question(janus, "Which?", images=7)
    number, a_step = engine.submit(request), []
    while engine.reading:
        engine.step()
        a_step.append(len(looked) - sum(a_step))
    assert looked == [1] * 7, "each once, and alone, so that neighbours change nothing"
    assert max(a_step) <= 2 and sum(one > 0 for one in a_step) >= 5
    assert engine._live[number].request == request


def test_pictures_that_end_together_keep_nobody_waiting_for_all_their_pixels(janus: Janus, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(janus.processor.tokenizer, "eos", -1)
    requests = [painting("a cube", n=4), painting("a ball", n=2), question(janus, "Hello", max_tokens=40)]
    alone = [finish(engine_of(janus), [request])[0] for request in requests]
    engine, generation = engine_of(janus), type(janus.model.generation)
    decode, made = generation.decode, []
    monkeypatch.setattr(generation, "decode", lambda *given: made.append(1) or decode(*given))
    numbers, results, rows = [engine.submit(request) for request in requests], {}, []
    while not engine.idle:
        before = len(made)
        for event in engine.step():
            if isinstance(event, Finished):
                results[event.request] = plain(event.result)
        assert len(made) - before <= 1
        rows.append(engine.rows)
    assert len(made) == 6 and [results[number] for number in numbers] == alone
    assert rows.count(1) > 5, "pictures that are done hold no lanes while they wait for their pixels"


def test_previews_that_come_together_are_shown_one_after_the_other_and_ends_come_first(
    janus: Janus, monkeypatch: pytest.MonkeyPatch
):
    request = ImageRequest("a cube", ImageOptions(seed=0, steps=8, n=3), previews=3)
    generation = type(janus.model.generation)
    decode, made = generation.decode, []
    monkeypatch.setattr(generation, "decode", lambda *given: made.append(1) or decode(*given))
    engine, events = engine_of(janus), []
    engine.submit(request)
    while not engine.idle:
        before = len(made)
        events.append(engine.step())
        assert len(made) - before <= 1
    shown = [[event.image for event in step if isinstance(event, Preview)] for step in events]
    assert {image for step in shown for image in step} == {0, 1, 2}
    assert not any(shown[-3:]), "the last three steps bring the three pictures"


def test_thousands_of_requests_that_end_in_every_way_leave_the_cache_whole(janus: Janus):
    now = 0.0
    engine, randomness = Engine(janus.model, janus.processor, EngineOptions(lanes=6), lambda: now), random.Random(1)
    requests = [*mixed(janus), ImageRequest("a cube", ImageOptions(seed=1, n=2, steps=4), previews=3)]
    broken = question(janus, "What?", images=1).prompt
    broken_one = TextRequest(Prompt(broken.ids, broken.slots, broken.pixels[:0]))
    live: list[int] = []
    ends: Counter[str] = Counter()
    for _ in range(2500):
        late = randomness.random() < 0.2
        asked = broken_one if randomness.random() < 0.1 else randomness.choice(requests)
        live.append(engine.submit(asked, timeout=3 if late else None))
        if len(live) > 8:
            number = live.pop(randomness.randrange(len(live)))
            held = engine.rows, engine.waiting
            engine.cancel(number)
            ends["cancelled"] += 1
            assert (engine.rows, engine.waiting) <= held and number not in engine._live, "at once"
        if randomness.random() < 0.15:
            now += randomness.random()
            for event in engine.step():
                assert event.request in live
                if isinstance(event, Finished | Failed):
                    live.remove(event.request)
                    ends["late" if "longer" in str(getattr(event, "error", "")) else type(event).__name__] += 1
        busy = {row.lane for job in (*engine._reading, *engine._batch.jobs) for row in job.rows}
        assert engine.rows == len(busy) == 6 - engine._lanes.free, "a lane is either free or some request's"
    for number in live:
        engine.cancel(number)
    assert min(ends[end] for end in ("cancelled", "late", "Failed", "Finished")) > 3, ends
    assert engine.idle and engine.rows == engine.waiting == 0
    assert engine._lanes.free == 6 and not engine._undeveloped and not engine._batch.jobs
    assert finish(engine, requests[:2]) == [finish(engine_of(janus), [request])[0] for request in requests[:2]]


def test_a_request_that_takes_too_long_fails_and_frees_its_memory(janus: Janus):
    now = 0.0
    engine = Engine(janus.model, janus.processor, EngineOptions(lanes=2), clock=lambda: now)
    slow, waits = engine.submit(painting("a cube"), timeout=5), engine.submit(question(janus, "Hello"), timeout=100)
    engine.step()
    assert engine.rows == 2 and engine.waiting == 1
    now = 6.0
    failed = [event for event in engine.step() if isinstance(event, Failed)]
    assert [event.request for event in failed] == [slow] and "longer than it was given" in str(failed[0].error)
    events: list[Event] = []
    while not engine.idle:
        events += engine.step()
    assert isinstance(events[-1], Finished) and events[-1].request == waits


def test_what_can_never_fit_is_refused_at_once(janus: Janus):
    with pytest.raises(EngineError, match=r"needs \d+ positions and the engine has 20 a row"):
        engine_of(janus, entries=20).submit(question(janus, "Hello", max_tokens=100))
    with pytest.raises(EngineError, match="needs 2 rows and the engine has 1"):
        engine_of(janus, lanes=1).submit(painting("a cube"))
    small = engine_of(janus, memory=lane_bytes(janus.model.config.language, janus.model.dtype, 1) - 1)
    with pytest.raises(EngineError, match="MiB of cache and 0 MiB are allowed"):
        small.submit(question(janus, "Hello"))
    engine = engine_of(janus)
    with pytest.raises(PromptError, match="do not fit the model's context of 320"):
        engine.submit(painting("a" * (315 - len(janus.processor.generation_prompt("a")))))
    assert engine.idle and engine.rows == 0


def test_memory_decides_how_many_run_at_a_time_and_nobody_overtakes(janus: Janus):
    lane = lane_bytes(janus.model.config.language, janus.model.dtype, 60)
    engine = engine_of(janus, memory=3 * lane)
    requests = [painting("a cube"), painting("a ball"), question(janus, "Hi", max_tokens=3)]
    alone = [finish(engine_of(janus), [request])[0] for request in requests]
    ended: list[int] = []
    results = {}
    for request in requests:
        engine.submit(request)
    while not engine.idle:
        for event in engine.step():
            assert engine.rows <= 3
            if isinstance(event, Finished):
                ended.append(event.request)
                results[event.request] = plain(event.result)
    assert ended[0] == 0, "the answer would fit beside the first picture, but the second one came before it"
    assert [results[number] for number in range(3)] == alone


def test_a_cache_that_grows_never_takes_more_than_is_allowed(janus: Janus, monkeypatch: pytest.MonkeyPatch):
    lane = lane_bytes(janus.model.config.language, janus.model.dtype, 60)
    peaks, grow, make = [], KeyValueCache.grow, KeyValueCache.__init__

    def grows(cache: KeyValueCache, lanes: int, entries: int) -> None:
        before = cache.growing
        grow(cache, lanes, entries)
        peaks.append(before + cache.keys.nbytes + cache.values.nbytes)

    def makes(cache: KeyValueCache, *given: Any) -> None:
        make(cache, *given)
        peaks.append(cache.keys.nbytes + cache.values.nbytes)

    monkeypatch.setattr(KeyValueCache, "grow", grows)
    monkeypatch.setattr(KeyValueCache, "__init__", makes)
    for lanes in range(2, 12):
        engine = engine_of(janus, memory=lanes * lane)
        requests = [question(janus, "Hello", max_tokens=5), *[painting("a cube", seed=7)] * 3, question(janus, "word " * 9)]
        if lanes > 5:
            requests.append(question(janus, "word " * 40))
        numbers = [engine.submit(request) for request in requests]
        done = []
        while not engine.idle:
            done += [event.request for event in engine.step() if isinstance(event, Finished)]
        assert sorted(done) == numbers
        assert max(peaks) <= lanes * lane
        peaks.clear()


def test_growing_lets_go_of_the_keys_before_it_makes_room_for_values(monkeypatch: pytest.MonkeyPatch):
    cache = KeyValueCache(tiny.CONFIGS["janus"].language, 2, 60, torch.device("cpu"), torch.float32)
    keys, gone, new_zeros = weakref.ref(cache.keys), [], torch.Tensor.new_zeros

    def watched(*given: Any) -> torch.Tensor:
        gone.append(keys() is None)
        return new_zeros(*given)

    monkeypatch.setattr(torch.Tensor, "new_zeros", watched)
    cache.grow(4, 120)
    assert gone == [False, True]


def test_longer_rows_than_before_find_room(janus: Janus):
    lane = lane_bytes(janus.model.config.language, janus.model.dtype, 60)
    engine = engine_of(janus, memory=8 * lane)
    finish(engine, [painting("a cube", n=4)])
    long = question(janus, "word " * 50, max_tokens=100)
    assert finish(engine, [long]) == finish(engine_of(janus), [long])


def test_unfinished_pictures_are_shown_as_often_as_asked(janus: Janus):
    request = ImageRequest("a cube", ImageOptions(seed=0, steps=8), previews=3)
    events = list(engine_of(janus).run([request]))
    shown = [place for place, event in enumerate(events) if isinstance(event, Preview)]
    assert len(shown) == 3
    done = [event.done for event in events if isinstance(event, Progress)]
    steps = len(done)
    assert done == list(range(1, steps + 1))
    (final,) = [event.result for event in events if isinstance(event, Finished)]
    pictures = [np.asarray(event.picture) for event in events if isinstance(event, Preview)]
    if steps == 15:
        # Three rows of codes: what is not there yet is grey.
        grey = [(one == 127).mean() for one in pictures]
        assert grey[0] > 0.9 > grey[1] > grey[2] > 0.3
    else:
        distances = [np.abs(one.astype(int) - np.asarray(final[0].image)).mean() for one in pictures]
        assert distances == sorted(distances, reverse=True) and distances[-1] < distances[0]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no"), RuntimeError("DefaultCPUAllocator: not enough memory")])
def test_too_little_memory_in_a_step_fails_what_ran_and_leaves_a_working_engine(
    janus: Janus, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    engine = engine_of(janus)
    numbers = [engine.submit(request) for request in mixed(janus)]
    engine.step()
    with monkeypatch.context() as patch:
        patch.setattr(Llama, "step", lambda *_: (_ for _ in ()).throw(error))
        events = engine.step()
    assert [event.request for event in events if isinstance(event, Failed)] == numbers
    assert engine.idle and engine.rows == 0
    assert finish(engine, [painting("a cube")]) == finish(engine_of(janus), [painting("a cube")])


def test_an_interrupted_step_leaves_a_working_engine(janus: Janus, monkeypatch: pytest.MonkeyPatch):
    engine = engine_of(janus)
    running = engine.run([painting("a cube"), question(janus, "Hello")])
    next(running)
    with monkeypatch.context() as patch:
        patch.setattr(Llama, "step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            list(running)
    assert engine.idle and engine.rows == 0
    assert finish(engine, [painting("a cube")]) == finish(engine_of(janus), [painting("a cube")])


def test_a_step_that_breaks_off_is_told_to_everyone_who_waits(janus: Janus, monkeypatch: pytest.MonkeyPatch):
    engine = engine_of(janus)
    first, second = engine.run([painting("a cube", steps=30)]), engine.run([question(janus, "Hello", max_tokens=30)])
    next(first)
    next(second)
    with monkeypatch.context() as patch:
        patch.setattr(Llama, "step", lambda *_: (_ for _ in ()).throw(ZeroDivisionError))
        with pytest.raises(ZeroDivisionError):
            list(first)
    (*_, failed) = second
    assert isinstance(failed, Failed) and "given up" in str(failed.error)
    assert engine.idle and engine.rows == 0


def test_what_somebody_else_cancels_ends_with_a_failure(janus: Janus):
    engine = engine_of(janus)
    running = engine.run([painting("a cube")])
    engine.cancel(next(running).request)
    (*_, failed) = running
    assert isinstance(failed, Failed)


def test_a_run_that_is_forgotten_in_the_middle_of_a_step_disturbs_nobody(janus: Janus, monkeypatch: pytest.MonkeyPatch):
    engine = engine_of(janus)
    forgotten = [engine.run([question(janus, "Hello", max_tokens=30)])]
    next(forgotten[0])
    step = Llama.step

    def forgetful(self: Llama, *rest: Any) -> torch.Tensor:
        forgotten.clear()
        return step(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Llama, "step", forgetful)
        together = finish(engine, [painting("a cube")])
    assert together == finish(engine_of(janus), [painting("a cube")])
    assert engine.idle and engine.rows == 0


def test_short_rows_run_side_by_side_again_after_a_long_one(janus: Janus):
    lane = lane_bytes(janus.model.config.language, janus.model.dtype, 60)
    engine = engine_of(janus, memory=8 * lane)
    finish(engine, [question(janus, "word " * 50, max_tokens=100)])
    for _ in range(4):
        engine.submit(painting("a cube"))
    most = 0
    while not engine.idle:
        engine.step()
        most = max(most, engine.rows)
        held = engine._batch.runner.cache
        assert held.lanes * lane_bytes(janus.model.config.language, janus.model.dtype, held.entries) <= 8 * lane
    assert most >= 4


def test_tokens_that_the_model_lacks_are_refused(janus: Janus):
    good = question(janus, "Hello")
    ids = good.prompt.ids.clone()
    ids[2] = 10**6
    engine = engine_of(janus)
    with pytest.raises(PromptError, match="does not know"):
        engine.submit(TextRequest(type(good.prompt)(ids, good.prompt.slots, good.prompt.pixels)))
    with pytest.raises(ConfigError, match="chunk is 0"):
        EngineOptions(chunk=0)


def test_a_fused_optimizer_makes_the_cache_forget_too(janus: Janus):
    model = copy.deepcopy(janus.model).requires_grad_(True)
    engine = Engine(model, janus.processor)
    request = question(janus, "Hello there", max_tokens=20)
    finish(engine, [request])
    parameters = list(model.language.parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    torch.optim.AdamW(parameters, lr=0.05, fused=True).step()
    torch.autograd.graph.increment_version(parameters)  # as the trainer does
    assert finish(engine, [request]) == finish(Engine(model, janus.processor), [request])


def test_who_stops_listening_cancels(janus: Janus):
    engine = engine_of(janus)
    running = engine.run([painting("a cube"), question(janus, "Hello")])
    next(running)
    assert engine.rows
    running.close()
    assert engine.idle and engine.rows == 0


def test_weights_that_change_make_the_cache_forget(janus: Janus):
    model = copy.deepcopy(janus.model)
    engine = Engine(model, janus.processor)
    request = question(janus, "Hello there", max_tokens=20)
    before = finish(engine, [request])
    with torch.no_grad():
        model.language.model.layers[0].self_attn.v_proj.weight.mul_(-1)
    after = finish(engine, [request])
    assert before != after
    assert after == finish(Engine(model, janus.processor), [request])


def test_threads_share_the_steps_of_one_engine(janus: Janus):
    requests = mixed(janus)
    alone = [finish(engine_of(janus), [request])[0] for request in requests]
    engine, found = engine_of(janus), {}

    def work(which: int) -> None:
        found[which] = finish(engine, [requests[which]])[0]

    threads = [threading.Thread(target=work, args=(which,)) for which in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found[which] for which in range(len(requests))] == alone
    assert engine.idle


def test_a_broken_prompt_fails_alone(janus: Janus):
    good = question(janus, "Hello")
    broken = question(janus, "What?", images=1)
    broken = TextRequest(type(broken.prompt)(broken.prompt.ids, broken.prompt.slots, broken.prompt.pixels[:0]), broken.options)
    events = list(engine_of(janus).run([broken, good]))
    failed = [event for event in events if isinstance(event, Failed)]
    assert [event.request for event in failed] == [0] and isinstance(failed[0].error, PromptError)
    assert [event.request for event in events if isinstance(event, Finished)] == [1]


def test_runs_and_steps_leave_each_other_their_events(janus: Janus):
    engine = engine_of(janus)
    mine = engine.submit(question(janus, "Hello"))
    theirs = list(engine.run([question(janus, "Hello")]))
    assert {event.request for event in theirs} == {mine + 1} and isinstance(theirs[-1], Finished)
    while not engine.idle:
        theirs += engine.step()
    told = [event for event in engine.step() + theirs if event.request == mine]
    assert isinstance(told[-1] if told else None, Finished)
    # The other way round: who steps does not take what a run waits for.
    running = engine.run([question(janus, "Hello")])
    first = next(running)
    number = engine.submit(question(janus, "Hello"))
    stepped = [event for _ in range(3) for event in engine.step()]
    assert all(event.request == number for event in stepped)
    rest = [first, *running]
    assert {event.request for event in rest} == {number - 1} and isinstance(rest[-1], Finished)


def test_more_lanes_than_the_memory_holds_are_refused_at_once(janus: Janus):
    lane = lane_bytes(janus.model.config.language, janus.model.dtype, 64)
    engine_of(janus, lanes=2, entries=64, memory=2 * lane)
    with pytest.raises(
        EngineError, match=r"3 lanes of 64 positions take \d+ MiB of cache and \d+ MiB are allowed; ask for fewer"
    ):
        engine_of(janus, lanes=3, entries=64, memory=2 * lane)


@pytest.mark.parametrize(("ids", "said"), [([], "the prompt holds nothing"), ([0, -3, 1], "does not know")])
def test_prompts_of_nothing_and_of_negative_tokens_are_refused(janus: Janus, ids: list[int], said: str):
    none = torch.zeros(len(ids), dtype=torch.bool)
    prompt = Prompt(torch.tensor(ids, dtype=torch.int64), none, torch.zeros(0, 3, 16, 16))
    with pytest.raises(PromptError, match=said):
        janus.engine.submit(TextRequest(prompt, TextOptions()))
