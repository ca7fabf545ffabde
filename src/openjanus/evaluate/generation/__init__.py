"""Benchmarks of generation: prompts to paint. One file each: its official files and scores."""
