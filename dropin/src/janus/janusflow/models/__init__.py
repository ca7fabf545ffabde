"""JanusFlow under its published names; importing this makes AutoModelForCausalLM know both variants of `multi_modality`."""

from janus.janusflow.models.image_processing_vlm import VLMImageProcessor
from janus.janusflow.models.modeling_vlm import MultiModalityCausalLM
from janus.janusflow.models.processing_vlm import VLChatProcessor

__all__ = ["MultiModalityCausalLM", "VLChatProcessor", "VLMImageProcessor"]
