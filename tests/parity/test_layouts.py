"""The published models, built on the meta device, have the published tensors: key for key, shape for shape."""

import pytest
import torch

from goldens import layout
from openjanus.checkpoints.layouts import (
    DEEPSEEK,
    DEEPSEEK_FLOW,
    TRANSFORMERS,
    VAE_LAYOUTS,
    Form,
    Layout,
    Slot,
    only_vae,
    published_name,
    slots,
    without_vae,
)
from openjanus.checkpoints.schema import parse_published, to_published
from openjanus.config import PRESETS
from openjanus.models.janus import JanusModel

CONFIG_KEY = "config.json (values verified/inferred as in README.md)"


def preset_slots(name: str) -> dict[str, Slot]:
    with torch.device("meta"):
        return slots(JanusModel(PRESETS[name]))


def stored_shapes(stored_as: Layout, wanted: dict[str, Slot]) -> dict[str, list[int]]:
    table = stored_as.table(wanted)
    return {name: list(stored.shape) for stored in table.values() if stored for name in stored.names}


@pytest.mark.parametrize("name", ["janus-1.3b", "janus-pro-1b", "janus-pro-7b"])
def test_a_janus_preset_has_the_published_tensors(name: str):
    published = layout(name)
    shapes = stored_shapes(DEEPSEEK, preset_slots(name))
    assert shapes == published["state_dict"]
    assert len(shapes) == published["num_tensors"]
    assert set(published["buffers_in_state_dict"]) == {"gen_vision_model.quantize.codebook_used"} <= set(shapes)


def test_the_janusflow_preset_has_the_published_tensors():
    published = layout("janusflow-1.3b")
    shapes = stored_shapes(DEEPSEEK_FLOW, without_vae(preset_slots("janusflow-1.3b")))
    assert shapes == published["state_dict"]
    assert len(shapes) == published["num_tensors"]


@pytest.mark.parametrize("old", [False, True])
def test_the_vae_of_janusflow_has_the_tensors_of_the_sdxl_vae(old: bool):
    published = layout("sdxl-vae")["state_dict"]
    stored_as = VAE_LAYOUTS[1 if old else 0]
    if old:
        for new, former in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            published = {key.replace(f".{new}.", f".{former}."): shape for key, shape in published.items()}
    assert stored_shapes(stored_as, only_vae(preset_slots("janusflow-1.3b"))) == published


@pytest.mark.parametrize("name", ["janus-pro-1b", "janus-pro-7b"])
def test_a_janus_pro_preset_mapped_to_transformers_has_its_tensors(name: str):
    assert stored_shapes(TRANSFORMERS, preset_slots(name)) == layout(f"hf-{name}")["state_dict"]


def test_the_mapping_to_transformers_is_the_recorded_one_rule_for_rule():
    recorded = layout("hf_mapping")["table"]
    forms = {Form.SAME: "copy", Form.JOINED: "split3_dim0", Form.FLAT: "squeeze0"}
    wanted = preset_slots("janus-pro-1b")
    ours = {
        published_name(name): (forms[stored.form], list(stored.names)) if stored else ("drop", [])
        for name, stored in TRANSFORMERS.table(wanted).items()
    }
    assert ours == {name: (rule["op"], rule.get("to") or []) for name, rule in recorded.items()}


@pytest.mark.parametrize("name", PRESETS)
def test_the_published_config_describes_the_preset_and_is_written_back_unchanged(name: str):
    published = layout(name)[CONFIG_KEY]
    config = parse_published(published)
    assert config == PRESETS[name]
    assert to_published(config, published) == published
    assert to_published(config, dtype="bfloat16") == published


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_published_number_of_parameters(name: str):
    with torch.device("meta"):
        model = JanusModel(PRESETS[name])
    counted = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("generation.vae."))
    assert counted == layout(name)["parameter_counts"]["total_parameters"]
