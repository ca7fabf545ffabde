"""The understanding encoder is Janus' own."""

from janus.models.clip_encoder import CLIPVisionTower

__all__ = ["CLIPVisionTower"]
