"""Layers that hold their weights packed or quantised, and which layers of a model they replace."""

import copy
import dataclasses
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tiny
from openjanus.checkpoints.load import load_checkpoint
from openjanus.checkpoints.save import save_checkpoint
from openjanus.config import LanguageConfig
from openjanus.device import slow_in_bfloat16
from openjanus.engine.linear import GROUP, Int4, Int8, Packed, check_quantization_on, replacement
from openjanus.engine.tiled import (
    FusedNorm,
    Tiled,
    TiledBFloat16,
    TiledCompact,
    TiledInt4,
    TiledInt8,
    fused_attention,
    tiled,
)
from openjanus.engine.wide import Wide
from openjanus.errors import ConfigError
from openjanus.janus import load
from openjanus.kernels.decode import attend_many, compact_of, palette, supported, swiglu, tiles_of_bf16
from openjanus.models.adaptors import ImageHead
from openjanus.models.attention import Packed as Rows
from openjanus.models.attention import entry_mask, rotary
from openjanus.models.cache import KeyValueCache
from openjanus.models.layers import RMSNorm
from openjanus.models.llama import Attention, Llama, Place, Positions, Span, Turn, gated
from openjanus.models.quantization import Quantization, from_int4, from_int8, to_int4, to_int8

HELD = Packed | Int8 | Int4 | Tiled
KINDS = {"none": (Packed, TiledBFloat16, TiledCompact), "int8": (Int8, TiledInt8), "int4": (Int4, TiledInt4)}
SHAPES = Path(__file__).resolve().parents[2] / "examples" / "images" / "shapes.png"


@pytest.fixture(params=["our kernels", "torch's kernels"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with our kernels, where they run, and once without."""
    if request.param == "torch's kernels":
        monkeypatch.setattr("openjanus.engine.tiled.supported", frozenset)
    elif not supported():
        pytest.skip("our kernels do not run on this processor, or were not compiled")


def layer_of(kind: type[nn.Module], of: nn.Linear) -> nn.Module:
    """A layer of that kind; a skip where its kernel does not run."""
    needs = {TiledBFloat16: "bf16", TiledCompact: "bf16", TiledInt8: "int8", TiledInt4: "int4"}
    if issubclass(kind, Tiled) and needs[kind] not in supported():
        pytest.skip("this kernel does not run on this processor, or was not compiled")
    if kind is not TiledCompact:
        return kind(of)
    compact = compact_of(tiles_of_bf16(of.weight))
    assert compact is not None
    return TiledCompact(of, compact)


def linear(inputs: int = 96, outputs: int = 64, bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias).bfloat16().requires_grad_(False)


ERRORS = [
    (Packed, 1e-6),
    (Int8, 0.02),
    (Int4, 0.09),
    (TiledBFloat16, 0.004),
    (TiledCompact, 0.004),
    (TiledInt8, 0.02),
    (TiledInt4, 0.09),
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 40])
@pytest.mark.parametrize(("kind", "error"), ERRORS)
def test_a_layer_gives_nearly_what_it_gave(kind: type[nn.Module], error: float, rows: int, bias: bool):
    layer = linear(bias=bias)
    x = torch.randn(1, rows, 96, dtype=torch.bfloat16)
    wanted, given = layer(x).float(), layer_of(kind, layer)(x).float()
    assert given.shape == wanted.shape
    assert (given - wanted).norm() <= error * wanted.norm()


@pytest.mark.usefixtures("kernels")
def test_whole_numbers_are_kept_exactly():
    layer = linear(GROUP, 32)
    whole = torch.randint(0, 16, (32, GROUP))
    whole[:, 0], whole[:, 1] = 0, 15
    layer.weight.copy_((whole - 8) * 0.5 + 1)
    x = torch.eye(GROUP, dtype=torch.bfloat16)
    assert torch.equal(_made(layer, "int4")(x), layer(x))
    layer.weight.copy_(torch.randint(-127, 128, (32, GROUP)))
    layer.weight[:, 0] = 127
    assert torch.equal(_made(layer, "int8")(x), layer(x))


def _made(layer: nn.Linear, quantize: Quantization) -> nn.Module:
    made = replacement("language.lm_head", layer, quantize, few=True)
    assert isinstance(made, KINDS[quantize])
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [TiledBFloat16, TiledCompact, TiledInt8, TiledInt4])
def test_a_row_does_not_depend_on_those_beside_it(kind: type[Tiled], dtype: torch.dtype):
    made = layer_of(kind, linear(2048, 96))
    # More than stay near at a time (120 of so many inputs, 384 on matrix units), and some that make no whole block.
    x = torch.randn(391, 2048, dtype=torch.bfloat16 if kind in (TiledBFloat16, TiledCompact) else dtype)
    few, more = [1, 2, 3, 5, 7, 17], [100, 121, 391]
    # Matrix units take many rows otherwise than few.
    apart = kind not in (TiledBFloat16, TiledCompact) and dtype == torch.bfloat16 and "matrices" in supported()
    for sizes in (few, more) if apart else (few + more,):
        results = [torch.cat([made(part) for part in x.split(size)]) for size in sizes]
        assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("rows", [24, 33, 100])
def test_matrix_units_multiply_many_rows_by_what_int4_stands_for(rows: int):
    if "matrices" not in supported():
        pytest.skip("this processor has no matrix units, or the compiler did not know them")
    layer = linear(416, 160)
    x = torch.randn(rows, 416).bfloat16()
    wanted = x.double() @ from_int4(*to_int4(layer.weight)).bfloat16().double().t()
    assert (TiledInt4(layer)(x).double() - wanted).norm() <= 0.003 * wanted.norm()


def in_bytes(x: Tensor) -> Tensor:
    """Numbers [R, K], at most 512 of a row, as a row's bytes stand for them; where one lies far out, also what these miss."""
    scale = (x.abs().amax(1, keepdim=True) / 127).double()
    near = (x / scale).round() * scale
    missed = (x - near) * (x.abs().amax(1, keepdim=True) > 10 * x.abs().mean(1, keepdim=True))
    scale = (missed.abs().amax(1, keepdim=True) / 127).clamp(min=1e-30)
    return near + (missed / scale).round() * scale


@pytest.mark.parametrize("rows", [24, 33, 100, 600])
def test_matrix_units_multiply_many_rows_as_bytes_and_what_a_large_one_hides(rows: int):
    if "matrices" not in supported():
        pytest.skip("this processor has no matrix units, or the compiler did not know them")
    layer = linear(1088, 160)
    x = torch.randn(rows, 1088)
    # In every fifth row some inputs are so large that the others of their scale would be nothing beside them.
    x[::5, 700] = 3000
    x[::10, 100:120] = 1000
    x[3, 5] = 60
    x[4, 1080] = 60
    x = x.bfloat16()
    weight = from_int8(*to_int8(layer.weight)).double()
    whole = x.double()
    wanted = torch.cat([in_bytes(part) for part in whole.split(512, dim=1)], dim=1) @ weight.t()
    given = TiledInt8(layer)(x).double()
    # No more than what comes out is rounded to bfloat16.
    assert ((given - wanted).norm(dim=1) <= 0.003 * wanted.norm(dim=1)).all()
    assert ((given - whole @ weight.t()).norm(dim=1) <= 0.02 * (whole @ weight.t()).norm(dim=1)).all()


def test_what_stands_beside_many_large_inputs_is_not_lost():
    if "matrices" not in supported():
        pytest.skip("this processor has no matrix units, or the compiler did not know them")
    layer = linear(512, 64)
    x = torch.randn(32, 512).bfloat16()
    large = torch.arange(0, 512, 16)
    x[:, large] = 1000
    # What is large counts little, so that the others are most of what comes out.
    layer.weight[:, large] = 0
    weight = from_int8(*to_int8(layer.weight)).double()
    wanted = x.double() @ weight.t()
    assert ((TiledInt8(layer)(x).double() - wanted).norm(dim=1) <= 0.02 * wanted.norm(dim=1)).all()


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", [TiledBFloat16, TiledCompact, TiledInt8, TiledInt4])
def test_what_is_no_number_stays_none_in_its_row_of_many(kind: type[Tiled], odd: float):
    x = torch.randn(50, 1088).bfloat16()
    x[17, 600] = odd
    x[:, 3] = 100
    finite = torch.isfinite(layer_of(kind, linear(1088, 64))(x))
    assert not finite[17].any()
    assert finite.all(1).sum() == 49


def test_products_of_torch_and_of_ours_in_turn_stay_what_they_are():
    layer, other = linear(256, 96), linear(128, 64)
    made = layer_of(TiledBFloat16, layer)
    x, y = torch.randn(70, 256).bfloat16(), torch.randn(3, 128).bfloat16()
    wanted = made(x), other(y), layer(x)
    for _ in range(3):
        for given, one in zip((made(x), other(y), layer(x)), wanted, strict=True):
            assert torch.equal(given, one)


def test_a_thread_gets_its_matrix_units_back_as_it_left_them():
    if "matrices" not in supported():
        pytest.skip("this processor has no matrix units, or the compiler did not know them")
    # So small that it runs in the thread that asks, which has set nothing yet.
    made, x = layer_of(TiledBFloat16, linear(256, 96)), torch.randn(70, 256).bfloat16()
    with ThreadPoolExecutor(1) as fresh:
        fresh.submit(made, x).result()
        assert fresh.submit(palette).result() == 0


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_whole_numbers_are_summed_up_exactly(quantize: str):
    layer = linear(416, 160)
    # Groups of very different sizes, in which a scale for a whole row would lose the small ones.
    x = torch.randn(9, 416) * torch.logspace(-6, 3, 9)[:, None] * torch.logspace(-3, 3, 13).repeat_interleave(GROUP)
    groups = x.double().unflatten(1, (-1, GROUP))
    scale = (groups.abs().amax(2, keepdim=True) / 127).float().double()
    rounded = ((groups / scale).round() * scale).flatten(1)
    weight = from_int8(*to_int8(layer.weight)) if quantize == "int8" else from_int4(*to_int4(layer.weight))
    given = layer_of(TiledInt8 if quantize == "int8" else TiledInt4, layer)(x).double()
    wanted = rounded @ weight.double().t()
    assert ((given - wanted).norm(dim=1) <= 1e-5 * wanted.norm(dim=1)).all()
    assert not layer_of(TiledInt8, layer)(torch.zeros(2, 416)).any()


def test_bfloat16_is_multiplied_and_summed_up_as_float32():
    layer = linear(2048, 64)
    x = torch.randn(150, 2048).bfloat16()
    wanted = (x.double() @ layer.weight.double().t()).float()
    given = layer_of(TiledBFloat16, layer)(x)
    # Half a unit of bfloat16's last place, and a little of float32's.
    assert ((given.float() - wanted).abs() <= wanted.abs() * 2**-8 + 1e-5).all()


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", [TiledBFloat16, TiledCompact, TiledInt8, TiledInt4])
def test_what_is_no_number_stays_none(kind: type[Tiled], odd: float):
    made = layer_of(kind, linear())
    x = torch.randn(3, 96).bfloat16()
    x[1, 5] = odd
    y = made(x)
    assert not torch.isfinite(y[1]).any()
    assert torch.isfinite(y[0]).all() and torch.isfinite(y[2]).all()


def test_the_gate_is_right_at_the_ends():
    if "fused" not in supported():
        pytest.skip("our kernels do not run on this processor, or were not compiled")
    ends = torch.tensor([-3e38, -1e36, -200.0, -90.0, 90.0, 1e36, torch.inf, -torch.inf, torch.nan]).repeat_interleave(16)
    x = torch.cat((ends, torch.ones(len(ends))))[None]
    torch.testing.assert_close(swiglu(x), gated(x), equal_nan=True)


@pytest.mark.parametrize("kind", [TiledBFloat16, TiledInt8])
def test_tiles_do_not_follow_a_model_to_another_dtype(kind: type[Tiled]):
    made = layer_of(kind, linear()).to(torch.float16)
    with pytest.raises(ConfigError, match="load it again with the dtype"):
        made(torch.randn(2, 96))


def test_a_layer_that_tiles_do_not_take_stays_with_torch():
    assert tiled(linear(96, 48), "int8", few=True) is None
    assert tiled(linear(40, 64), "none", few=True) is None
    assert tiled(linear().float(), "none", few=True) is None
    assert tiled(linear().to("meta"), "int4", few=True) is None


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_comes_out_is_of_the_dtype_that_goes_in(dtype: torch.dtype):
    for quantize in ("int8", "int4"):
        assert _made(linear(), quantize)(torch.randn(3, 96, dtype=dtype)).dtype == dtype


@pytest.mark.usefixtures("kernels")
def test_a_weight_of_zeros_stays_zero():
    layer = linear()
    layer.weight.zero_()
    for quantize in ("int8", "int4"):
        assert not _made(layer, quantize)(torch.randn(2, 96, dtype=torch.bfloat16)).any()


def test_only_what_every_step_reads_is_replaced():
    layer = linear()
    for name in ("language.lm_head", "generation.head.vision_head"):
        for quantize in ("int8", "int4"):
            assert isinstance(replacement(name, layer, quantize, few=True), KINDS[quantize])
    for name in ("understanding.adaptor.layers.0", "generation.adaptor.layers.0", "generation.decoder_adaptor"):
        assert replacement(name, layer, "int8", few=True) is None
    assert replacement("language.lm_head", linear(40, 64), "int4", few=True) is None, "sizes that the kernels do not take"
    assert replacement("language.lm_head", layer.float(), "none", few=True) is None


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("quantize", "error"), [("none", 0.02), ("int8", 0.05), ("int4", 0.4)])
def test_a_block_whose_layers_are_joined_gives_nearly_what_it_gave(quantize: str, error: float):
    config = dataclasses.replace(tiny.CONFIGS["janus"].language, hidden_size=64, num_attention_heads=4, num_key_value_heads=2)
    torch.manual_seed(0)
    model = Llama(config).bfloat16().eval().requires_grad_(False)
    ids = torch.arange(20)[None]
    wanted = model(model.embed(ids), ids).float()
    for name, module in list(model.named_modules()):
        replacement(f"language.{name}", module, quantize, few=True)  # type: ignore[arg-type]
    block = model.model.layers[0]
    held = [part for part in block.modules() if isinstance(part, HELD)]
    assert len(held) == 4 and all(isinstance(part, KINDS[quantize]) for part in held)
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

    model = load_checkpoint(tmp_path / "model", placing=lambda config: watch).model
    assert len(told) == len(set(told))
    assert isinstance(model.language.lm_head, Int8)
    holders = {name for name, module in tiny.tiny_model(variant).named_modules() if name and [*module.parameters(recurse=False)]}
    assert holders <= set(told)
    assert "language.model.layers.0" in told and "language" in told


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("quantize", ["none", "int8", "int4"])
@pytest.mark.parametrize("name", ["janus-tiny", "janusflow-tiny"])
def test_bundled_models_run_quantised(name: str, quantize: str):
    janus = load(name, device="cpu", quantize=quantize)
    assert isinstance(janus.understand("How many circles are there?", [SHAPES]), str)
    assert janus.generate("a red circle", seed=0, steps=2)[0].mode == "RGB"
    heads = [module for module in janus.model.modules() if isinstance(module, ImageHead)]
    assert isinstance(janus.model.language.lm_head, KINDS[quantize] if quantize != "none" else HELD | nn.Linear)
    assert all(isinstance(head.vision_head, KINDS[quantize]) for head in heads if quantize != "none")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_and_gate_in_one_go_give_what_their_steps_give(dtype: torch.dtype):
    if "fused" not in supported():
        pytest.skip("our kernels do not run on this processor, or were not compiled")
    norm = RMSNorm(96).to(dtype)
    norm.weight.data.uniform_(0.5, 2)
    made = replacement("language.model.norm", norm, "int8", few=True)
    assert isinstance(made, FusedNorm)
    x = torch.randn(2, 5, 192, dtype=dtype) * torch.tensor([1e-3, 0.1, 1, 10, 60], dtype=dtype)[:, None]
    error = 1e-6 if dtype == torch.float32 else 0.01
    torch.testing.assert_close(made(x[..., :96]), norm(x[..., :96]), rtol=error, atol=1e-30)
    torch.testing.assert_close(swiglu(x), gated(x), rtol=error, atol=1e-30)


def test_norms_stay_exact_in_float32():
    assert replacement("language.model.norm", RMSNorm(96), "none", few=True) is None
    assert replacement("generation.decoder_norm", RMSNorm(96), "int8", few=True) is None


@pytest.mark.parametrize("new", [1, 2, 49])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "shared", "width"), [(4, 4, 128), (6, 2, 64), (4, 1, 96)])
def test_attention_in_one_go_gives_what_its_steps_give(heads: int, shared: int, width: int, dtype: torch.dtype, new: int):
    config = LanguageConfig(
        vocab_size=32,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=heads,
        num_key_value_heads=shared,
        head_dim=width,
    )
    torch.manual_seed(0)
    attention = Attention(config, 0).to(dtype).requires_grad_(False)
    ours = fused_attention(attention)
    if ours is None:
        pytest.skip("our kernels do not run on this processor, or were not compiled")
    if new > 1 and (dtype == torch.float32 or "attend_many" not in supported()):
        pytest.skip("torch attends to many positions here")
    entries = torch.tensor([[0], [37], [70]]) + torch.arange(new)
    x = torch.randn(3 * new, config.hidden_size, dtype=dtype)
    results, caches = [], []
    for attend in (None, ours):
        cache = KeyValueCache(config, 4, 120, torch.device("cpu"), dtype)
        cache.keys.copy_(torch.randn(cache.keys.shape, generator=torch.Generator().manual_seed(1)))
        cache.values.copy_(torch.randn(cache.values.shape, generator=torch.Generator().manual_seed(2)))
        # What lies behind a row's own entries is another's, and may be anything.
        for lane, last in enumerate(entries[:, -1].tolist()):
            cache.values[:, 1 + lane, :, last + 1 :] = torch.nan if attend is not None and new > 1 else 0
        attention.attend_new = attend
        place = Place(
            Turn(*rotary(entries + 3, width, 10000.0, dtype)),
            entry_mask(entries, 128, dtype),
            Span(slice(1, 4), entries + 3, entries, 128),
        )
        results.append(attention(x, Positions([place], Rows(((3, new),)), cache)))
        caches.append(cache)
    error = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(results[1], results[0], rtol=error, atol=error)
    torch.testing.assert_close(caches[1].keys, caches[0].keys, rtol=1e-6 if dtype == torch.float32 else 0, atol=1e-6)
    written = caches[0].values[0, 1:4].transpose(1, 2)[torch.arange(3)[:, None], entries]
    assert torch.equal(caches[1].values[0, 1:4].transpose(1, 2)[torch.arange(3)[:, None], entries], written)
    assert torch.equal(caches[1].values[0, 0], caches[0].values[0, 0]), "lanes beside them stay as they are"


@pytest.mark.parametrize("shared", [1, 4])
def test_attention_comes_to_the_same_bits_on_any_number_of_threads(shared: int):
    if "attend_many" not in supported():
        pytest.skip("torch attends to many positions here")
    torch.manual_seed(0)
    x, entries = torch.randn(2, 300, (4 + 2 * shared) * 64).bfloat16(), torch.arange(300).expand(2, -1).contiguous()
    cosine, sine = (one[:, 0] for one in rotary(entries, 64, 10000.0, torch.bfloat16))
    results, threads = [], torch.get_num_threads()
    try:
        for number in (1, 2, 3, 8):
            torch.set_num_threads(number)
            keys, values = torch.zeros(2, 2, shared, 320, 64, dtype=torch.bfloat16)
            results.append((attend_many(x, cosine, sine, entries, keys, values, 300), keys, values))
    finally:
        torch.set_num_threads(threads)
    assert results[0][0].isfinite().all() and results[0][0].any()
    for one in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(one, results[0], strict=True))


def test_a_position_comes_to_the_same_bits_however_many_others_are_read_with_it():
    if "attend_many" not in supported():
        pytest.skip("torch attends to many positions here")
    torch.manual_seed(0)
    x, entries = torch.randn(2, 100, 12 * 64).bfloat16(), torch.stack((torch.arange(100), torch.arange(100) + 20))
    turn = rotary(entries, 64, 10000.0, torch.bfloat16)
    keys, values = torch.zeros(2, 2, 2, 128, 64, dtype=torch.bfloat16)
    cosine, sine = (one[:, 0] for one in turn)
    whole = attend_many(x, cosine, sine, entries, keys, values, 120)
    for start, stop in ((0, 37), (37, 38), (38, 40), (40, 100)):
        part = slice(start, stop)
        upto = int(entries[:, stop - 1].max()) + 1
        given = attend_many(x[:, part], cosine[:, part], sine[:, part], entries[:, part], keys, values, upto)
        assert torch.equal(given, whole[:, part])


def laid_out(quantize: Quantization, dtype: torch.dtype) -> Llama:
    """A language model of three blocks, told of part by part as while loading."""
    config = LanguageConfig(
        vocab_size=64,
        hidden_size=96,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=64,
    )
    torch.manual_seed(3)
    language = Llama(config).to(dtype).requires_grad_(False)
    for path in ("layers.0", "layers.1", "layers.2"):
        block = language.model.get_submodule(path)
        for name in ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm"):
            new = replacement(f"language.model.{path}.{name}", block.get_submodule(name), quantize, few=True)
            if new is not None:
                setattr(block, name, new)
    replacement("language", language, quantize, few=True)
    return language


@pytest.mark.parametrize(
    ("quantize", "dtype"), [("none", torch.bfloat16), ("int8", torch.bfloat16), ("int8", torch.float32), ("int4", torch.float32)]
)
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_all_blocks_in_one_go_give_the_very_bits_of_one_after_the_other(quantize: Quantization, dtype: torch.dtype, rows: int):
    language = laid_out(quantize, dtype)
    if language.run_one is None:
        pytest.skip("our kernels do not run on this processor, or were not compiled")
    entries = torch.tensor([[0], [70], [3], [119], [64]])[:rows]
    x = torch.randn(rows, 96, dtype=dtype, generator=torch.Generator().manual_seed(4))
    results, caches = [], []
    for run_one in (None, language.run_one):
        cache = KeyValueCache(language.config, 7, 120, torch.device("cpu"), dtype)
        for held, seed in ((cache.keys, 1), (cache.values, 2)):
            held.copy_(torch.randn(held.shape, generator=torch.Generator().manual_seed(seed)))
        language.run_one = run_one
        results.append(language.step(x, [Span(slice(1, 1 + rows), entries + 3, entries, 128)], cache))
        caches.append(cache)
    assert torch.equal(results[0], results[1])
    assert torch.equal(caches[0].keys, caches[1].keys) and torch.equal(caches[0].values, caches[1].values)
    assert not torch.equal(results[0], x), "something was done"


def test_all_blocks_in_one_go_follow_weights_that_move():
    language = laid_out("int8", torch.float32)
    if language.run_one is None:
        pytest.skip("our kernels do not run on this processor, or were not compiled")
    cache = KeyValueCache(language.config, 1, 64, torch.device("cpu"), torch.float32)
    x, span = (
        torch.randn(1, 96),
        Span(slice(0, 1), torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int64), 64),
    )
    before = language.step(x, [span], cache)
    norm = language.model.layers[0].input_layernorm
    norm.weight = nn.Parameter(norm.weight * 2, requires_grad=False)
    after = language.step(x, [span], cache)
    language.run_one = None
    assert not torch.equal(before, after) and torch.equal(after, language.step(x, [span], cache))


@pytest.mark.parametrize("way", [copy.deepcopy, lambda language: pickle.loads(pickle.dumps(language))])
def test_a_model_that_has_taken_steps_can_be_copied_and_pickled(way: Callable[[Llama], Llama]):
    language = laid_out("int8", torch.float32)
    if language.run_one is None:
        pytest.skip("our kernels do not run on this processor, or were not compiled")
    cache = KeyValueCache(language.config, 1, 64, torch.device("cpu"), torch.float32)
    nothing = torch.zeros(1, 1, dtype=torch.int64)
    x, span = torch.randn(1, 96), Span(slice(0, 1), nothing, nothing, 64)
    before = language.step(x, [span], cache)
    copied = way(language)
    # The copy runs on weights of its own.
    for tensor in (*language.parameters(), *language.buffers()):
        tensor.zero_()
    assert copied.run_one is not None and torch.equal(copied.step(x, [span], cache), before)
    assert not torch.equal(language.step(x, [span], cache), before)


def test_blocks_run_in_one_go_whichever_way_bfloat16_is_held():
    language = laid_out("none", torch.bfloat16)
    if language.run_one is None:
        pytest.skip("bfloat16 does not run on our kernels here")
    cache = KeyValueCache(language.config, 1, 64, torch.device("cpu"), torch.bfloat16)
    nothing = torch.zeros(1, 1, dtype=torch.int64)
    x, span = torch.randn(1, 96).bfloat16(), Span(slice(0, 1), nothing, nothing, 64)
    assert isinstance(language.model.layers[1].mlp.down_proj, TiledCompact)
    language.model.layers[1].mlp.down_proj = TiledBFloat16(linear(160, 96))
    replacement("language", language, "none", few=True)
    assert language.run_one is not None
    given = language.step(x, [span], cache)
    language.run_one = None
    assert torch.equal(given, language.step(x, [span], cache))


@pytest.mark.parametrize("other", [Int8, TiledInt4])
def test_blocks_that_are_not_all_alike_run_one_after_the_other(other: type[nn.Module]):
    language = laid_out("int8", torch.float32)
    language.model.layers[1].mlp.down_proj = layer_of(other, nn.Linear(160, 96, bias=False).requires_grad_(False))
    replacement("language", language, "int8", few=True)
    assert language.run_one is None


@pytest.mark.parametrize(
    ("device", "matrices", "pairs", "amd", "slow"),
    [
        ("cpu", False, False, True, True),
        ("cpu", False, True, False, True),
        ("cpu", False, True, True, False),
        ("cpu", True, True, False, False),
        ("meta", False, False, False, False),
    ],
)
def test_bfloat16_is_slow_on_processors_that_have_nothing_fast_for_it(
    device: str, matrices: bool, pairs: bool, amd: bool, slow: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: matrices)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: pairs)
    monkeypatch.setattr("openjanus.device._of_amd", lambda: amd)
    assert slow_in_bfloat16(torch.device(device)) == slow


def test_torch_and_our_kernels_agree_on_who_is_fast_in_bfloat16():
    if supported().isdisjoint(("matrices", "pairs")):
        pytest.skip("this processor has nothing fast for bfloat16, or the compiler did not know it")
    assert not slow_in_bfloat16(torch.device("cpu"))


@pytest.mark.parametrize(("name", "part"), [("janus-tiny", "tokenizer"), ("janusflow-tiny", "vae")])
def test_pixels_are_decoded_in_float32_where_bfloat16_is_slow(name: str, part: str, monkeypatch: pytest.MonkeyPatch):
    pixels = []
    for slow in (False, True):
        monkeypatch.setattr("openjanus.engine.wide.slow_in_bfloat16", lambda device, slow=slow: slow)
        generation = load(name, device="cpu", dtype="bfloat16").model.generation
        decoder = getattr(generation, part).decoder
        assert isinstance(decoder, Wide) == slow
        assert {parameter.dtype for parameter in decoder.parameters()} == {torch.float32 if slow else torch.bfloat16}
        torch.manual_seed(0)
        made = torch.randint(256, (2, 144)) if part == "tokenizer" else torch.randn(2, 4, 16, 16)
        pixels.append(generation.decode(made))
    assert not isinstance(getattr(load(name, device="cpu", dtype="float32").model.generation, part).decoder, Wide)
    assert pixels[0].dtype == pixels[1].dtype == torch.bfloat16
    assert (pixels[0] - pixels[1]).float().norm() < 0.02 * pixels[0].float().norm()


def test_the_tower_reads_on_our_kernels_where_they_run(monkeypatch: pytest.MonkeyPatch):
    if "bf16" not in supported():
        pytest.skip("bfloat16 does not run on our kernels here")
    ours = load("janus-tiny", device="cpu", dtype="bfloat16", quantize="int4")
    tower = ours.model.understanding.encoder
    assert not [one for name, one in tower.named_modules() if isinstance(one, nn.Linear) and ".blocks." in name]
    exact = load("janus-tiny", device="cpu", dtype="float32").model.understanding.encoder
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    wanted, given = exact(pixels), tower(pixels.bfloat16()).float()
    assert (given - wanted).norm() < 0.02 * wanted.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_on_a_gpu_layers_of_one_input_become_one_layer_in_half_precision(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("openjanus.engine.linear.JOINED", ("cpu",))
    config = LanguageConfig(64, 96, 128, 1, 3)
    torch.manual_seed(0)
    model = Llama(config).to(dtype).eval().requires_grad_(False)
    ids = torch.arange(20)[None]
    wanted = model(model.embed(ids), ids)
    for name, module in list(model.named_modules()):
        replacement(f"language.{name}", module, "none", few=True)
    linears = [name for name, one in model.model.layers[0].named_modules() if isinstance(one, nn.Linear)]
    joined = ["self_attn.o_proj", "self_attn.qkv_proj", "mlp.down_proj", "mlp.gate_up_proj"]
    apart = [f"self_attn.{one}_proj" for one in "qkvo"] + [f"mlp.{one}_proj" for one in ("gate", "up", "down")]
    assert sorted(linears) == sorted(apart if dtype == torch.float32 else joined)
    torch.testing.assert_close(model(model.embed(ids), ids), wanted, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("kind", [TiledBFloat16, TiledCompact, TiledInt8, TiledInt4])
def test_no_rows_come_to_no_rows(kind: type[Tiled]):
    assert layer_of(kind, linear())(torch.zeros(0, 96).bfloat16()).shape == (0, 64)


@pytest.mark.parametrize("kind", [TiledBFloat16, TiledCompact, TiledInt8, TiledInt4])
def test_several_threads_come_to_the_bits_of_one(kind: type[Tiled]):
    made = layer_of(kind, linear(2048, 256))
    x = torch.randn(131, 2048, dtype=torch.bfloat16)
    alone = made(x)
    try:
        for threads in (2, 3):
            torch.set_num_threads(threads)
            for _ in range(5):
                assert torch.equal(made(x), alone)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("kind", [TiledBFloat16, TiledCompact, TiledInt8, TiledInt4])
def test_rows_of_another_width_are_refused(kind: type[Tiled]):
    with pytest.raises(AssertionError, match="128 inputs for 96"):
        layer_of(kind, linear())(torch.randn(2, 128).bfloat16())
