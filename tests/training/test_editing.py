"""Edits: what a record of one becomes, and what of it is learned."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import tiny
from openjanus.data.conversations import to_record, to_sample
from openjanus.data.documents import Writer
from openjanus.data.packing import batch, pack
from openjanus.data.samples import Sample
from openjanus.errors import DataError, PromptError
from openjanus.types import IGNORE, Message

PAD = 342


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)


def edit(text: str, *seeds: int, seed: int = 0) -> Sample:
    return Sample("editing", (Message("user", text, tuple(map(picture, seeds))),), seed, picture(seed + 100))


def writer(**changes: object) -> Writer:
    return dataclasses.replace(Writer(tiny.tiny_processor("janus"), tiny.CONFIGS["janus"].generation), **changes)


def by_hand(sample: Sample, codes_shown: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings [1, T, D] in the layout of Janus-4o, where the target's codes begin, and these codes: all put together here."""
    model, processor = tiny.tiny_model("janus"), tiny.tiny_processor("janus")
    token, generation = processor.tokenizer, model.generation
    size = tiny.CONFIGS["janus"].generation.image_size
    (message,) = sample.messages
    text = "".join(processor.tokenizer.image_tag for _ in message.images) + message.text
    rendered = processor.chat.render([Message("user", text)], system_prompt="", add_reply=True) + token.image_start_tag
    pieces = []
    images = iter(message.images)
    for id in token.encode(rendered):
        if id != token.image:
            pieces.append(model.language.embed(torch.tensor([id])))
            continue
        image = next(images)
        read = model.understanding.read(torch.from_numpy(processor.images.pixels([processor.images.square(_pil(image))])))[0]
        codes = generation.tokenizer.encode(processor.pictures([image], size)).codes.flatten()
        pads = model.language.embed(torch.full_like(codes, token.pad))
        begin, end = (model.language.embed(torch.tensor([one])) for one in (token.image_start, token.image_end))
        pieces += [begin, read, end, begin, generation.embed_codes(codes) if codes_shown else pads, end]
    prompt = torch.cat(pieces)
    target = generation.tokenizer.encode(processor.pictures([sample.picture], size)).codes.flatten()
    whole = torch.cat((prompt, generation.embed_codes(target[:-1])))[None]
    return whole, torch.tensor(len(prompt) - 1), target


def _pil(array: np.ndarray) -> Image.Image:
    return Image.fromarray(array)


@pytest.mark.parametrize("hidden", [0.0, 1.0])
def test_edit_loss_by_hand(hidden: float):
    """Two edits, one of two images: each code of the target, and nothing else; the image's codes or pads in their places."""
    model, pen = tiny.tiny_model("janus"), writer(hidden_codes=hidden)
    samples = [edit("more noise", 1, seed=3), edit("mix them", 4, 5, seed=6)]
    total = 0.0
    for sample in samples:
        x, first, codes = by_hand(sample, codes_shown=hidden == 0)
        states = model.language(x, torch.arange(x.shape[1])[None])[0, int(first) :]
        total += float(F.nll_loss(model.generation.logits(states).log_softmax(-1), codes, reduction="sum"))
    documents = [pen.document(sample) for sample in samples]
    losses = model.losses(batch(pack(documents, 320), PAD))
    assert losses["image"][1] == 2 * 15 and losses["text"][1] == 0
    assert float(losses["image"][0]) == pytest.approx(total, abs=1e-3)
    assert all((document.labels == IGNORE).all() for document in documents)


def test_codes_are_hidden_in_half_of_the_edits_and_texts_in_none():
    pen = writer()
    documents = [pen.document(edit("more noise", 1, seed=seed)) for seed in range(200)]
    shown = sum(bool(document.shown.any()) for document in documents)
    assert 70 <= shown <= 130
    prompt = pen.processor.editing_prompt("more noise", [picture(1)], 15, pen.generation.image_size)
    assert all(torch.equal(document.ids[: len(prompt)], prompt.ids) for document in documents)
    dropped = writer(edit_dropout=1.0).document(edit("more noise", 1))
    blank = pen.processor.blank(prompt)
    assert torch.equal(dropped.ids[: len(prompt)], blank.ids) and not dropped.slots.any() and not dropped.shown.any()
    assert len(dropped.pixels) == len(dropped.originals) == 0


def test_gradients_of_an_edit_reach_the_tower_and_both_uses_of_codes():
    model = copy.deepcopy(tiny.tiny_model("janus")).requires_grad_(True)
    documents = [writer(hidden_codes=0.0).document(edit("more noise", 1, seed=3))]
    total, _ = model.losses(batch(pack(documents, 320), PAD))["image"]
    total.backward()
    for part in (model.understanding.encoder, model.understanding.adaptor, model.generation.adaptor, model.generation.head):
        assert any(one.grad is not None and one.grad.abs().sum() > 0 for one in part.parameters())
    assert all(one.grad is None for one in model.generation.tokenizer.parameters())


def test_a_flow_model_has_no_layout_for_edits():
    flow = Writer(tiny.tiny_processor("janusflow"), tiny.CONFIGS["janusflow"].generation)
    with pytest.raises(PromptError, match="cannot learn to edit: it paints latents"):
        flow.document(edit("more noise", 1))


def test_images_on_both_sides_are_an_edit_and_so_is_the_form_of_sharegpt_4o_image():
    shown = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "make it black"}]
    painted = [{"type": "image", "image": "b.png"}]
    messages = [{"role": "user", "content": shown}, {"role": "assistant", "content": painted}]
    for record in (
        {"messages": messages},
        {"input_prompt": "make it black", "input_image": ["a.png"], "output_image": "b.png"},
    ):
        sample = to_sample(record, Path("/d"), 0)
        assert (sample.kind, sample.messages[0].text) == ("editing", "make it black")
        assert (sample.messages[0].images, sample.picture) == ((Path("/d/a.png"),), Path("/d/b.png"))
        back = to_record(sample, lambda image: Path(str(image)).name)
        assert back == {"messages": messages}
    assert to_sample({"input_prompt": "a cat", "output_image": "b.png"}, Path("/d"), 0).kind == "generation"


@pytest.mark.parametrize(
    ("user", "answer", "words"),
    [
        ([{"type": "image", "image": "a.png"}], [{"type": "image", "image": "b.png"}], "what to do with the image is empty"),
        (
            [{"type": "image", "image": "a.png"}, {"type": "text", "text": "x"}],
            [{"type": "image", "image": "b.png"}, {"type": "image", "image": "c.png"}],
            "one image of the assistant",
        ),
    ],
)
def test_an_edit_that_is_none_is_refused(user: object, answer: object, words: str):
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    with pytest.raises(DataError, match=words):
        to_sample({"messages": messages}, Path(), 0)
