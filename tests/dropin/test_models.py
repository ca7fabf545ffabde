"""Models under their published names: loading, saving, and everything clients were seen to do with them."""

import copy
import importlib.util
import json
import shutil
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, LlamaConfig, LlamaForCausalLM

import goldens
import janus.janusflow.models
import janus.models
from janus.janusflow.models import uvit
from janus.janusflow.models.modeling_vlm import MultiModalityConfig as FlowConfig
from janus.models import clip_encoder, modeling_vlm, projector, siglip_vit, vq_model
from janus.models.modeling_vlm import MultiModalityConfig
from openjanus.errors import ConfigError

MODELS = {"janus": janus.models.MultiModalityCausalLM, "janusflow": janus.janusflow.models.MultiModalityCausalLM}
PREFIXES = {
    "janus": {"vision_model", "aligner", "gen_vision_model", "gen_aligner", "gen_head", "gen_embed", "language_model"},
    "janusflow": {
        *("vision_und_enc_model", "vision_und_enc_aligner", "beg_of_und_embed", "vision_gen_enc_model", "vision_gen_enc_aligner"),
        *("vision_gen_dec_model", "vision_gen_dec_aligner_norm", "vision_gen_dec_aligner", "language_model"),
    },
}


def load(folder: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(str(folder), trust_remote_code=True, **options)


@pytest.fixture
def model(variant: str, folders: Any) -> Any:
    """A fresh small model of each variant in turn."""
    return load(folders(variant)).eval()


def slots_of(variant: str) -> int:
    return 16 + int(variant == "janusflow")


def make_inputs(variant: str, images: int = 2) -> dict[str, Tensor]:
    """Two rows: one with all its images, one whose last image is padding; negative ids at the slots."""
    generator = torch.Generator().manual_seed(1)
    slots = slots_of(variant)
    ids = torch.randint(0, 300, (2, 4 + images * (slots + 2)), generator=generator)
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    emb = torch.zeros(2, images, slots, dtype=torch.bool)
    for row in range(2):
        for image in range(images - row):
            start = 2 + image * (slots + 1)
            mask[row, start : start + slots] = True
            emb[row, image] = True
    ids[mask] = -1
    pixels = torch.randn(2, images, 3, 16, 16, generator=generator)
    pixels[1, images - 1 :] = 0
    return {"input_ids": ids, "pixel_values": pixels, "images_seq_mask": mask, "images_emb_mask": emb}


# -- sizes and names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["janus-1.3b", "janus-pro-1b", "janus-pro-7b", "janusflow-1.3b"])
def test_tensor_names_and_shapes_are_the_published_ones(name: str) -> None:
    layout = goldens.layout(name)
    config = MultiModalityConfig.from_dict(layout["config.json (values verified/inferred as in README.md)"])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert {key: list(tensor.shape) for key, tensor in model.state_dict().items()} == layout["state_dict"]


def test_parameters_have_the_published_prefixes(variant: str, model: Any) -> None:
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == PREFIXES[variant]
    assert isinstance(model, MODELS[variant])
    assert isinstance(model.language_model, LlamaForCausalLM)
    assert model.device == torch.device("cpu")
    assert model.dtype == torch.float32


def test_every_published_name_is_there() -> None:
    names: dict[Any, str] = {
        modeling_vlm: "MultiModalityCausalLM vision_head model_name_to_cls VisionConfig AlignerConfig GenVisionConfig "
        "GenAlignerConfig GenHeadConfig MultiModalityConfig MultiModalityPreTrainedModel",
        janus.models.processing_vlm: "DictOutput VLChatProcessor VLChatProcessorOutput BatchedVLChatProcessorOutput",
        janus.models.image_processing_vlm: "VLMImageProcessor VLMImageProcessorConfig expand2square IMAGENET_MEAN IMAGENET_STD "
        "IMAGENET_INCEPTION_MEAN IMAGENET_INCEPTION_STD",
        clip_encoder: "CLIPVisionTower",
        siglip_vit: "VisionTransformer Attention Block LayerScale SigLIPVisionCfg SigLIP_MODEL_CONFIG create_siglip_vit",
        projector: "MlpProjector",
        vq_model: "VQModel VQ_16 VQ_models ModelArgs Encoder Decoder VectorQuantizer ResnetBlock AttnBlock Upsample Downsample "
        "Normalize nonlinearity compute_entropy_loss",
        uvit: "ShallowUViTEncoder ShallowUViTDecoder ConvNextBlock GlobalResponseNorm",
        janus.janusflow.models: "MultiModalityCausalLM VLChatProcessor VLMImageProcessor",
        janus.models: "MultiModalityCausalLM VLChatProcessor VLMImageProcessor",
    }
    missing = [
        (module.__name__, name) for module, listed in names.items() for name in listed.split() if not hasattr(module, name)
    ]
    assert missing == []
    for name in ("clip_encoder", "siglip_vit", "image_processing_vlm", "processing_vlm", "modeling_vlm", "uvit"):
        assert importlib.util.find_spec(f"janus.janusflow.models.{name}") is not None


# -- configurations --------------------------------------------------------------------------------------------------------------


def test_params_are_attributes_and_keys(folders: Any) -> None:
    config = AutoConfig.from_pretrained(folders("janus"))
    params = config.gen_vision_config.params
    assert params.image_token_size == params["image_token_size"] == params.get("image_token_size") == 64
    assert config.gen_vision_config.cls == "VQ-16"
    params.image_token_size = 65
    assert dict(**params)["image_token_size"] == 65
    with pytest.raises(AttributeError, match="params has no 'colour'"):
        _ = params.colour
    assert AutoConfig.from_pretrained(folders("janus")).gen_vision_config.params.image_token_size == 64


def test_configurations_survive_copying_and_saving(variant: str, folders: Any, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(folders(variant), trust_remote_code=True)
    kind = type(config)
    config.save_pretrained(tmp_path)
    for again in (
        copy.deepcopy(config),
        AutoConfig.from_pretrained(tmp_path),
        kind(**config.to_dict()),
        kind.from_pretrained(tmp_path),
    ):
        assert type(again) is kind
        for name in kind.parts():
            assert getattr(again, name).params == getattr(config, name).params
            assert getattr(again, name).cls == getattr(config, name).cls
        assert again.language_config.hidden_size == 64
        assert again.language_config.num_key_value_heads == 2
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == "multi_modality"
    assert written["language_config"]["rope_theta"] == 5000.0
    assert {name: written[name]["params"] for name in kind.parts()} == {
        name: json.loads((folders(variant) / "config.json").read_text())[name]["params"] for name in kind.parts()
    }
    assert "multi_modality" in repr(config)


def test_a_configuration_can_be_built_from_parts_or_from_nothing() -> None:
    language = LlamaConfig(hidden_size=32, num_attention_heads=4)
    config = MultiModalityConfig(
        vision_config={"cls": "CLIPVisionTower", "params": {"image_size": 384}}, language_config=language
    )
    assert config.language_config is language
    assert config.vision_config.params.image_size == 384
    assert MultiModalityConfig().gen_head_config.params == {}
    assert FlowConfig().vision_gen_enc_config.cls == ""
    first, second = modeling_vlm.VisionConfig(), modeling_vlm.VisionConfig()
    first.params.image_size = 1
    assert second.params == {}


def test_the_rope_base_of_a_transformers_5_config_is_read() -> None:
    rope = {"rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"}}
    config = MultiModalityConfig(language_config={"hidden_size": 32, "num_attention_heads": 4, **rope}).language_config
    assert getattr(config, "rope_theta", None) == 5000.0 or config.rope_parameters["rope_theta"] == 5000.0


@pytest.mark.parametrize("wanted", ["config", "argument", "kwarg"])
def test_the_attention_implementation_can_be_chosen(variant: str, folders: Any, wanted: str) -> None:
    assert load(folders(variant)).language_model.config._attn_implementation == "sdpa"
    config = AutoConfig.from_pretrained(folders(variant))
    if wanted == "argument":
        model = load(folders(variant), attn_implementation="eager")
    else:
        config.language_config._attn_implementation = "eager"
        options = {"config": config} if wanted == "config" else {"language_config": config.language_config}
        model = load(folders(variant), **options)
    assert model.language_model.config._attn_implementation == "eager"


# -- loading and saving ----------------------------------------------------------------------------------------------------------


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    left, right = first.state_dict(), second.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("options", [{}, {"low_cpu_mem_usage": True}, {"device_map": "cpu"}, {"device_map": "auto"}], ids=str)
def test_loading_options_change_nothing(variant: str, folders: Any, options: Any, tmp_path: Path) -> None:
    if options and importlib.util.find_spec("accelerate") is None:
        pytest.skip("accelerate is not installed")
    model = load(folders(variant), cache_dir=str(tmp_path), **options)
    direct = MODELS[variant].from_pretrained(folders(variant))
    assert same_weights(model, direct)
    assert not model.training
    assert all(parameter.device.type != "meta" for parameter in model.parameters())
    with torch.inference_mode():
        inputs = make_inputs(variant)
        first, second = (each.prepare_inputs_embeds(**inputs) for each in (model, direct))
        torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_dtype_can_be_asked_for(variant: str, folders: Any, name: str, dtype: torch.dtype) -> None:
    model = load(folders(variant), **{name: dtype})
    assert model.dtype == dtype
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_every_kind_of_weight_file_is_read(variant: str, folders: Any, tmp_path: Path, kind: str, shards: bool) -> None:
    model = load(folders(variant))
    state = model.state_dict()
    names = sorted(state)
    parts = [names[::2], names[1::2]] if shards else [names]
    stem = "pytorch_model" if kind == "bin" else "model"
    files = [f"{stem}-{i + 1:05}-of-{len(parts):05}.{kind}" if shards else f"{stem}.{kind}" for i in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        tensors = {name: state[name].clone() for name in part}
        if kind == "bin":
            torch.save(tensors, tmp_path / file)
        else:
            from safetensors.torch import save_file

            save_file(tensors, tmp_path / file, {"format": "pt"})
    if shards:
        index = {"metadata": {}, "weight_map": {name: file for file, part in zip(files, parts, strict=True) for name in part}}
        (tmp_path / f"{stem}.{kind}.index.json").write_text(json.dumps(index))
    shutil.copy(folders(variant) / "config.json", tmp_path)
    assert same_weights(load(tmp_path), model)


def test_saving_and_loading_gives_the_model_back(variant: str, model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "whole")
    assert same_weights(load(tmp_path / "whole"), model)
    state = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    model.save_pretrained(str(tmp_path / "given"), state_dict=state)
    again = load(tmp_path / "given")
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())
    with torch.inference_mode():
        inputs = make_inputs(variant)
        reloaded = load(tmp_path / "whole")
        assert reloaded.language_model.config._attn_implementation == "sdpa"
        embeddings = model.prepare_inputs_embeds(**inputs)
        # Not bit for bit: weights mapped from a file lie in memory otherwise, and the CPU's kernels round otherwise.
        torch.testing.assert_close(reloaded.prepare_inputs_embeds(**inputs), embeddings, atol=1e-5, rtol=0)
        expected = model.language_model(inputs_embeds=embeddings).logits
        torch.testing.assert_close(reloaded.language_model(inputs_embeds=embeddings).logits, expected, atol=1e-5, rtol=0)


def test_a_weight_that_a_checkpoint_lacks_starts_afresh(variant: str, folders: Any, tmp_path: Path) -> None:
    model = load(folders(variant))
    kept = {name: tensor for name, tensor in model.state_dict().items() if "norm" not in name and "codebook_used" not in name}
    dropped = ("pos_embed", "latent", "beg_of_und_embed", "aligner", "mid_block")
    kept = {name: tensor.clone() for name, tensor in kept.items() if not any(part in name for part in dropped)}
    torch.save(kept, tmp_path / "pytorch_model.bin")
    shutil.copy(folders(variant) / "config.json", tmp_path)
    again = load(tmp_path)
    for name, tensor in again.state_dict().items():
        assert tensor.isfinite().all(), name
        assert tensor.abs().max() < 10, name
        if name in kept:
            assert torch.equal(tensor, kept[name]), name
    assert torch.equal(again.language_model.model.norm.weight, torch.ones(64))
    if variant == "janus":
        assert not again.gen_vision_model.quantize.codebook_used.any()


def test_a_model_built_from_a_configuration_keeps_the_init_of_its_parts(variant: str, folders: Any) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folders(variant)))
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    if variant == "janus":
        codebook = model.gen_vision_model.quantize.embedding.weight
        torch.testing.assert_close(codebook.norm(dim=-1), torch.ones(64))
        assert 0.01 < model.vision_model.vision_tower.pos_embed.std().item() < 0.03


def test_both_variants_load_side_by_side(folders: Any) -> None:
    models = {name: load(folders(name)) for name in ("janus", "janusflow", "janus")}
    for name, model in models.items():
        assert isinstance(model, MODELS[name])


def test_the_wrong_class_says_so(folders: Any) -> None:
    with pytest.raises(ValueError, match="AutoModelForCausalLM picks the right one"):
        janus.models.MultiModalityCausalLM.from_pretrained(folders("janusflow"))
    with pytest.raises(ValueError, match="AutoModelForCausalLM picks the right one"):
        janus.janusflow.models.MultiModalityCausalLM.from_pretrained(folders("janus"))


# -- images into text ------------------------------------------------------------------------------------------------------------


def test_embeddings_are_the_texts_and_the_images_and_the_callers_tensors_stay(variant: str, model: Any) -> None:
    inputs = make_inputs(variant)
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    with torch.inference_mode():
        embeddings = model.prepare_inputs_embeds(**inputs, sft_format=["x"], attention_mask=None, labels=3)
        words = model.language_model.get_input_embeddings()(inputs["input_ids"].clamp(min=0).int())
        images = model.read_images(inputs["pixel_values"].flatten(0, 1))
    assert all(torch.equal(inputs[name], before[name]) for name in inputs)
    mask, rows = inputs["images_seq_mask"], images[inputs["images_emb_mask"].flatten(0, 1)]
    torch.testing.assert_close(embeddings[mask], rows)
    assert torch.equal(embeddings[~mask], words[~mask])
    embeddings = embeddings.clone()
    embeddings[:, :2] = 0
    assert torch.equal(model.language_model.get_input_embeddings()(inputs["input_ids"].clamp(min=0))[~mask], words[~mask])


def test_the_tower_runs_only_where_there_are_images(variant: str, model: Any) -> None:
    tower = model.vision_model if variant == "janus" else model.vision_und_enc_model
    read: list[int] = []
    tower.register_forward_pre_hook(lambda _, args: read.append(len(args[0])))
    inputs = make_inputs(variant)
    nothing = torch.zeros_like
    text = inputs | {name: nothing(inputs[name]) for name in ("images_seq_mask", "images_emb_mask")}
    embeddings = model.prepare_inputs_embeds(**text)
    assert read == []
    assert torch.equal(embeddings, model.get_input_embeddings()(text["input_ids"].clamp(min=0)))
    assert torch.equal(model.prepare_inputs_embeds(**text | {"pixel_values": None}), embeddings)
    model.prepare_inputs_embeds(**inputs)
    assert read == [3]
    model.train()
    model.prepare_inputs_embeds(**text).sum().backward()
    assert read == [3, 4]
    assert all(parameter.grad is not None for parameter in tower.vision_tower.blocks.parameters())


def test_images_that_do_not_fit_the_slots_are_refused(variant: str, model: Any) -> None:
    inputs = make_inputs(variant)
    inputs["images_seq_mask"][0, 2] = False
    with pytest.raises(ValueError, match=r"image positions .* one image for every image placeholder"):
        model.prepare_inputs_embeds(**inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_dtype_reads_speaks_and_paints(variant: str, folders: Any, dtype: torch.dtype) -> None:
    model = load(folders(variant)).to(dtype)
    with torch.inference_mode():
        # Pixels as `.to(device)` leaves them when no dtype is given.
        inputs = make_inputs(variant)
        inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
        embeddings = model.prepare_inputs_embeds(**inputs)
        assert embeddings.dtype == dtype
        ids = model.language_model.generate(
            inputs_embeds=embeddings, attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long), max_new_tokens=3,
            pad_token_id=341, do_sample=False,
        )  # fmt: skip
        assert ids.shape[1] <= 3
        if variant == "janus":
            codes = torch.randint(0, 64, (2, 24), dtype=torch.int32)
            assert model.gen_head(model.prepare_gen_img_embeds(codes)).shape == (2, 24, 64)
            pixels = model.gen_vision_model.decode_code(codes, shape=[2, 8, 4, 6])
            assert pixels.shape == (2, 3, 8, 12)
            assert model.gen_vision_model.encode(pixels)[0].dtype == dtype
        else:
            z_emb, t_emb, hs = model.vision_gen_enc_model(
                torch.randn(2, 4, 8, 12).to(dtype), torch.tensor([0.0, 333.0]).to(dtype)
            )
            assert (z_emb.shape, t_emb.shape, len(hs)) == ((2, 32, 4, 6), (2, 64), 1)
            hidden = model.vision_gen_dec_aligner(model.vision_gen_dec_aligner_norm(torch.randn(2, 24, 64).to(dtype)))
            pixels = model.vision_gen_dec_model(hidden.mT.unflatten(2, (4, 6)), hs, t_emb)
            assert pixels.shape == (2, 4, 8, 12)
        assert pixels.dtype == dtype
        assert pixels.isfinite().all()


# -- the language model is transformers' -----------------------------------------------------------------------------------------


def test_masks_with_holes_hide_what_they_say(model: Any) -> None:
    """Positions are 0, 1, 2 ... whatever the mask says: a row with holes equals the row without them at those positions."""
    embeddings = torch.randn(1, 10, 64, generator=torch.Generator().manual_seed(0))
    kept = torch.tensor([0, 1, 4, 5, 6, 9])
    mask = torch.zeros(1, 10, dtype=torch.long)
    mask[0, kept] = 1
    with torch.inference_mode():
        holes = model.language_model.model(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        alone = model.language_model.model(inputs_embeds=embeddings[:, kept], position_ids=kept[None]).last_hidden_state
    torch.testing.assert_close(holes[:, kept], alone, atol=1e-5, rtol=0)


def test_right_padding_changes_nothing_before_it(model: Any) -> None:
    embeddings = torch.randn(2, 8, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[1, 5:] = 0
    with torch.inference_mode():
        padded = model.language_model(inputs_embeds=embeddings, attention_mask=mask, output_hidden_states=True)
        alone = model.language_model(inputs_embeds=embeddings[1:, :5])
    torch.testing.assert_close(padded.logits[1, :5], alone.logits[0], atol=1e-5, rtol=0)
    assert padded.hidden_states[-1].shape == (2, 8, 64)


def test_cached_steps_equal_one_pass_with_every_kind_of_cache(model: Any) -> None:
    language = model.language_model.model
    embeddings = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = language(inputs_embeds=embeddings).last_hidden_state
        for start in (None, DynamicCache(), ()):
            past, pieces = start, []
            for piece in embeddings.split([4, 1, 1, 3], dim=1):
                outputs = language(inputs_embeds=piece, use_cache=True, past_key_values=past)
                past, pieces = outputs.past_key_values, [*pieces, outputs.last_hidden_state]
            torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=0)


def test_a_cache_in_the_old_tuple_form_is_accepted(model: Any) -> None:
    language = model.language_model.model
    embeddings = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = language(inputs_embeds=embeddings).last_hidden_state
        cache = DynamicCache()
        language(inputs_embeds=embeddings[:, :4], use_cache=True, past_key_values=cache)
        layers = getattr(cache, "layers", None)
        # Versions before 4.54 keep lists of keys and of values.
        pairs = (
            [(layer.keys, layer.values) for layer in layers] if layers else zip(cache.key_cache, cache.value_cache, strict=True)
        )
        rest = language(inputs_embeds=embeddings[:, 4:], use_cache=True, past_key_values=tuple(pairs)).last_hidden_state
    torch.testing.assert_close(rest, whole[:, 4:], atol=1e-5, rtol=0)


def test_training_through_the_language_model_reaches_every_reading_part(variant: str, model: Any) -> None:
    model.train()
    model.language_model.gradient_checkpointing_enable()
    embeddings = model.prepare_inputs_embeds(**make_inputs(variant))
    labels = torch.randint(0, 300, embeddings.shape[:2])
    outputs = model.language_model(inputs_embeds=embeddings, labels=labels, use_cache=False)
    outputs.loss.backward()
    model.language_model.gradient_checkpointing_disable()
    reading = {"vision_model", "aligner", "vision_und_enc_model", "vision_und_enc_aligner", "beg_of_und_embed"}
    without = [
        name
        for name, parameter in model.named_parameters()
        if name.split(".")[0] in reading | {"language_model"} and parameter.grad is None
    ]
    assert [name for name in without if "attn_pool" not in name and "embed_tokens" not in name] == []
    model.gradient_checkpointing_enable()
    assert model.language_model.model.is_gradient_checkpointing


def test_clients_may_replace_forward_and_parts(variant: str, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, input_ids: Tensor, **_: Any) -> Any:
        return self.language_model(input_ids).logits

    ids = torch.tensor([[1, 2, 3]])
    expected = model.language_model(ids).logits
    monkeypatch.setattr(MODELS[variant], "forward", forward)
    assert torch.equal(model(ids), expected)
    model.forward = types.MethodType(lambda self, x: self.language_model(x).logits + 1, model)
    assert torch.equal(model(ids), expected + 1)

    other = LlamaForCausalLM(model.language_model.config)
    model.language_model = other
    assert model.get_input_embeddings() is other.get_input_embeddings()
    assert model.prepare_inputs_embeds(**make_inputs(variant)).shape[-1] == 64
    del model.language_model
    for name in PREFIXES[variant] - {"language_model"}:
        delattr(model, name)
    assert list(model.parameters()) == []


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
@pytest.mark.parametrize("task_type", [None, "CAUSAL_LM"])
@pytest.mark.parametrize("whole", [True, False])
def test_peft_wraps_the_model_or_its_language_model(variant: str, model: Any, whole: bool, task_type: str | None) -> None:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"], task_type=task_type)
    inputs = make_inputs(variant)
    plain = model.prepare_inputs_embeds(**inputs)
    if whole:
        wrapped = get_peft_model(model, lora)
        assert torch.equal(wrapped.prepare_inputs_embeds(**inputs), plain)
    else:
        model.language_model = get_peft_model(model.language_model, lora)
        assert torch.equal(model.prepare_inputs_embeds(**inputs), plain)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad and "lora" in name]
    assert len(trained) == 2 * 2 * 5
    model.language_model(inputs_embeds=plain, past_key_values=()).logits.sum().backward()


def test_a_resized_vocabulary_is_saved_and_loaded_whole(variant: str, model: Any, tmp_path: Path) -> None:
    size = model.get_input_embeddings().num_embeddings + 8
    model.resize_token_embeddings(size)
    model.save_pretrained(tmp_path / "resized")
    again = type(model).from_pretrained(tmp_path / "resized")
    assert again.language_model.lm_head.out_features == again.get_input_embeddings().num_embeddings == size
    assert again.config.language_config.vocab_size == size


def test_every_part_of_a_configuration_is_known_to_auto_config() -> None:
    names = ("vision", "aligner", "gen_vision", "gen_aligner", "gen_head", "vision_und_enc", "vision_gen_enc", "vision_gen_dec")
    for name in names:
        assert AutoConfig.for_model(name).model_type == name


def test_the_published_table_of_towers_has_their_native_sizes() -> None:
    sizes = {name: values["image_size"] for name, values in siglip_vit.SigLIP_MODEL_CONFIG.items()}
    assert sizes["siglip_so400m_patch14_384"] == 336
    assert sizes["siglip_so400m_patch14_224"] == 224
    assert sizes["siglip_large_patch16_384"] == 384


# -- parts built by hand ---------------------------------------------------------------------------------------------------------


def test_the_vq_model_answers_in_the_published_tuples() -> None:
    torch.manual_seed(0)
    model = vq_model.VQ_models["VQ-16"](
        codebook_size=32,
        ch=32,
        encoder_ch_mult=[1, 2],
        decoder_ch_mult=[1, 2],
        num_res_blocks=1,
        z_channels=16,
        entropy_loss_ratio=0.1,
    )
    images = torch.rand(2, 3, 8, 12) * 2 - 1
    quant, losses, info = model.eval().encode(images)
    assert quant.shape == (2, 8, 4, 6)
    assert losses == (None, None, None)
    assert info[:2] == (None, None)
    codes = info[2].reshape(2, -1)
    _, _, [_, _, again] = model.encode(images)
    assert torch.equal(again, info[2])
    torch.testing.assert_close(model.decode_code(codes.int(), shape=(2, 8, 4, 6)), model.decode(quant), atol=1e-5, rtol=0)
    entry = model.quantize.get_codebook_entry
    channels_first = entry(codes, shape=[2, 8, 4, 6])
    assert torch.equal(entry(codes.flatten(), shape=(2, 4, 6, 8), channel_first=False).permute(0, 3, 1, 2), channels_first)
    assert entry(codes.flatten()).shape == (48, 8)
    assert model.quantize.embedding.weight.shape == (32, 8)
    reconstruction, losses = model.train()(images)
    assert reconstruction.shape == images.shape
    assert all(loss.isfinite() for loss in losses)
    assert vq_model.VQ_16().quantize.embedding.weight.shape == (16384, 8)


def test_the_entropy_loss_is_that_of_the_affinities() -> None:
    affinity = torch.randn(3, 4, 5) / 10
    soft = (affinity / 0.05).flatten(0, 1)
    p, mean = soft.softmax(-1), soft.softmax(-1).mean(0)
    expected = -(p * soft.log_softmax(-1)).sum(-1).mean() + (mean * (mean + 1e-5).log()).sum()
    torch.testing.assert_close(vq_model.compute_entropy_loss(affinity, temperature=0.05), expected)
    with pytest.raises(ValueError, match="not supported"):
        vq_model.compute_entropy_loss(affinity, loss_type="argmax")


@pytest.mark.parametrize("kind", ["identity", "linear", "mlp_gelu", "low_high_hybrid_split_mlp_gelu"])
def test_projectors_take_attributes_or_keys(kind: str) -> None:
    values = {"projector_type": kind, "input_dim": 4, "n_embed": 4, "depth": 2}
    built = [projector.MlpProjector(values), projector.MlpProjector(types.SimpleNamespace(**values))]
    built[1].load_state_dict(built[0].state_dict())
    x = torch.randn(2, 3, 4)
    given: Any = (x, x + 1) if "hybrid" in kind else x
    assert torch.equal(built[0](given), built[1](given))
    assert built[0](given).shape == (2, 3, 4)
    assert torch.equal(copy.deepcopy(built[0])(given), built[0](given))
    with pytest.raises(ValueError, match="Unknown projector type"):
        projector.MlpProjector(values | {"projector_type": "cnn"})


def test_the_vision_head_scores_codes() -> None:
    head = modeling_vlm.vision_head({"n_embed": 6, "image_token_embed": 5, "image_token_size": 7})
    assert head(torch.randn(2, 6)).shape == (2, 7)
    assert {name.split(".")[0] for name in head.state_dict()} == {"output_mlp_projector", "vision_head"}
    assert modeling_vlm.model_name_to_cls("vision_head") is modeling_vlm.vision_head
    with pytest.raises(ValueError, match="is invalid"):
        modeling_vlm.model_name_to_cls("Resampler")


def test_towers_are_found_by_name_and_cut_where_asked() -> None:
    with torch.device("meta"):
        tower = clip_encoder.CLIPVisionTower(image_size=384)
        assert tower.select_feature == "same"
        assert (len(tower.vision_tower.blocks), tower.vision_tower.pos_embed.shape) == (23, (1, 576, 1024))
        small = siglip_vit.create_siglip_vit("siglip_so400m_patch14_384", 56, select_layer=3, unknown=1)
        assert (len(small.blocks), small.pos_embed.shape) == (3, (1, 16, 1152))
    assert siglip_vit.SigLIP_MODEL_CONFIG["siglip_large_patch16_384"]["image_size"] == 384
    with pytest.raises(AssertionError, match="model name should be in"):
        clip_encoder.CLIPVisionTower("siglip_tiny")
    with pytest.raises(ValueError, match="SAM"):
        clip_encoder.CLIPVisionTower("sam_b")


def test_a_tower_normalises_when_told_the_mean_and_deviation() -> None:
    sizes: dict[str, Any] = {"image_size": 8, "patch_size": 4, "width": 8, "layers": 1, "heads": 2, "select_layer": -1}
    torch.manual_seed(0)
    plain = clip_encoder.CLIPVisionTower("siglip_small", **sizes)
    normal = clip_encoder.CLIPVisionTower("siglip_small", pixel_mean=[0.5] * 3, pixel_std=[0.25] * 3, **sizes)
    normal.load_state_dict(plain.state_dict())
    pixels = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(normal(pixels), plain((pixels - 0.5) / 0.25))


def test_initial_weights_of_a_tower_can_be_truncated_normals_or_a_file(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"patch_size": 4, "width": 8, "layers": 2, "heads": 2}
    tower = siglip_vit.create_siglip_vit("small", 8, weight_init="", **sizes)
    assert not tower.blocks[0].mlp.fc1.bias.any()
    torch.save(tower.state_dict(), tmp_path / "tower.pt")
    cut = siglip_vit.create_siglip_vit("small", 8, select_layer=1, ckpt_path=str(tmp_path / "tower.pt"), **sizes)
    assert torch.equal(cut.blocks[0].mlp.fc1.weight, tower.blocks[0].mlp.fc1.weight)


def test_a_clip_of_transformers_serves_as_tower_too(tmp_path: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    layers = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    CLIPVisionModel(CLIPVisionConfig(image_size=8, patch_size=4, **layers)).save_pretrained(tmp_path)
    pixels = torch.rand(1, 3, 8, 8)
    whole = clip_encoder.CLIPVisionTower(str(tmp_path), select_feature="cls_patch")(pixels)
    assert whole.shape == (1, 5, 8)
    assert torch.equal(clip_encoder.CLIPVisionTower(str(tmp_path))(pixels), whole[:, 1:])
    with pytest.raises(ValueError, match="Unexpected select feature"):
        clip_encoder.CLIPVisionTower(str(tmp_path), select_feature="pooled")


def test_uvit_halves_have_the_published_signatures() -> None:
    encoder = uvit.ShallowUViTEncoder(4, stride=2, kernel_size=2, padding=0, block_out_channels=[8], hidden_size=16)
    decoder = uvit.ShallowUViTDecoder(8, 4, block_out_channels=[8], upsamples=1, hidden_size=16)
    x, time, hs = encoder(torch.randn(2, 4, 6, 8), torch.tensor([500.0]))
    assert decoder(x, hs, time).shape == (2, 4, 6, 8)
    assert hs == []
    with pytest.raises(ConfigError):
        uvit.ShallowUViTEncoder(block_out_channels=[8, 8])
