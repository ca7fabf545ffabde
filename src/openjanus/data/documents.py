"""Documents: samples as tokens with their supervision, exactly as inference will see them.

Prompts are built by the checkpoint's own `Processor`: what is learned is what will be asked. Dims: T tokens of a document.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from openjanus.config import GenerationConfig
from openjanus.data.samples import Sample, generator
from openjanus.errors import PromptError
from openjanus.processing.images import open_image
from openjanus.processing.prompts import Processor
from openjanus.types import IGNORE, Message, Prompt

# Purposes of a sample's chance; a new one gets a new number, so that the others stay as they are.
# (models/flow_generation.py has 2, data/records.py 3.)
DROP, CROP, HIDE, STRETCH = 0, 1, 4, 5


@dataclass(frozen=True)
class Document:
    """One sample as tokens: the fields of `TrainingBatch` for one row's stretch, int64 or bool [T]."""

    kind: str
    ids: Tensor
    attended: Tensor
    labels: Tensor
    slots: Tensor
    pixels: Tensor
    inputs: Tensor
    outputs: Tensor
    pictures: Tensor
    seeds: Tensor
    rivals: Tensor
    shown: Tensor
    originals: Tensor

    def __len__(self) -> int:
        return int(self.ids.shape[0])


@dataclass(frozen=True)
class Writer:
    """Samples -> documents, for one model.

    guidance_dropout: share of pictures learned without their text (Janus footnote 2, JanusFlow section 3.4: 0.1).
    supervise_prompts: text and questions are learned too, not answers alone (stages 1 and 2; Janus section 3.3).
    close_image: <end_of_image> and eos after a picture, unsupervised (training_spec 1.6, where papers are silent).
    random_crop: a picture that is not square is cropped at random, not at its centre (training_spec 1.8).
    hidden_codes: share of edits learned without the codes of the images they begin with (Janus-4o; training_spec 6.3).
    edit_dropout: share of edits learned without text and images (Janus-4o: none).
    """

    processor: Processor
    generation: GenerationConfig
    guidance_dropout: float = 0.1
    supervise_prompts: bool = False
    close_image: bool = True
    random_crop: bool = True
    hidden_codes: float = 0.5
    edit_dropout: float = 0.0

    def documents(self, sample: Sample) -> list[Document]:
        """The document of a sample, and behind it that of its rival, if it has one and its own text is not dropped."""
        if not sample.rival or self._drops(sample):
            return [self.document(sample)]
        return [self.document(sample), self._painted(replace(sample, messages=(Message("user", sample.rival),)), rival=True)]

    def document(self, sample: Sample) -> Document:
        """The document of a sample; PromptError if it holds nothing to learn."""
        return self._painted(sample) if sample.kind in ("generation", "editing") else self._answered(sample)

    def _answered(self, sample: Sample) -> Document:
        """A conversation whose answers are learned: each token of an answer, and the end of sentence behind it.

        An answer without a question is plain text.
        """
        if not sample.messages or sample.messages[-1].role != "assistant":
            raise PromptError("a conversation to learn from must end with the assistant's answer")
        ids: list[int] = []
        slots: list[bool] = []
        supervised: list[bool] = []
        answers = 0
        for place, message in enumerate(sample.messages):
            if message.role != "assistant":
                continue
            # The prompt up to here as inference will build it, then the answer as the model will have to say it.
            prompt = self.processor.understanding_prompt(sample.messages[:place]) if place else self._nothing()
            new = _behind(prompt, self.processor.tokenizer.eos, answers)
            # A prompt ends in the colon behind a role.
            said = self.processor.tokenizer.encode_behind(f" {message.text.strip()}", ":")
            answer = [*said, self.processor.tokenizer.eos]
            ids += prompt.ids[new:].tolist() + answer
            slots += prompt.slots[new:].tolist() + [False] * len(answer)
            supervised += [self.supervise_prompts] * (len(prompt) - new) + [True] * len(answer)
            answers += 1
        tokens, read = torch.tensor(ids), torch.tensor(slots)
        learned = torch.tensor(supervised) & ~read
        none = torch.zeros_like(read)
        return Document(
            sample.kind,
            tokens,
            attended=~none,
            labels=_labels(tokens, learned),
            slots=read,
            pixels=prompt.pixels,
            inputs=none,
            outputs=none,
            pictures=torch.zeros(0, 3, *self.generation.image_size),
            seeds=torch.zeros(0, dtype=torch.int64),
            rivals=torch.zeros(0, dtype=torch.bool),
            shown=none,
            originals=torch.zeros(0, 3, *self.generation.image_size),
        )

    def _nothing(self) -> Prompt:
        """The prompt of plain text: the begin of sentence."""
        size = self.processor.images.config.image_size
        return Prompt(
            torch.tensor([self.processor.tokenizer.bos]), torch.zeros(1, dtype=torch.bool), torch.zeros(0, 3, size, size)
        )

    def _drops(self, sample: Sample) -> bool:
        """Whether the picture is learned without its text."""
        share = self.edit_dropout if sample.kind == "editing" else self.guidance_dropout
        return bool(generator(sample.seed, DROP).random() < share)

    def _asking(self, sample: Sample) -> Prompt:
        """The prompt that asks for a sample's picture."""
        (message,) = sample.messages
        if sample.kind == "generation":
            return self.processor.generation_prompt(message.text)
        if not self.generation.shows:
            raise PromptError("this model cannot learn to edit: it paints latents, and no paper says how one stands in a prompt")
        prompt = self.processor.editing_prompt(
            message.text, message.images, self.generation.positions, self.generation.image_size
        )
        hides = generator(sample.seed, HIDE).random() < self.hidden_codes
        return self.processor.without_codes(prompt) if hides else prompt

    def _painted(self, sample: Sample, rival: bool = False) -> Document:
        """A text and its picture. Codes: <begin_of_image> predicts the first one. Flow: the time stands in its place."""
        if sample.picture is None or len(sample.messages) != 1:
            raise PromptError(f"a sample of {sample.kind} needs one user message and its picture")
        prompt = self._asking(sample)
        attended = torch.ones(len(prompt), dtype=torch.bool)
        if self._drops(sample):
            prompt = self.processor.blank(prompt)
            attended[1:-1] = self.generation.attends_blank
        tokenizer = self.processor.tokenizer
        positions, closing = self.generation.positions, [tokenizer.image_end, tokenizer.eos]
        # Where the picture's own embeddings stand: the codes behind <begin_of_image>, or the whole flow step in its place.
        first = len(prompt) - int(self.generation.replaces_begin)
        tail = closing if self.close_image else []
        length = first + positions + len(tail)
        ids = torch.full((length,), tokenizer.pad)
        ids[: len(prompt)] = prompt.ids
        ids[length - len(tail) :] = torch.tensor(tail, dtype=torch.int64)
        inputs, outputs, everything, slots, shown = (torch.zeros(length, dtype=torch.bool) for _ in range(5))
        slots[: len(prompt)] = prompt.slots
        if prompt.shown is not None:
            shown[: len(prompt)] = prompt.shown
        inputs[first : first + positions] = True
        outputs[len(prompt) - 1 : len(prompt) - 1 + positions] = True
        everything[:] = True
        everything[: len(prompt)] = attended
        return Document(
            sample.kind,
            ids,
            attended=everything,
            labels=torch.full((length,), IGNORE),
            slots=slots,
            pixels=prompt.pixels,
            inputs=inputs,
            outputs=outputs,
            pictures=self._pixels(sample)[None],
            seeds=torch.tensor([sample.seed]),
            rivals=torch.tensor([rival]),
            shown=shown,
            originals=torch.zeros(0, 3, *self.generation.image_size) if prompt.pictures is None else prompt.pictures,
        )

    def _pixels(self, sample: Sample) -> Tensor:
        """The picture [3, H, W] in [-1, 1]: short side to size, the rest cropped away (training_spec 1.8)."""
        height, width = self.generation.image_size
        if sample.kind == "editing":
            return self.processor.pictures([sample.picture], (height, width))[0]
        image = open_image(sample.picture)
        scale = max(width / image.width, height / image.height)
        size = max(width, round(image.width * scale)), max(height, round(image.height * scale))
        if image.size != size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        spare = np.array([size[0] - width, size[1] - height])
        share = generator(sample.seed, CROP).random(2) if self.random_crop else np.array([0.5, 0.5])
        left, top = (int(value) for value in np.floor(spare * share + (0 if self.random_crop else 1e-9)))
        pixels = np.asarray(image.crop((left, top, left + width, top + height)), dtype=np.float32)
        return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)


def _behind(prompt: Prompt, eos: int, answers: int) -> int:
    """Where the prompt goes on behind its first `answers` answers, each of which ends with eos."""
    ends = (prompt.ids == eos).nonzero()[:, 0]
    return int(ends[answers - 1]) + 1 if answers else 0


def _labels(ids: Tensor, learned: Tensor) -> Tensor:
    """The token to predict at each position: the next one, where that one is learned."""
    labels = torch.full_like(ids, IGNORE)
    labels[:-1] = torch.where(learned[1:], ids[1:], IGNORE)
    return labels
