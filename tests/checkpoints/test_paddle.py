"""Paddle's pickles are read without paddle, and nothing in them is ever run."""

import io
import os
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openjanus.checkpoints.paddle import read_pdparams, to_tensor
from openjanus.errors import CheckpointError


def written(tmp_path: Path, value: Any, protocol: int = 4) -> Path:
    path = tmp_path / "model_state.pdparams"
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_come_back_bit_for_bit_whatever_the_protocol(tmp_path: Path, protocol: int):
    generator = np.random.default_rng(0)
    arrays = {
        "single": generator.standard_normal((3, 5)).astype(np.float32),
        "half": generator.standard_normal(7).astype(np.float16),
        "by_columns": np.asfortranarray(generator.standard_normal((4, 6))),
        "big_endian": generator.standard_normal(3).astype(">f4"),
        "one": np.array(2.5, np.float32),
        "empty": np.zeros((0, 2), np.float32),
    }
    for table in (arrays, OrderedDict(arrays)):
        came = read_pdparams(written(tmp_path, table, protocol))
        assert list(came) == list(arrays)
        for name, array in arrays.items():
            assert np.array_equal(to_tensor(came[name]).numpy(), array), name


def test_tensors_written_with_their_name_and_the_table_of_names_are_understood(tmp_path: Path):
    array = np.ones((2, 3), np.float32)
    values = {"a": ("linear_0.w_0", array), "b": array, "StructuredToParameterName@@": {"a": "linear_0.w_0"}}
    assert sorted(read_pdparams(written(tmp_path, values))) == ["a", "b"]


def test_slices_of_a_large_tensor_are_put_together(tmp_path: Path):
    array = np.arange(6, dtype=np.float32)
    values = {
        "a@@.0": array[:4],
        "a@@.1": array[4:],
        "UnpackBigParamInfor@@": {"a": {"OriginShape": (2, 3), "slices": ["a@@.0", "a@@.1"]}},
    }
    came = read_pdparams(written(tmp_path, values, protocol=2))
    assert list(came) == ["a"]
    assert np.array_equal(came["a"], array.reshape(2, 3))


def test_paddles_uint16_is_bfloat16():
    tensor = torch.tensor([1.0, -2.5, 3e38]).bfloat16()
    stored = tensor.view(torch.uint16).numpy()
    assert torch.equal(to_tensor(stored), tensor)


@pytest.mark.filterwarnings("error")
def test_reading_takes_no_second_copy_and_what_is_read_can_be_trained(tmp_path: Path):
    came = read_pdparams(written(tmp_path, {"a": np.zeros(4, np.float32)}))
    tensor = to_tensor(came["a"])
    assert tensor.data_ptr() == came["a"].ctypes.data
    tensor += 1
    assert tensor.tolist() == [1, 1, 1, 1]


class Evil:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = (call, arguments)

    def __reduce__(self) -> Any:
        return self.call


def attacks(trace: Path) -> dict[str, bytes]:
    command = f"touch {trace}"
    code = f"open({str(trace)!r}, 'w')"
    by_hand = {
        "inst": f"(S{command!r}\nios\nsystem\n.".encode(),
        "dotted": b"\x80\x04\x8c\x05numpy\x8c\x11dtype.__class__\x93" + pickle.dumps(command)[2:-1] + b"\x85R.",
        "built": b"\x80\x04cnumpy\nndarray\n)\x81}\x8c\x09__class__cos\nsystem\nsb.",
    }
    return {
        "system": pickle.dumps({"w": Evil(os.system, command)}),
        "eval": pickle.dumps({"w": Evil(eval, code)}, protocol=2),
        "exec": pickle.dumps({"w": Evil(exec, code)}),
        "getattr": pickle.dumps({"w": Evil(getattr, "text", "upper")}),
        "numpy_load": pickle.dumps({"w": Evil(np.fromfile, str(trace))}),
        **by_hand,
    }


@pytest.mark.parametrize("attack", ["system", "eval", "exec", "getattr", "numpy_load", "inst", "dotted", "built"])
def test_a_pickle_that_asks_to_run_something_is_refused_before_it_runs(tmp_path: Path, attack: str):
    trace = tmp_path / "trace"
    path = tmp_path / "model_state.pdparams"
    path.write_bytes(attacks(trace)[attack])
    with pytest.raises(CheckpointError, match="cannot be read as Paddle weights") as error:
        read_pdparams(path)
    assert not trace.exists()
    assert "\n" not in str(error.value)


def test_the_attacks_are_real(tmp_path: Path):
    trace = tmp_path / "trace"
    content = attacks(trace)["system"]
    assert any(opcode.name == "REDUCE" for opcode, _, _ in pickletools.genops(content))
    pickle.load(io.BytesIO(content))
    assert trace.exists()


@pytest.mark.parametrize(
    "value",
    [
        {},
        [1, 2],
        {"a": "text"},
        {"a": {"b": np.ones(2)}},
        {"a": np.array(["text"])},
        {"a": np.array([None])},
        {1: np.ones(2)},
    ],
    ids=["empty", "list", "string", "nested", "strings", "objects", "numbered"],
)
def test_what_is_no_table_of_numbers_is_refused(tmp_path: Path, value: Any):
    with pytest.raises(CheckpointError):
        read_pdparams(written(tmp_path, value))


def test_a_truncated_pickle_is_refused_in_one_line(tmp_path: Path):
    path = written(tmp_path, {"a": np.ones(1000, np.float32)})
    content = path.read_bytes()
    for length in (0, 1, 20, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError) as error:
            read_pdparams(path)
        assert "\n" not in str(error.value)
