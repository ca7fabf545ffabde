"""Adapters that a LoRA run writes: PEFT puts them into the drop-in's models, which then compute what ours do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import janus.janusflow.models
import janus.models
from openjanus.checkpoints.convert import convert_checkpoint
from openjanus.checkpoints.load import build_empty, load_checkpoint
from openjanus.train.lora import LoRA, add_lora, save_adapter, take_out

peft = pytest.importorskip("peft")
assert janus.models and janus.janusflow.models  # importing them is what registers the models


@pytest.mark.parametrize("preset", ["understanding", "generation", "both"])
def test_peft_reads_our_adapters(variant: str, preset: Any, folders: Any, tmp_path: Path):
    folder, lora = folders(variant), LoRA(preset, rank=4, alpha=8, rslora=True)
    model = load_checkpoint(folder).model
    add_lora(model, lora)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    _, adapter = take_out(model.state_dict(), lora, build_empty(model.config))
    save_adapter(tmp_path / "adapter", adapter, lora, model.config, str(folder))
    plain = AutoModelForCausalLM.from_pretrained(str(folder), trust_remote_code=True)
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    theirs = peft.PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).merge_and_unload().state_dict()
    # Merged by PEFT, every published tensor is what ours is when it is written down.
    convert_checkpoint(folder, tmp_path / "merged", adapter=tmp_path / "adapter")
    ours = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"), trust_remote_code=True).state_dict()
    assert theirs.keys() == ours.keys() == before.keys()
    changed = [name for name, tensor in ours.items() if not torch.equal(tensor, before[name])]
    assert any("q_proj" in name for name in changed) and any("language_model" not in name for name in changed)
    for name, tensor in theirs.items():
        torch.testing.assert_close(tensor, ours[name], atol=1e-5, rtol=1e-5, msg=name)
