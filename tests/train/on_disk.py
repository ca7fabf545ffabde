"""Records on disk for small runs: ten or more of each kind, with their pictures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import tiny
from openjanus.checkpoints.save import save_checkpoint


def records(folder: Path, count: int = 10) -> dict[str, str]:
    """Files of `count` records of each kind by the kind."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(0)
    kinds: dict[str, list[object]] = {"text": [], "understanding": [], "generation": [], "editing": []}
    for i in range(count):
        Image.fromarray(chance.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        shown = [{"type": "image", "image": f"{i}.png"}]
        for kind, user, assistant in (
            ("text", f"And {i}?", f"Number {i}."),
            ("understanding", [*shown, {"type": "text", "text": f"What is {i}?"}], "Noise."),
            ("generation", f"noise {i}", shown),
            ("editing", [*shown, {"type": "text", "text": f"more noise {i}"}], shown),
        ):
            kinds[kind].append({"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]})
    for kind, lines in kinds.items():
        (folder / f"{kind}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return {kind: str(folder / f"{kind}.jsonl") for kind in kinds}


def checkpoint(variant: str, folder: Path) -> str:
    """A small random checkpoint of a variant; as many picture positions as patches, as published."""
    model = tiny.tiny_model(variant)
    if variant == "janusflow":
        torch.manual_seed(0)
        generation = replace(model.config.generation, latent_size=(8, 8))  # type: ignore[arg-type]
        model = type(model)(replace(model.config, generation=generation))
    save_checkpoint(model, tiny.tiny_processor(variant), folder)
    return str(folder)
