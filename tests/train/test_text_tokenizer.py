"""The text tokenizer that is trained from zero: every text can be written, special tokens are whole, chance has no part in it."""

import pytest

from openjanus.errors import ConfigError
from openjanus.processing.tokenizer import SPECIAL_TOKENS, Tokenizer
from openjanus.train.text_tokenizer import train_text_tokenizer

TEXTS = ["a red circle left of a blue star", "two red circles", "How many red circles are there?"] * 20
SIZE = 256 + len(SPECIAL_TOKENS) + 30


def test_every_text_comes_back_as_it_was():
    tokenizer = Tokenizer(train_text_tokenizer(TEXTS, SIZE))
    for text in ("a red star", "Ünïcode 两 🙂", "  two  spaces\n\tand lines\n", "\x00\x7f"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_what_is_frequent_is_one_token_and_the_table_has_the_size_that_was_asked_for():
    backend = train_text_tokenizer(TEXTS, SIZE)
    assert backend.get_vocab_size() == SIZE
    assert backend.encode(" red circles").tokens == ["Ġred", "Ġcircles"]


def test_the_published_special_tokens_come_last_and_are_never_cut():
    backend = train_text_tokenizer(TEXTS, SIZE)
    assert [backend.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(SIZE - len(SPECIAL_TOKENS), SIZE))
    for token in SPECIAL_TOKENS:
        assert backend.encode(f"a{token}b").tokens[1] == token


def test_the_same_texts_make_the_same_tokenizer():
    assert train_text_tokenizer(TEXTS, SIZE).to_str() == train_text_tokenizer(iter(TEXTS), SIZE).to_str()


def test_without_texts_there_are_the_bytes():
    backend = train_text_tokenizer([], SIZE)
    assert backend.get_vocab_size() == 256 + len(SPECIAL_TOKENS)
    assert Tokenizer(backend).decode(Tokenizer(backend).encode("two")) == "two"


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(ConfigError, match=r"a vocabulary of 200 is too small; bytes and special tokens alone take 265"):
        train_text_tokenizer(TEXTS, 200)
