"""Janus and Janus-Pro under their published names; importing this makes AutoModelForCausalLM know `multi_modality`."""

from janus.models.image_processing_vlm import VLMImageProcessor
from janus.models.modeling_vlm import MultiModalityCausalLM
from janus.models.processing_vlm import VLChatProcessor

__all__ = ["MultiModalityCausalLM", "VLChatProcessor", "VLMImageProcessor"]
