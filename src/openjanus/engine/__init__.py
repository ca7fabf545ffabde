"""Runs a loaded model: is handed prompts and options, hands back tokens and pictures."""
