"""Messages become ids, slots and pixels, for both families; what does not fit is refused in one line."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from openjanus.errors import ImageError, PromptError
from openjanus.processing.prompts import Processor
from openjanus.processing.tokenizer import GENERATION_START, IMAGE
from openjanus.types import Message, Prompt

RED, BLUE = Image.new("RGB", (6, 4), "red"), Image.new("RGB", (4, 6), "blue")


def ask(text: str, *images: object) -> list[Message]:
    return [Message("user", text, tuple(images))]


def prompt_of(ids: list[int], slots: list[int] = (), images: int = 0) -> Prompt:  # type: ignore[assignment]
    marks = torch.zeros(len(ids), dtype=torch.bool)
    marks[list(slots)] = True
    return Prompt(torch.tensor(ids), marks, torch.full((images, 3, 2, 2), float(ids[0])))


def test_images_without_placeholders_stand_before_the_text(processor: Processor) -> None:
    beside = processor.understanding_prompt(ask("which is red?", RED, BLUE))
    written = processor.understanding_prompt(ask(f"{IMAGE}\n{IMAGE}\nwhich is red?", RED, BLUE))
    assert torch.equal(beside.ids, written.ids)
    assert torch.equal(beside.slots, written.slots)
    assert beside.pixels.shape == (2, 3, 8, 8)
    assert int(beside.slots.sum()) == 2 * processor.slots_per_image


def test_images_stay_where_their_placeholders_stand(processor: Processor) -> None:
    prompt = processor.understanding_prompt(ask(f"is {IMAGE} redder than {IMAGE} ?", RED, BLUE))
    token = processor.tokenizer
    starts = (prompt.ids == token.image_start).nonzero().flatten().tolist()
    ends = (prompt.ids == token.image_end).nonzero().flatten().tolist()
    assert len(starts) == len(ends) == 2
    for start, end in zip(starts, ends, strict=True):
        assert (prompt.ids[start + 1 : end] == token.image).all()
        assert prompt.slots[start + 1 : end].all()
        assert bool(prompt.slots[start]) == processor.begin_is_slot
        assert not prompt.slots[end]
    assert processor.tokenizer.decode(prompt.ids[starts[0] : ends[1]].tolist()) == " redder than "
    assert torch.equal(prompt.pixels[0], torch.from_numpy(processor.images.pixels([RED])[0]))


def test_images_of_several_turns_keep_their_order(processor: Processor) -> None:
    messages = [*ask("first", RED), Message("assistant", "red"), *ask("and this?", BLUE)]
    prompt = processor.understanding_prompt(messages)
    assert torch.equal(prompt.pixels, torch.from_numpy(processor.images.pixels([RED, BLUE])))
    again = processor.understanding_prompt([*messages, Message("assistant", "")])
    assert torch.equal(again.ids, prompt.ids)


def test_an_image_alone_is_a_question_and_text_alone_needs_no_pixels(processor: Processor) -> None:
    assert processor.understanding_prompt(ask("  ", RED)).pixels.shape == (1, 3, 8, 8)
    text = processor.understanding_prompt(ask("how are you?"))
    assert text.pixels.shape == (0, 3, 8, 8)
    assert not text.slots.any()
    assert text.ids[0] == processor.tokenizer.bos


def test_every_kind_of_image_source_is_opened(processor: Processor) -> None:
    prompt = processor.understanding_prompt(ask("what?", RED, np.asarray(RED)))
    assert torch.equal(prompt.pixels[0], prompt.pixels[1])
    with pytest.raises(ImageError):
        processor.understanding_prompt(ask("what?", "/nowhere/at/all.png"))


@pytest.mark.parametrize(
    ("text", "images", "words"),
    [
        ("", 0, "the question is empty"),
        (" \n", 0, "the question is empty"),
        (f"{IMAGE} what?", 0, f"has 1 {IMAGE} for 0 images"),
        (f"{IMAGE} what?", 2, f"has 1 {IMAGE} for 2 images"),
        (f"{IMAGE} {IMAGE} what?", 1, f"has 2 {IMAGE} for 1 image;"),
    ],
)
def test_questions_that_do_not_fit_their_images_are_refused(processor: Processor, text: str, images: int, words: str) -> None:
    with pytest.raises(PromptError) as caught:
        processor.understanding_prompt(ask(text, *[RED] * images))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "messages", [[], [Message("assistant", "")], [*ask("x"), Message("assistant", "y")], [Message("system", "x")]]
)
def test_without_a_question_there_is_nothing_to_answer(processor: Processor, messages: list[Message]) -> None:
    with pytest.raises(PromptError, match="there is no question"):
        processor.understanding_prompt(messages)


def test_a_placeholder_in_the_system_prompt_is_counted_too(processor: Processor) -> None:
    with pytest.raises(PromptError, match="for 0 images"):
        processor.understanding_prompt([Message("system", f"look at {IMAGE}"), *ask("x")])


def test_one_image_does_not_stand_for_several_placeholders(processor: Processor) -> None:
    with pytest.raises(PromptError, match=r"2 .* for 1 image"):
        processor.prompt(f"{IMAGE}{IMAGE}", [RED])


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(make_processor: Callable[..., Processor]) -> None:
    length = len(make_processor().understanding_prompt(ask("what?", RED)))
    assert len(make_processor(context=length).understanding_prompt(ask("what?", RED))) == length
    with pytest.raises(PromptError, match=f"{length} tokens.*at most {length - 1}"):
        make_processor(context=length - 1).understanding_prompt(ask("what?", RED))
    with pytest.raises(PromptError, match="at most 4"):
        make_processor(context=4).generation_prompt("a red circle")


def test_a_token_beyond_the_models_rows_is_refused_unless_an_image_replaces_it(make_processor: Callable[..., Processor]) -> None:
    processor = make_processor(vocab_size=348)
    processor.understanding_prompt(ask("what?", RED))
    if processor.tokenizer.id_of(GENERATION_START) is not None:
        with pytest.raises(PromptError, match=GENERATION_START):
            processor.understanding_prompt(ask(f"what {GENERATION_START}?"))


def test_typed_special_tokens_are_tokens_and_no_slots(processor: Processor) -> None:
    token = processor.tokenizer
    prompt = processor.understanding_prompt(ask(f"is{token.eos_tag} this {token.image_start_tag} red?", RED))
    assert (prompt.ids == token.eos).any()
    assert int((prompt.ids == token.image_start).sum()) == 2
    assert int(prompt.slots.sum()) == processor.slots_per_image


def test_a_kept_placeholder_is_no_slot(make_processor: Callable[..., Processor]) -> None:
    processor = make_processor(add_special_token=True)
    prompt = processor.understanding_prompt(ask("what?", RED))
    assert int((prompt.ids == processor.tokenizer.image).sum()) == 4
    assert int(prompt.slots.sum()) == processor.slots_per_image
    assert not prompt.slots[(prompt.ids == processor.tokenizer.image).nonzero()[0]]


def test_a_painting_prompt_is_one_open_turn_without_system_prompt(processor: Processor) -> None:
    prompt = processor.generation_prompt("  a red circle\n")
    user, assistant = processor.chat.roles or processor.chat.template.roles
    expected = processor.tokenizer.encode(f"{user}: a red circle\n\n{assistant}:<begin_of_image>")
    assert prompt.ids.tolist() == expected
    assert prompt.ids[-1] == processor.tokenizer.image_start
    assert not prompt.slots.any()
    assert prompt.pixels.shape == (0, 3, 8, 8)


def test_painting_prompts_that_are_empty_or_hold_placeholders_are_refused(processor: Processor) -> None:
    with pytest.raises(PromptError, match="the prompt is empty"):
        processor.generation_prompt(" ")
    with pytest.raises(PromptError, match="for 0 images"):
        processor.generation_prompt(f"like {IMAGE}")


def test_a_blank_prompt_keeps_its_ends_alone(processor: Processor) -> None:
    prompt = processor.generation_prompt("a red circle")
    before = prompt.ids.clone()
    blank = processor.blank(prompt)
    assert len(blank) == len(prompt)
    assert [blank.ids[0], blank.ids[-1]] == [processor.tokenizer.bos, processor.tokenizer.image_start]
    assert (blank.ids[1:-1] == processor.tokenizer.pad).all()
    assert torch.equal(prompt.ids, before)


def test_a_blank_prompt_has_no_images(processor: Processor) -> None:
    blank = processor.blank(processor.understanding_prompt(ask("what?", RED)))
    assert not blank.slots.any()
    assert blank.pixels.shape == (0, 3, 8, 8)
