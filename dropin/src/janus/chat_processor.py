"""What the published chat processors of Janus and JanusFlow share: messages and images <-> the inputs of a model (SPEC 5 and 6).

Dims: b rows, T positions, n images a row, N slots an image, S image side.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import LlamaTokenizerFast, PreTrainedTokenizerFast, ProcessorMixin
from transformers.utils import cached_file

from janus.models.image_processing_vlm import VLMImageProcessor
from janus.utils.conversation import Conversation, get_conv_template
from openjanus.processing.chat import SYSTEM_PROMPT

PROCESSOR_FILE = "processor_config.json"
# What the loaders of transformers take for the hub; anything else a caller gives to `from_pretrained` is not theirs.
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")

# transformers 5 rebuilds a LlamaTokenizer as SentencePiece would, whatever tokenizer.json says, and byte-level text then gets
# other ids. The plain fast tokenizer reads the file as it is; before 5, Llama's does too.
TOKENIZER_CLASS = LlamaTokenizerFast if int(transformers.__version__.split(".")[0]) < 5 else PreTrainedTokenizerFast


class DictOutput:
    """Fields by attribute and by [], assignable, unpackable with ** and dict()."""

    def keys(self) -> Any:
        """Names of the fields."""
        return self.__dict__.keys()

    def __getitem__(self, item: str) -> Any:
        return self.__dict__[item]

    def __setitem__(self, key: str, value: Any) -> None:
        self.__dict__[key] = value


@dataclass
class BatchedVLChatProcessorOutput(DictOutput):
    """Prompts as one batch: what `prepare_inputs_embeds` and `generate` take."""

    sft_format: list[str]
    input_ids: Tensor  # int64 [b, T], padded on the left
    pixel_values: Tensor  # float [b, n, 3, S, S], zeros where a row has fewer images
    attention_mask: Tensor  # int64 [b, T]
    images_seq_mask: Tensor  # bool [b, T]
    images_emb_mask: Tensor  # bool [b, n, N]

    def to(self, device: Any, dtype: torch.dtype = torch.bfloat16) -> "BatchedVLChatProcessorOutput":
        """This batch, moved: every tensor to `device`, pixels to `dtype` too (bfloat16 unless told otherwise, as published)."""
        for name, value in self.__dict__.items():
            if isinstance(value, Tensor):
                self[name] = value.to(device)
        self.pixel_values = self.pixel_values.to(dtype)
        return self


class ChatProcessor(ProcessorMixin):
    """Conversations with images -> prompts, prompts -> batches. Subclasses say which positions an image fills.

    `system_prompt` may be assigned. Differs from the reference: without images, `images` may be None.
    """

    attributes = ["image_processor", "tokenizer"]  # noqa: RUF012 (read by transformers)
    image_processor_class = "AutoImageProcessor"
    tokenizer_class = ("LlamaTokenizer", "LlamaTokenizerFast")
    system_prompt = SYSTEM_PROMPT
    # Of processor_config.json; a subclass' constructor takes them.
    settings: tuple[str, ...] = ("add_special_token", "ignore_id", "image_tag", "mask_prompt", "num_image_tokens", "sft_format")
    begin_is_slot = False

    image_tag: str
    image_start_tag: str
    image_end_tag: str
    num_image_tokens: int
    add_special_token: bool
    sft_format: str
    mask_prompt: bool
    ignore_id: int

    def _set(self, image_processor: Any, tokenizer: Any, extra_tags: Sequence[str], **settings: Any) -> None:
        """Take what the constructor was given; tags that the tokenizer lacks are appended to it as special tokens."""
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.chat_template = None
        for name, value in settings.items():
            setattr(self, name, value)
        missing = [tag for tag in (self.image_tag, *extra_tags) if self._id(tag) is None]
        if missing:
            tokens = [AddedToken(tag, special=True, normalized=False) for tag in missing]
            self.tokenizer.add_tokens(tokens, special_tokens=True)

    def _id(self, token: str) -> int | None:
        """The id of a token by its string; None if there is none."""
        found = self.tokenizer.convert_tokens_to_ids(token)
        # An unknown token gives the id of <unk> where there is one.
        return found if found is not None and self.tokenizer.convert_ids_to_tokens(found) == token else None

    # -- loading and saving ---------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> "ChatProcessor":
        """The processor of a folder or hub id. kwargs: hub options, settings to override; others are ignored, as published."""
        path = str(pretrained_model_name_or_path)
        hub = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
        found = cached_file(path, PROCESSOR_FILE, _raise_exceptions_for_missing_entries=False, **hub)
        written = json.loads(Path(found).read_text(encoding="utf-8")) if found else {}
        settings = {name: value for name, value in {**written, **kwargs}.items() if name in cls.settings}
        return cls(VLMImageProcessor.from_pretrained(path, **hub), load_tokenizer(path, **hub), **settings)

    def save_pretrained(self, save_directory: Any, **_ignored: Any) -> list[str]:
        """Write the tokenizer, preprocessor_config.json and processor_config.json into a folder; returns the last's path."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        restore_published_settings(folder / "tokenizer_config.json")
        self.image_processor.save_pretrained(folder)
        target = folder / PROCESSOR_FILE
        target.write_text(self._to_json(), encoding="utf-8")
        return [str(target)]

    def to_dict(self, **_ignored: Any) -> dict[str, Any]:
        """The content of processor_config.json."""
        return {name: getattr(self, name) for name in self.settings} | {"processor_class": type(self).__name__}

    def _to_json(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2, sort_keys=True) + "\n"

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self._to_json()}"

    # -- tokens ---------------------------------------------------------------------------------------------------------------

    @property
    def image_token(self) -> str:
        """The placeholder an image's embeddings replace."""
        return self.image_tag

    @property
    def image_id(self) -> int | None:
        """Its id."""
        return self._id(self.image_tag)

    @property
    def image_start_token(self) -> str:
        """The token before an image."""
        return self.image_start_tag

    @property
    def image_start_id(self) -> int | None:
        """Its id."""
        return self._id(self.image_start_tag)

    @property
    def image_end_token(self) -> str:
        """The token after an image."""
        return self.image_end_tag

    @property
    def image_end_id(self) -> int | None:
        """Its id."""
        return self._id(self.image_end_tag)

    @property
    def slots_per_image(self) -> int:
        """Positions that the embeddings of one image fill."""
        return self.num_image_tokens + int(self.begin_is_slot)

    # -- text -----------------------------------------------------------------------------------------------------------------

    def new_chat_template(self) -> Conversation:
        """An empty conversation in this processor's format, with its system prompt."""
        conversation = get_conv_template(self.sft_format)
        conversation.set_system_message(self.system_prompt)
        return conversation

    def apply_sft_template_for_multi_turn_prompts(
        self, conversations: Sequence[dict[str, Any]], sft_format: str = "deepseek", system_prompt: str = ""
    ) -> str:
        """The prompt of messages {role, content}, contents stripped; roles are written as the messages have them."""
        conversation = get_conv_template(sft_format)
        conversation.set_system_message(system_prompt)
        for message in conversations:
            conversation.append_message(message["role"], message["content"].strip())
        return conversation.get_prompt().strip()

    def add_image_token(self, image_indices: Any, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """`input_ids` [T] with the placeholders at `image_indices` written out, and the slots of each image (int32 [n]).

        Written out: start, a placeholder for each patch, end. With `add_special_token` the one that stood there comes first.
        """
        pieces, start = [], 0
        for index in (int(index) for index in image_indices):
            pieces += [input_ids[start : index + int(self.add_special_token)], self._image_ids(input_ids)]
            start = index + 1
        pieces.append(input_ids[start:])
        return torch.cat(pieces), torch.full((len(image_indices),), self.slots_per_image, dtype=torch.int32)

    def _image_ids(self, like: Tensor) -> Tensor:
        """Ids of one image: start, placeholders, end; ValueError if the vocabulary lacks one of them."""
        tags = (self.image_start_tag, *[self.image_tag] * self.num_image_tokens, self.image_end_tag)
        known = {tag: self._id(tag) for tag in dict.fromkeys(tags)}
        missing = [tag for tag, found in known.items() if found is None]
        if missing:
            raise ValueError(
                f"the tokenizer has no {' or '.join(missing)}; use the tokenizer files published with the checkpoint"
            )
        return like.new_tensor([known[tag] for tag in tags])

    # -- batches --------------------------------------------------------------------------------------------------------------

    def process_one(
        self,
        prompt: str | None = None,
        conversations: Sequence[dict[str, Any]] | None = None,
        images: Sequence[Any] | None = None,
        **_ignored: Any,
    ) -> Any:
        """One prompt: of an already rendered text, or of messages in this processor's format and with its system prompt.

        AssertionError if both are given, or neither.
        """
        assert prompt is None or conversations is None, "prompt and conversations cannot be used at the same time."
        assert prompt is not None or conversations is not None, "give a prompt or conversations."
        text = prompt
        if conversations is not None:
            text = self.apply_sft_template_for_multi_turn_prompts(conversations, self.sft_format, self.system_prompt)
        ids = torch.tensor(self.tokenizer.encode(text), dtype=torch.int64)
        ids, slots = self.add_image_token(same(ids, self.image_id).nonzero().flatten(), ids)
        pixels = self.image_processor([] if images is None else list(images), return_tensors="pt").pixel_values
        return self.output(text, ids, pixels, slots)

    def output(self, text: str | None, ids: Tensor, pixels: Tensor, slots: Tensor) -> Any:
        """One prompt, in the variant's published type."""
        raise NotImplementedError

    def __call__(
        self,
        *,
        prompt: str | None = None,
        conversations: Sequence[dict[str, Any]] | None = None,
        images: Sequence[Any] | None = None,
        force_batchify: bool = True,
        **kwargs: Any,
    ) -> Any:
        """`process_one`, as a batch of one unless `force_batchify` is false."""
        prepared = self.process_one(prompt=prompt, conversations=conversations, images=images, **kwargs)
        return self.batchify([prepared]) if force_batchify else prepared

    def batchify(self, prepare_list: Any) -> BatchedVLChatProcessorOutput:
        """Prompts (a list, or one) as one batch. Any object will do that has the fields of `process_one`'s.

        Without images, pixel_values may be None and the counts empty. ValueError if a prompt's images do not fit its
        placeholders, except that a single image stands for all of them.
        """
        prompts = list(prepare_list) if isinstance(prepare_list, (list, tuple)) else [prepare_list]
        counts = [[int(slots) for slots in _slots(prompt)] for prompt in prompts]
        rows, length, images = len(prompts), max(len(prompt.input_ids) for prompt in prompts), max(1, *map(len, counts))
        # Nothing attends to padding, so any id serves a vocabulary without a pad token.
        batch = BatchedVLChatProcessorOutput(
            sft_format=[prompt.sft_format for prompt in prompts],
            input_ids=torch.full((rows, length), self.pad_id or 0, dtype=torch.int64),
            pixel_values=torch.zeros(rows, images, *self.image_processor.default_shape),
            attention_mask=torch.zeros(rows, length, dtype=torch.int64),
            images_seq_mask=torch.zeros(rows, length, dtype=torch.bool),
            images_emb_mask=torch.zeros(rows, images, self.slots_per_image, dtype=torch.bool),
        )
        for row, (prompt, slots) in enumerate(zip(prompts, counts, strict=True)):
            ids = torch.as_tensor(prompt.input_ids)
            own = slice(length - len(ids), length)
            batch.input_ids[row, own] = ids
            batch.attention_mask[row, own] = 1
            batch.images_seq_mask[row, own] = self.find_slots(ids)
            pixels = [] if prompt.pixel_values is None else prompt.pixel_values
            if len(pixels) not in {len(slots), int(bool(slots))}:
                raise ValueError(
                    f"prompt {row} has {len(slots)} {self.image_tag} for {len(pixels)} images; write one for each image "
                    "(or give one image for all of them)"
                )
            if slots:
                batch.pixel_values[row, : len(slots)] = torch.as_tensor(pixels)
            for image, count in enumerate(slots):
                batch.images_emb_mask[row, image, :count] = True
        return batch

    def find_slots(self, ids: Tensor) -> Tensor:
        """Which positions [T] of a prompt's ids [T] an image's embeddings replace: bool [T].

        Differs from the reference: a placeholder kept by `add_special_token`, which stands right before a start, is none.
        """
        after = torch.cat((ids[1:], ids.new_full((1,), -1)))
        return same(ids, self.image_id) & ~same(after, self.image_start_id)

    @property
    def pad_id(self) -> int | None:
        """The id of the pad token."""
        raise NotImplementedError


def same(ids: Tensor, id: int | None) -> Tensor:
    """Where `ids` are `id`; nowhere for None, a token that the vocabulary lacks."""
    return torch.zeros_like(ids, dtype=torch.bool) if id is None else ids.eq(id)


def _slots(prompt: Any) -> Any:
    """The slots per image of a prompt of either variant."""
    slots = getattr(prompt, "num_image_tokens", None)
    if slots is None:
        slots = getattr(prompt, "num_und_image_tokens", None)
    return [] if slots is None else slots


def restore_published_settings(file: Path) -> None:
    """Rewrite a tokenizer_config.json as the published ones are, which transformers 4 and 5 both read.

    transformers 5 writes a class and a list of special tokens that stop transformers 4, and the published code with it.
    """
    settings = json.loads(file.read_text(encoding="utf-8"))
    if settings.get("tokenizer_class") != "TokenizersBackend":
        return
    for key in ("backend", "is_local", "local_files_only"):
        settings.pop(key, None)
    settings["additional_special_tokens"] = settings.pop("extra_special_tokens", [])
    settings |= {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "add_eos_token": False}
    file.write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def load_tokenizer(path: str, **hub: Any) -> Any:
    """The tokenizer of a folder or hub id: pads on the left and writes bos first, unless tokenizer_config.json says otherwise."""
    tokenizer = TOKENIZER_CLASS.from_pretrained(path, **hub)
    tokenizer.padding_side = tokenizer.init_kwargs.get("padding_side", "left")
    bos, id = tokenizer.bos_token, tokenizer.bos_token_id
    if bos is not None and tokenizer.init_kwargs.get("add_bos_token", True) and tokenizer.encode("")[:1] != [id]:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=[bos, "$A"], pair=[bos, "$A", f"{bos}:1", "$B:1"], special_tokens=[(bos, id)]
        )
    return tokenizer
