"""The language model's task: its loss by hand, what it supervises, what it says of data it cannot use, what it leaves."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from torch.nn import functional as F

import tiny
from openjanus.checkpoints.parts import load_part
from openjanus.data.samples import Sample
from openjanus.errors import DataError
from openjanus.models.janus import JanusModel
from openjanus.processing.tokenizer import Tokenizer
from openjanus.train.language import LanguageSettings, LanguageTask
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage
from openjanus.types import Message

from .running import curve, run

CONFIG = tiny.CONFIGS["janus"]
STAGE = Stage("text", steps=3, batch=4, rate=1e-2)


class Texts:
    """A conversation and a plain text in turn."""

    def __getitem__(self, k: int) -> Sample:
        plain = (Message("assistant", "one two three"),)
        return Sample("text", plain if k % 2 else (Message("user", "What?"), Message("assistant", "That.")), k)


def recipe(**settings: Any) -> Recipe:
    def task(of: Recipe) -> LanguageTask:
        return LanguageTask(of, tiny.tiny_processor("janus"), CONFIG.generation, Texts())

    return Recipe("language", task, (STAGE,), replace(LanguageSettings(CONFIG.language, context=128), **settings))


def task_of(**settings: Any) -> LanguageTask:
    torch.manual_seed(0)
    made = recipe(**settings)
    task = made.task(made)
    assert isinstance(task, LanguageTask)
    return task


def test_the_loss_is_that_of_each_answers_tokens_one_text_after_the_other():
    task = task_of()
    tokenizer = task.processor.tokenizer
    (batch,) = task.batches(STAGE, 0, 0, 1)
    nats, number = torch.zeros(()), 0
    for k in range(4):
        if k % 2:
            ids, first = [tokenizer.bos, *tokenizer.encode(" one two three")[1:], tokenizer.eos], 1
        else:
            ids = task.processor.understanding_prompt([Message("user", "What?")]).ids.tolist()
            first = len(ids)
            ids += [*tokenizer.encode(" That.")[1:], tokenizer.eos]
        positions = torch.arange(len(ids))[None]
        with torch.no_grad():
            hidden = task.module(task.module.embed(torch.tensor([ids])), positions)
            logits = task.module.logits(hidden)[0]
        nats += F.cross_entropy(logits[first - 1 : -1], torch.tensor(ids[first:]), reduction="sum")
        number += len(ids) - first
    loss = task.losses(batch.content)["text"]
    assert batch.counts == {"text": number}
    assert float(loss.sum.detach()) == pytest.approx(float(nats), rel=1e-5)


def test_questions_are_learned_where_that_is_asked_for():
    (answers,), (all_,) = (task_of(supervise_prompts=prompts).batches(STAGE, 0, 0, 1) for prompts in (False, True))
    # But for the first token of each conversation and text.
    assert answers.counts["text"] < all_.counts["text"] == int(answers.content.attended.sum()) - 4


def test_each_process_gets_its_own_samples_and_together_they_are_the_step():
    task = task_of()
    (whole,) = task.batches(STAGE, 1, 0, 1)
    halves = [task.batches(STAGE, 1, rank, 2)[0] for rank in range(2)]
    assert sum(half.counts["text"] for half in halves) == whole.counts["text"]


def test_a_text_that_fits_no_row_is_named():
    with pytest.raises(DataError, match=r"a sample of text: it has \d+ tokens, and a row holds settings\.context=4"):
        task_of(context=4).batches(STAGE, 0, 0, 1)


def test_a_run_learns_and_leaves_what_a_janus_begins_with(tmp_path: Path):
    result = run(tmp_path / "run", recipe=replace(recipe(), preview_every=2))
    lines = curve(tmp_path / "run")
    assert lines[-1]["losses"]["text"] < lines[0]["losses"]["text"]
    assert "of them right" in next((tmp_path / "run" / "previews").rglob("text.txt")).read_text(encoding="utf-8")
    assert result.final is not None
    part = load_part(result.final)
    model = JanusModel(CONFIG)
    assert part.keys() == {name for name in model.state_dict() if name.startswith("language.")}
    model.load_state_dict(part, strict=False)
    told = Tokenizer(tokenizers.Tokenizer.from_file(str(result.final / "tokenizer.json")))
    assert told.encode("one two") == tiny.tiny_processor("janus").tokenizer.encode("one two")


def test_what_it_measures_is_of_texts_never_learned_from():
    task = task_of()
    found = task.measure(samples=6)
    assert found["nats"] > 4 and 0 <= found["right"] < 0.2
    again = copy.deepcopy(task.module)
    with torch.no_grad():
        again.lm_head.weight.zero_()
    task.module = again
    assert task.measure(samples=6)["nats"] == pytest.approx(float(torch.log(torch.tensor(352.0))), rel=1e-5)
