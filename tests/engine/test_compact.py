"""Weights in bfloat16 that are held in three quarters of their bytes."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from openjanus.engine.tiled import TiledBFloat16, TiledCompact, tiled
from openjanus.janus import load
from openjanus.kernels import decode
from openjanus.kernels.decode import HEAD_BYTES, TILE, compact_of, supported, tiles_of_bf16

SOURCE = Path(decode.__file__).with_name("decode.c")


@pytest.fixture(scope="module")
def plainest(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels as a compiler makes them that knows nothing of matrix units, nor of products in pairs."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc here")
    made = tmp_path_factory.mktemp("kernels") / "decode.so"
    command = ["gcc", "-O2", "-shared", "-fPIC", "-fopenmp", "-DWITHOUT_PAIRS", str(SOURCE), "-o", str(made)]
    subprocess.run(command, check=True, timeout=300)
    return decode._typed(ctypes.CDLL(str(made)))


@pytest.fixture(params=["as it is", "with AVX-512 alone"], autouse=True)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernels of this processor, and with those of one that has nothing for bfloat16."""
    if "bf16" not in supported():
        pytest.skip("our kernels do not run on this processor, or were not compiled")
    if request.param == "with AVX-512 alone":
        library = request.getfixturevalue("plainest")
        monkeypatch.setattr(decode, "_library", lambda: library)


def weights(outputs: int, inputs: int) -> Tensor:
    """As trained ones are, and what else there may be: zeros of both signs, whole rows of them, and some far from all others."""
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs, generator=random) * torch.randn(outputs, 1, generator=random).mul(0.5).exp() * 0.02
    weight[3, 5], weight[3, 6], weight[4] = 0, -0.0, 0
    weight[7, 9], weight[8, 11], weight[-1, -1], weight[0, 0] = 300, 1e-30, 1e30, -1e-38
    return weight.bfloat16()


def layer_of(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).bfloat16().requires_grad_(False)
    layer.weight.copy_(weight)
    return layer


def both(weight: Tensor) -> tuple[TiledBFloat16, TiledCompact]:
    layer = layer_of(weight)
    whole = TiledBFloat16(layer)
    compact = compact_of(whole.weight)
    assert compact is not None
    return whole, TiledCompact(layer, compact)


@pytest.mark.parametrize(("outputs", "inputs"), [(64, 96), (160, 416), (96, 1088), (32, 4096)])
def test_products_are_those_of_the_weights_as_they_were_to_the_last_bit(outputs: int, inputs: int):
    whole, compact = both(weights(outputs, inputs))
    for rows in (1, 2, 12, 13, 16, 17, 32, 33, 70, 391):
        x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows)).bfloat16()
        assert torch.equal(compact(x), whole(x)), rows


def test_every_weight_comes_back():
    weight = weights(64, 128)
    weight[0, 0] = 0  # it has no place in float32's ordinary numbers; matrix units and pairs know no others
    _, compact = both(weight)
    for size in (2, 128):
        given = torch.cat([compact(part) for part in torch.eye(128).bfloat16().split(size)])
        assert torch.equal(given.t(), weight)


def test_weights_that_are_no_numbers_stay_what_they_are():
    weight = weights(64, 2048)
    weight[5, 7], weight[6, 8], weight[40, 9] = torch.nan, torch.inf, -torch.inf
    whole, compact = both(weight)
    for rows in (2, 100):
        x = torch.ones(rows, 2048).bfloat16()
        given, wanted = compact(x), whole(x)
        assert torch.equal(given.isnan(), wanted.isnan()) and torch.equal(given.nan_to_num(), wanted.nan_to_num())
        assert given[:, 5].isnan().all() and (given[:, 6] == torch.inf).all() and (given[:, 40] == -torch.inf).all()


def test_three_quarters_of_the_bytes_are_left():
    weight = torch.randn(96, 2048, generator=torch.Generator().manual_seed(0)).mul(0.02).bfloat16()
    _, compact = both(weight)
    rare = compact.weight.nbytes - weight.numel() * 3 // 2 - 96 // TILE * HEAD_BYTES
    # One in 10,000 of normally distributed numbers is so near zero.
    assert 0 < rare < weight.numel() // 1000 * 8


def test_weights_of_too_many_sizes_stay_whole():
    weight = (2.0 ** torch.linspace(-30, 30, 64 * 96).view(64, 96)).bfloat16()
    assert compact_of(tiles_of_bf16(weight)) is None
    kept = tiled(layer_of(weight), "none", few=True)
    assert kept is None or isinstance(kept, TiledBFloat16)


@pytest.mark.parametrize(("name", "kind"), [("janus-tiny", TiledCompact), ("janusflow-tiny", TiledBFloat16)])
def test_a_model_whose_pictures_pass_in_many_rows_is_held_whole(name: str, kind: type[nn.Module]):
    janus = load(name, device="cpu", dtype="bfloat16")
    held = {type(part) for part in janus.model.language.modules() if isinstance(part, TiledBFloat16 | TiledCompact)}
    # Torch's kernels are faster where there are matrix units that our compiler did not know.
    assert held in ({kind}, set())
