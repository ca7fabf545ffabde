"""A loaded model, as people use it: ask about images, paint images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal, overload

import torch
from PIL import Image
from torch import nn

from openjanus.checkpoints.fingerprint import digest, fingerprint, sampled
from openjanus.checkpoints.load import Placed, load_checkpoint, stored_quantization
from openjanus.config import JanusConfig
from openjanus.device import pick_device, pick_dtype
from openjanus.engine.engine import Engine
from openjanus.engine.linear import check_quantization_on, placing
from openjanus.engine.request import Failed, Finished, ImageRequest, Picture, Piece, Progress, TextRequest
from openjanus.engine.threads import settle_threads
from openjanus.errors import PromptError
from openjanus.models.janus import JanusModel
from openjanus.models.randomness import fresh_seed
from openjanus.processing.prompts import Processor
from openjanus.types import ImageOptions, ImageSource, Message, TextOptions


class Janus:
    """A model with everything around it: tokenizer, template, image processing. `openjanus.load` makes one."""

    def __init__(
        self, model: JanusModel, processor: Processor, name: str = "", untrained: bool = False, fingerprint: str | None = None
    ) -> None:
        """fingerprint: None is that of the model as it is, whose weights nothing has laid out anew."""
        self.model = model
        self.processor = processor
        self.name = name
        self.untrained = untrained
        self._fingerprint = fingerprint
        self._engine: Engine | None = None
        self._lock = Lock()

    @property
    def engine(self) -> Engine:
        """What runs this model; made when it is first wanted."""
        with self._lock:
            if self._engine is None or (self._engine.model, self._engine.processor) != (self.model, self.processor):
                self._engine = None  # its memory first
                self._engine = Engine(self.model, self.processor)
            return self._engine

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits of its weights: the same wherever they lie, others after training (checkpoints/fingerprint.py)."""
        return fingerprint(self.model) if self._fingerprint is None else self._fingerprint

    def forget(self) -> None:
        """Drop what earlier requests left behind, so that what comes next is the same to the last digit as in a new process.

        A prompt that begins like an earlier one is read on from there, which rounds otherwise than reading it whole.
        """
        with self._lock:
            self._engine = None

    @overload
    def understand(self, question: str, images: Any = ..., *, stream: Literal[True], **settings: Any) -> Iterator[str]: ...
    @overload
    def understand(self, question: str, images: Any = ..., *, stream: Literal[False] = ..., **settings: Any) -> str: ...
    @overload
    def understand(self, question: Sequence[str], images: Any = ..., **settings: Any) -> list[str]: ...

    def understand(
        self,
        question: str | Sequence[str],
        images: ImageSource | Sequence[ImageSource] | None = None,
        *,
        stream: bool = False,
        system_prompt: str | None = None,
        **settings: Any,
    ) -> str | list[str] | Iterator[str]:
        """The answer to a question about images, or about none (then no vision tower runs).

        question: one, or a list of questions that run as one batch; images is then a list of lists, one a question.
        images: paths, bytes, data: URLs, PIL images or numpy arrays; they stand before the question unless it says where with
        `<image_placeholder>`. stream: yield the answer in pieces as they come; a whole answer is stripped of white space.
        system_prompt: None is the template's own.
        settings: the fields of TextOptions (max_tokens, temperature, top_p, top_k, stop, seed).
        PromptError and ImageError say what to change.
        """
        options = _options(TextOptions, settings)
        system = [] if system_prompt is None else [Message("system", system_prompt)]
        questions = _texts(question, "question")
        if isinstance(question, str):
            pieces = self.chat([*system, Message("user", question, _images(images))], options)
            return pieces if stream else "".join(pieces).strip()
        if stream:
            raise PromptError("stream=True takes one question; ask several without it, or one after the other")
        groups = _groups(images, len(questions), "question")
        messages = [[*system, Message("user", text, group)] for text, group in zip(questions, groups, strict=True)]
        prompts = [self.processor.understanding_prompt(conversation) for conversation in messages]
        return [answer.text for answer in self._finish([TextRequest(prompt, options) for prompt in prompts])]

    def chat(self, messages: Sequence[Message], options: TextOptions | None = None) -> Iterator[str]:
        """Pieces of the answer to a conversation that ends with the user's turn; earlier turns and their images count.

        A system message at its head stands instead of the template's own system prompt.
        """
        request = TextRequest(self.processor.understanding_prompt(messages), options or TextOptions())
        return (event.text for event in self._events([request]) if isinstance(event, Piece))

    def generate(
        self,
        prompt: str | Sequence[str],
        images: Any = None,
        *,
        progress: Callable[[int, int], None] = lambda done, steps: None,
        **settings: Any,
    ) -> list[Image.Image]:
        """n pictures of a prompt, or of each of several prompts (in one batch, prompt by prompt), as RGB PIL images.

        images: those that the pictures are made of, as the prompt says (editing): one or several, or a list of lists, one for
        each of several prompts.
        settings: the fields of ImageOptions (n, seed, guidance, temperature, top_p, top_k; steps on flow models). Picture i of
        a prompt is drawn from seed + i and does not change with what is painted beside it. progress(done, steps) is called as
        it goes.
        """
        return [picture.image for picture in self.paint(prompt, _options(ImageOptions, settings), progress, images)]

    def paint(
        self,
        prompt: str | Sequence[str],
        options: ImageOptions,
        progress: Callable[[int, int], None] = lambda done, steps: None,
        images: Any = None,
    ) -> list[Picture]:
        """As `generate`, with what each picture takes to be painted again: its prompt, seed and settings."""
        texts = _texts(prompt, "prompt")
        # One seed for all prompts, so that a picture does not depend on what it is painted beside.
        options = replace(options, seed=fresh_seed() if options.seed is None else options.seed)
        groups = [_images(images)] if isinstance(prompt, str) else _groups(images, len(texts), "prompt")
        requests = [ImageRequest(text, options, images=group) for text, group in zip(texts, groups, strict=True)]
        results = self._finish(requests, progress)
        return [picture for pictures in results for picture in pictures]

    def _finish(self, requests: Sequence[Any], progress: Callable[[int, int], None] = lambda done, steps: None) -> list[Any]:
        """The results of requests that run together, in order; progress counts the steps that every picture has done."""
        results: dict[int, Any] = {}
        done: dict[tuple[int, int], int] = {}
        pictures = sum(request.options.n for request in requests if isinstance(request, ImageRequest))
        told = 0
        for event in self._events(requests):
            if isinstance(event, Finished):
                results[event.request] = event.result
            elif isinstance(event, Progress):
                done[event.request, event.image] = event.done
                mean = sum(done.values()) // pictures
                if mean > told:
                    told = mean
                    progress(told, event.steps)
        return [results[number] for number in sorted(results)]

    def _events(self, requests: Sequence[Any]) -> Iterator[Any]:
        """What becomes of requests that run together; the first failure is raised."""
        for event in self.engine.run(requests):
            if isinstance(event, Failed):
                raise event.error
            yield event


def load(
    name: str | Path = "janus-tiny",
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    quantize: str | None = None,
    adapter: str | Path | None = None,
) -> Janus:
    """The model of a checkpoint, ready to use.

    name: a bundled model ("janus-tiny", "janusflow-tiny"), a folder in any layout we read, or a Hugging Face id.
    device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps. dtype: float32, bfloat16 or float16; None is the
    checkpoint's own. quantize: none, int8 or int4, of the weights that are read in every step; None is as they are stored.
    Quantised, in bfloat16 on a CPU or in 16 bits on a GPU, a model is for running alone: it can be neither trained nor saved
    (`openjanus convert --quantize` writes quantised checkpoints). adapter: a LoRA in PEFT's format that is merged in, a folder or
    a Hugging Face id. CheckpointError and ConfigError say what is missing, and what to do. On a CPU torch is left no more threads
    than the process has processors (see engine/threads.py).
    """
    where = pick_device(device)
    settle_threads(where)
    kind = check_quantization_on(stored_quantization(name) if quantize is None else quantize, where)
    samples: dict[str, str] = {}

    def sampling(config: JanusConfig) -> Placed:
        placed = placing(kind, config)

        def place(path: str, module: nn.Module) -> nn.Module | None:
            # Before they are laid out for a processor: the same weights have the same fingerprint on any.
            samples.update(sampled(path, module))
            return placed(path, module)

        return place

    loaded = load_checkpoint(name, where, pick_dtype(dtype), sampling, quantized=kind != "none", adapter=adapter)
    return Janus(loaded.model.eval(), loaded.processor, str(name), loaded.untrained, digest(samples, kind))


def _texts(texts: Any, name: str) -> list[str]:
    """One text or several as a list; PromptError for anything else."""
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise PromptError(f"the {name} is {texts!r:.60}; it must be a text or a list of texts")
    return list(texts)


def _images(images: Any) -> tuple[ImageSource, ...]:
    if images is None:
        return ()
    return tuple(images) if isinstance(images, list | tuple) else (images,)


def _groups(images: Any, count: int, what: str) -> list[tuple[ImageSource, ...]]:
    """The images of each of several texts; PromptError if they are not as many lists."""
    if images is not None and not isinstance(images, list | tuple):
        raise PromptError(f"{count} {what}s came with one image; give a list of images for each {what}")
    groups = [()] * count if images is None else [_images(group) for group in images]
    if len(groups) != count:
        raise PromptError(f"{count} {what}s came with {len(groups)} lists of images; give one list a {what}")
    return groups


def _options(kind: Any, settings: dict[str, Any]) -> Any:
    """Options from keyword arguments; PromptError names an unknown one and those that exist."""
    known = kind.__dataclass_fields__
    for name in settings:
        if name not in known:
            raise PromptError(f"unknown setting {name!r}; there are {', '.join(known)}")
    return kind(**settings)
