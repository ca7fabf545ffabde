"""Conversation templates and loading helpers, under their published names."""
