"""Offline jobs: many prompts painted, many records answered, in large batches that go on after a kill."""
