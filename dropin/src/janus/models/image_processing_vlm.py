"""The image processor under its published names; the pixels are openjanus' (SPEC section 5)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import PretrainedConfig
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature

# Not from the top: transformers 5 shows it there only beside torchvision, which nothing here needs.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from openjanus.processing.images import CLIP_MEAN, CLIP_STD, ImageProcessor, ImageProcessorConfig, open_image
from openjanus.types import ImageSource

IMAGENET_MEAN = CLIP_MEAN  # CLIP's numbers, under the name they were published with
IMAGENET_STD = CLIP_STD
IMAGENET_INCEPTION_MEAN = (0.5, 0.5, 0.5)
IMAGENET_INCEPTION_STD = (0.5, 0.5, 0.5)

Triple = tuple[float, float, float]


def expand2square(pil_img: Image.Image, background_color: tuple[int, ...] | int) -> Image.Image:
    """The image centred on the smallest square that holds it; a square image as it is."""
    width, height = pil_img.size
    if width == height:
        return pil_img
    side = max(width, height)
    square = Image.new(pil_img.mode, (side, side), background_color)
    square.paste(pil_img, ((side - width) // 2, (side - height) // 2))
    return square


class VLMImageProcessorConfig(PretrainedConfig):
    """The settings of the image processor as a transformers configuration."""

    model_type = "deepseek_vlm"

    def __init__(
        self,
        image_size: int = 384,
        min_size: int = 14,
        image_mean: Triple | list[float] | None = CLIP_MEAN,
        image_std: Triple | list[float] | None = CLIP_STD,
        rescale_factor: float = 1.0 / 255.0,
        do_normalize: bool = True,
        **kwargs: Any,
    ) -> None:
        self.image_size = image_size
        self.min_size = min_size
        self.image_mean = image_mean
        self.image_std = image_std
        self.rescale_factor = rescale_factor
        self.do_normalize = do_normalize
        super().__init__(**kwargs)


class VLMImageProcessor(BaseImageProcessor):
    """Images -> pixel_values [n, 3, image_size, image_size]: scaled to fit, centred on the mean colour, normalised.

    Settings are attributes and may be changed; a change takes effect with the next call.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 (read by transformers)

    def __init__(
        self,
        image_size: int,
        min_size: int = 14,
        image_mean: Triple | list[float] | None = CLIP_MEAN,
        image_std: Triple | list[float] | None = CLIP_STD,
        rescale_factor: float = 1.0 / 255.0,
        do_normalize: bool = True,
        **_ignored: Any,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.min_size = min_size
        self.image_mean = image_mean
        self.image_std = image_std
        self.rescale_factor = rescale_factor
        self.do_normalize = do_normalize

    def _config(self) -> ImageProcessorConfig:
        return ImageProcessorConfig.from_json(vars(self))

    @property
    def background_color(self) -> tuple[int, int, int]:
        """Colour 0..255 of the square around an image: that of the mean, 127 without one."""
        return self._config().fill

    @property
    def default_shape(self) -> list[int]:
        """Shape of one image's pixels."""
        return [3, self.image_size, self.image_size]

    def resize(self, pil_img: Image.Image) -> NDArray[np.uint8]:
        """Levels [3, image_size, image_size] of an image, on its background."""
        return np.asarray(ImageProcessor(self._config()).square(open_image(pil_img))).transpose(2, 0, 1)

    def __call__(self, images: Any, return_tensors: Any = "pt", **kwargs: Any) -> BatchFeature:
        return self.preprocess(images, return_tensors, **kwargs)

    def preprocess(
        self, images: ImageSource | Sequence[ImageSource] | None, return_tensors: Any = "pt", **_ignored: Any
    ) -> BatchFeature:
        """`pixel_values` of images: PIL of any mode, arrays, paths. One image counts as a list of one, None as none.

        Differs from the reference: images that are not RGB become so, where it fails.
        """
        sources = list(images) if isinstance(images, (list, tuple)) else [] if images is None else [images]
        pixels = ImageProcessor(self._config()).pixels([_rgb(source) for source in sources])
        return BatchFeature(data={"pixel_values": pixels}, tensor_type=return_tensors)

    def to_dict(self) -> dict[str, Any]:
        """The content of preprocessor_config.json."""
        return self._config().to_json() | {"image_processor_type": type(self).__name__}


def _rgb(source: ImageSource) -> Image.Image:
    # What is RGB already is taken as it stands: its opener has decided which way is up.
    return source if isinstance(source, Image.Image) and source.mode == "RGB" else open_image(source)


AutoImageProcessor.register(VLMImageProcessorConfig, slow_image_processor_class=VLMImageProcessor, exist_ok=True)
