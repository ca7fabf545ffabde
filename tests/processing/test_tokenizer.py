"""Special tokens are found by their strings, whatever their ids; a checkpoint without one is refused."""

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import normalizers, processors

from made_tokenizers import ALL, byte_level, llama_kind
from openjanus.errors import CheckpointError, PromptError
from openjanus.processing.tokenizer import BOS, EOS, FLOW_TAGS, GENERATION_START, IMAGE, IMAGE_END, IMAGE_START, PAD, Tokenizer


def save(backend: tokenizers.Tokenizer, folder: Path, **settings: object) -> Path:
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def test_special_ids_follow_the_strings_not_their_order() -> None:
    for specials in (ALL, ALL[::-1]):
        backend = byte_level(specials)
        tokenizer = Tokenizer(backend)
        found = [tokenizer.bos, tokenizer.eos, tokenizer.pad, tokenizer.image, tokenizer.image_start, tokenizer.image_end]
        assert found == [backend.token_to_id(token) for token in ALL]


def test_text_comes_back_as_it_was() -> None:
    tokenizer = Tokenizer(byte_level(ALL))
    for text in ("how many red circles?", "  两个 кружка 🙂\n\ttabs ", ""):
        ids = tokenizer.encode(text)
        assert ids[0] == tokenizer.bos
        assert ids.count(tokenizer.bos) == 1
        assert tokenizer.decode(ids) == text


def test_bos_comes_once_whatever_the_post_processor_does() -> None:
    plain = byte_level(ALL)
    adding = byte_level(ALL)
    adding.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, adding.token_to_id(BOS)), (EOS, adding.token_to_id(EOS))]
    )
    assert Tokenizer(adding).encode("three red") == Tokenizer(plain).encode("three red")


def test_a_stored_truncation_or_padding_does_not_cut_prompts() -> None:
    backend = byte_level(ALL)
    plain = Tokenizer(backend).encode("the circles are red")
    backend.enable_truncation(3)
    backend.enable_padding(length=50)
    assert Tokenizer(backend).encode("the circles are red") == plain
    assert backend.truncation is not None  # the caller's own is left alone


def test_special_tokens_in_a_text_become_those_tokens_and_are_left_out_again() -> None:
    tokenizer = Tokenizer(byte_level(ALL))
    ids = tokenizer.encode(f"red{EOS}red{IMAGE}")
    assert tokenizer.eos in ids
    assert ids[-1] == tokenizer.image
    assert tokenizer.decode(ids) == "redred"


@pytest.mark.parametrize("text", ["caf\udce9", "\ud800", None, 7, ["red"], b"red"])
def test_what_is_no_valid_text_is_refused_in_one_line(text: object) -> None:
    with pytest.raises(PromptError) as caught:
        Tokenizer(byte_level(ALL)).encode(text)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_ids_outside_the_vocabulary_are_left_out() -> None:
    tokenizer = Tokenizer(byte_level(ALL))
    assert tokenizer.decode([*tokenizer.encode("red"), 10**6]) == "red"


@pytest.mark.parametrize("entry", ["<s>", {"content": "<s>", "lstrip": False, "__type": "AddedToken"}])
def test_bos_and_eos_may_have_other_names(entry: object, tmp_path: Path) -> None:
    folder = save(byte_level(["<s>", "</s>", *ALL[2:]]), tmp_path, bos_token=entry, eos_token="</s>")
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.encode("red")[0] == tokenizer.bos == tokenizer.id_of("<s>")
    assert tokenizer.eos == tokenizer.id_of("</s>")


def test_settings_without_names_mean_the_published_ones(tmp_path: Path) -> None:
    folder = save(byte_level(ALL), tmp_path, bos_token=None)
    assert Tokenizer.from_folder(folder).bos_tag == BOS
    (tmp_path / "tokenizer_config.json").unlink()
    assert Tokenizer.from_folder(folder).eos_tag == EOS


def test_a_wrong_pad_in_the_settings_does_not_hide_the_published_one(tmp_path: Path) -> None:
    folder = save(byte_level(ALL), tmp_path, pad_token=EOS)
    assert Tokenizer.from_folder(folder).pad_tag == PAD


def test_a_vocabulary_with_another_pad_uses_it(tmp_path: Path) -> None:
    folder = save(byte_level([BOS, EOS, "<pad>", *ALL[3:]]), tmp_path, pad_token="<pad>")
    assert Tokenizer.from_folder(folder).pad_tag == "<pad>"


@pytest.mark.parametrize("pad", [None, EOS, BOS, "<absent>"])
def test_without_a_pad_janus_is_refused_and_flow_takes_eos(pad: str | None, tmp_path: Path) -> None:
    folder = save(byte_level([token for token in ALL if token != PAD]), tmp_path, pad_token=pad)
    with pytest.raises(CheckpointError, match="guidance") as caught:
        Tokenizer.from_folder(folder)
    assert PAD in str(caught.value)
    assert str(folder / "tokenizer.json") in str(caught.value)
    flow = Tokenizer.from_folder(folder, pad_fallback=True)
    assert flow.pad == flow.eos


@pytest.mark.parametrize("missing", [BOS, EOS, IMAGE_START, IMAGE_END])
def test_a_missing_special_token_is_named(missing: str, tmp_path: Path) -> None:
    folder = save(byte_level([token for token in ALL if token != missing]), tmp_path)
    with pytest.raises(CheckpointError) as caught:
        Tokenizer.from_folder(folder)
    assert missing in str(caught.value)
    assert str(folder / "tokenizer.json") in str(caught.value)


def test_the_image_tag_is_appended_when_missing() -> None:
    backend = byte_level([token for token in ALL if token != IMAGE])
    size = backend.get_vocab_size()
    tokenizer = Tokenizer(backend)
    assert tokenizer.image == size
    assert tokenizer.vocab_size == size + 1
    assert tokenizer.encode(f"red{IMAGE}")[-1] == size
    assert tokenizer.is_special(size)
    assert backend.token_to_id(IMAGE) is None  # the caller's own is left alone


def test_flow_appends_its_tags_when_missing() -> None:
    tokenizer = Tokenizer(byte_level([BOS, EOS, PAD]), extra_tags=FLOW_TAGS)
    assert all(tokenizer.id_of(tag) is not None for tag in (IMAGE, IMAGE_START, IMAGE_END, GENERATION_START))
    assert Tokenizer(byte_level(ALL)).id_of(GENERATION_START) is None


def test_tags_may_have_other_names() -> None:
    tokenizer = Tokenizer(byte_level(ALL), image_tag="<picture>", image_start_tag=IMAGE_END, image_end_tag=IMAGE_START)
    assert tokenizer.image == tokenizer.id_of("<picture>")
    assert tokenizer.image_start == tokenizer.id_of(IMAGE_END)


@pytest.mark.parametrize("family", ["janus", "flow"])
def test_a_saved_tokenizer_is_the_same_again(family: str, tmp_path: Path) -> None:
    extra = FLOW_TAGS if family == "flow" else ()
    first = Tokenizer(byte_level([BOS, EOS, PAD, IMAGE_START, IMAGE_END]), settings={"model_max_length": 16384}, extra_tags=extra)
    first.save(tmp_path)
    second = Tokenizer.from_folder(tmp_path)
    assert second.vocab_size == first.vocab_size
    assert second.image == first.image
    assert second.encode(f"three {IMAGE} red") == first.encode(f"three {IMAGE} red")
    assert second.settings["model_max_length"] == 16384
    assert second.settings["bos_token"] == BOS


def test_the_saved_pad_is_the_one_in_use(tmp_path: Path) -> None:
    Tokenizer(byte_level(ALL), settings={"pad_token": EOS}).save(tmp_path)
    assert Tokenizer.from_folder(tmp_path).settings["pad_token"] == PAD


def test_absent_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json in"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="not a tokenizer"):
        Tokenizer.from_folder(tmp_path)
    save(byte_level(ALL), tmp_path)
    for content in ("{", "[]"):
        (tmp_path / "tokenizer_config.json").write_text(content)
        with pytest.raises(CheckpointError, match="tokenizer_config"):
            Tokenizer.from_folder(tmp_path)


def test_a_metaspace_tokenizer_of_the_llama_kind_works_too() -> None:
    tokenizer = Tokenizer(llama_kind())
    assert tokenizer.decode(tokenizer.encode("a b")) == "a b"
    assert tokenizer.decode(tokenizer.encode("é b")) == "é b"  # by its bytes


def test_an_answer_is_read_as_it_stands_behind_its_prompt() -> None:
    legacy = llama_kind()
    legacy.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    legacy.pre_tokenizer = None
    for backend in (byte_level(ALL), llama_kind(), legacy):
        tokenizer = Tokenizer(backend)
        assert tokenizer.encode("b:") + tokenizer.encode_behind(" a b", ":") == tokenizer.encode("b: a b")
