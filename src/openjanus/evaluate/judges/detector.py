"""A detector: the objects in a picture, with boxes and masks. Mask2Former of transformers, read out as GenEval's was.

GenEval runs mmdetection's Mask2Former (Swin-S, COCO). Its test pipeline is rebuilt here: the shorter side to 800 and the longer
to 1333 at most, bilinear; of all pairs of query and class the 100 likeliest; a pair's score is its probability times the mean
probability inside its mask; its box is the mask's.
Dims: Q queries, C classes, H, W pixels of the picture.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from openjanus.device import pick_device
from openjanus.errors import CheckpointError
from openjanus.evaluate.judges.weights import find_weights, need_transformers

DETECTOR = "facebook/mask2former-swin-small-coco-instance"
CLASSES = 80
SHORT, LONG, DIVISOR = 800, 1333, 32
MOST = 100  # detections of a picture
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class Detected:
    """An object. label: 0 to C - 1; box: left, top, right, bottom in pixels; mask: bool [H, W]."""

    label: int
    score: float
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_] | None = None


class Detector:
    """A Mask2Former for COCO's 80 classes, from a folder or a Hugging Face id."""

    def __init__(self, name: str = DETECTOR, device: str = "auto") -> None:
        need_transformers("the detector")
        folder = find_weights(name, "the detector, Mask2Former for COCO instances", "--detector")
        from transformers import Mask2FormerForUniversalSegmentation

        self.name = name
        self.device = pick_device(device)
        try:
            model: Any = Mask2FormerForUniversalSegmentation.from_pretrained(folder, dtype=torch.float32)
        except Exception as error:
            raise CheckpointError(
                f"{folder} holds no Mask2Former that can be read ({' '.join(str(error).split())[:160]}); --detector wants "
                f"config.json and model.safetensors as in {DETECTOR}"
            ) from error
        if model.config.num_labels != CLASSES:
            raise CheckpointError(
                f"the detector {name} knows {model.config.num_labels} classes; GenEval wants COCO's {CLASSES}, as in {DETECTOR}"
            )
        self._model = model.to(self.device).eval()

    @torch.inference_mode()
    def detect(self, image: Image.Image) -> list[Detected]:
        """The likeliest objects of an RGB image, in no order."""
        width, height = image.size
        pixels, inner = detector_pixels(image)
        out = self._model(pixel_values=pixels[None].to(self.device))
        masks = interpolate(out.masks_queries_logits, size=pixels.shape[-2:], mode="bilinear", align_corners=False)
        masks = masks[..., : inner[0], : inner[1]]
        masks = interpolate(masks, size=(height, width), mode="bilinear", align_corners=False)[0]
        return read_out(out.class_queries_logits[0], masks)


def detector_pixels(image: Image.Image) -> tuple[Tensor, tuple[int, int]]:
    """float32 [3, H', W'], resized, normalised and padded to multiples of 32; and height and width before padding."""
    width, height = image.size
    scale = min(LONG / max(width, height), SHORT / min(width, height))
    inner = (int(height * scale + 0.5), int(width * scale + 0.5))
    values = torch.from_numpy(np.array(image.convert("RGB"), np.float32)).permute(2, 0, 1)
    values = interpolate(values[None], size=inner, mode="bilinear", align_corners=False)[0] / 255
    values = (values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    return pad(values, (0, -inner[1] % DIVISOR, 0, -inner[0] % DIVISOR)), inner


def read_out(logits: Tensor, masks: Tensor) -> list[Detected]:
    """Objects from class logits [Q, C + 1], whose last class is nothing, and mask logits [Q, H, W]."""
    scores = logits.softmax(-1)[:, :-1]
    classes = scores.shape[1]
    best, places = scores.flatten().topk(min(MOST, scores.numel()))
    found = []
    for score, place in zip(best.tolist(), places.tolist(), strict=True):
        query, label = divmod(place, classes)
        inside = masks[query] > 0
        area = inside.sum()
        within = float((masks[query].sigmoid() * inside).sum() / (area + 1e-6))
        mask = inside.cpu().numpy()
        found.append(Detected(label, score * within, _box(mask), mask))
    return found


def _box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The smallest box around a mask, zeros for an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return (0.0, 0.0, 0.0, 0.0)
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
