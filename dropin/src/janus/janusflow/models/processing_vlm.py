"""The chat processor of JanusFlow: <begin_of_image> is a slot too, for the begin vector (SPEC section 6)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from janus.chat_processor import BatchedVLChatProcessorOutput, ChatProcessor, DictOutput, same
from openjanus.processing.tokenizer import PAD

__all__ = ["BatchedVLChatProcessorOutput", "DictOutput", "VLChatProcessor", "VLChatProcessorOutput"]


@dataclass
class VLChatProcessorOutput(DictOutput):
    """One prompt: its text, ids int64 [T], pixels [n, 3, S, S] and the slots of each image [n]."""

    sft_format: str
    input_ids: Tensor
    pixel_values: Tensor
    num_und_image_tokens: Tensor

    def __len__(self) -> int:
        return len(self.input_ids)


class VLChatProcessor(ChatProcessor):
    """Messages and images -> the inputs of a JanusFlow."""

    settings = (*ChatProcessor.settings, "image_start_tag", "image_end_tag", "image_gen_tag")
    image_gen_tag: str
    begin_is_slot = True

    def __init__(
        self,
        image_processor: Any,
        tokenizer: Any,
        image_tag: str = "<image_placeholder>",
        image_start_tag: str = "<begin_of_image>",
        image_end_tag: str = "<end_of_image>",
        image_gen_tag: str = "<｜begin▁of▁generation｜>",
        num_image_tokens: int = 576,
        add_special_token: bool = False,
        sft_format: str = "deepseek",
        mask_prompt: bool = True,
        ignore_id: int = -100,
        **_ignored: Any,
    ) -> None:
        self._set(
            image_processor,
            tokenizer,
            extra_tags=(image_start_tag, image_end_tag, image_gen_tag),
            image_tag=image_tag,
            image_start_tag=image_start_tag,
            image_end_tag=image_end_tag,
            image_gen_tag=image_gen_tag,
            num_image_tokens=num_image_tokens,
            add_special_token=add_special_token,
            sft_format=sft_format,
            mask_prompt=mask_prompt,
            ignore_id=ignore_id,
        )
        pad = self._id(PAD)
        if pad is not None:
            self.tokenizer.pad_token_id = pad

    @property
    def image_gen_token(self) -> str:
        """The token after which an image is painted."""
        return self.image_gen_tag

    @property
    def image_gen_id(self) -> int | None:
        """Its id."""
        return self._id(self.image_gen_tag)

    @property
    def pad_id(self) -> int | None:
        """The tokenizer's pad id; eos without one."""
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad

    def output(self, text: str | None, ids: Tensor, pixels: Tensor, slots: Tensor) -> VLChatProcessorOutput:
        """One prompt."""
        return VLChatProcessorOutput(sft_format=text or "", input_ids=ids, pixel_values=pixels, num_und_image_tokens=slots)

    def find_slots(self, ids: Tensor) -> Tensor:
        """Placeholders, and the start before them: bool [T] of a prompt's ids [T].

        Differs from the reference: a <begin_of_image> that no placeholder follows, such as one typed by the user, is no slot.
        """
        placeholders = super().find_slots(ids)
        follows = torch.cat((placeholders[1:], placeholders.new_zeros(1)))
        return placeholders | (same(ids, self.image_start_id) & follows)
