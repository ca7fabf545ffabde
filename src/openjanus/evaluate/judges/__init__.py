"""Judges: other people's models that say what a picture shows or an answer is worth. Loaded from files, or asked over HTTP."""
