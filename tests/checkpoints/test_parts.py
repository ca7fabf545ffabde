"""Parts of other projects compute as they do there, and are refused with a way out where they cannot."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import foreign_parts
from foreign_parts import CODES, llama, llamagen, siglip
from openjanus.checkpoints.assembly import assemble
from openjanus.checkpoints.layouts import slots
from openjanus.checkpoints.load import build_empty, load_checkpoint
from openjanus.checkpoints.parts import Part, find_part
from openjanus.checkpoints.save import save_checkpoint
from openjanus.config import FlowGenerationConfig, LanguageConfig, TowerConfig, VAEConfig
from openjanus.errors import CheckpointError, ConfigError, JanusError
from openjanus.models.janus import JanusModel
from openjanus.models.llama import Llama
from openjanus.models.siglip import SiglipTower
from openjanus.models.vae import AutoencoderKL
from openjanus.models.vq import VQTokenizer
from openjanus.processing.tokenizer import EOS, SPECIAL_TOKENS
from openjanus.train.part_files import save_vae

TEXTS = ["how many circles are red?", " the circles", "a</s>b", "naïve 図 \n\n x"]


def found(name: Path) -> Part:
    part = find_part(str(name))
    assert part is not None
    return part


def own(part: Part) -> dict[str, torch.Tensor]:
    """The tensors of a part by the names its module has."""
    return {name.removeprefix(f"{part.place}."): tensor for name, tensor in part.read().items()}


# -- the vision tower ------------------------------------------------------------------


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("activation", ["gelu_pytorch_tanh", "gelu"])
def test_a_siglip_sees_what_transformers_sees(tmp_path: Path, alone: bool, activation: str):
    theirs = siglip(tmp_path, alone, hidden_act=activation)
    part = found(tmp_path)
    assert isinstance(part.config, TowerConfig) and part.config.activation == activation
    tower = SiglipTower(part.config).eval()
    left = tower.load_state_dict(own(part), strict=False)
    assert not left.unexpected_keys and {name.split(".")[1] for name in left.missing_keys} == {"attn_pool"}
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        seen, wanted = tower(pixels), theirs(pixels).last_hidden_state
    torch.testing.assert_close(seen, wanted, atol=1e-5, rtol=1e-5)


def test_the_sizes_of_published_siglips_are_those_they_were_trained_with(tmp_path: Path):
    tmp_path.joinpath("model.safetensors").touch()
    towers = {
        # Published files leave out what SiglipVisionConfig assumes.
        "siglip-base-patch16-224": ({}, (16, 768, 12, 12, 3072), "siglip_large_patch16_384"),
        "siglip-large-patch16-384": (
            {
                "hidden_size": 1024,
                "image_size": 384,
                "intermediate_size": 4096,
                "num_attention_heads": 16,
                "num_hidden_layers": 24,
            },
            (16, 1024, 24, 16, 4096),
            "siglip_large_patch16_384",
        ),
        "siglip-so400m-patch14-384": (
            {
                **{"hidden_size": 1152, "image_size": 384, "intermediate_size": 4304, "num_attention_heads": 16},
                **{"num_hidden_layers": 27, "patch_size": 14},
            },
            (14, 1152, 27, 16, 4304),
            "siglip_so400m_patch14_384",
        ),
    }
    for vision, sizes, name in towers.values():
        values = {"model_type": "siglip", "vision_config": {"model_type": "siglip_vision_model", **vision}}
        (tmp_path / "config.json").write_text(json.dumps(values))
        config = found(tmp_path).config
        assert isinstance(config, TowerConfig)
        hidden = int(config.width * config.mlp_ratio)
        assert (config.patch_size, config.width, config.layers, config.heads, hidden) == sizes
        assert (config.model_name, config.activation, config.depth) == (name, "gelu_pytorch_tanh", sizes[2])


# -- the language model ----------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_a_llama_says_of_old_tokens_what_transformers_says(tmp_path: Path, tied: bool):
    language = llama(tmp_path, tie_word_embeddings=tied, rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
    part = found(tmp_path)
    assert isinstance(part.config, LanguageConfig) and part.config.kv_heads == 2
    ours = Llama(part.config).eval()
    ours.load_state_dict(own(part))
    ids = torch.tensor([language.tokenizer.encode("<s>how many circles are red?")])
    with torch.no_grad():
        logits = ours.logits(ours(ours.embed(ids), torch.arange(ids.shape[1])[None]))
        wanted = language.model(ids).logits
    old = wanted.shape[-1]
    torch.testing.assert_close(logits[..., :old], wanted, atol=1e-5, rtol=1e-5)
    # The two tables train apart from now on.
    assert ours.lm_head.weight.data_ptr() != ours.model.embed_tokens.weight.data_ptr()


def test_old_text_is_read_as_before_and_special_tokens_are_whole(tmp_path: Path):
    language = llama(tmp_path)
    part = found(tmp_path)
    assert part.vocabulary is not None
    tokenizer = part.vocabulary.tokenizer
    for text in TEXTS:
        assert tokenizer.encode(text) == [tokenizer.bos, *language.tokenizer.encode(text, add_special_tokens=False)]
    assert tokenizer.bos == language.tokenizer.convert_tokens_to_ids("<s>")
    for token in SPECIAL_TOKENS[1:]:
        _, before, id, after = tokenizer.encode(f"a{token}a")
        assert id == tokenizer.id_of(token) and before == after
        assert tokenizer.is_special(id)
        assert id < part.vocabulary.rows
    assert tokenizer.eos == tokenizer.id_of(EOS) and tokenizer.decode(tokenizer.encode("how many?" + EOS)) == "how many?"


@pytest.mark.parametrize("spare", [0, 40])
def test_new_rows_begin_sensibly_and_old_ones_as_they_were(tmp_path: Path, spare: int):
    rows = foreign_parts.byte_level(["<s>", "</s>"]).get_vocab_size() + spare
    language = llama(tmp_path, rows=rows)
    part = found(tmp_path)
    vocabulary, tensors = part.vocabulary, part.read()
    assert vocabulary is not None and isinstance(part.config, LanguageConfig)
    assert part.config.vocab_size == vocabulary.rows
    assert vocabulary.rows == rows if spare else vocabulary.rows % 64 == 0 and vocabulary.rows > rows
    eos, ended = vocabulary.tokenizer.eos, language.tokenizer.convert_tokens_to_ids("</s>")
    drawn = [id for id in vocabulary.added if id != eos]
    untouched = [id for id in range(rows) if id not in vocabulary.added]
    assert len(drawn) == len(SPECIAL_TOKENS) - 2
    embeddings, head = tensors["language.model.embed_tokens.weight"], tensors["language.lm_head.weight"]
    theirs = language.model.state_dict()
    for new, old in ((embeddings, theirs["model.embed_tokens.weight"]), (head, theirs["lm_head.weight"])):
        assert torch.equal(new[untouched], old[untouched]) and torch.equal(new[eos], old[ended])
    torch.testing.assert_close(head[drawn], theirs["lm_head.weight"].mean(0).expand(len(drawn), -1))
    # As far from the mean as other words are, and each elsewhere.
    apart = embeddings[drawn] - theirs["model.embed_tokens.weight"].mean(0)
    assert 0.5 < float(apart.std() / theirs["model.embed_tokens.weight"].std()) < 1.5
    assert len({tuple(row) for row in apart.tolist()}) == len(drawn)
    assert torch.equal(embeddings, found(tmp_path).read()["language.model.embed_tokens.weight"]), "the same on every process"


# -- the image tokenizer ---------------------------------------------------------------


@pytest.mark.parametrize("key", ["model", "ema", None])
def test_a_llamagen_file_becomes_the_tokenizer_it_is(tmp_path: Path, key: str | None):
    path = tmp_path / "vq_ds16_t2i.pt"
    theirs = llamagen(path)
    state = theirs.state_dict()
    torch.save(state if key is None else {key: state, "steps": 7, "optimizer": {"lr": 1.0}}, path)
    part = found(path)
    assert part.config == CODES
    again = VQTokenizer(CODES)
    again.load_state_dict(own(part))
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())


# -- together --------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Path]:
    made = {"language": tmp_path / "llama", "tower": tmp_path / "siglip", "codes": tmp_path / "vq.pt"}
    llama(made["language"])
    siglip(made["tower"])
    llamagen(made["codes"])
    return made


def test_parts_alone_make_a_janus_of_their_sizes_that_saves_and_loads(parts: dict[str, Path], tmp_path: Path):
    begun = assemble([str(path) for path in parts.values()])
    config = begun.config
    assert (config.understanding.adaptor.input_dim, config.understanding.adaptor.n_embed) == (24, 32)
    assert config.generation.image_size == (32, 32) and config.generation.positions == 64
    assert config.generation.adaptor.input_dim == 8 and config.generation.head_dim == 32  # type: ignore[union-attr]
    assert begun.processor.vocab_size == config.language.vocab_size and begun.processor.context == 512
    assert assemble([str(path) for path in parts.values()], weights=False).config == config
    model = JanusModel(config)
    save_checkpoint(model, begun.processor, tmp_path / "janus")
    again = load_checkpoint(tmp_path / "janus")
    assert again.config == config
    assert again.processor.tokenizer.encode("<|User|>: red") == begun.processor.tokenizer.encode("<|User|>: red")
    assert again.processor.chat == begun.processor.chat
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(again.model.understanding.read(pixels), model.understanding.read(pixels))


def test_a_vae_makes_parts_a_janusflow(parts: dict[str, Path], tmp_path: Path):
    vae = VAEConfig(block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=8, scaling_factor=0.5)
    state = AutoencoderKL(vae).state_dict()
    save_vae(tmp_path / "flow", state, vae)
    # As the folder around a vae/, and as that folder itself, as diffusers publishes one.
    for place in (tmp_path / "flow", tmp_path / "flow" / "vae"):
        begun = assemble([str(parts["language"]), str(parts["tower"]), str(place)])
        generation = begun.config.generation
        assert isinstance(generation, FlowGenerationConfig) and generation.vae == vae
        assert (generation.latent_size, generation.encoder.hidden_size, generation.decoder.hidden_size) == ((16, 16), 32, 32)
        assert begun.config.understanding.begin and begun.processor.begin_is_slot
        assert begun.processor.chat.roles == ("User", "Assistant")
        read = own(found(place))
        assert read.keys() == state.keys() and all(torch.equal(read[name], state[name]) for name in state)
        assert slots(build_empty(begun.config))
    with pytest.raises(CheckpointError, match=r"vq\.pt is for painting with codes, .*flow with latents; give one of them"):
        assemble([*map(str, parts.values()), str(tmp_path / "flow")])


def test_a_part_takes_the_place_of_a_checkpoints(parts: dict[str, Path], checkpoint: Path):
    """The tower has the checkpoint's width, but reads larger pictures; the language model is one of another vocabulary."""
    before = load_checkpoint(checkpoint)
    begun = assemble([str(checkpoint), str(parts["tower"]), str(parts["language"])])
    assert begun.config.understanding.encoder.image_size == begun.processor.images.config.image_size == 32
    assert begun.config.generation.image_size == before.config.generation.image_size
    assert begun.processor.slots_per_image == begun.config.understanding.slots == 16 + before.config.understanding.begin
    assert begun.processor.chat == before.processor.chat
    assert begun.processor.tokenizer.bos != before.processor.tokenizer.bos
    assert begun.config.understanding.adaptor.projector_type == before.config.understanding.adaptor.projector_type


# -- refusals --------------------------------------------------------------------------


def rewrite(folder: Path, inside: str | None = None, **values: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    (config[inside] if inside else config).update(values)
    path.write_text(json.dumps(config))


SCALED = {"rope_type": "llama3", "factor": 8.0, "rope_theta": 500000.0}


@pytest.mark.parametrize(
    ("part", "inside", "values", "message"),
    [
        ("language", None, {"model_type": "qwen2"}, "is a 'qwen2', which is no part of a Janus; give a language model"),
        ("language", None, {"rope_parameters": SCALED}, r"rope_type is 'llama3'; openjanus runs plain rotary positions"),
        ("language", None, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "type is 'linear'; openjanus runs plain"),
        ("language", None, {"attention_bias": True}, "attention_bias is True; openjanus runs Llamas without it"),
        ("language", None, {"hidden_act": "gelu"}, "hidden_act is 'gelu'; openjanus runs 'silu'"),
        ("language", None, {"num_key_value_heads": 3}, "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
        ("language", None, {"model_type": "mistral", "sliding_window": 128}, "sliding_window is 128; openjanus attends to every"),
        ("language", None, {"quantization_config": {"quant_method": "gptq"}}, "Fetch the unquantised checkpoint"),
        ("language", None, {"num_hidden_layers": 3}, r"not those of a language model .* 9 missing \(model\.layers\.2"),
        ("language", None, {"vocab_size": 200}, "has 2[0-9]+ entries, but the language model beside it has embeddings for 200"),
        ("tower", "vision_config", {"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'; openjanus runs gelu or"),
        ("tower", "vision_config", {"layer_norm_eps": 1e-5}, r"vision_config\.layer_norm_eps is 1e-05; openjanus runs 1e-06"),
        ("tower", "vision_config", {"num_attention_heads": 5}, "width 24 is not a multiple of heads 5"),
        ("tower", None, {"model_type": "clip"}, "is a 'clip', which is no part of a Janus"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    parts: dict[str, Path], part: str, inside: str | None, values: dict[str, Any], message: str
):
    rewrite(parts[part], inside, **values)
    with pytest.raises((CheckpointError, ConfigError), match=message):
        found(parts[part]).read()


def test_a_mistral_without_a_window_is_a_llama(parts: dict[str, Path]):
    rewrite(parts["language"], model_type="mistral", sliding_window=None)
    assert "language.model.norm.weight" in found(parts["language"]).read()


def test_a_tower_for_other_pixels_is_refused(parts: dict[str, Path]):
    (parts["tower"] / "preprocessor_config.json").write_text('{"image_mean": [0.48, 0.46, 0.41], "image_std": [0.5, 0.5, 0.5]}')
    with pytest.raises(ConfigError, match=r"preprocessor_config\.json has image_mean \[0\.48"):
        found(parts["tower"])


def test_a_special_token_that_is_an_ordinary_word_is_a_clash(tmp_path: Path):
    llama(tmp_path, backend=foreign_parts.word_level(["?", "a", "<begin_of_image>"]))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json has <begin_of_image> as an ordinary word"):
        found(tmp_path)


def test_files_that_are_no_tokenizers_are_refused(tmp_path: Path):
    path = tmp_path / "vq.pt"
    torch.save({"model": {"model.layers.0.weight": torch.zeros(2)}}, path)
    with pytest.raises(CheckpointError, match=r"not the weights of LlamaGen's image tokenizer .* of a bare language model"):
        found(path)
    torch.save({"model": llamagen(path).state_dict(), "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(CheckpointError, match="holds Python objects beside its tensors, which could run anything"):
        found(path)
    state = llamagen(path).state_dict()
    del state["decoder.conv_out.bias"]
    torch.save({"model": state}, path)
    with pytest.raises(CheckpointError, match=r"not those of an image tokenizer .* 1 missing \(decoder\.conv_out\.bias\)"):
        found(path).read()
    path.with_suffix(".zip").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"is no weight file that can be read; give a \.safetensors, \.pt"):
        found(path.with_suffix(".zip"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["language", "codes"], "beside .*llama and .*vq.pt a Janus needs a vision tower; give a whole Janus first"),
        (["language", "tower"], "a Janus needs an image tokenizer or a VAE"),
        (["language", "tower", "codes", "again"], "llama and .*again are both a language model; give one of them"),
    ],
)
def test_parts_that_make_no_whole_are_refused(parts: dict[str, Path], tmp_path: Path, given: list[str], message: str):
    parts["again"] = tmp_path / "again"
    if "again" in given:
        llama(parts["again"])
    with pytest.raises(CheckpointError, match=message):
        assemble([str(parts[name]) for name in given])


def test_a_language_model_without_a_tokenizer_says_how_to_write_one(parts: dict[str, Path]):
    (parts["language"] / "tokenizer.json").unlink()
    with pytest.raises(JanusError, match=r"has no tokenizer\.json .*; write its tokenizer there: transformers\.AutoTokenizer"):
        assemble([str(path) for path in parts.values()])
