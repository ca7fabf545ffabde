"""Layers that hold their weights packed or quantised, and which layers of a model they replace."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import tiny
from openjanus.checkpoints.load import load_checkpoint
from openjanus.checkpoints.save import save_checkpoint
from openjanus.engine.linear import GROUP, Int4, Int8, Packed, check_quantization_on, replacement
from openjanus.errors import ConfigError
from openjanus.janus import load
from openjanus.models.adaptors import ImageHead
from openjanus.models.llama import Llama

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
    for name in ("language.lm_head", "generation.head.vision_head"):
        assert isinstance(replacement(name, layer, "int8"), Int8)
        assert isinstance(replacement(name, layer, "int4"), Int4)
    for name in ("understanding.adaptor.layers.0", "generation.adaptor.layers.0", "generation.decoder_adaptor"):
        assert replacement(name, layer, "int8") is None
    assert replacement("language.lm_head", linear(40, 64), "int4") is None, "sizes that the kernels do not take"
    assert replacement("language.lm_head", layer.float(), "none") is None


@pytest.mark.parametrize(("quantize", "error"), [("none", 0.02), ("int8", 0.05), ("int4", 0.4)])
def test_a_block_whose_layers_are_joined_gives_nearly_what_it_gave(quantize: str, error: float):
    config = dataclasses.replace(tiny.CONFIGS["janus"].language, hidden_size=64, num_attention_heads=4, num_key_value_heads=2)
    torch.manual_seed(0)
    model = Llama(config).bfloat16().eval().requires_grad_(False)
    ids = torch.arange(20)[None]
    wanted = model(model.embed(ids), ids).float()
    for name, module in list(model.named_modules()):
        replacement(f"language.{name}", module, quantize)  # type: ignore[arg-type]
    kinds = {"none": Packed, "int8": Int8, "int4": Int4}
    block = model.model.layers[0]
    assert [type(part) for part in block.modules() if isinstance(part, Packed | Int8 | Int4)] == [kinds[quantize]] * 4
    assert not [part for part in block.modules() if isinstance(part, nn.Linear)]
    given = model(model.embed(ids), ids).float()
    assert (given - wanted).norm() < error * wanted.norm()


def test_words_that_are_no_quantisation_are_refused():
    with pytest.raises(ConfigError, match="quantize is 'int3'; it must be none, int8 or int4"):
        load("janus-tiny", quantize="int3")
    with pytest.raises(ConfigError, match="choose int8"):
        check_quantization_on("int4", torch.device("mps"))


def test_modules_are_told_of_once_when_they_are_whole_and_inner_ones_first(variant: str, tmp_path: Path):
    save_checkpoint(tiny.tiny_model(variant, torch.bfloat16), tiny.tiny_processor(variant), tmp_path / "model")
    told: list[str] = []

    def watch(name: str, module: nn.Module) -> nn.Module | None:
        assert not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))
        assert not any(name.startswith(f"{earlier}.") for earlier in told), "what is around a module comes after it"
        told.append(name)
        return Int8(module) if name == "language.lm_head" and isinstance(module, nn.Linear) else None

    model = load_checkpoint(tmp_path / "model", placed=watch).model
    assert len(told) == len(set(told))
    assert isinstance(model.language.lm_head, Int8)
    holders = {name for name, module in tiny.tiny_model(variant).named_modules() if name and [*module.parameters(recurse=False)]}
    assert holders <= set(told)
    assert "language.model.layers.0" in told and "language" in told


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
