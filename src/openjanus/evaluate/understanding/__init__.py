"""Benchmarks of understanding: questions about images. One file each: its official files, prompts and scores."""
