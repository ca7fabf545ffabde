"""FID: how far the pictures of a model are from real ones, as a distance of two normal distributions of features.

Pictures are made ready as clean-fid does: resized to 299 in floating point with PIL's bicubic filter, which smooths.
Dims: N pictures, D features.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from openjanus.errors import DataError
from openjanus.evaluate.judges.inception import SIDE, Inception
from openjanus.files import replace_file

ROWS = 50  # pictures at a time
CHUNK = 1000  # pictures whose features are one file, so that a kill costs no more than these
Prepare = Callable[[Image.Image], Image.Image]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a distance is made of. mean: [D]; covariance: [D, D]; count: pictures."""

    mean: Floats
    covariance: Floats
    count: int

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> "Statistics":
        """The statistics of features [N, D], N at least 2, in float64."""
        values = np.asarray(features, np.float64)
        return cls(values.mean(0), np.cov(values, rowvar=False), len(values))


def distance(one: Statistics, other: Statistics) -> float:
    """The Fréchet distance: of the means, squared, plus the trace of both covariances less twice the root of their product."""
    first, second = torch.from_numpy(one.covariance), torch.from_numpy(other.covariance)
    gap = float(((one.mean - other.mean) ** 2).sum())
    # Roots of the product's eigenvalues: it is similar to a symmetric matrix, so but for rounding they are real and not negative.
    roots = torch.linalg.eigvals(first @ second).sqrt().real.sum()
    return gap + float(first.trace() + second.trace() - 2 * roots)


def clean_pixels(image: Image.Image) -> Tensor:
    """float32 [3, 299, 299] of levels 0 to 255: each channel resized as floats, and cut to the range of levels."""
    channels = np.asarray(image.convert("RGB"), np.float32)
    resized = [
        np.asarray(Image.fromarray(channels[..., channel], "F").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        for channel in range(3)
    ]
    return torch.from_numpy(np.stack(resized).clip(0, 255))


def square(side: int, filter: Image.Resampling) -> Prepare:
    """The centre of a picture's long edge, resized to `side`."""

    def prepare(image: Image.Image) -> Image.Image:
        short = min(image.size)
        left, top = (image.width - short) // 2, (image.height - short) // 2
        return image.crop((left, top, left + short, top + short)).resize((side, side), filter)

    return prepare


def features(
    names: Sequence[str], open_one: Callable[[str], Image.Image], prepare: Prepare, network: Inception, cache: Path
) -> NDArray[np.float32]:
    """Features [N, D] of pictures, kept in a folder chunk by chunk and read again where names and network are the same."""
    chunks = []
    for start in range(0, len(names), CHUNK):
        chunk = names[start : start + CHUNK]
        told = hashlib.sha256("\n".join([network.name, *chunk]).encode()).hexdigest()[:16]
        path = cache / f"{start:06d}-{told}.npy"
        if not path.is_file():
            rows = [
                network.features(torch.stack([clean_pixels(prepare(open_one(name))) for name in chunk[place : place + ROWS]]))
                for place in range(0, len(chunk), ROWS)
            ]
            buffer = BytesIO()
            np.save(buffer, torch.cat(rows).numpy())
            replace_file(path, buffer.getvalue())
        chunks.append(np.load(path))
    return np.concatenate(chunks)


def read_statistics(path: Path) -> Statistics:
    """Statistics of a .npz file: mu and sigma, as pytorch-fid and clean-fid write them, with n if we wrote it."""
    try:
        with np.load(path) as file:
            return Statistics(file["mu"], file["sigma"], int(file["n"]) if "n" in file else 0)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} holds no statistics mu and sigma ({error}); give another file with --reference") from error


def write_statistics(path: Path, statistics: Statistics) -> None:
    """Write them so that others can read them."""
    buffer = BytesIO()
    np.savez(buffer, mu=statistics.mean, sigma=statistics.covariance, n=statistics.count)
    replace_file(path, buffer.getvalue())
