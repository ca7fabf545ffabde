"""The tokenizer of a checkpoint: text <-> ids, and its special tokens looked up by string.

Published checkpoints give the same special tokens different ids, and a wrong pad silently breaks guidance: no id is ever assumed.
Knows the `tokenizers` library only. Does not know templates or images.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from openjanus.errors import CheckpointError, PromptError

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"
IMAGE = "<image_placeholder>"
IMAGE_START = "<begin_of_image>"
IMAGE_END = "<end_of_image>"
# JanusFlow's own, which its processor adds to the vocabulary together with the image tags.
GENERATION_START = "<｜begin▁of▁generation｜>"
FLOW_TAGS = (IMAGE_START, IMAGE_END, GENERATION_START)
ROLES = ("<|User|>", "<|Assistant|>")
# Every special token of the published checkpoints (reference/README.md).
SPECIAL_TOKENS = (BOS, EOS, PAD, IMAGE, IMAGE_START, IMAGE_END, *ROLES, GENERATION_START)

TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "tokenizer_config.json"


class Tokenizer:
    """Text to ids and back. `bos`, `eos`, `pad`, `image`, `image_start`, `image_end` are ids; `*_tag` are their strings.

    settings: a parsed tokenizer_config.json, which may name other strings for bos, eos and pad.
    extra_tags: special tokens appended when missing; the image tag always is (SPEC sections 5 and 6).
    pad_fallback: a vocabulary without a pad token takes eos for it (JanusFlow); otherwise it is refused.
    CheckpointError, naming the token and `source`, if a special token is missing.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        settings: Mapping[str, Any] | None = None,
        image_tag: str = IMAGE,
        image_start_tag: str = IMAGE_START,
        image_end_tag: str = IMAGE_END,
        pad_tag: str = PAD,
        extra_tags: Sequence[str] = (),
        pad_fallback: bool = False,
        source: str = TOKENIZER_FILE,
    ) -> None:
        self.settings: dict[str, Any] = dict(settings or {})
        self.source = source
        self.image_tag, self.image_start_tag, self.image_end_tag = image_tag, image_start_tag, image_end_tag
        self.bos_tag, self.eos_tag = self._named("bos_token") or BOS, self._named("eos_token") or EOS
        self.backend = _ready(backend, (image_tag, *extra_tags))
        self.bos, self.eos = self._require(self.bos_tag), self._require(self.eos_tag)
        self.image, self.image_start = self._require(image_tag), self._require(image_start_tag)
        self.image_end = self._require(image_end_tag)
        self.pad_tag = self._find_pad(pad_tag, pad_fallback)
        self.pad = self._require(self.pad_tag)
        self._special = frozenset(id for id, token in self.backend.get_added_tokens_decoder().items() if token.special)

    @classmethod
    def from_folder(cls, folder: str | Path, **options: Any) -> "Tokenizer":
        """The tokenizer of a checkpoint folder; options are the constructor's. CheckpointError if it is absent or unreadable."""
        backend, settings = read_tokenizer(folder)
        return cls(backend, settings=settings, source=str(Path(folder) / TOKENIZER_FILE), **options)

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json into an existing folder; tags that were appended are kept."""
        settings = {
            "tokenizer_class": "LlamaTokenizerFast",
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
        } | self.settings
        for key, tag in (("bos_token", self.bos_tag), ("eos_token", self.eos_tag), ("pad_token", self.pad_tag)):
            if self._named(key) != tag:  # an entry that names the right token may hold more than its string
                settings[key] = tag
        self.backend.save(str(Path(folder) / TOKENIZER_FILE))
        text = json.dumps(settings, ensure_ascii=False, indent=2) + "\n"
        (Path(folder) / SETTINGS_FILE).write_text(text, encoding="utf-8")

    @property
    def vocab_size(self) -> int:
        """Tokens, appended ones included; the language model may have more rows than that."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def id_of(self, token: str) -> int | None:
        """The id of a token by its string, None if there is none."""
        id: int | None = self.backend.token_to_id(token)
        return id

    def is_special(self, id: int) -> bool:
        """Whether `decode` leaves this id out."""
        return id in self._special

    def encode(self, text: str) -> list[int]:
        """Ids of the text, bos first. Special tokens written in the text become that token, as in the published processor.

        PromptError for what is no text: no str, or half of a character pair, as bytes that are not UTF-8 come in.
        """
        try:
            text.encode()
        except (AttributeError, UnicodeEncodeError) as error:
            raise PromptError(f"{text!r:.60} is no text that can be written in UTF-8; give it as such") from error
        return [self.bos, *self.backend.encode(text, add_special_tokens=False).ids]

    def encode_behind(self, text: str, before: str) -> list[int]:
        """Ids of a text as it reads behind another that ends a word: Llama's tokenizers put a space before what stands alone."""
        first, whole = self.encode(before), self.encode(before + text)
        return whole[len(first) :] if whole[: len(first)] == first else self.encode(text)[1:]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; special tokens and ids outside the vocabulary are left out, broken UTF-8 becomes U+FFFD."""
        return str(self.backend.decode([int(id) for id in ids], skip_special_tokens=True))

    def _named(self, key: str) -> str | None:
        return named_token(self.settings, key)

    def _require(self, token: str) -> int:
        id = self.id_of(token)
        if id is None:
            raise CheckpointError(f"{self.source} has no token {token}; use the tokenizer files published with this checkpoint")
        return id

    def _find_pad(self, tag: str, fallback: bool) -> str:
        # The tag comes first and the settings' pad_token second: an early Janus-1.3B shipped a wrong one, which broke guidance.
        named = self._named("pad_token")
        if self.id_of(tag) is not None:
            return tag
        if named is not None and self.id_of(named) is not None and named not in {self.bos_tag, self.eos_tag}:
            return named
        if fallback:
            return self.eos_tag
        raise CheckpointError(
            f"{self.source} has no token {tag}, and guidance would be wrong without it; "
            "use the tokenizer files published with this checkpoint"
        )


def named_token(settings: Mapping[str, Any], key: str) -> str | None:
    """The token that a tokenizer_config.json names under `key` ("bos_token"), None if it names none."""
    entry = settings.get(key)
    entry = entry.get("content") if isinstance(entry, Mapping) else entry
    return entry if isinstance(entry, str) else None


def _ready(backend: tokenizers.Tokenizer, tags: Sequence[str]) -> tokenizers.Tokenizer:
    """The backend with the tags in its vocabulary, neither truncating nor padding; a copy if it has to change."""
    missing = [tag for tag in dict.fromkeys(tags) if backend.token_to_id(tag) is None]
    if not missing and backend.truncation is None and backend.padding is None:
        return backend
    backend = tokenizers.Tokenizer.from_str(backend.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.add_special_tokens([tokenizers.AddedToken(tag, special=True, normalized=False) for tag in missing])
    return backend


def read_tokenizer(folder: str | Path) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """The tokenizer of a folder as it stands there, and its settings; CheckpointError if it is absent or unreadable."""
    path = Path(folder) / TOKENIZER_FILE
    if not path.is_file():
        raise CheckpointError(f"there is no {TOKENIZER_FILE} in {folder}; copy it there from the published checkpoint")
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise CheckpointError(f"{path} is not a tokenizer ({error}); copy it again from the published checkpoint") from error
    return backend, _read_settings(Path(folder) / SETTINGS_FILE)


def _read_settings(path: Path) -> dict[str, Any]:
    """The parsed file, empty if there is none."""
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy it again from the published checkpoint") from error
    if not isinstance(settings, dict):
        raise CheckpointError(
            f"{path} holds a {type(settings).__name__}, not settings; copy it again from the published checkpoint"
        )
    return settings
