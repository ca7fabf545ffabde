"""Edits in the engine: three rows a picture, against plain full forwards, and beside everything else."""

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from openjanus.errors import PromptError
from openjanus.janus import Janus
from openjanus.models.randomness import source
from openjanus.models.sampling import pick
from openjanus.processing.images import to_images
from openjanus.types import ImageOptions, Prompt


@pytest.fixture
def janus() -> Janus:
    """The small model that paints with codes."""
    return tiny.tiny_janus("janus")


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8))


def embedded(janus: Janus, prompt: Prompt) -> torch.Tensor:
    """Embeddings [1, T, D] of a prompt: words, images as they are read, and their codes where they are shown."""
    model = janus.model
    x = model.language.embed(prompt.ids.masked_fill(prompt.slots, 0))
    if prompt.slots.any():
        x[prompt.slots] = model.read(int(prompt.slots.sum()), prompt.pixels)
    if prompt.shown is not None and prompt.pictures is not None:
        codes = model.generation.tokenizer.encode(prompt.pictures).codes.flatten()
        x[prompt.shown] = model.generation.embed_codes(codes)
    return x[None]


@torch.no_grad()
def by_full_forwards(janus: Janus, text: str, images: list[Image.Image], seed: int, guidance: float, held: float) -> Image.Image:
    """The plainest loop: three whole sequences again for every code, mixed as training_spec 6.3 writes it."""
    config, processor, generation = janus.model.config.generation, janus.processor, janus.model.generation
    full = processor.editing_prompt(text, images, config.positions, config.image_size)
    rows = [embedded(janus, one) for one in (full, processor.without_codes(full), processor.blank(full))]
    draws = torch.from_numpy(source(seed).random(config.positions, dtype=np.float32))
    codes = []
    for step in range(config.positions):
        logits = []
        for x in rows:
            hidden = janus.model.language(x, torch.arange(x.shape[1])[None])
            logits.append(generation.logits(hidden[:, -1]))
        whole, part, blank = logits
        wanted = (whole + held * part) / (1 + held)
        code = pick(blank + guidance * (wanted - blank), draws[step : step + 1], 1.0)
        codes.append(code)
        rows = [torch.cat((x, generation.embed_codes(code)[:, None]), dim=1) for x in rows]
    return to_images(generation.decode(torch.stack(codes, dim=1)))[0]


@pytest.mark.parametrize(("guidance", "held"), [(5.0, 5.0), (3.0, 1.0), (1.0, 2.0), (4.0, 0.0)])
def test_an_edit_is_what_three_full_forwards_make_of_it(janus: Janus, guidance: float, held: float):
    images = [picture(1), picture(2)]
    (ours,) = janus.generate("mix them", images=images, seed=3, guidance=guidance, image_guidance=held)
    assert ours.tobytes() == by_full_forwards(janus, "mix them", images, 3, guidance, held).tobytes()


def test_edits_run_beside_pictures_and_come_to_the_same(janus: Janus):
    texts, images = ["more noise", "noise", "less noise"], [[picture(1)], [], [picture(2)]]
    together = janus.generate(texts, images=images, seed=5, n=2)
    for number, (text, group) in enumerate(zip(texts, images, strict=True)):
        alone = janus.generate(text, images=group, seed=5, n=2)
        assert [one.tobytes() for one in together[2 * number : 2 * number + 2]] == [one.tobytes() for one in alone]
    # The model's own guidance is Janus-4o's.
    default = janus.generate("more noise", images=picture(1), seed=5)
    told = janus.generate("more noise", images=[picture(1)], seed=5, guidance=5, image_guidance=5)
    assert default[0].tobytes() == told[0].tobytes()


def test_another_image_is_another_edit_and_the_codes_count(janus: Janus):
    one, other = (janus.generate("more noise", images=[picture(seed)], seed=5)[0].tobytes() for seed in (1, 2))
    assert one != other
    without = janus.generate("more noise", images=[picture(1)], seed=5, image_guidance=1000)[0].tobytes()
    assert without != one


def test_the_settings_of_an_edit_go_with_the_picture(janus: Janus):
    (edit,) = janus.paint("more noise", ImageOptions(seed=1), images=[picture(1)])
    (plain,) = janus.paint("noise", ImageOptions(seed=1))
    assert '"image_guidance": 5.0' in edit.metadata("x")["settings"]
    assert "image_guidance" not in plain.metadata("x")["settings"]


@pytest.mark.parametrize(
    ("text", "images", "words"),
    [
        ("", [picture()], "an edit needs a text that says what to do"),
        ("put <image_placeholder> here", [picture()], "leave <image_placeholder> out of it"),
        (["a", "b"], picture(), "2 prompts came with one image"),
        (["a", "b"], [[picture()]], "2 prompts came with 1 lists of images"),
        ("mix", [picture(n) for n in range(9)], "the model reads at most 320"),
    ],
)
def test_edits_that_cannot_be_are_refused(janus: Janus, text: object, images: object, words: str):
    with pytest.raises(PromptError, match=words):
        janus.generate(text, images=images)  # type: ignore[arg-type]


def test_a_flow_model_refuses_to_edit():
    with pytest.raises(PromptError, match="paints no picture from others"):
        tiny.tiny_janus("janusflow").generate("more noise", images=[picture()])
