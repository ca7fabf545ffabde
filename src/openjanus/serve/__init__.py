"""Serving: an OpenAI-compatible API and a web page, for answers and pictures, on the engine."""
