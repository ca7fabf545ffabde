"""Chat processors, image processors and conversations under their published names."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import goldens
import janus.janusflow.models
import janus.models
from janus.models.image_processing_vlm import VLMImageProcessorConfig, expand2square
from janus.utils.conversation import Conversation, SeparatorStyle, conv_templates, get_conv_template, register_conv_template
from janus.utils.io import load_json, load_pil_images

PROCESSORS = {"janus": janus.models.VLChatProcessor, "janusflow": janus.janusflow.models.VLChatProcessor}
QUESTION = [{"role": "<|User|>", "content": "<image_placeholder>\nwhat is it?"}, {"role": "<|Assistant|>", "content": ""}]
RED = Image.new("RGB", (20, 10), "red")


@pytest.fixture
def processor(variant: str, folders: Any) -> Any:
    """The chat processor of each variant in turn."""
    return PROCESSORS[variant].from_pretrained(folders(variant))


@pytest.fixture(scope="module")
def recorded() -> Any:
    """The recorded texts; skips without the reference pack."""
    return goldens.fixture("processing_text")[0]


def golden_processor(flow: bool, tokens: int, **settings: Any) -> Any:
    kind = PROCESSORS["janusflow" if flow else "janus"]
    from janus.chat_processor import load_tokenizer

    images = janus.models.VLMImageProcessor(8, min_size=4, image_mean=(0.5,) * 3, image_std=(0.5,) * 3)
    return kind(images, load_tokenizer(str(goldens.FIXTURES / "tokenizer")), num_image_tokens=tokens, **settings)


# -- recorded texts and batches --------------------------------------------------------------------------------------------------


def test_templates_give_the_recorded_strings_and_ids(recorded: Any) -> None:
    processors = {flow: golden_processor(flow, 3) for flow in (False, True)}
    for case in recorded["cases"]:
        processor = processors[case["is_flow"]]
        text = processor.apply_sft_template_for_multi_turn_prompts(
            conversations=case["conversation"], sft_format=case["sft_format"], system_prompt=case["system_prompt"]
        )
        assert text == case["result"], case["name"]
        assert processor.tokenizer.encode(text) == case["input_ids"], case["name"]


def test_the_table_of_templates_is_the_recorded_one(recorded: Any) -> None:
    for name, expected in recorded["templates"].items():
        template = get_conv_template(name)
        assert template.sep_style == expected.pop("sep_style_value")
        assert template.sep_style.name == expected.pop("sep_style")
        assert {key: list(value) if isinstance(value, tuple) else value for key, value in vars(template).items()} == expected | {
            "name": name,
            "messages": [],
            "offset": 0,
            "sep_style": template.sep_style,
        }


def test_conversations_answer_as_recorded(recorded: Any) -> None:
    expected = recorded["conversation_api"]
    conversation = get_conv_template("deepseek")
    user, assistant = conversation.roles
    for role, text in ((user, "q1"), (assistant, "a1"), (user, "q2"), (assistant, None)):
        conversation.append_message(role, text)
    assert conversation.get_prompt() == expected["get_prompt"]
    assert conversation.to_gradio_chatbot() == expected["gradio"]
    assert conversation.to_openai_api_messages() == expected["openai"]
    assert conversation.get_prompt_for_current_round("hey") == expected["current_round"]
    assert json.loads(json.dumps(conversation.dict())) == expected["dict"]


def test_placeholders_expand_as_recorded(recorded: Any) -> None:
    for case in recorded["expansion"]:
        processor = golden_processor(
            case["flow"], case["processor_num_image_tokens"], add_special_token=case["add_special_token"]
        )
        ids = torch.LongTensor(processor.tokenizer.encode(case["text"]))
        assert ids.tolist() == case["input_ids"]
        expanded, counts = processor.add_image_token((ids == processor.image_id).nonzero(), ids)
        assert expanded.tolist() == case["expanded"]
        assert counts.tolist() == case["num_image_tokens"]


def test_batches_are_the_recorded_ones(recorded: Any) -> None:
    for case in recorded["batchify"]:
        processor = golden_processor(case["flow"], 3)
        assert processor.pad_id == case["pad_id"]
        prepared = []
        for row in case["rows"]:
            images = [Image.open(goldens.FIXTURES / "images" / file).convert("RGB") for file in case["image_files"][row]]
            prepared.append(processor.process_one(prompt=case["prompts"][row], images=images))
        batch = processor.batchify(prepared)
        for name in ("input_ids", "attention_mask", "images_seq_mask", "images_emb_mask"):
            assert batch[name].int().tolist() == case[name], name
        assert list(batch.pixel_values.shape) == case["pixel_values_shape"]
        assert [[bool((image == 0).all()) for image in row] for row in batch.pixel_values] == case["pixel_values_zero"]


def test_token_ids_are_looked_up_by_string(recorded: Any) -> None:
    token, flow = golden_processor(False, 3), golden_processor(True, 3)
    ids = recorded["token_ids"]
    for processor in (token, flow):
        assert processor.image_id == ids[processor.image_token] == ids["<image_placeholder>"]
        assert processor.image_start_id == ids[processor.image_start_token] == ids["<begin_of_image>"]
        assert processor.image_end_id == ids[processor.image_end_token] == ids["<end_of_image>"]
        assert processor.pad_id == ids["<｜▁pad▁｜>"]
    assert flow.image_gen_id == recorded["flow_image_gen_id"]
    assert len(flow.tokenizer) == recorded["flow_vocab_len"]
    assert token.system_prompt == recorded["system_prompt"]


def test_pixels_are_the_recorded_ones() -> None:
    notes, tensors = goldens.fixture("image_processing")
    images = [Image.open(goldens.FIXTURES / "images" / file).convert("RGB") for file in notes["files"]]
    taken = {"image_size", "min_size", "image_mean", "image_std", "rescale_factor", "do_normalize"}
    for name, values in notes["variants"].items():
        processor = janus.models.VLMImageProcessor(**{key: value for key, value in values.items() if key in taken})
        assert list(processor.background_color) == values["background_color"]
        pixels = processor(images, return_tensors="pt").pixel_values
        assert torch.equal(pixels, tensors[f"out.{name}.pixel_values"]), name


# -- what clients do with a processor --------------------------------------------------------------------------------------------


def test_unknown_arguments_of_from_pretrained_are_tolerated(variant: str, folders: Any, tmp_path: Path) -> None:
    processor = PROCESSORS[variant].from_pretrained(
        folders(variant),
        trust_remote_code=True,
        device="cpu",
        torch_dtype=torch.float16,
        quantization_config=None,
        cache_dir=str(tmp_path),
        sft_format="deepseek_old",
    )
    assert processor.sft_format == "deepseek_old"
    assert processor.num_image_tokens == 16


def test_one_call_makes_a_batch_whose_output_is_a_dict_in_all_but_name(processor: Any) -> None:
    batch = processor(conversations=QUESTION, images=[RED], force_batchify=True, return_tensors="pt")
    assert list(batch.keys()) == [
        *("sft_format", "input_ids", "pixel_values", "attention_mask", "images_seq_mask", "images_emb_mask")
    ]
    assert batch["sft_format"][0].startswith("You are a helpful")
    batch["labels"] = batch.input_ids.clone()
    assert batch.labels is batch["labels"]
    assert dict(batch)["labels"] is batch.labels
    assert {**batch}.keys() == batch.keys()
    assert batch.to("cpu") is batch
    assert batch.pixel_values.dtype == torch.bfloat16
    assert batch.to("cpu", dtype=torch.float16).pixel_values.dtype == torch.float16
    assert batch.input_ids.dtype == torch.int64
    assert int(batch.images_seq_mask.sum()) == int(batch.images_emb_mask.sum()) == processor.slots_per_image


def test_a_prompt_that_is_not_batched_has_the_published_fields(processor: Any, variant: str) -> None:
    one = processor(conversations=QUESTION, images=[RED], force_batchify=False)
    counts = "num_image_tokens" if variant == "janus" else "num_und_image_tokens"
    assert list(one.keys()) == ["sft_format", "input_ids", "pixel_values", counts]
    assert len(one) == len(one.input_ids)
    assert one[counts].tolist() == [processor.slots_per_image]


def test_the_system_prompt_can_be_assigned(processor: Any) -> None:
    processor.system_prompt = "Answer in one word."
    assert processor.process_one(conversations=QUESTION, images=[RED]).sft_format.startswith("Answer in one word.\n\n")
    assert processor.new_chat_template().system_message == "Answer in one word."
    assert type(processor).system_prompt.startswith("You are")


def test_text_needs_no_images(processor: Any) -> None:
    for images in ([], None):
        batch = processor(prompt="hello", images=images)
        assert not batch.images_seq_mask.any()
        assert not batch.images_emb_mask.any()
        assert batch.pixel_values.shape == (1, 1, *processor.image_processor.default_shape)


def test_foreign_elements_are_batched(processor: Any, variant: str) -> None:
    class Element:
        def __init__(self, given: Any) -> None:
            self.__dict__.update(given)

        def __len__(self) -> int:
            return len(self.input_ids)

    counts = "num_image_tokens" if variant == "janus" else "num_und_image_tokens"
    with_image = dict(processor.process_one(prompt="<image_placeholder> a", images=[RED]))
    with_image[counts] = with_image[counts].tolist()
    text = {"sft_format": "b", "input_ids": torch.tensor([1, 2]), "pixel_values": None, counts: []}
    batch = processor.batchify([Element(with_image), Element(text)])
    assert batch.attention_mask.sum(dim=1).tolist() == [len(with_image["input_ids"]), 2]
    assert batch.images_emb_mask.any(dim=-1).tolist() == [[True], [False]]
    assert processor.batchify(Element(text)).input_ids.shape == (1, 2)


def test_one_image_stands_for_all_placeholders_and_any_other_number_is_refused(processor: Any) -> None:
    two = "<image_placeholder> or <image_placeholder>"
    batch = processor(prompt=two, images=[RED])
    assert torch.equal(batch.pixel_values[0, 0], batch.pixel_values[0, 1])
    for prompt, images in ((two, []), (two, [RED] * 3), ("nothing", [RED]), ("nothing", [RED] * 2)):
        with pytest.raises(ValueError, match="images; write one for each image"):
            processor(prompt=prompt, images=images)


def test_a_prompt_and_a_conversation_exclude_each_other(processor: Any) -> None:
    with pytest.raises(AssertionError, match="cannot be used at the same time"):
        processor(prompt="a", conversations=QUESTION, images=[RED])
    with pytest.raises(AssertionError, match="give a prompt"):
        processor(images=[])


def test_a_begin_of_image_typed_by_the_user_is_no_slot(processor: Any) -> None:
    batch = processor(prompt="what is <begin_of_image> in <image_placeholder>?", images=[RED])
    assert int(batch.images_seq_mask.sum()) == int(batch.images_emb_mask.sum())


def test_a_kept_placeholder_is_no_slot(variant: str, folders: Any) -> None:
    processor = PROCESSORS[variant].from_pretrained(folders(variant), add_special_token=True)
    batch = processor(prompt="<image_placeholder> <image_placeholder>", images=[RED, RED])
    assert int(batch.images_seq_mask.sum()) == int(batch.images_emb_mask.sum()) == 2 * processor.slots_per_image


def test_the_tokenizer_is_callable_as_transformers_ones_are(processor: Any) -> None:
    tokenizer = processor.tokenizer
    assert tokenizer.padding_side == "left"
    assert tokenizer.encode("hello")[0] == tokenizer.bos_token_id
    assert tokenizer.encode("<begin_of_image>")[1] == processor.image_start_id
    assert tokenizer.vocab.get("<image_placeholder>") == processor.image_id
    for side, column in (("left", 0), ("right", -1)):
        options: Any = {"return_tensors": "pt", "padding": True, "padding_side": side, "add_special_tokens": True}
        both = tokenizer(text=["a", "a longer one"], **options)
        assert both.input_ids[0, column] == tokenizer.pad_token_id
    assert tokenizer(["a b c d e f"], max_length=3, truncation=True).input_ids[0][0] == tokenizer.bos_token_id
    ids = tokenizer.encode("a red circle")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a red circle"
    assert tokenizer.batch_decode([ids], skip_special_tokens=True) == ["a red circle"]


def test_bos_comes_first_whatever_the_post_processor_of_the_file(variant: str, folders: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(folders(variant), tmp_path / "checkpoint")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for post_processor in (None, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}):
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": post_processor}))
        loaded = PROCESSORS[variant].from_pretrained(folder).tokenizer
        assert loaded.encode("hello")[0] == loaded.bos_token_id
        assert loaded.encode("hello").count(loaded.bos_token_id) == 1


def test_a_processor_survives_saving(processor: Any, variant: str, tmp_path: Path) -> None:
    processor.num_image_tokens = 9
    processor.save_pretrained(tmp_path)
    again = PROCESSORS[variant].from_pretrained(str(tmp_path))
    assert again.to_dict() == processor.to_dict()
    assert again.image_processor.to_dict() == processor.image_processor.to_dict()
    text = "a red <image_placeholder> \u4f60\u597d"
    assert again.tokenizer.encode(text) == processor.tokenizer.encode(text)
    assert again.pad_id == processor.pad_id
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["image_size"] == 16
    # As every version of transformers reads it, whichever wrote it.
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] in {"LlamaTokenizer", "LlamaTokenizerFast"}
    assert "<image_placeholder>" in settings["additional_special_tokens"]
    assert not isinstance(settings.get("extra_special_tokens"), list)
    assert "VLChatProcessor" in repr(again)


def test_a_vocabulary_without_the_tags_gets_them(variant: str, folders: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(folders(variant), tmp_path / "checkpoint")
    settings = json.loads((folder / "tokenizer.json").read_text())
    gone = {"<image_placeholder>"} | ({"<begin_of_image>", "<end_of_image>"} if variant == "janusflow" else set())
    settings["added_tokens"] = [entry for entry in settings["added_tokens"] if entry["content"] not in gone]
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("additional_special_tokens", None)
    config.pop("added_tokens_decoder", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    processor = PROCESSORS[variant].from_pretrained(folder)
    assert processor.image_id is not None
    batch = processor(prompt="<image_placeholder>", images=[RED])
    assert int(batch.images_seq_mask.sum()) == processor.slots_per_image


# -- images ----------------------------------------------------------------------------------------------------------------------


def test_images_of_any_kind_become_pixels(processor: Any) -> None:
    reader = processor.image_processor
    expected = reader([RED], return_tensors="pt")
    assert expected["pixel_values"] is expected.pixel_values
    for source in (RED.convert("RGBA"), RED.convert("P"), np.asarray(RED)):
        assert torch.equal(reader([source], return_tensors="pt").pixel_values, expected.pixel_values)
    assert torch.equal(reader(RED).pixel_values, expected.pixel_values)
    assert reader([RED.convert("L")]).pixel_values.shape == (1, *reader.default_shape)
    assert isinstance(reader([RED], return_tensors="np").pixel_values, np.ndarray)
    assert len(reader([], return_tensors="pt").pixel_values) == 0
    assert reader.resize(RED).shape == (3, reader.image_size, reader.image_size)


def test_an_image_processor_survives_saving_and_follows_its_attributes(tmp_path: Path) -> None:
    reader = janus.models.VLMImageProcessor(image_size=12, min_size=2, image_mean=(0.5,) * 3, image_std=(0.25,) * 3)
    reader.save_pretrained(tmp_path)
    again = janus.models.VLMImageProcessor.from_pretrained(tmp_path)
    assert torch.equal(again([RED]).pixel_values, reader([RED]).pixel_values)
    again.image_size = 6
    assert again([RED]).pixel_values.shape == (1, 3, 6, 6) == (1, *again.default_shape)
    assert VLMImageProcessorConfig(image_size=12).image_size == 12


def test_expand2square_centres_the_image() -> None:
    square = expand2square(Image.new("RGB", (4, 2), "red"), (1, 2, 3))
    assert square.size == (4, 4)
    assert [square.getpixel((0, y)) for y in range(4)] == [(1, 2, 3), (255, 0, 0), (255, 0, 0), (1, 2, 3)]


def test_load_pil_images_takes_paths_data_urls_and_pictures_in_order(tmp_path: Path) -> None:
    import base64

    path = tmp_path / "red.png"
    RED.convert("RGBA").save(path)
    url = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    messages: list[dict[str, Any]] = [
        {"role": "User", "content": "", "images": [str(path), url]},
        {"role": "Assistant", "content": ""},
        {"role": "User", "content": "", "images": [RED.convert("L")]},
    ]
    images = load_pil_images(messages)
    assert [image.mode for image in images] == ["RGB"] * 3
    assert images[0].tobytes() == images[1].tobytes() == RED.tobytes()
    (tmp_path / "x.json").write_text('{"a": [1]}')
    assert load_json(str(tmp_path / "x.json")) == {"a": [1]}


# -- conversations ---------------------------------------------------------------------------------------------------------------


def test_templates_can_be_registered_and_copies_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("janus.utils.conversation.conv_templates", dict(conv_templates))
    mine = Conversation(name="mine", roles=("A", "B"), sep_style=SeparatorStyle.DeepSeek, sep=" ", sep2="!")
    register_conv_template(mine)
    with pytest.raises(AssertionError, match="has been registered"):
        register_conv_template(mine)
    register_conv_template(mine, override=True)
    first, second = get_conv_template("mine"), get_conv_template("mine")
    first.append_message("A", "hello")
    first.append_message("B", None)
    assert second.messages == []
    assert first.get_prompt() == "A: hello B:"
    first.update_last_message("yes")
    assert first.copy().get_prompt() == "A: hello B: yes!"
    first.reset_message()
    assert first.get_prompt() == ""


def test_styles_that_no_janus_uses_are_refused() -> None:
    with pytest.raises(ValueError, match="Invalid style"):
        Conversation(name="x", sep_style=SeparatorStyle.CHATML).get_prompt()
    styles = SeparatorStyle
    assert [styles.ADD_COLON_SINGLE, styles.LLAMA2, styles.DeepSeek, styles.PLAIN, styles.ALIGNMENT] == [1, 7, 15, 16, 17]
