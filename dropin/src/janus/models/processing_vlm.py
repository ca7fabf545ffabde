"""The chat processor of Janus and Janus-Pro (SPEC section 5)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from janus.chat_processor import BatchedVLChatProcessorOutput, ChatProcessor, DictOutput

__all__ = ["BatchedVLChatProcessorOutput", "DictOutput", "VLChatProcessor", "VLChatProcessorOutput"]


@dataclass
class VLChatProcessorOutput(DictOutput):
    """One prompt: its text, ids int64 [T], pixels [n, 3, S, S] and the slots of each image [n]."""

    sft_format: str
    input_ids: Tensor
    pixel_values: Tensor
    num_image_tokens: Tensor

    def __len__(self) -> int:
        return len(self.input_ids)


class VLChatProcessor(ChatProcessor):
    """Messages and images -> the inputs of a Janus or Janus-Pro."""

    settings = (*ChatProcessor.settings, "image_start_tag", "image_end_tag", "pad_tag")
    pad_tag: str

    def __init__(
        self,
        image_processor: Any,
        tokenizer: Any,
        image_tag: str = "<image_placeholder>",
        image_start_tag: str = "<begin_of_image>",
        image_end_tag: str = "<end_of_image>",
        pad_tag: str = "<｜▁pad▁｜>",
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
            extra_tags=(),
            image_tag=image_tag,
            image_start_tag=image_start_tag,
            image_end_tag=image_end_tag,
            pad_tag=pad_tag,
            num_image_tokens=num_image_tokens,
            add_special_token=add_special_token,
            sft_format=sft_format,
            mask_prompt=mask_prompt,
            ignore_id=ignore_id,
        )

    @property
    def pad_id(self) -> int | None:
        """The id of the pad tag; None if the vocabulary has none."""
        return self._id(self.pad_tag)

    def output(self, text: str | None, ids: Tensor, pixels: Tensor, slots: Tensor) -> VLChatProcessorOutput:
        """One prompt."""
        return VLChatProcessorOutput(sft_format=text or "", input_ids=ids, pixel_values=pixels, num_image_tokens=slots)
