"""Every format and layout gives the same model; every fault gives one line that says what it is."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from openjanus.checkpoints.load import load_checkpoint
from openjanus.checkpoints.locate import SDXL_VAE
from openjanus.errors import CheckpointError, ConfigError, JanusError

from .conftest import Save, assert_same_tensors
from .spoiling import FORMATS, WHOLE, paddle_layout, paddle_tensors, take_tensors, write_pdparams


def one_line(error: pytest.ExceptionInfo[JanusError]) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 700
    return text


@pytest.mark.parametrize("kind", FORMATS)
def test_every_file_format_gives_every_bit(save: Save, variant: str, kind: str):
    folder = save(variant)
    FORMATS[kind](folder)
    loaded = load_checkpoint(folder)
    assert loaded.layout == "deepseek"
    assert loaded.config == tiny.CONFIGS[variant]
    assert_same_tensors(loaded.model.state_dict(), tiny.tiny_model(variant).state_dict())
    assert not any(tensor.is_meta for tensor in [*loaded.model.parameters(), *loaded.model.buffers()])


@pytest.mark.parametrize("llama", ["model", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_paddlemix_pickles_give_every_bit(save: Save, variant: str, llama: str, dtype: torch.dtype):
    folder = save(variant, dtype=dtype)
    (folder / WHOLE).unlink()
    model = tiny.tiny_model(variant, dtype)
    tensors = paddle_tensors(model, variant, llama)
    write_pdparams(tensors, folder / "model_state.pdparams")
    loaded = load_checkpoint(folder)
    assert loaded.layout == "paddlemix"
    assert paddle_layout(variant, llama).name == "paddlemix"
    assert_same_tensors(loaded.model.state_dict(), model.state_dict())


@pytest.mark.parametrize("bfloat16_as", [torch.bfloat16, torch.uint16])
def test_paddlemix_safetensors_are_told_by_their_shapes(save: Save, variant: str, bfloat16_as: torch.dtype):
    folder = save(variant, dtype=torch.bfloat16)
    model = tiny.tiny_model(variant, torch.bfloat16)
    tensors = {name: tensor.view(bfloat16_as) for name, tensor in paddle_tensors(model, variant).items()}
    save_file(tensors, folder / WHOLE, metadata={"format": "pd"})
    loaded = load_checkpoint(folder)
    assert loaded.layout == "paddlemix"
    assert_same_tensors(loaded.model.state_dict(), model.state_dict())


def test_paddlemix_shards_are_read(save: Save, variant: str):
    folder = save(variant)
    (folder / WHOLE).unlink()
    tensors = list(paddle_tensors(tiny.tiny_model(variant), variant).items())
    for i in range(3):
        write_pdparams(dict(tensors[i::3]), folder / f"model_state-{i + 1:05d}-of-00003.pdparams")
    assert_same_tensors(load_checkpoint(folder).model.state_dict(), tiny.tiny_model(variant).state_dict())


def test_without_a_dtype_the_checkpoints_own_is_kept(save: Save, variant: str):
    for dtype in (torch.float32, torch.bfloat16):
        model = load_checkpoint(save(variant, str(dtype), dtype=dtype)).model
        assert {tensor.dtype for tensor in model.state_dict().values()} == {dtype}


def test_a_dtype_converts_everything(saved: Path):
    model = load_checkpoint(saved, dtype=torch.bfloat16).model
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}


def test_a_vae_never_becomes_float16(save: Save):
    model = load_checkpoint(save("janusflow"), dtype=torch.float16).model
    dtypes = {name.startswith("generation.vae."): tensor.dtype for name, tensor in model.state_dict().items()}
    assert dtypes == {True: torch.float32, False: torch.float16}


def test_of_mixed_dtypes_the_commonest_counts(save: Save):
    folder = save("janus", dtype=torch.bfloat16)
    tensors = take_tensors(folder)
    name = "language_model.model.norm.weight"
    save_file({**tensors, name: tensors[name].float()}, folder / WHOLE)
    assert {tensor.dtype for tensor in load_checkpoint(folder).model.state_dict().values()} == {torch.bfloat16}


def test_weights_of_the_right_dtype_are_not_copied(save: Save):
    folder = save("janus")
    content = (folder / WHOLE).read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    addresses = {name: tensor.data_ptr() for name, tensor in load_checkpoint(folder).model.language.state_dict().items()}
    # In memory they lie as far apart as in the file, so they are the file's map; copies would lie anywhere.
    starts = {address - header[f"language_model.{name}"]["data_offsets"][0] for name, address in addresses.items()}
    assert len(starts) == 1


def test_writing_into_a_loaded_weight_does_not_change_the_file(saved: Path):
    before = (saved / WHOLE).read_bytes()
    model = load_checkpoint(saved).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert (saved / WHOLE).read_bytes() == before


def test_loaded_parameters_can_be_trained(saved: Path):
    assert all(parameter.requires_grad for parameter in load_checkpoint(saved).model.parameters())


# -- what does not fit ------------------------------------------------------------------------


def spoil(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = take_tensors(folder)
    change(tensors)
    save_file(tensors, folder / WHOLE)


def test_one_report_tells_what_is_missing_extra_and_misshapen(save: Save):
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for i in range(4):
            del tensors[f"vision_model.vision_tower.blocks.0.{('norm1', 'norm2')[i // 2]}.{('weight', 'bias')[i % 2]}"]
        tensors["lora.weight"] = torch.zeros(1)
        tensors["gen_embed.weight"] = torch.zeros(3, 8)

    folder = save("janus")
    spoil(folder, change)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(folder)
    text = one_line(error)
    for words in (
        "4 missing",
        "norm1.weight",
        "...",
        "1 extra (lora.weight)",
        "1 misshapen",
        "[3, 8] instead of [48, 8]",
        "deepseek",
    ):
        assert words in text, text


def test_the_weights_of_the_other_variant_are_recognised(save: Save):
    for variant, other, words in (("janus", "janusflow", "JanusFlow"), ("janusflow", "janus", "Janus or Janus-Pro")):
        folder, wrong = save(variant, variant), save(other, f"other-{other}")
        (wrong / WHOLE).replace(folder / WHOLE)
        with pytest.raises(CheckpointError, match=words) as error:
            load_checkpoint(folder)
        one_line(error)


def test_a_missing_unused_tensor_of_the_published_layout_is_missing_all_the_same(save: Save):
    folder = save("janus")
    spoil(folder, lambda tensors: tensors.pop("gen_vision_model.quantize.codebook_used"))
    with pytest.raises(CheckpointError, match="1 missing"):
        load_checkpoint(folder)


@pytest.mark.parametrize("length", [0, 4, 100, 5000, -1])
@pytest.mark.parametrize("kind", ["safetensors", "bin", "bin before torch 1.6", "safetensors shards with index"])
def test_a_truncated_file_is_named(save: Save, kind: str, length: int):
    folder = save("janus")
    FORMATS[kind](folder)
    path = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin"))[-1]
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=path.name) as error:
        load_checkpoint(folder)
    one_line(error)


def test_other_content_under_a_weight_files_name_is_refused(save: Save):
    folder = save("janus")
    for content, word in (
        (b"hello, this is no checkpoint at all", "damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 4\n", "git lfs pull"),
    ):
        (folder / WHOLE).write_bytes(content)
        with pytest.raises(CheckpointError, match=word) as error:
            load_checkpoint(folder)
        one_line(error)


class _Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> object:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_bin_file_that_asks_to_run_something_is_refused_before_it_runs(save: Save, tmp_path: Path):
    folder = save("janus")
    (folder / WHOLE).unlink()
    trace = tmp_path / "trace"
    for legacy in (False, True):
        torch.save({"w": _Evil(trace)}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(folder)
        one_line(error)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Evil(trace)))
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)
    assert not trace.exists()


def test_a_bin_file_of_something_else_is_refused(save: Save):
    folder = save("janus")
    (folder / WHOLE).unlink()
    for content in ({"optimizer": {"a": torch.ones(1)}}, [torch.ones(1)], {}, {"a": torch.ones(1, dtype=torch.int8)}):
        torch.save(content, folder / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin") as error:
            load_checkpoint(folder)
        one_line(error)


def test_quantised_weights_are_refused_by_name(save: Save):
    folder = save("janus")
    spoil(folder, lambda tensors: tensors.update({"gen_embed.weight": torch.zeros(48, 8, dtype=torch.int8)}))
    with pytest.raises(CheckpointError, match=r"gen_embed\.weight is stored as torch\.int8 without scales"):
        load_checkpoint(folder)


@pytest.mark.parametrize("index", [True, False])
def test_absent_shards_are_named(save: Save, index: bool):
    folder = save("janus")
    FORMATS[f"safetensors shards {'with' if index else 'without'} index"](folder)
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks 1 of its 2 weight files \(model-00001-of-00002\.safetensors\)"):
        load_checkpoint(folder)


def test_a_name_in_two_shards_is_refused(save: Save):
    folder = save("janus")
    tensors = take_tensors(folder)
    for i in (1, 2):
        save_file(tensors, folder / f"model-{i:05d}-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="stands in"):
        load_checkpoint(folder)


def test_a_damaged_index_is_refused(save: Save):
    folder = save("janus")
    FORMATS["safetensors shards with index"](folder)
    for content in ("{", "[]", "{}", '{"weight_map": {"a": 1}}'):
        (folder / "model.safetensors.index.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"index\.json"):
            load_checkpoint(folder)


def test_a_folder_without_weights_says_what_was_looked_for(saved: Path):
    (saved / WHOLE).unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*pytorch_model\.bin.*model_state\.pdparams"):
        load_checkpoint(saved)


def test_the_config_of_an_unknown_model_is_refused_with_the_known_ones(saved: Path):
    for model_type in ("llama", None):
        (saved / "config.json").write_text(json.dumps({"model_type": model_type}))
        with pytest.raises(ConfigError, match="multi_modality") as error:
            load_checkpoint(saved)
        assert repr(model_type) in one_line(error)


def test_a_broken_config_names_its_file(saved: Path):
    values = json.loads((saved / "config.json").read_text())
    values["language_config"]["hidden_size"] = -1
    (saved / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"config\.json: language_config\.hidden_size"):
        load_checkpoint(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_checkpoint(saved)
    (saved / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        load_checkpoint(saved)


# -- the VAE of JanusFlow ---------------------------------------------------------------------


def vae_tensors(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    path.unlink()
    return tensors


@pytest.mark.parametrize("convolution", [False, True])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_vae_with_the_old_attention_names_is_read(save: Save, convolution: bool, kind: str):
    folder = save("janusflow")
    renamed = {}
    for name, tensor in vae_tensors(folder).items():
        old = name
        for new, former in ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")):
            old = old.replace(new, former)
        renamed[old] = tensor[:, :, None, None] if convolution and old != name and tensor.dim() == 2 else tensor
    if kind == "bin":
        torch.save(renamed, folder / "vae" / "diffusion_pytorch_model.bin")
    else:
        save_file(renamed, folder / "vae" / "diffusion_pytorch_model.safetensors")
    assert_same_tensors(load_checkpoint(folder).model.state_dict(), tiny.tiny_model("janusflow").state_dict())


def remove_vae(folder: Path) -> None:
    vae_tensors(folder)
    (folder / "vae" / "config.json").unlink()
    (folder / "vae").rmdir()


def test_without_a_vae_anywhere_a_flow_model_reads_images_and_says_why_it_cannot_paint(save: Save):
    folder = save("janusflow")
    remove_vae(folder)
    model = load_checkpoint(folder).model
    assert model.generation.vae is None
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    with pytest.raises(CheckpointError, match=SDXL_VAE):
        model.generation.decode(torch.zeros(1, 4, 6, 10))


def test_without_a_vae_of_its_own_a_flow_model_takes_the_sdxl_vae_from_the_cache(
    save: Save, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    folder = save("janusflow")
    (folder / "vae").rename(tmp_path / "cached")
    monkeypatch.setattr("openjanus.checkpoints.locate.snapshot_download", lambda name, **_: str(tmp_path / "cached"))
    loaded = load_checkpoint(folder)
    assert_same_tensors(loaded.model.state_dict(), tiny.tiny_model("janusflow").state_dict())
    assert loaded.config == tiny.CONFIGS["janusflow"]


def test_a_vae_folder_that_is_incomplete_is_not_passed_over(save: Save):
    folder = save("janusflow")
    vae_tensors(folder)
    with pytest.raises(CheckpointError, match="vae holds no weights"):
        load_checkpoint(folder)


def test_a_vae_that_does_not_fit_is_refused_by_name(save: Save):
    folder = save("janusflow")
    path = folder / "vae" / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "latent_channels": 16}))
    with pytest.raises(ConfigError, match="latent_channels is 16"):
        load_checkpoint(folder)
    path.write_text(json.dumps({**values, "layers_per_block": 2}))
    with pytest.raises(CheckpointError, match="missing"):
        load_checkpoint(folder)
    path.write_text(json.dumps({**values, "_class_name": "VQModel"}))
    with pytest.raises(ConfigError, match="VQModel"):
        load_checkpoint(folder)
