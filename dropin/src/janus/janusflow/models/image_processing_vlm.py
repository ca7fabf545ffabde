"""The image processor is Janus' own."""

from janus.models.image_processing_vlm import (
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    VLMImageProcessor,
    VLMImageProcessorConfig,
    expand2square,
)

__all__ = [
    "IMAGENET_INCEPTION_MEAN",
    "IMAGENET_INCEPTION_STD",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "VLMImageProcessor",
    "VLMImageProcessorConfig",
    "expand2square",
]
