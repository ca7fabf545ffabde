"""Quantised checkpoints: what is loaded from them is what is made of the checkpoints they were written from."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import tiny
from openjanus.checkpoints.convert import convert_checkpoint
from openjanus.checkpoints.files import open_weights
from openjanus.checkpoints.inspect import inspect_checkpoint
from openjanus.checkpoints.load import load_checkpoint
from openjanus.checkpoints.save import save_checkpoint
from openjanus.cli import main
from openjanus.engine.linear import Int4, Int8, Packed
from openjanus.engine.tiled import Tiled, TiledInt4, TiledInt8
from openjanus.errors import CheckpointError, ConfigError
from openjanus.janus import load
from openjanus.models.quantization import Quantization, from_int4, from_int8, pack, to_int4, to_int8, unpack

from .conftest import assert_same_tensors, convertible_model
from .spoiling import WHOLE, paddle_tensors, take_tensors, write_pdparams

KINDS: tuple[Quantization, ...] = ("int8", "int4")
BUNDLED = ("janus-tiny", "janusflow-tiny")


@pytest.fixture(scope="module", params=[(name, kind) for name in BUNDLED for kind in KINDS], ids="-".join)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Quantization, Path]:
    """A bundled model, a kind, and the folder it was written into as that."""
    name, kind = request.param
    folder = tmp_path_factory.mktemp("quantized") / kind
    assert convert_checkpoint(name, folder, quantize=kind) == kind
    return name, kind, folder


def test_it_loads_as_what_the_whole_checkpoint_becomes(written: tuple[str, Quantization, Path]):
    name, kind, folder = written
    wanted, given = load(name, "cpu", quantize=kind), load(folder, "cpu")
    assert isinstance(given.model.language.lm_head, Int8 | TiledInt8 if kind == "int8" else Int4 | TiledInt4)
    assert_same_tensors(_dense(given.model), _dense(wanted.model))
    assert given.model.dtype == wanted.model.dtype
    settings = {"seed": 3, "steps": 2} if "flow" in name else {"seed": 3}
    assert given.generate("a red circle", **settings)[0].tobytes() == wanted.generate("a red circle", **settings)[0].tobytes()


def _dense(model: nn.Module) -> dict[str, torch.Tensor]:
    """Its tensors, those that are laid out for a kernel of the CPU as well."""
    return {name: tensor.to_dense() if tensor.is_mkldnn else tensor for name, tensor in model.state_dict().items()}


def test_what_every_step_reads_is_small_and_the_rest_is_as_it_was(written: tuple[str, Quantization, Path]):
    name, kind, folder = written
    wanted = open_weights(load_checkpoint(name).folder)
    stored = load_file(folder / WHOLE)
    width = {"int8": torch.int8, "int4": torch.uint8}[kind]
    whole = {one for one, tensor in stored.items() if tensor.dtype == width}
    assert whole == {one for one, header in wanted.headers.items() if _is_read(one) and len(header.shape) == 2}
    for one, header in wanted.headers.items():
        if one not in whole:
            assert torch.equal(stored[one], wanted.read(one)), one
        elif kind == "int4":
            assert stored[one].numel() == header.count // 2
    assert json.loads((folder / "config.json").read_text())["quantization_config"]["bits"] == {"int8": 8, "int4": 4}[kind]


def _is_read(name: str) -> bool:
    layers = "language_model.model.layers." in name and "layernorm" not in name
    return layers or name in ("language_model.lm_head.weight",) or (name.startswith("gen_head.") and name.endswith(".weight"))


def test_inspect_tells_what_it_is(written: tuple[str, Quantization, Path]):
    _, kind, folder = written
    report = inspect_checkpoint(folder)
    assert report.sound
    assert kind in report.dtypes
    assert report.dtypes[kind] < report.parameters["language"] * {"int8": 1.1, "int4": 0.65}[kind]


def test_converting_it_again_changes_no_bit(written: tuple[str, Quantization, Path], tmp_path: Path):
    _, kind, folder = written
    assert convert_checkpoint(folder, tmp_path / "again") == kind
    assert_same_tensors(load_file(tmp_path / "again" / WHOLE), load_file(folder / WHOLE))
    assert (tmp_path / "again" / "config.json").read_text() == (folder / "config.json").read_text()


def test_it_can_be_made_real_again(written: tuple[str, Quantization, Path], tmp_path: Path):
    name, kind, folder = written
    assert convert_checkpoint(folder, tmp_path / "real", quantize="none") == "none"
    assert "quantization_config" not in json.loads((tmp_path / "real" / "config.json").read_text())
    real, whole = load_checkpoint(tmp_path / "real").model, load_checkpoint(name).model
    by_hand = whole.language.lm_head.weight
    by_hand = from_int8(*to_int8(by_hand)) if kind == "int8" else from_int4(*to_int4(by_hand))
    assert torch.equal(real.language.lm_head.weight, by_hand.bfloat16())
    # As loading it unquantised does.
    assert_same_tensors(load_checkpoint(folder).model.state_dict(), real.state_dict())
    plain = load(folder, "cpu", quantize="none")
    assert isinstance(plain.model.language.lm_head, nn.Linear | Packed | Tiled)
    assert not any(isinstance(part, Int8 | Int4 | TiledInt8 | TiledInt4) for part in plain.model.modules())


def test_one_kind_can_be_loaded_as_the_other(tmp_path: Path):
    convert_checkpoint("janus-tiny", tmp_path / "int8", quantize="int8")
    model = load(tmp_path / "int8", "cpu", quantize="int4").model
    assert isinstance(model.language.lm_head, Int4 | TiledInt4)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_that_no_kernel_takes_stay_as_they_are(variant: str, kind: Quantization, tmp_path: Path):
    save_checkpoint(tiny.tiny_model(variant, torch.bfloat16), tiny.tiny_processor(variant), tmp_path / "whole")
    convert_checkpoint(tmp_path / "whole", tmp_path / "small", quantize=kind)
    whole, given = load(tmp_path / "whole", "cpu", quantize=kind), load(tmp_path / "small", "cpu")
    assert_same_tensors(_dense(given.model), _dense(whole.model))


def test_transformers_layout_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="transformers cannot read our int8 weights"):
        convert_checkpoint("janus-tiny", tmp_path / "there", "transformers", quantize="int8")
    assert not (tmp_path / "there").exists()


def test_numbers_without_scales_and_numbers_of_others_are_refused(tmp_path: Path):
    convert_checkpoint("janus-tiny", tmp_path / "spoilt", quantize="int8")
    tensors = load_file(tmp_path / "spoilt" / WHOLE)
    del tensors["language_model.lm_head.weight_scale"]
    save_file(tensors, tmp_path / "spoilt" / WHOLE)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is stored as torch\.int8 without scales; fetch"):
        load(tmp_path / "spoilt")
    assert "without scales" in inspect_checkpoint(tmp_path / "spoilt").problems[0]
    config = json.loads((tmp_path / "spoilt" / "config.json").read_text())
    for told in ({"quant_method": "gptq", "bits": 4}, {"quant_method": "openjanus", "bits": 3}, "int4"):
        config["quantization_config"] = told
        (tmp_path / "spoilt" / "config.json").write_text(json.dumps(config))
        with pytest.raises(ConfigError, match="Fetch the unquantised checkpoint"):
            load(tmp_path / "spoilt")


def test_an_unknown_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["convert", "janus-tiny", str(tmp_path / "there"), "--quantize", "int3"]) == 2
    assert "quantize is 'int3'; it must be none, int8 or int4" in capsys.readouterr().err


def test_two_numbers_fit_into_a_byte():
    numbers = torch.randint(0, 16, (5, 64), dtype=torch.uint8)
    assert pack(numbers).shape == (5, 32)
    assert torch.equal(unpack(pack(numbers)), numbers)
    assert pack(torch.tensor([[1, 2]], dtype=torch.uint8)).tolist() == [[0x21]]


def test_numbers_of_real_weights_give_themselves_again():
    # Spreads are no thousandth of what they lie around: there float32, in which numbers travel, would lose a scale's last bit.
    torch.manual_seed(0)
    weight = torch.randn(64, 96) * (0.1 + torch.rand(64, 1)) + torch.randn(64, 1) * 0.1
    for make, real in ((to_int8, from_int8), (to_int4, from_int4)):
        once = make(weight)
        assert all(torch.equal(a, b) for a, b in zip(once, make(real(*once)), strict=True))


def test_equal_weights_are_their_zero_alone():
    numbers, scale, zero = to_int4(torch.full((16, 32), 0.5))
    assert not scale.any() and (zero == 0.5).all()
    assert (from_int4(numbers, scale, zero) == 0.5).all()
    assert not from_int4(*to_int4(torch.zeros(16, 32))).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_it_runs_in_other_dtypes(kind: Quantization, dtype: str, tmp_path: Path):
    convert_checkpoint("janus-tiny", tmp_path / "small", quantize=kind)
    given, wanted = load(tmp_path / "small", "cpu", dtype=dtype), load("janus-tiny", "cpu", dtype=dtype, quantize=kind)
    settings = {"seed": 3, "top_k": 1}
    assert given.generate("a red circle", **settings)[0].tobytes() == wanted.generate("a red circle", **settings)[0].tobytes()


def test_scales_of_another_shape_are_not_ours(tmp_path: Path):
    convert_checkpoint("janus-tiny", tmp_path / "spoilt", quantize="int8")
    tensors = load_file(tmp_path / "spoilt" / WHOLE)
    name = "language_model.lm_head.weight_scale"
    for scale in (tensors[name][:, None], tensors[name][:1], tensors[name].bfloat16()):
        save_file(tensors | {name: scale.contiguous()}, tmp_path / "spoilt" / WHOLE)
        with pytest.raises(CheckpointError, match="without scales"):
            load(tmp_path / "spoilt")
        assert not inspect_checkpoint(tmp_path / "spoilt").sound


def test_numbers_of_others_are_refused_whatever_is_asked(tmp_path: Path):
    convert_checkpoint("janus-tiny", tmp_path / "other", quantize="int8")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "compressed-tensors", "bits": [4]}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    for quantize in ("none", "int8", None):
        with pytest.raises(ConfigError, match="Fetch the unquantised checkpoint"):
            load(tmp_path / "other", quantize=quantize)
    with pytest.raises(ConfigError, match="Fetch the unquantised checkpoint"):
        convert_checkpoint(tmp_path / "other", tmp_path / "there", quantize="none")


def test_a_model_that_is_laid_out_for_running_is_not_saved(tmp_path: Path):
    convert_checkpoint("janus-tiny", tmp_path / "good")
    janus = load("janus-tiny", "cpu", quantize="int8")
    with pytest.raises(ConfigError, match="cannot be saved; load it with dtype=float32"):
        save_checkpoint(janus.model, janus.processor, tmp_path / "good")
    assert load_checkpoint(tmp_path / "good")


def test_every_file_format_can_be_quantised(tmp_path: Path):
    model = convertible_model(torch.bfloat16)
    save_checkpoint(model, tiny.tiny_processor("janus"), tmp_path / "paddle")
    take_tensors(tmp_path / "paddle")
    write_pdparams(paddle_tensors(model, "janus", "model"), tmp_path / "paddle" / "model_state.pdparams")
    save_checkpoint(model, tiny.tiny_processor("janus"), tmp_path / "whole")
    convert_checkpoint(tmp_path / "paddle", tmp_path / "small", quantize="int8")
    convert_checkpoint(tmp_path / "whole", tmp_path / "wanted", quantize="int8")
    assert_same_tensors(load_file(tmp_path / "small" / WHOLE), load_file(tmp_path / "wanted" / WHOLE))
