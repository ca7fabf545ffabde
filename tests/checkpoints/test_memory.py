"""Loading and converting take the memory of the weights once, not twice."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tiny
from openjanus.checkpoints.save import save_checkpoint
from openjanus.config import PRESETS, JanusConfig, ProjectorConfig, TokenGenerationConfig, VQConfig
from openjanus.models.janus import JanusModel

from .spoiling import WHOLE, paddle_tensors, write_pdparams

_MEASURE = """
import sys, torch
from openjanus.checkpoints.load import build_empty, load_checkpoint
from openjanus.config import PRESETS
from openjanus.checkpoints.convert import convert_checkpoint

def kilobytes(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

build_empty(PRESETS["janus-pro-1b"])  # torch imports much at the first use of its meta device
before = kilobytes("VmRSS")
if sys.argv[1] == "load":
    model = load_checkpoint(sys.argv[2]).model
    total = sum(float(parameter.detach().sum()) for parameter in model.parameters())  # every page is looked at
else:
    convert_checkpoint(sys.argv[2], sys.argv[3], "transformers")
print(1024 * (kilobytes("VmHWM") - before))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.multiproc,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc, which is not here"),
]


def middle_sized() -> JanusConfig:
    """Janus-Pro-1B with fewer and narrower layers: about 400 MB in bfloat16, a few large tensors and many small ones."""
    config = PRESETS["janus-pro-1b"]
    language = replace(
        config.language,
        vocab_size=20000,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=4,
        num_key_value_heads=16,
        head_dim=64,
    )
    assert isinstance(config.generation, TokenGenerationConfig)
    tower = replace(config.understanding.encoder, layers=4)
    return JanusConfig(
        language,
        replace(config.understanding, encoder=tower, adaptor=ProjectorConfig(1024, 1024, "mlp_gelu", 2)),
        replace(config.generation, tokenizer=VQConfig(ch=64), adaptor=ProjectorConfig(8, 1024, "mlp_gelu", 2), head_dim=1024),
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("memory") / "checkpoint"
    with torch.device("meta"):
        model = JanusModel(middle_sized()).bfloat16()
    model = model.to_empty(device="cpu").requires_grad_(False)
    for tensor in model.state_dict().values():
        tensor.fill_(0.5)
    processor = tiny.tiny_processor("janus")
    processor.images = replace(processor.images, config=replace(processor.images.config, image_size=384))
    save_checkpoint(model, processor, folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A folder that does not stay on the disk: pytest keeps those of three runs."""
    yield tmp_path / "other"
    shutil.rmtree(tmp_path / "other")


def peak(*arguments: object) -> int:
    """Bytes that the process grew by at its largest."""
    environment = {**os.environ, "PYTHONPATH": "src", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", _MEASURE, *map(str, arguments)]
    root = Path(__file__).resolve().parents[2]
    return int(subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True).stdout)


def rewrite(folder: Path, kind: str, target: Path) -> int:
    """The checkpoint in another format; the size of its weights."""
    target.mkdir()
    for path in folder.glob("*.json"):
        (target / path.name).symlink_to(path)
    tensors = load_file(folder / WHOLE)
    if kind == "safetensors":
        (target / WHOLE).symlink_to(folder / WHOLE)
    elif kind == "bin":
        torch.save(tensors, target / "pytorch_model.bin")
    elif kind == "bin before torch 1.6":
        torch.save(tensors, target / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    else:
        with torch.device("meta"):
            model = JanusModel(middle_sized()).bfloat16()
        model = model.to_empty(device="cpu")
        write_pdparams({name: t.detach() for name, t in paddle_tensors(model, "janus").items()}, target / "model_state.pdparams")
    return max(path.stat().st_size for path in target.iterdir())


@pytest.mark.parametrize("kind", ["safetensors", "bin", "bin before torch 1.6", "pdparams"])
def test_loading_in_the_checkpoints_own_dtype_peaks_within_1_2_times_the_file(checkpoint: Path, target: Path, kind: str):
    size = rewrite(checkpoint, kind, target)
    assert size > 200e6
    assert peak("load", target) < 1.2 * size


def test_converting_peaks_within_1_2_times_the_file(checkpoint: Path, target: Path):
    assert peak("convert", checkpoint, target) < 1.2 * (checkpoint / WHOLE).stat().st_size
