"""An order for endless data: each pass through n things in a shuffled order that needs no memory."""

from hashlib import blake2b

_ROUNDS = 4


def shuffled(place: int, size: int, seed: tuple[int, ...]) -> int:
    """What stands at `place` when 0 ... size - 1 are shuffled: a permutation for each seed.

    A Feistel network of four rounds shuffles the numbers below the next power of four; what it sends beyond `size` is sent on
    until it lands within. So a hundred million records are shuffled without a table of them, and any place is known at once.
    """
    half = max((size - 1).bit_length() + 1, 2) // 2
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for turn in range(_ROUNDS):
            digest = blake2b(f"{seed}{turn}.{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(digest) & mask)
        place = left << half | right
        if place < size:
            return place
