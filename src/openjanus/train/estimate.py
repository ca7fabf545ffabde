"""What a run would take on devices that are not here: memory of each, and time of a step, before anything starts.

Parameters and optimizer are counted, of a model without memory; what a step keeps for its gradients is measured on small pieces
of it (train/kept.py) and multiplied.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from openjanus.checkpoints.assembly import assemble
from openjanus.checkpoints.load import build_empty
from openjanus.config import FlowGenerationConfig, JanusConfig
from openjanus.data.samples import KINDS
from openjanus.errors import ConfigError
from openjanus.models.flow_generation import FlowGeneration
from openjanus.models.janus import JanusModel
from openjanus.train.eight_bits import optimizer_bytes
from openjanus.train.finetune import REPLAY, FinetuneSettings
from openjanus.train.from_checkpoint import CheckpointSettings, DataFiles
from openjanus.train.kept import kept_by_a_block, kept_by_the_network, kept_by_the_tower
from openjanus.train.lora import whole_parts
from openjanus.train.parts import belongs
from openjanus.train.plan import duration
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage

GIB = 2**30
# What records commonly hold beside images; nobody has looked at the data yet.
WORDS, ANSWER, TEXT = 64, 64, 256
# Of a GPU's peak, what training of this kind is known to reach.
REACHED = 0.4
_TOWER = "understanding.encoder."
_NETWORK = ("generation.encoder", "generation.decoder")


@dataclass(frozen=True)
class Need:
    """What a stage would take of each device. Bytes, but for the counts and seconds.

    whole: parameters that are gathered from all devices for a while: those outside of the blocks, and two blocks.
    """

    stage: str
    moving: int
    parameters: int
    tokens: int
    weights: int
    gradients: int
    optimizer: int
    whole: int
    activations: int
    seconds: float

    @property
    def total(self) -> int:
        """All bytes of a device."""
        return self.weights + self.gradients + self.optimizer + self.whole + self.activations


@dataclass(frozen=True)
class Estimate:
    """A recipe as it would run on so many devices of so much memory (GiB) and speed (TFLOP/s).

    notes: files of records that are not on this machine; the one that trains may have them.
    """

    recipe: str
    gpus: int
    memory: float
    tflops: float
    stages: tuple[Need, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, with totals and whether it fits."""
        values = asdict(self)
        for stage, need in zip(values["stages"], self.stages, strict=True):
            stage |= {"total": need.total, "fits": self._fits(need)}
        return values

    def _fits(self, need: Need) -> bool:
        # A tenth stays for what fragments, and for the libraries themselves.
        return need.total <= 0.9 * self.memory * GIB

    def to_text(self) -> str:
        """The same for people, a block a stage."""
        lines = [f"{self.recipe} on {self.gpus} GPU{'s' * (self.gpus != 1)} of {self.memory:g} GiB, estimated for each of them:"]
        for need in self.stages:
            lines += ["", f"stage {need.stage}: trains {need.moving:,} of {need.parameters:,} parameters"]
            for name, words in _WORDS.items():
                lines.append(f"  {words:52} {getattr(need, name) / GIB:8.2f} GiB")
            fits = "fits" if self._fits(need) else "does not fit; " + ADVICE.format(stage=need.stage)
            lines.append(f"  {'together':52} {need.total / GIB:8.2f} GiB, {fits}")
            step = duration(need.seconds) if need.seconds >= 10 else f"{need.seconds:.2g} s"
            lines.append(
                f"  a step: about {step} at {REACHED:.0%} of {self.tflops:g} TFLOP/s; micro-batches of {need.tokens:,} tokens"
            )
        return "\n".join([*lines, *([""] if self.notes else []), *(f"note: {note}" for note in self.notes)])


_WORDS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer and moving average",
    "whole": "parameters gathered or cast for a while",
    "activations": "what a micro-batch keeps for its gradients",
}
ADVICE = (
    "lower stages.{stage}.micro_batch, set stages.{stage}.checkpointing=true, use LoRA (finetune_lora), freeze more, or use "
    "more GPUs"
)


def estimate(recipe: Recipe, gpus: int, memory: float, tflops: float, shards: int | None = None) -> Estimate:
    """What a recipe that starts from a checkpoint or parts would take; of a Hugging Face id only small files are fetched.

    memory: GiB of a device. tflops: its peak in the stages' precision. shards: GPUs that hold one copy of the model together,
    None for all. ConfigError for a recipe of another kind.
    """
    settings = recipe.settings
    if not isinstance(settings, CheckpointSettings) or not settings.init:
        raise ConfigError("--plan counts recipes that start from a checkpoint (settings.init=...); --dry-run measures any recipe")
    for name, value, least in (("--gpus", gpus, 1), ("--memory", memory, 0.1), ("--tflops", tflops, 0.1)):
        if value < least:
            raise ConfigError(f"{name} is {value}; it must be {least} or more")
    if shards is not None and (shards < 1 or gpus % shards):
        raise ConfigError(f"--shards is {shards}; it must divide --gpus, {gpus}")
    config = assemble(settings.init, weights=False).config
    model = build_empty(config)
    needs = tuple(_need(stage, recipe, config, model, gpus, shards or gpus, tflops) for stage in recipe.stages)
    return Estimate(recipe.name, gpus, memory, tflops, needs, _absent(settings))


def _need(stage: Stage, recipe: Recipe, config: JanusConfig, model: JanusModel, gpus: int, shards: int, tflops: float) -> Need:
    settings: CheckpointSettings = recipe.settings
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    lora, half = settings.lora, stage.precision == "bfloat16"
    fixed = (*stage.frozen, *(f"generation.{part}" for part in model.generation.fixed))
    whole = whole_parts(model, lora.preset) if lora.preset != "none" else ("language", "understanding", "generation")
    moved = {name: size for name, size in sizes.items() if belongs(name, whole) and not belongs(name, fixed)}
    targets = [
        module
        for name, module in model.named_modules()
        if lora.preset != "none"
        and isinstance(module, nn.Linear)
        and belongs(name, lora.parts)
        and name.rsplit(".", 1)[-1] in lora.layers
    ]
    matrices = lora.rank * sum(module.in_features + module.out_features for module in targets)
    moments = optimizer_bytes((one for name, one in model.named_parameters() if name in moved), stage) + 8 * matrices
    moving, every = sum(moved.values()) + matrices, sum(sizes.values()) + matrices
    held = sum(size * (2 if _is_halved(name, moved, settings) else 4) for name, size in sizes.items()) + 4 * matrices
    blocks = {name: size for name, size in sizes.items() if name.startswith("language.model.layers.")}
    layers = config.language.num_hidden_layers
    apart = (sum(blocks.values()) + matrices) / layers
    width = 2 if settings.base == "bfloat16" and not any(name in moved for name in blocks) else 4
    gathered = 0.0 if gpus == 1 else 2 * apart * width + sum(4 * size for name, size in sizes.items() if name not in blocks)
    # Autocast keeps what it has cast of weights that move until the forward is over.
    gathered += 2 * moving if half else 0
    kinds = _tokens(config)
    mix = {kind: share for kind, share in _mix(stage, settings).items() if kind in kinds}
    share = -(-stage.batch // gpus)
    samples = min(stage.micro_batch or share, share)
    longest = max((kinds[kind] for kind in mix), default=max(kinds.values()))
    mean = sum(kinds[kind] * part for kind, part in mix.items()) / sum(mix.values()) if mix else longest
    tokens = samples * longest
    words = samples * (TEXT if "text" in mix else ANSWER)
    pictures = samples if _paints(mix) else 0
    per_token, residual = kept_by_a_block(config, half, lora.rank if lora.preset != "none" else 0)
    # Logits in the stage's precision, in float32, and their gradient.
    head = config.generation.tokenizer.codebook_size if hasattr(config.generation, "tokenizer") else 0
    logits = (words * config.language.vocab_size + pictures * config.generation.positions * head) * (2 * half + 4 + 4)
    kept: float
    behind: float = logits  # what is kept behind the blocks
    if isinstance(model.generation, FlowGeneration) and pictures and any(name.startswith(_NETWORK) for name in moved):
        behind += pictures * kept_by_the_network(model.generation, half)
    if stage.checkpointing:
        # Where blocks run twice, one of them is whole at a time, and what is behind them is gone by then.
        kept = tokens * layers * residual + max(tokens * per_token, behind)
    else:
        kept = tokens * layers * per_token + behind
    if any(name.startswith(_TOWER) for name in moved) and _reads(mix):
        kept += samples * kept_by_the_tower(config, half)
    # Inside the tokenizer or VAE, at its widest, before the language model has begun.
    kept = max(kept, pictures * 3 * math.prod(config.generation.image_size) * _widest(config) * 4)
    # A product costs 2 forward, 2 for its input's gradient, 2 for its weights' if they move, 2 if it is done again.
    products = sum(blocks.values()) * (4 + 2 * stage.checkpointing) + 2 * min(moving, sum(blocks.values()))
    seconds = products * mean * stage.batch / (gpus * tflops * 1e12 * REACHED)
    return Need(
        stage.name,
        moving,
        every,
        tokens,
        weights=held // shards,
        gradients=4 * moving // shards,
        optimizer=(moments + 4 * (stage.ema is not None) * moving) // shards,
        whole=int(gathered),
        activations=int(kept),
        seconds=seconds,
    )


def _mix(stage: Stage, settings: CheckpointSettings) -> dict[str, float]:
    """Shares of the kinds that a stage learns from: kinds without files drop out, those that are replayed take equal parts.

    Where no files of one's own are named, all kinds stay; what is replayed counts as understanding unless files say otherwise.
    """
    own, replayed = settings.data.kinds, _replay(settings).kinds
    shares: dict[str, float] = {kind: stage.mix.get(kind, 0) for kind in own or KINDS}
    in_turn = replayed or ([] if own else ["understanding"])
    for kind in in_turn:
        shares[kind] = shares.get(kind, 0) + stage.mix.get(REPLAY, 0) / len(in_turn)
    return {kind: share for kind, share in shares.items() if share}


def _replay(settings: CheckpointSettings) -> DataFiles:
    """The records that are replayed, of a recipe of any kind."""
    return settings.replay if isinstance(settings, FinetuneSettings) else DataFiles()


def _absent(settings: CheckpointSettings) -> tuple[str, ...]:
    """What is said of files of records that are not here."""
    named = {"data": settings.data, REPLAY: _replay(settings)}
    return tuple(
        f"settings.{name}.{kind} names {path}, which is not on this machine"
        for name, files in named.items()
        for kind, paths in asdict(files).items()
        for path in paths
        if not Path(path).exists()
    )


def _paints(mix: Mapping[str, float]) -> bool:
    """Whether a stage of such a mix has pictures to paint."""
    return bool({"generation", "editing"} & set(mix))


def _reads(mix: Mapping[str, float]) -> bool:
    """Whether a stage of such a mix may have images to read."""
    return bool(set(mix) - {"text", "generation"}) or not mix


def _widest(config: JanusConfig) -> int:
    """Channels at which the tokenizer or VAE takes all pixels of a picture."""
    if isinstance(config.generation, FlowGenerationConfig):
        return config.generation.vae.block_out_channels[0]
    return config.generation.tokenizer.ch * config.generation.tokenizer.encoder_ch_mult[0]


def _is_halved(name: str, moved: Mapping[str, int], settings: CheckpointSettings) -> bool:
    return settings.base == "bfloat16" and name.startswith("language.") and name not in moved


def _tokens(config: JanusConfig) -> dict[str, int]:
    """Tokens of a sample of each kind."""
    read, painted = config.understanding.slots + 2, config.generation.positions + 2
    kinds = {"text": TEXT, "understanding": WORDS + read + ANSWER, "generation": WORDS + painted}
    return kinds | ({"editing": WORDS + read + 2 * painted} if config.generation.shows else {})
