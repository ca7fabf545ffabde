"""Templates, token ids, image expansion, batches and pixels equal the published processors' exactly (no tolerance)."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from goldens import FIXTURES, fixture
from openjanus.processing.chat import SYSTEM_PROMPT, TEMPLATES, ChatFormat, join_turns, render_turns
from openjanus.processing.images import ImageProcessor, ImageProcessorConfig, open_image, to_images
from openjanus.processing.prompts import Processor
from openjanus.processing.tokenizer import FLOW_TAGS, GENERATION_START, Tokenizer
from openjanus.types import Message
from plain import collate

PRO = ("<|User|>", "<|Assistant|>")
JANUS = ("User", "Assistant")
# The tiny models' image normalisation, as in every published one.
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


@pytest.fixture(scope="module")
def text() -> dict[str, Any]:
    return fixture("processing_text")[0]


@pytest.fixture(scope="module")
def tokenizer(text: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_folder(FIXTURES / "tokenizer")


def flow_tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(FIXTURES / "tokenizer", extra_tags=FLOW_TAGS, pad_fallback=True)


def processor(tokenizer: Tokenizer, flow: bool = False, placeholders: int = 3, size: int = 8, **options: Any) -> Processor:
    images = ImageProcessor(ImageProcessorConfig(size))
    slots = placeholders + int(flow)
    return Processor(tokenizer, images, ChatFormat(), slots_per_image=slots, begin_is_slot=flow, **options)


def test_templates_hold_what_was_published(text: dict[str, Any]) -> None:
    assert text["system_prompt"] == SYSTEM_PROMPT
    assert set(TEMPLATES) == set(text["templates"])
    styles = {"DeepSeek": "deepseek", "LLAMA2": "llama-2", "PLAIN": "plain", "ALIGNMENT": "alignment"}
    for name, golden in text["templates"].items():
        template = TEMPLATES[name]
        assert template.name == name
        assert template.style == styles[golden["sep_style"]]
        assert list(template.roles) == golden["roles"]
        assert [template.sep, template.sep2] == [golden["sep"], golden["sep2"]]
        assert [template.system_template, template.system_message] == [golden["system_template"], golden["system_message"]]
        assert list(template.stop) == (golden["stop_str"] or [])
        assert list(template.stop_token_ids) == golden["stop_token_ids"]


def test_every_conversation_becomes_the_published_string_and_ids(text: dict[str, Any], tokenizer: Tokenizer) -> None:
    assert len(text["cases"]) == 29
    for case in text["cases"]:
        turns = [(message["role"], message["content"]) for message in case["conversation"]]
        rendered = render_turns(TEMPLATES[case["sft_format"]], turns, case["system_prompt"])
        assert rendered == case["result"], case["name"]
        spoken = flow_tokenizer() if case["is_flow"] else tokenizer
        assert spoken.encode(rendered) == case["input_ids"], case["name"]


def test_messages_become_the_published_strings(text: dict[str, Any]) -> None:
    roles = {"pro": PRO, "janus": JANUS, "flow": JANUS}
    seen = 0
    for case in text["cases"]:
        family = case["name"].split("-")[0]
        if family not in roles or case["name"].endswith("odd-order"):  # messages know no role <|System|>
            continue
        user, assistant = roles[family]
        names = {user: "user", assistant: "assistant"}
        messages = [Message(names[turn["role"]], turn["content"]) for turn in case["conversation"]]  # type: ignore[arg-type]
        chat = ChatFormat(case["sft_format"], roles[family])
        assert chat.render(messages, case["system_prompt"]) == case["result"], case["name"]
        seen += 1
    assert seen == 23


def test_unstripped_conversations_equal_the_published_get_prompt(text: dict[str, Any]) -> None:
    golden = text["conversation_api"]
    turns = [(role, said) for role, said in golden["dict"]["messages"]]
    assert join_turns(TEMPLATES["deepseek"], [*turns, (PRO[1], None)][: len(turns)]) == golden["get_prompt"]
    assert join_turns(TEMPLATES["deepseek"], [(PRO[0], "hey"), (PRO[1], None)]) == golden["current_round"]


def test_image_placeholders_expand_as_published(text: dict[str, Any], tokenizer: Tokenizer) -> None:
    for case in text["expansion"]:
        made = processor(
            flow_tokenizer() if case["flow"] else tokenizer,
            case["flow"],
            case["processor_num_image_tokens"],
            add_special_token=case["add_special_token"],
        )
        assert made.tokenizer.encode(case["text"]) == case["input_ids"]
        ids, slots = made.expand(case["input_ids"])
        assert ids == case["expanded"]
        assert sum(slots) == sum(case["num_image_tokens"])


def test_batches_are_padded_and_masked_as_published(text: dict[str, Any], tokenizer: Tokenizer) -> None:
    assert {case["flow"] for case in text["batchify"]} == {False, True}
    for case in text["batchify"]:
        made = processor(flow_tokenizer() if case["flow"] else tokenizer, case["flow"])
        images = [[FIXTURES / "images" / name for name in names] for names in case["image_files"]]
        prompts = [made.prompt(case["prompts"][row], images[row]) for row in case["rows"]]
        rows = collate(prompts, made.tokenizer.pad)
        assert made.tokenizer.pad == case["pad_id"]
        assert rows.ids.tolist() == case["input_ids"]
        assert rows.attended.int().tolist() == case["attention_mask"]
        assert rows.slots.int().tolist() == case["images_seq_mask"]
        # The published rows hold zero images where a prompt has fewer than the longest; ours hold the images alone.
        real = [[not zero for zero in row] for row in case["pixel_values_zero"]]
        assert [len(prompt.pixels) for prompt in prompts] == [sum(row) for row in real]
        assert list(rows.pixels.shape) == [sum(map(sum, real)), *case["pixel_values_shape"][2:]]
        assert rows.slots.sum(1).tolist() == [int(np.sum(mask)) for mask in case["images_emb_mask"]]


def test_special_tokens_have_the_published_ids(text: dict[str, Any], tokenizer: Tokenizer) -> None:
    assert {token: tokenizer.id_of(token) for token in text["token_ids"]} == text["token_ids"]
    found = [tokenizer.bos, tokenizer.eos, tokenizer.pad, tokenizer.image, tokenizer.image_start, tokenizer.image_end]
    assert found == list(range(340, 346))
    assert tokenizer.id_of(GENERATION_START) is None


def test_flow_appends_its_generation_token_as_published(text: dict[str, Any], tokenizer: Tokenizer) -> None:
    flow = flow_tokenizer()
    assert flow.id_of(GENERATION_START) == text["flow_image_gen_id"]
    assert flow.vocab_size == text["flow_vocab_len"]


@pytest.mark.parametrize("variant", ["official_like", "openai_defaults", "no_normalize", "mean_none"])
def test_pixels_equal_the_published_bit_for_bit(variant: str) -> None:
    meta, tensors = fixture("image_processing")
    golden = meta["variants"][variant]
    config = ImageProcessorConfig.from_json(golden)
    assert list(config.fill) == golden["background_color"]
    images = [Image.open(FIXTURES / "images" / name).convert("RGB") for name in meta["files"]]
    pixels = ImageProcessor(config).pixels(images)
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels, tensors[f"out.{variant}.pixel_values"].numpy())


def test_opened_images_without_transparency_give_the_published_pixels() -> None:
    meta, tensors = fixture("image_processing")
    config = ImageProcessorConfig.from_json(meta["variants"]["official_like"])
    for index, name in enumerate(meta["files"]):
        pixels = ImageProcessor(config).pixels([open_image(FIXTURES / "images" / name)])
        same = np.array_equal(pixels[0], tensors["out.official_like.pixel_values"][index].numpy())
        assert same == (not name.startswith("rgba")), name  # the reference drops transparency, we lay it on white


def test_an_enlarged_image_has_the_published_levels() -> None:
    meta, tensors = fixture("image_processing")
    square = ImageProcessor(ImageProcessorConfig(384, image_mean=None, do_normalize=False)).square(
        Image.open(FIXTURES / "images" / meta["size384_file"]).convert("RGB")
    )
    assert np.array_equal(np.asarray(square).transpose(2, 0, 1), tensors["out.size384.uint8_chw"].numpy())


def golden_processor(meta: dict[str, Any], flow: bool) -> Processor:
    """The processor of a tiny published model: same tokenizer, image size and slots."""
    golden = meta["processor"]
    return Processor(
        flow_tokenizer() if flow else Tokenizer.from_folder(FIXTURES / "tokenizer"),
        ImageProcessor(ImageProcessorConfig.from_json(HALF | golden)),
        ChatFormat(golden["sft_format"], JANUS if flow else PRO),
        slots_per_image=golden["num_image_tokens"] + int(flow),
        begin_is_slot=flow,
    )


@pytest.mark.parametrize(("topic", "flow"), [("janus", False), ("janusflow", True)])
def test_questions_about_images_become_the_published_model_inputs(topic: str, flow: bool) -> None:
    meta, tensors = fixture(topic)
    made = golden_processor(meta, flow)
    files = [FIXTURES / name for name in meta["images"]]
    first, second = (conversation[0]["content"] for conversation in meta["conversations"])
    questions = [Message("user", first, tuple(files[:1])), Message("user", second, tuple(files[1:]))]
    assert [made.chat.render([question], add_reply=True) for question in questions] == meta["sft_strings"]
    # An image given beside a text without placeholder stands before it: the same prompt.
    beside = Message("user", first.removeprefix("<image_placeholder>\n"), tuple(files[:1]))
    rows = collate([made.understanding_prompt([beside]), made.understanding_prompt([questions[1]])], made.tokenizer.pad)
    assert rows.ids.tolist() == tensors["in.batch.input_ids"].tolist()
    assert rows.attended.tolist() == tensors["in.batch.attention_mask"].bool().tolist()
    assert rows.slots.tolist() == tensors["in.batch.images_seq_mask"].tolist()
    published = tensors["in.batch.pixel_values"]
    assert np.array_equal(rows.pixels.numpy(), np.stack([published[0, 0], published[1, 0], published[1, 1]]))


@pytest.mark.parametrize(("topic", "flow"), [("janus", False), ("janusflow", True)])
def test_painting_prompts_and_blank_ones_become_the_published_rows(topic: str, flow: bool) -> None:
    meta, tensors = fixture(topic)
    made = golden_processor(meta, flow)
    golden = meta["generation"]["prompt"]
    said = golden.removeprefix(f"{made.chat.roles[0]}: ").split("\n\n")[0]  # type: ignore[index]
    prompt = made.generation_prompt(said)
    blank = made.blank(prompt)
    assert prompt.ids[-1] == made.tokenizer.image_start
    rows = tensors["out.gen.cfg_tokens"]
    conditional, unconditional = (rows[0], rows[-1])
    if flow:  # the published last token differs and is dropped before the model sees it
        assert prompt.ids[:-1].tolist() == conditional[:-1].tolist() == tensors["in.gen.input_ids"][:-1].tolist()
        assert blank.ids[:-1].tolist() == unconditional[:-1].tolist()
    else:
        assert prompt.ids.tolist() == conditional.tolist() == tensors["in.gen.input_ids"].tolist()
        assert blank.ids.tolist() == unconditional.tolist()


@pytest.mark.parametrize("name", ["out.gen.decoded", "out.gen.forced_decoded"])
def test_decoded_pixels_become_the_published_images(name: str) -> None:
    _, tensors = fixture("janus")
    images = [np.asarray(image) for image in to_images(tensors[name])]
    assert np.array_equal(np.stack(images), tensors[f"{name}_uint8"].numpy())
