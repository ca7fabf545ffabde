"""How fast our CPU kernels multiply and attend to many rows, beside torch's, in turn.

    python benchmarks/kernels.py [--rows 1154] [--outputs 11264] [--inputs 2048] [--rounds 9] [--threads 1]

Prints one JSON object: of a linear layer milliseconds (median and least) and 10^9 operations a second of the least, and that of
attention of so many new positions, 16 heads of 128 (ours where it runs).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from openjanus.config import LanguageConfig
from openjanus.engine.linear import Packed
from openjanus.engine.tiled import TiledBFloat16, TiledInt4, TiledInt8, fused_attention
from openjanus.kernels.decode import supported
from openjanus.models.attention import Packed as Rows
from openjanus.models.attention import entry_mask, rotary
from openjanus.models.cache import KeyValueCache
from openjanus.models.llama import Attention, Place, Positions, Span, Turn

HEADS, WIDTH = 16, 128
OURS: dict[str, tuple[str, type[nn.Module]]] = {
    "ours, bfloat16": ("bf16", TiledBFloat16),
    "ours, int8": ("int8", TiledInt8),
    "ours, int4": ("int4", TiledInt4),
}


def layers(outputs: int, inputs: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """The layer as torch has it, and as each of our kernels that run here."""
    layer = nn.Linear(inputs, outputs, bias=False).bfloat16().requires_grad_(False)
    made: dict[str, Callable[[Tensor], Tensor]] = {"torch, bfloat16": Packed(layer)}
    return made | {name: kind(layer) for name, (needs, kind) in OURS.items() if needs in supported()}


def attentions(new: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """What lies between the projections of an attention, for one row of new positions."""
    size = HEADS * WIDTH
    config = LanguageConfig(32, size, size, 1, HEADS, HEADS, head_dim=WIDTH)
    cache = KeyValueCache(config, 1, new, torch.device("cpu"), torch.bfloat16)
    entries = torch.arange(new)[None]
    mask, span = entry_mask(entries, new, torch.bfloat16), Span(slice(0, 1), entries, entries, new)
    place = Place(Turn(*rotary(entries, WIDTH, 10000.0, torch.bfloat16)), mask, span)
    made: dict[str, Callable[[Tensor], Tensor]] = {}
    for name in ("torch", "ours") if "attend_many" in supported() else ("torch",):
        attention = Attention(config, 0).bfloat16().requires_grad_(False)
        attention.attend_new = fused_attention(attention) if name == "ours" else None
        made[name] = lambda x, of=attention: of.attend_groups(x, Positions([place], Rows(((1, new),)), cache))
    return made


def in_turn(ways: dict[str, Callable[[Tensor], Tensor]], x: Tensor, operations: float, rounds: int) -> dict[str, Any]:
    """Each way once a round; a first round does not count."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way(x)
            spent[name].append(time.perf_counter() - start)
    return {
        name: {
            "median_ms": round(statistics.median(some[1:]) * 1e3, 2),
            "least_ms": round(min(some[1:]) * 1e3, 2),
            "gops": round(operations / min(some[1:]) / 1e9),
        }
        for name, some in spent.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (("rows", 1154), ("outputs", 11264), ("inputs", 2048), ("rounds", 9), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    rows, outputs, inputs = arguments.rows, arguments.outputs, arguments.inputs
    with torch.inference_mode():
        x = torch.randn(rows, inputs).bfloat16()
        linear = in_turn(layers(outputs, inputs), x, 2 * rows * outputs * inputs, arguments.rounds)
        x = torch.randn(rows, 3 * HEADS * WIDTH).bfloat16()
        attention = in_turn(attentions(rows), x, 2 * rows * rows * HEADS * WIDTH, arguments.rounds)
    print(json.dumps({**vars(arguments), "kernels": sorted(supported()), "linear": linear, "attention": attention}))


if __name__ == "__main__":
    main()
