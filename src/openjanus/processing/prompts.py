"""Prompts: messages -> ids, image slots and pixels (SPEC sections 4.1, 5 and 6)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from openjanus.errors import PromptError
from openjanus.processing.chat import ChatFormat
from openjanus.processing.images import ImageProcessor, open_image
from openjanus.processing.tokenizer import Tokenizer
from openjanus.types import ImageSource, Message, Prompt


class Processor:
    """Everything between people's messages and a model's inputs, for one checkpoint.

    slots_per_image: positions whose embeddings an image fills; with `begin_is_slot` (JanusFlow) the first of them is
    <begin_of_image>, otherwise all are placeholders. add_special_token: the published option of that name, which keeps the
    written placeholder before each image. context: the most tokens a prompt may have. vocab_size: rows of the model's embedding.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        images: ImageProcessor,
        chat: ChatFormat,
        slots_per_image: int,
        begin_is_slot: bool,
        add_special_token: bool = False,
        context: int | None = None,
        vocab_size: int | None = None,
    ) -> None:
        self.tokenizer, self.images, self.chat = tokenizer, images, chat
        self.slots_per_image, self.begin_is_slot, self.add_special_token = slots_per_image, begin_is_slot, add_special_token
        self.context, self.vocab_size = context, vocab_size

    def understanding_prompt(self, messages: Sequence[Message]) -> Prompt:
        """The prompt that asks for an answer to the last message, which must be the user's (or an empty one of the assistant).

        PromptError for an empty question without an image, images that do not fit their placeholders, or too long a prompt;
        ImageError for an image that cannot be read.
        """
        messages = [self._place_images(message) for message in messages]
        asked = messages[:-1] if messages and _is_open(messages[-1]) else messages
        if not asked or asked[-1].role != "user":
            raise PromptError("there is no question: the last message must be the user's")
        if not asked[-1].text.strip():
            raise PromptError("the question is empty and has no image; write a question or give an image")
        text = self.chat.render(messages, add_reply=True)
        return self.prompt(text, [image for message in messages for image in message.images])

    def generation_prompt(self, text: str) -> Prompt:
        """The prompt that asks for a picture of the text. Its last token, <begin_of_image>, is what the first step stands for."""
        if not text.strip():
            raise PromptError("the prompt is empty; describe the picture")
        rendered = self.chat.render([Message("user", text)], system_prompt="", add_reply=True)
        return self.prompt(rendered + self.tokenizer.image_start_tag)

    def editing_prompt(self, text: str, images: Sequence[ImageSource], positions: int, size: tuple[int, int]) -> Prompt:
        """The prompt that asks for a picture made of others as the text says (Janus-4o; training_spec 6.3).

        Each image stands before the text twice: as it is read, and behind that, between image tags of their own, as `positions`
        pads in whose places its codes go. size: height and width of a picture that is painted. Errors as `understanding_prompt`.
        """
        if not text.strip() or not images:
            raise PromptError("an edit needs a text that says what to do, and one image or more")
        if self.tokenizer.image_tag in text:
            raise PromptError(f"images stand before the text of an edit; leave {self.tokenizer.image_tag} out of it")
        message = Message("user", self.tokenizer.image_tag * len(images) + text.strip())
        rendered = self.chat.render([message], system_prompt="", add_reply=True)
        opened = [open_image(image) for image in images]
        prompt = self.prompt(rendered + self.tokenizer.image_start_tag, opened, positions)
        return replace(prompt, pictures=self.pictures(opened, size))

    def pictures(self, images: Sequence[ImageSource], size: tuple[int, int]) -> torch.Tensor:
        """Images as the pictures of edits, float32 [N, 3, H, W] in [-1, 1] of a size (height, width): as they are read.

        So they are padded to a square, and not cropped as pictures without edits are (Janus-4o; training_spec 6.3).
        """
        squares = [self.images.square(open_image(image)) for image in images]
        scaled = [one if one.size == size[::-1] else one.resize(size[::-1], Image.Resampling.BICUBIC) for one in squares]
        levels = np.stack([np.asarray(one, dtype=np.float32) for one in scaled])
        return torch.from_numpy(levels / 127.5 - 1).permute(0, 3, 1, 2).contiguous()

    def without_codes(self, prompt: Prompt) -> Prompt:
        """The prompt of an edit with pads in the places of its images' codes, for guidance."""
        return replace(prompt, shown=None, pictures=None)

    def blank(self, prompt: Prompt) -> Prompt:
        """The prompt with nothing said, for guidance: first and last token kept, pads between (SPEC section 4.1)."""
        ids = prompt.ids.clone()
        ids[1:-1] = self.tokenizer.pad
        return Prompt(ids, torch.zeros_like(prompt.slots), prompt.pixels[:0])

    def prompt(self, text: str, images: Sequence[ImageSource] = (), codes: int = 0) -> Prompt:
        """The prompt of an already rendered text, whose image placeholders stand for the images in order.

        codes: for how many codes of each image there is room behind it, if there is any.

        Differs from the reference: one image for several placeholders is refused, not repeated.
        """
        written = self.tokenizer.encode(text)
        placeholders = written.count(self.tokenizer.image)
        if placeholders != len(images):
            raise PromptError(self._unequal("the prompt", placeholders, len(images)))
        ids, slots = self.expand(written)
        shown = None
        if codes:
            ids, slots, shown = self._with_codes(ids, slots, codes)
        if self.context is not None and len(ids) > self.context:
            raise PromptError(
                f"the prompt has {len(ids)} tokens; the model reads at most {self.context}: shorten it or drop images"
            )
        self._check_known(ids, slots)
        pixels = self.images.pixels([open_image(image) for image in images])
        return Prompt(
            torch.tensor(ids, dtype=torch.int64),
            torch.tensor(slots, dtype=torch.bool),
            torch.from_numpy(pixels),
            None if shown is None else torch.tensor(shown, dtype=torch.bool),
        )

    def expand(self, ids: Sequence[int]) -> tuple[list[int], list[bool]]:
        """The ids with each image placeholder written out as start, placeholders, end; and which of them are slots.

        Differs from the reference: only these are slots, not every such token, so a kept placeholder (`add_special_token`) or a
        <begin_of_image> typed by the user does not upset the count.
        """
        token = self.tokenizer
        inner = self.slots_per_image - int(self.begin_is_slot)
        image = [token.image_start, *[token.image] * inner, token.image_end]
        image_slots = [self.begin_is_slot, *[True] * inner, False]
        expanded: list[int] = []
        slots: list[bool] = []
        for id in ids:
            if id != token.image or self.add_special_token:
                expanded.append(id)
                slots.append(False)
            if id == token.image:
                expanded.extend(image)
                slots.extend(image_slots)
        return expanded, slots

    def _with_codes(self, ids: Sequence[int], slots: Sequence[bool], codes: int) -> tuple[list[int], list[bool], list[bool]]:
        """Ids and slots with room for an image's codes behind each image's end, and where that room is."""
        token = self.tokenizer
        block = [token.image_start, *[token.pad] * codes, token.image_end]
        longer: tuple[list[int], list[bool], list[bool]] = ([], [], [])
        for place, (id, slot) in enumerate(zip(ids, slots, strict=True)):
            ends = id == token.image_end and place > 0 and slots[place - 1]
            added = block if ends else []
            inside = [False, *[True] * codes, False] if ends else []
            longer[0].extend([id, *added])
            longer[1].extend([slot, *[False] * len(added)])
            longer[2].extend([False, *inside])
        return longer

    def _place_images(self, message: Message) -> Message:
        """The message stripped, with one placeholder in its text for each of its images."""
        tag, text = self.tokenizer.image_tag, message.text.strip()
        placeholders = text.count(tag)
        if message.images and not placeholders:
            text = (f"{tag}\n" * len(message.images) + text).strip()
        elif placeholders != len(message.images):
            raise PromptError(self._unequal(f"the {message.role}'s message", placeholders, len(message.images)))
        return replace(message, text=text)

    def _unequal(self, where: str, placeholders: int, images: int) -> str:
        return (
            f"{where} has {placeholders} {self.tokenizer.image_tag} for {images} image{'s' * (images != 1)}; "
            "write one for each image, or none to put the images first"
        )

    def _check_known(self, ids: Sequence[int], slots: Sequence[bool]) -> None:
        # Tags that were appended to the vocabulary may lie behind the model's last row; a user can type them.
        if self.vocab_size is None:
            return
        for id, slot in zip(ids, slots, strict=True):
            if id >= self.vocab_size and not slot:
                token = self.tokenizer.backend.id_to_token(id)
                raise PromptError(f"the prompt holds the token {token}, which this model does not know; leave it out")


def _is_open(message: Message) -> bool:
    return message.role == "assistant" and not message.text.strip()
