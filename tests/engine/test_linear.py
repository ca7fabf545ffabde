"""Layers that hold their weights packed or quantised, and which layers of a model they replace."""

from pathlib import Path

import pytest
import torch
from torch import nn

import tiny
from openjanus.checkpoints.load import load_checkpoint
from openjanus.checkpoints.save import save_checkpoint
from openjanus.engine.linear import GROUP, Int4, Int8, Packed, check_quantization, replacement
from openjanus.errors import ConfigError
from openjanus.janus import load
from openjanus.models.adaptors import ImageHead

SHAPES = Path(__file__).resolve().parents[2] / "examples" / "images" / "shapes.png"


def linear(inputs: int = 96, outputs: int = 64, bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias).bfloat16().requires_grad_(False)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 40])
@pytest.mark.parametrize(("kind", "error"), [(Packed, 1e-6), (Int8, 0.02), (Int4, 0.09)])
def test_a_layer_gives_nearly_what_it_gave(kind: type[nn.Module], error: float, rows: int, bias: bool):
    layer = linear(bias=bias)
    x = torch.randn(1, rows, 96, dtype=torch.bfloat16)
    wanted, given = layer(x).float(), kind(layer)(x).float()
    assert given.shape == wanted.shape
    assert (given - wanted).norm() <= error * wanted.norm()


def test_whole_numbers_are_kept_exactly():
    layer = linear(GROUP, 16)
    whole = torch.randint(0, 16, (16, GROUP))
    whole[:, 0], whole[:, 1] = 0, 15
    layer.weight.copy_((whole - 8) * 0.5 + 1)
    x = torch.eye(GROUP, dtype=torch.bfloat16)
    assert torch.equal(Int4(layer)(x), layer(x))
    layer.weight.copy_(torch.randint(-127, 128, (16, GROUP)))
    layer.weight[:, 0] = 127
    assert torch.equal(Int8(layer)(x), layer(x))


def test_float32_goes_in_and_comes_out_as_float32():
    for kind in (Int8, Int4):
        assert kind(linear())(torch.randn(3, 96)).dtype == torch.float32


def test_a_weight_of_zeros_stays_zero():
    layer = linear()
    layer.weight.zero_()
    for kind in (Int8, Int4):
        assert not kind(layer)(torch.randn(2, 96, dtype=torch.bfloat16)).any()


def test_only_what_every_step_reads_is_replaced():
    layer = linear()
    for name in ("language.model.layers.3.mlp.up_proj", "language.lm_head", "generation.head.vision_head"):
        assert isinstance(replacement(name, layer, "int8"), Int8)
        assert isinstance(replacement(name, layer, "int4"), Int4)
    for name in ("understanding.adaptor.layers.0", "generation.adaptor.layers.0", "generation.decoder_adaptor"):
        assert replacement(name, layer, "int8") is None
    assert replacement("language.lm_head", linear(40, 64), "int4") is None, "sizes that the kernels do not take"
    assert replacement("language.lm_head", layer.float(), "none") is None


def test_words_that_are_no_quantisation_are_refused():
    with pytest.raises(ConfigError, match="quantize is 'int3'; it must be none, int8 or int4"):
        load("janus-tiny", quantize="int3")
    with pytest.raises(ConfigError, match="choose int8"):
        check_quantization("int4", torch.device("mps"))


def test_a_layer_is_replaced_as_soon_as_it_is_whole(variant: str, tmp_path: Path):
    save_checkpoint(tiny.tiny_model(variant, torch.bfloat16), tiny.tiny_processor(variant), tmp_path / "model")
    seen: list[str] = []

    def watch(name: str, layer: nn.Linear) -> nn.Module | None:
        assert not any(parameter.is_meta for parameter in layer.parameters())
        seen.append(name)
        return Int8(layer) if name.startswith("language.model.layers.0.mlp") else None

    model = load_checkpoint(tmp_path / "model", replacement=watch).model
    assert len(seen) == len(set(seen))
    assert {name for name, module in model.named_modules() if isinstance(module, Int8)} == {
        f"language.model.layers.0.mlp.{name}_proj" for name in ("gate", "up", "down")
    }
    layers = {name for name, module in tiny.tiny_model(variant).named_modules() if isinstance(module, nn.Linear)}
    assert set(seen) == layers


@pytest.mark.parametrize("quantize", ["none", "int8", "int4"])
@pytest.mark.parametrize("name", ["janus-tiny", "janusflow-tiny"])
def test_bundled_models_run_quantised(name: str, quantize: str):
    janus = load(name, device="cpu", quantize=quantize)
    assert isinstance(janus.understand("How many circles are there?", [SHAPES]), str)
    assert janus.generate("a red circle", seed=0, steps=2)[0].mode == "RGB"
    heads = [module for module in janus.model.modules() if isinstance(module, ImageHead)]
    kinds = {"none": Packed, "int8": Int8, "int4": Int4}
    assert isinstance(janus.model.language.lm_head, kinds[quantize] if quantize != "none" else Packed | nn.Linear)
    assert all(isinstance(head.vision_head, kinds[quantize]) for head in heads if quantize != "none")
