"""Loading helpers under their published names."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForCausalLM

from janus.janusflow.models import MultiModalityCausalLM as FlowCausalLM
from janus.janusflow.models import VLChatProcessor as FlowChatProcessor
from janus.models import VLChatProcessor
from openjanus.processing.images import open_image


def load_pretrained_model(model_path: str) -> tuple[Any, Any, Any]:
    """(tokenizer, processor, model) of a folder or hub id; the model in bfloat16, in evaluation mode, on CUDA if there is one.

    Differs from the reference: runs without CUDA too, and gives a JanusFlow checkpoint JanusFlow's processor.
    """
    model = AutoModelForCausalLM.from_pretrained(model_path, trust_remote_code=True, torch_dtype=torch.bfloat16)
    processor_class = FlowChatProcessor if isinstance(model, FlowCausalLM) else VLChatProcessor
    processor = processor_class.from_pretrained(model_path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return processor.tokenizer, processor, model.to(torch.bfloat16).to(device).eval()


def load_pil_images(conversations: Sequence[dict[str, Any]]) -> list[Image.Image]:
    """The images of messages in order, RGB: each entry of message["images"] is a path, a data: URL, a PIL image or an array.

    Differs from the reference: images are turned upright and transparency is laid on white.
    """
    return [open_image(image) for message in conversations for image in message.get("images") or ()]


def load_json(filepath: str) -> Any:
    """A parsed JSON file."""
    return json.loads(Path(filepath).read_text(encoding="utf-8"))
