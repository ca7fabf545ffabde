"""Pieces joined are the whole text; none ends within a character; stop strings never show."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_tokenizers import llama_kind
from openjanus.processing.streaming import IncrementalDecoder, StopStrings
from openjanus.processing.tokenizer import Tokenizer

TEXTS = st.text(alphabet=st.sampled_from("ab é两🙂👩‍👩‍👧\n"), max_size=60)


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    decoder = IncrementalDecoder(tokenizer)
    return [*(decoder.push(id) for id in ids), decoder.flush()]


@settings(deadline=None)
@given(text=TEXTS)
def test_pieces_are_whole_characters_of_the_text(tokenizer: Tokenizer, text: str) -> None:
    parts = pieces(tokenizer, tokenizer.encode(text))
    assert "".join(parts) == text
    assert not any("\ufffd" in part for part in parts)


@settings(deadline=None)
@given(text=TEXTS)
def test_pieces_of_a_llama_tokenizer_are_whole_characters_too(text: str) -> None:
    spoken = Tokenizer(llama_kind())
    ids = spoken.encode(text)
    parts = pieces(spoken, ids)
    assert "".join(parts) == spoken.decode(ids)
    assert not any("\ufffd" in part for part in parts)


@settings(deadline=None, max_examples=200)
@given(ids=st.lists(st.integers(0, 360), max_size=150))
def test_random_ids_with_broken_bytes_and_special_tokens_give_the_decoded_text(tokenizer: Tokenizer, ids: list[int]) -> None:
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


@settings(deadline=None)
@given(ids=st.lists(st.integers(94, 187), min_size=80, max_size=200))  # the bytes beyond ASCII: hardly ever a character
def test_long_broken_runs_give_the_decoded_text(tokenizer: Tokenizer, ids: list[int]) -> None:
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


def test_a_character_of_several_tokens_comes_with_its_last(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("🙂")
    assert len(ids) == 5  # bos and four bytes
    assert pieces(tokenizer, ids) == ["", "", "", "", "🙂", ""]


def test_half_a_character_at_the_end_is_flushed_as_broken(tokenizer: Tokenizer) -> None:
    assert pieces(tokenizer, tokenizer.encode("a🙂")[:-1]) == ["", "a", "", "", "", "\ufffd"]


def test_a_decoder_is_as_new_after_flush(tokenizer: Tokenizer) -> None:
    decoder = IncrementalDecoder(tokenizer)
    for _ in range(2):
        assert "".join(decoder.push(id) for id in tokenizer.encode("red 两")) + decoder.flush() == "red 两"


@pytest.mark.parametrize("broken", [False, True])
def test_an_id_costs_the_same_late_as_early(tokenizer: Tokenizer, broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [tokenizer.encode("🙂")[1]] * 4000 if broken else tokenizer.encode("ab ") * 1000
    whole, decode, longest = tokenizer.decode(ids), tokenizer.decode, [0]

    def counted(some: list[int]) -> str:
        longest[0] = max(longest[0], len(some))
        return decode(some)

    monkeypatch.setattr(tokenizer, "decode", counted)
    decoder = IncrementalDecoder(tokenizer)
    assert "".join(decoder.push(id) for id in ids) + decoder.flush() == whole
    assert longest[0] <= 64


def stop(parts: list[str], stops: list[str]) -> tuple[str, bool]:
    helper = StopStrings(stops)
    text = "".join(helper.push(part) for part in parts) + helper.flush()
    return text, helper.stopped


def test_text_is_cut_before_the_stop_string() -> None:
    assert stop(["two circ", "les\nUs", "er: and"], ["User:"]) == ("two circles\n", True)
    assert stop(["User", ": hello"], ["User:"]) == ("", True)


def test_what_only_began_like_a_stop_string_is_shown_after_all() -> None:
    assert stop(["U", "se", "ful"], ["User:"]) == ("Useful", False)
    assert stop(["end U", "ser"], ["User:"]) == ("end User", False)
    assert stop(["aab"], ["aac", "b" * 3]) == ("aab", False)


def test_pieces_without_stop_strings_pass_at_once() -> None:
    helper = StopStrings([])
    assert [helper.push("a"), helper.push("bc")] == ["a", "bc"]


def test_only_what_may_become_a_stop_string_is_held_back() -> None:
    helper = StopStrings(["###"])
    assert [helper.push("a#"), helper.push("#b"), helper.push("##")] == ["a", "##b", ""]


def test_nothing_comes_after_a_stop() -> None:
    helper = StopStrings(["x"])
    assert [helper.push("axb"), helper.push("c"), helper.flush()] == ["a", "", ""]


@given(
    text=st.text("ab", max_size=14),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 14), max_size=5),
)
def test_stopping_does_not_depend_on_the_pieces(text: str, stops: list[str], cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(text)]
    parts = [text[start:end] for start, end in pairwise(edges)]
    whole, stopped = stop(list(text), stops)
    assert stop(parts, stops) == (whole, stopped)
    assert not any(found in whole for found in stops)
    assert text.startswith(whole)
    assert stopped == any(found in text for found in stops)
