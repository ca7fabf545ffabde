"""What `openjanus bench` measures, and the report of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from openjanus.bench.models import janus_of, preset
from openjanus.bench.ours import Ours, step_bytes, step_flops
from openjanus.bench.peer import EagerCodes, EagerFlow, EagerText, Peer
from openjanus.bench.timing import Side, Times, arithmetic, bandwidth, interleaved, now
from openjanus.bench.transformers_peer import TransformersPeer
from openjanus.checkpoints.load import build_empty, load_config
from openjanus.config import PRESETS, FlowGenerationConfig, JanusConfig
from openjanus.engine.footprint import footprint
from openjanus.engine.request import ImageRequest, Request, TextRequest
from openjanus.errors import ConfigError
from openjanus.janus import Janus, load
from openjanus.models.quantization import Quantization
from openjanus.types import ImageOptions, Message, TextOptions

WORDS = "a red circle left of a blue star on a grey ground, seen from above"
PEERS = ("eager", "transformers")
QUESTION = "Describe what can be seen in this picture, from left to right."


@dataclass(frozen=True)
class Work:
    """What is measured.

    kind: generate, understand or flow; model: a preset or a checkpoint; n: images of a prompt; prompts: requests at a time;
    steps: of an image or answer, None: all of them (an answer's are 64). Of an image of codes only the first so many are run.
    """

    kind: str
    model: str
    n: int = 1
    prompts: int = 1
    steps: int | None = None
    rounds: int = 3
    quantize: Quantization = "none"
    peer: str | None = None


def measure(work: Work, device: torch.device, dtype: torch.dtype, note: Callable[[str], None]) -> dict[str, Any]:
    """The report of a piece of work, as JSON: our times, the peer's, the ratios, how near a step comes to
    what limits it."""
    if work.peer not in (None, *PEERS):
        raise ConfigError(f"the peer is {work.peer!r}; it must be {' or '.join(PEERS)}")
    if work.kind == "flow" and work.steps is not None and work.steps < 3:
        raise ConfigError(
            f"a flow of {work.steps} steps has none between its first, with the prompt, and its last; measure 3 or more"
        )
    note(f"making {work.model}")
    janus = janus_of(work.model, device, dtype, work.quantize)
    config = janus.model.config
    flow = isinstance(config.generation, FlowGenerationConfig)
    if (work.kind == "flow") != flow and work.kind != "understand":
        way, right = ("a flow", "flow") if flow else ("codes", "generate")
        raise ConfigError(f"{work.model} paints with {way}; measure {right}")
    # A flow paints whole images in any number of steps.
    full = config.generation.steps(work.steps or 30) if work.kind != "understand" else 64
    steps = min(work.steps or full, full)
    janus.processor.tokenizer.eos = -1  # random weights would end an answer at random
    requests = _requests(work, janus, steps)
    sides: dict[str, Side] = {"ours": Ours(janus, requests, steps)}
    if work.peer:
        note("making the peer")
        sides["peer"] = _peer(work, janus, config, steps, device, dtype)
    times = interleaved(sides, work.rounds, note)
    report: dict[str, Any] = {
        "work": vars(work) | {"steps": steps},
        "device": _device(device),
        "dtype": str(dtype).removeprefix("torch."),
    }
    report |= {"threads": torch.get_num_threads(), "ours": times["ours"].to_json()}
    if "peer" in times:
        report |= {"peer": times["peer"].to_json()} | _ratios(times["ours"], times["peer"], steps, whole=steps == full)
    return report | _limit(work, janus, median(times["ours"].steps))


def _limit(work: Work, janus: Janus, seconds: float) -> dict[str, Any]:
    """Which limit of this machine's a step of so many seconds meets first, and how near it comes.

    A step of a position a row must read all weights; one of a flow, hundreds of positions a row, must multiply with them.
    """
    device = janus.model.device
    if work.kind == "flow":
        done, speed = step_flops(janus.model.config, work.n * work.prompts), arithmetic(device, work.quantize)
        told = {"limit": "arithmetic", "step_gflop": round(done / 1e9, 1), "arithmetic_gflops": round(speed / 1e9, 1)}
    else:
        done, speed = step_bytes(janus, work.kind == "generate"), bandwidth(device)
        told = {"limit": "memory", "step_bytes": done, "bandwidth_gb_s": round(speed / 1e9, 1)}
    return told | {"limit_fraction": round(done / speed / seconds, 3)}


def _requests(work: Work, janus: Janus, steps: int) -> list[Request]:
    if work.kind == "understand":
        prompt = janus.processor.understanding_prompt([Message("user", QUESTION)])
        return [TextRequest(prompt, TextOptions(steps + 1)) for _ in range(work.prompts)]
    options = ImageOptions(n=work.n, seed=0, steps=steps)
    return [ImageRequest(f"{WORDS}, {number}", replace(options, seed=number)) for number in range(work.prompts)]


def _peer(work: Work, janus: Janus, config: JanusConfig, steps: int, device: torch.device, dtype: torch.dtype) -> Side:
    processor, images = janus.processor, work.n * work.prompts
    question = processor.understanding_prompt([Message("user", QUESTION)])
    prompt = processor.generation_prompt(f"{WORDS}, 0")
    if work.peer == "transformers":
        paints = work.kind != "understand"
        ids = prompt.ids.expand(images, -1) if paints else question.ids.expand(work.prompts, -1)
        return TransformersPeer(config, processor, ids, steps, paints, device, dtype)
    peer = Peer(config, device, dtype)
    if work.kind == "understand":
        return EagerText(peer, question.ids.expand(work.prompts, -1), steps)
    ids = torch.stack([prompt.ids] * images + [processor.blank(prompt).ids] * images)
    if work.kind == "flow":
        return EagerFlow(peer, ids, steps)
    return EagerCodes(peer, ids, steps)


def _ratios(ours: Times, peer: Times, steps: int, whole: bool) -> dict[str, Any]:
    """How many times as long the peer takes."""
    ratios: dict[str, Any] = {"ratio": round(median(peer.steps) / median(ours.steps), 3)}
    ratios["prompt_ratio"] = round(median(peer.prompt) / median(ours.prompt), 3)
    if whole and peer.end and ours.end:
        ratios["image_ratio"] = round(peer.whole(steps) / ours.whole(steps), 3)
    return ratios


def measure_load(
    name: str, device: torch.device, dtype: torch.dtype | None, quantize: Quantization, rounds: int
) -> dict[str, Any]:
    """Seconds from the name of a checkpoint to a model that is ready."""
    seconds = []
    for _ in range(rounds):
        start = now(device)
        load(name, device, dtype, quantize)
        seconds.append(now(device) - start)
    return {"model": name, "quantize": quantize, "seconds": {"median": round(median(seconds), 3), "min": round(min(seconds), 3)}}


def memory(name: str, device: torch.device, dtype: torch.dtype, quantize: Quantization, positions: int | None) -> dict[str, Any]:
    """What a preset or a checkpoint of that name takes before anything has run: weights, and the cache of a row of so many
    positions. Counted, not measured."""
    model = build_empty(preset(name) if name in PRESETS else load_config(name))
    return {"model": name} | footprint(model, device, dtype, quantize, positions).to_json()


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
