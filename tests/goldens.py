"""Golden numbers and published layouts of the reference pack, where a checkout has it beside it.

The pack is looked for in `../shared/reference` or in $OPENJANUS_REFERENCE; without it the tests that need it are skipped.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

REFERENCE = Path(os.environ.get("OPENJANUS_REFERENCE", Path(__file__).resolve().parents[2] / "shared" / "reference"))
FIXTURES = REFERENCE / "fixtures"

needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"the reference pack is not at {REFERENCE}")


def fixture(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Notes and tensors of one golden topic; the calling test is skipped where the pack is absent."""
    if not FIXTURES.is_dir():
        pytest.skip(f"the reference pack is not at {REFERENCE}")
    meta = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    tensors = FIXTURES / f"{name}.safetensors"
    return meta, load_file(tensors) if tensors.exists() else {}


def layout(name: str) -> dict[str, Any]:
    """One file of `layout/`, parsed; the calling test is skipped where the pack is absent."""
    path = REFERENCE / "layout" / f"{name}.json"
    if not path.exists():
        pytest.skip(f"the reference pack is not at {REFERENCE}")
    parsed: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return parsed


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
