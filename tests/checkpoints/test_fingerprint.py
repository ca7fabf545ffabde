"""Fingerprints: one for the same weights wherever they lie and however a processor has them laid out, another for any others."""

from copy import deepcopy
from pathlib import Path

import torch

import tiny
from openjanus.checkpoints.adapters import Adapter, LowRank, write_adapter
from openjanus.checkpoints.convert import convert_checkpoint
from openjanus.checkpoints.layouts import layouts_of, slots
from openjanus.checkpoints.save import save_checkpoint
from openjanus.janus import Janus, load


def test_the_same_weights_have_one_wherever_they_lie(variant: str, tmp_path: Path):
    for dtype in (torch.float32, torch.bfloat16):
        model, folder = tiny.tiny_model(variant, dtype), tmp_path / str(dtype)
        save_checkpoint(model, tiny.tiny_processor(variant), folder)
        # In bfloat16 a loaded model holds most of its weights in tiles of the processor.
        assert load(folder, "cpu").fingerprint == Janus(model, tiny.tiny_processor(variant)).fingerprint


def test_another_precision_quantisation_or_adapter_has_another(checkpoint: Path, tmp_path: Path):
    adapter = _adapter(checkpoint, tmp_path / "adapter")
    ways = [
        {"dtype": dtype, "quantize": quantize, "adapter": one}
        for dtype in ("float32", "bfloat16")
        for quantize in ("none", "int8", "int4")
        for one in (None, adapter)
    ]
    found = [load(checkpoint, "cpu", **way).fingerprint for way in ways]
    assert len(set(found)) == len(ways)
    assert found == [load(checkpoint, "cpu", **way).fingerprint for way in ways]
    convert_checkpoint(checkpoint, tmp_path / "merged", adapter=adapter)
    assert load(tmp_path / "merged", "cpu").fingerprint == load(checkpoint, "cpu", adapter=adapter).fingerprint


def test_a_step_of_any_part_changes_it(janus: Janus):
    before = janus.fingerprint
    for part in ("language.model.layers.1.mlp", "understanding.adaptor", "generation"):
        other = Janus(deepcopy(janus.model), janus.processor, janus.name)
        for parameter in other.model.get_submodule(part).parameters():
            parameter.data.add_(1e-4)
        assert other.fingerprint != before, part


def test_a_change_of_one_column_is_seen_in_matrices_of_any_width(janus: Janus):
    """Numbers that stand as far apart as rows do would all be of one column."""
    linear = torch.nn.Linear(1024, 4096)
    other = deepcopy(linear)
    other.weight.data[:, 1:].add_(1)
    fingerprints = {Janus(model, janus.processor).fingerprint for model in (linear, other)}  # type: ignore[arg-type]
    assert len(fingerprints) == 2


def _adapter(checkpoint: Path, folder: Path) -> Path:
    """The folder of a LoRA of rank 1 of one matrix."""
    model = load(checkpoint, "cpu").model
    name = "language.model.layers.0.self_attn.q_proj.weight"
    rows, columns = dict(model.named_parameters())[name].shape
    low_rank = LowRank(torch.ones(1, columns), torch.ones(rows, 1), 0.01)
    (layout, *_) = layouts_of(model.config.generation)
    settings = {"r": 1, "lora_alpha": 0.01}
    write_adapter(folder, Adapter({name: low_rank}), layout, slots(model), settings, [])
    return folder
