"""CLIP: how well pictures and words agree. Used to name colours (GenEval) and for CLIP scores.

Its image processing is our own, as OpenAI published it: the shorter side to 224 with bicubic resampling, the centre, normalised.
Dims: N pictures or texts, D features.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import normalize

from openjanus.device import pick_device
from openjanus.errors import CheckpointError
from openjanus.evaluate.judges.weights import find_weights, need_transformers

CLIP_L14, CLIP_B32 = "openai/clip-vit-large-patch14", "openai/clip-vit-base-patch32"
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
ROWS = 64


class CLIP:
    """A CLIP model of transformers, from a folder or a Hugging Face id."""

    def __init__(self, name: str, device: str = "auto") -> None:
        need_transformers("CLIP")
        folder = find_weights(name, "CLIP", "--clip")
        from transformers import CLIPModel

        self.name = name
        self.device = pick_device(device)
        try:
            self._model: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32).to(self.device).eval()  # type: ignore[arg-type]
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            raise CheckpointError(
                f"{folder} holds no CLIP that can be read ({' '.join(str(error).split())[:160]}); --clip wants config.json, "
                f"model.safetensors and tokenizer.json as in {CLIP_L14}"
            ) from error
        self._side = int(self._model.config.vision_config.image_size)
        self._longest = int(self._model.config.text_config.max_position_embeddings)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit features [N, D] of texts; one that is too long is cut, as CLIP does."""
        features = []
        for batch in _batches(texts):
            ids = [self._tokenizer.encode(text).ids for text in batch]
            ids = [one if len(one) <= self._longest else [*one[: self._longest - 1], one[-1]] for one in ids]
            longest = max(map(len, ids))
            # The end is the first end token, and nothing behind it is seen: it pads as well as any other.
            padded = torch.tensor([[*one, *[one[-1]] * (longest - len(one))] for one in ids], device=self.device)
            hidden = self._model.text_model(input_ids=padded).last_hidden_state
            ends = torch.tensor([len(one) - 1 for one in ids], device=self.device)
            pooled = hidden[torch.arange(len(ids), device=self.device), ends]
            features.append(normalize(self._model.text_projection(pooled), dim=-1))
        return torch.cat(features)

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit features [N, D] of pictures."""
        features = []
        for batch in _batches(images):
            pixels = torch.stack([clip_pixels(image, self._side) for image in batch]).to(self.device)
            pooled = self._model.vision_model(pixel_values=pixels).pooler_output
            features.append(normalize(self._model.visual_projection(pooled), dim=-1))
        return torch.cat(features)

    def classifier(self, classes: Sequence[Sequence[str]]) -> Tensor:
        """Unit weights [classes, D] of classes that are each worded in several ways: the mean of the wordings' features."""
        means = [self.texts(wordings).mean(0) for wordings in classes]
        return normalize(torch.stack(means), dim=-1)


def clip_pixels(image: Image.Image, side: int) -> Tensor:
    """float32 [3, side, side] of an RGB image, as CLIP wants it."""
    width, height = image.size
    short = min(width, height)
    # The longer side is cut, not rounded, as the published resizing does.
    size = (side, int(side * height / width)) if width == short else (int(side * width / height), side)
    image = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    image = image.crop((left, top, left + side, top + side))
    values = np.asarray(image, np.float32) / 255
    return torch.from_numpy(((values - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1).copy())


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), ROWS):
        yield items[start : start + ROWS]
