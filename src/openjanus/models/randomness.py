"""Where chance comes from: every answer and every image has a source of its own, so neither batch nor device changes it."""

import secrets

import numpy as np


def fresh_seed() -> int:
    """A seed nobody chose, short enough to type again: 0 to 2**32 - 1."""
    return secrets.randbelow(2**32)


def source(seed: int) -> np.random.Generator:
    """The source of randomness of one seed. On the CPU, in a documented algorithm, so every machine draws the same."""
    return np.random.Generator(np.random.PCG64(seed))
