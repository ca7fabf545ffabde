"""The vision parts of the published sizes, built on the meta device, have the published tensors."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from goldens import layout, part
from openjanus.config import PRESETS, FlowGenerationConfig, TokenGenerationConfig, VAEConfig
from openjanus.models.adaptors import ImageHead, build_adaptor
from openjanus.models.siglip import SiglipTower
from openjanus.models.uvit import ShallowUViTDecoder, ShallowUViTEncoder
from openjanus.models.vae import AutoencoderKL
from openjanus.models.vq import VQTokenizer

PRO = PRESETS["janus-pro-7b"]
FLOW = PRESETS["janusflow-1.3b"]
assert isinstance(PRO.generation, TokenGenerationConfig)
assert isinstance(FLOW.generation, FlowGenerationConfig)
TOKENS, LATENTS = PRO.generation, FLOW.generation

# (layout file, published prefix, how to build the part, its parameters)
PARTS: list[tuple[str, str, Callable[[], nn.Module], int]] = [
    ("janus-pro-7b", "vision_model.", lambda: SiglipTower(PRO.understanding.encoder), 316_283_904),
    ("janus-pro-7b", "aligner.", lambda: build_adaptor(PRO.understanding.adaptor), 20_979_712),
    ("janus-pro-7b", "gen_vision_model.", lambda: VQTokenizer(TOKENS.tokenizer), 71_883_403),
    ("janus-pro-7b", "gen_aligner.", lambda: build_adaptor(TOKENS.adaptor), 16_818_176),
    ("janus-pro-7b", "gen_head.", lambda: ImageHead(4096, TOKENS.head_dim, TOKENS.tokenizer.codebook_size), 83_906_560),
    ("janusflow-1.3b", "vision_und_enc_model.", lambda: SiglipTower(FLOW.understanding.encoder), 316_283_904),
    ("janusflow-1.3b", "vision_gen_enc_model.", lambda: ShallowUViTEncoder(LATENTS.encoder), 21_614_336),
    ("janusflow-1.3b", "vision_gen_dec_model.", lambda: ShallowUViTDecoder(LATENTS.decoder), 50_561_296),
    ("sdxl-vae", "", lambda: AutoencoderKL(VAEConfig()), 83_653_863),
]


@pytest.fixture(params=PARTS, ids=lambda case: f"{case[0]}:{case[1]}")
def published(request: pytest.FixtureRequest) -> tuple[str, str, nn.Module, int]:
    name, prefix, build, parameters = request.param
    with torch.device("meta"):
        return name, prefix, build(), parameters


def test_a_part_built_on_the_meta_device_stays_there(published: tuple[str, str, nn.Module, int]) -> None:
    assert all(tensor.is_meta for tensor in published[2].state_dict().values())


def test_a_part_has_the_published_number_of_parameters(published: tuple[str, str, nn.Module, int]) -> None:
    _, _, module, parameters = published
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters


def test_a_part_has_the_published_names_and_shapes(published: tuple[str, str, nn.Module, int]) -> None:
    name, prefix, module, _ = published
    expected = part(layout(name)["state_dict"], prefix)
    assert {key: list(tensor.shape) for key, tensor in module.state_dict().items()} == expected
