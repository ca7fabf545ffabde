"""Image requests: texts in, pictures out."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from openjanus.engine.loop import decode
from openjanus.engine.randomness import fresh_seed, source
from openjanus.models.janus import JanusModel
from openjanus.processing.images import to_images
from openjanus.processing.prompts import Processor, collate
from openjanus.types import ImageOptions


@dataclass(frozen=True)
class Picture:
    """A painted image and what it takes to paint it again."""

    image: Image.Image
    prompt: str
    seed: int
    options: ImageOptions


def paint(
    model: JanusModel,
    processor: Processor,
    texts: Sequence[str],
    options: ImageOptions,
    progress: Callable[[int, int], None] = lambda done, steps: None,
) -> list[Picture]:
    """options.n pictures of every text, text by text; image i of a text is drawn from seed + i, whatever runs beside it.

    progress(done, steps) is called after every step. PromptError for an empty or too long text.
    """
    seed = fresh_seed() if options.seed is None else options.seed
    guidance = model.config.generation.default_guidance if options.guidance is None else options.guidance
    options = ImageOptions(**{**vars(options), "seed": seed, "guidance": guidance})
    prompts = [prompt for text in texts for prompt in [processor.generation_prompt(text)] * options.n]
    attends = [torch.ones(len(prompt), dtype=torch.bool) for prompt in prompts]
    images = len(prompts)
    # Guidance 1 is the conditional prediction itself: the blank rows would be computed and thrown away.
    if guidance != 1:
        blanks = [processor.blank(prompt) for prompt in prompts]
        attends += [_attended(len(blank), model.config.generation.attends_blank) for blank in blanks]
        prompts += blanks
    rows = collate(prompts, processor.tokenizer.pad, attends).to(model.device)
    seeds = [seed + i for _ in texts for i in range(options.n)]
    for decoding in decode(model, rows, lambda begin: model.generation.start(begin, options, [source(s) for s in seeds])):
        progress(decoding.step, decoding.steps)
    with torch.inference_mode():
        # One at a time: decoding n at once would need n times the memory of the largest activations.
        painted = to_images(torch.cat([decoding.pixels(i) for i in range(images)]))
    labels = [text for text in texts for _ in range(options.n)]
    return [Picture(*parts, options) for parts in zip(painted, labels, seeds, strict=True)]


def _attended(length: int, attends_blank: bool) -> torch.Tensor:
    """Which tokens of a blank prompt may be looked at, bool [length]: all, or only the first (begin of sentence) and the last."""
    attended = torch.full((length,), attends_blank)
    attended[[0, -1]] = True
    return attended


def metadata(picture: Picture, model: str) -> dict[str, str]:
    """What a PNG of the picture carries along, as text: prompt, seed, and the settings as JSON."""
    options = picture.options
    settings = {name: getattr(options, name) for name in ("guidance", "temperature", "top_p", "top_k", "steps")}
    return {
        "Software": "openjanus",
        "prompt": picture.prompt,
        "seed": str(picture.seed),
        "settings": json.dumps({"model": model, **settings}),
    }
