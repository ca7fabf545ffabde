"""The vision parts give the numbers of the reference, gradients and intermediates included.

Tolerance 2e-5 absolute, codes exact. Each test must compare every recorded output of its variant: one left over is a failure.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from goldens import fixture, part
from openjanus.config import ProjectorConfig, TowerConfig, UViTDecoderConfig, UViTEncoderConfig, VAEConfig, VQConfig
from openjanus.models.adaptors import ImageHead, build_adaptor
from openjanus.models.layers import Upsample
from openjanus.models.quantizer import QuantizerLosses, VectorQuantizer
from openjanus.models.siglip import SiglipTower
from openjanus.models.uvit import ShallowUViTDecoder, ShallowUViTEncoder, time_projection
from openjanus.models.vae import AutoencoderKL
from openjanus.models.vq import VQTokenizer

TOLERANCE = 2e-5


class Golden:
    """The inputs and weights of one variant, and its outputs until each has been compared."""

    def __init__(self, tensors: dict[str, Tensor], variant: str) -> None:
        tag = f"{variant}." if variant else ""
        self.weights = part(tensors, f"weights.{tag}")
        self.inputs = part(tensors, f"in.{tag}")
        self.expected = {f"out.{name}": value for name, value in part(tensors, f"out.{tag}").items()}
        self.expected |= {f"aux.{name}": value for name, value in part(tensors, f"aux.{tag}").items()}

    def load(self, module: nn.Module, prefix: str = "") -> Any:
        module.load_state_dict(part(self.weights, prefix))
        return module.eval()

    def check(self, name: str, actual: Tensor) -> None:
        expected = self.expected.pop(name)
        tolerance = TOLERANCE if expected.is_floating_point() else 0
        torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance, msg=lambda text: f"{name}: {text}")


@contextmanager
def golden(topic: str, variant: str = "") -> Iterator[tuple[dict[str, Any], Golden]]:
    """The notes and the tensors of a variant; fails at the end if an output was not compared."""
    notes, tensors = fixture(topic)
    values = Golden(tensors, variant)
    yield notes["variants"][variant] if variant else notes["config"], values
    assert not values.expected, f"never compared: {', '.join(values.expected)}"


@contextmanager
def recorded(**modules: nn.Module) -> Iterator[dict[str, Tensor]]:
    """What the named modules give while the context is open."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, inputs, output: outputs.__setitem__(name, output)

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    yield outputs
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("variant", ["full", "skip_last", "first_n", "pixel_norm", "with_head"])
def test_siglip_tower_gives_the_reference_features(variant: str) -> None:
    with golden("siglip_tower", variant) as (notes, values):
        sizes = fixture("siglip_tower")[0]["tower"]
        sizes = {name: sizes[name] for name in ("image_size", "patch_size", "width", "layers", "heads", "mlp_ratio")}
        choices = {name: notes[name] for name in ("select_layer", "pixel_mean", "pixel_std", "ignore_head") if name in notes}
        tower = values.load(SiglipTower(TowerConfig(**sizes, **choices)))
        vit = tower.vision_tower
        block = vit.blocks[0]
        images = values.inputs["images"]
        with torch.no_grad():
            features = tower(images)
            values.check("out.features", features)
            if variant in ("full", "pixel_norm"):
                # The intermediates were recorded from the transformer alone, without the tower's image_norm.
                embedded = vit.patch_embed(images) + vit.pos_embed
                values.check("aux.after_pos_embed", embedded)
                values.check("aux.block0_attn_out", block.attn(block.norm1(embedded)))
                values.check("aux.after_block0", block(embedded))
                values.check("out.attn_pool_of_features", vit.attn_pool(features))


@pytest.mark.parametrize(
    "variant", ["mlp_gelu_d2", "mlp_gelu_d1_default", "mlp_gelu_d3", "linear", "identity", "low_high_d2", "low_high_d1"]
)
def test_adaptors_give_the_reference_embeddings(variant: str) -> None:
    with golden("aligner_and_head", variant) as (notes, values):
        adaptor = values.load(build_adaptor(ProjectorConfig(**notes)))
        inputs = values.inputs
        features = inputs["x"] if "x" in inputs else (inputs["high_x"], inputs["low_x"])
        values.check("out.y", adaptor(features))


def test_image_head_gives_the_reference_scores() -> None:
    with golden("aligner_and_head", "gen_head") as (notes, values):
        head = ImageHead(notes["n_embed"], notes["image_token_embed"], notes["image_token_size"])
        values.check("out.logits", values.load(head)(values.inputs["x"]))


def _vq_config(notes: dict[str, Any]) -> VQConfig:
    return VQConfig(
        codebook_size=notes["codebook_size"],
        codebook_dim=notes["codebook_embed_dim"],
        l2_norm=notes["codebook_l2_norm"],
        show_usage=notes["codebook_show_usage"],
        commit_loss_beta=notes["commit_loss_beta"],
        entropy_loss_ratio=notes["entropy_loss_ratio"],
        ch=notes["ch"],
        encoder_ch_mult=tuple(notes["ch_mult"]),
        decoder_ch_mult=tuple(notes["ch_mult"]),
        num_res_blocks=notes["num_res_blocks"],
        z_channels=notes["z_channels"],
        dropout=notes["dropout_p"],
    )


def _sum(losses: QuantizerLosses | None) -> Tensor:
    assert losses is not None
    return losses.codebook + losses.commitment + losses.entropy


def test_vq_tokenizer_gives_the_reference_codes_pixels_and_gradients() -> None:
    with golden("vq_model") as (notes, values):
        vq = values.load(VQTokenizer(_vq_config(notes)))
        image = values.inputs["image"]
        codes = values.inputs["codes"].long().view(2, 4, 4)
        first = vq.encoder.conv_blocks[0]
        with torch.no_grad():
            with recorded(conv_in=vq.encoder.conv_in, res0=first.res[0], downsample=first.downsample) as aux:
                encoded = vq.encoder(image)
            values.check("aux.enc.conv_in", aux["conv_in"])
            values.check("aux.enc.block0.res0", aux["res0"])
            values.check("aux.enc.block0.downsample", aux["downsample"])
            values.check("out.encoder", encoded)
            values.check("out.quant_conv", vq.quant_conv(encoded))

            quantized = vq.encode(image)
            values.check("out.encode.quant", quantized.latent)
            values.check("out.encode.codes_flat", quantized.codes.flatten())
            assert quantized.losses is None
            reconstruction = vq.decode(quantized.latent)
            values.check("out.decode_of_quant", reconstruction)
            values.check("out.forward_eval.reconstruction", reconstruction)

            rows = vq.quantize.lookup(codes)
            values.check("out.codebook_entry", rows.permute(0, 3, 1, 2))
            values.check("out.codebook_entry_channel_last", rows)
            values.check("out.codebook_entry_noshape", vq.quantize.lookup(codes.flatten(1)))
            values.check("out.decode_code", vq.decode_codes(codes))

            features = values.inputs["attn_block.x"]
            values.check("out.attn_block", vq.encoder.conv_blocks[-1].attn[0](features))
            upsample = vq.decoder.conv_blocks[0].upsample
            assert isinstance(upsample, Upsample)
            values.check("out.upsample_of_attn_in", upsample(features))

        vq.train()
        image = image.clone().requires_grad_()
        trained = vq.encode(image)
        assert trained.losses is not None
        values.check("out.train.quant", trained.latent)
        values.check("out.train.vq_loss", trained.losses.codebook)
        values.check("out.train.commit_loss", trained.losses.commitment)
        values.check("out.train.entropy_loss", trained.losses.entropy)
        (_sum(trained.losses) + trained.latent.square().mean()).backward()
        values.check("out.train.grad_image", image.grad)
        values.check("out.train.grad_codebook", vq.quantize.embedding.weight.grad)
        values.check("out.train.grad_quant_conv_weight", vq.quant_conv.weight.grad)


@pytest.mark.parametrize("variant", ["l2", "plain", "l2_noent"])
def test_quantizer_gives_the_reference_losses_and_gradients(variant: str) -> None:
    with golden("vq_quantizer_train", variant) as (notes, values):
        config = VQConfig(
            codebook_size=notes["n_e"],
            codebook_dim=notes["e_dim"],
            l2_norm=notes["l2_norm"],
            show_usage=notes["show_usage"],
            entropy_loss_ratio=notes["entropy_loss_ratio"],
            commit_loss_beta=notes["beta"],
        )
        quantizer = values.load(VectorQuantizer(config)).train()
        z = values.inputs["z"].clone().requires_grad_()
        quantized = quantizer(z)
        values.check("out.z_q", quantized.latent)
        values.check("out.indices", quantized.codes.flatten())
        values.check("out.vq_loss", quantized.losses.codebook)
        values.check("out.commit_loss", quantized.losses.commitment)
        values.check("out.entropy_loss", quantized.losses.entropy)
        (_sum(quantized.losses) + quantized.latent.pow(3).sum()).backward()
        values.check("out.grad_z", z.grad)
        values.check("out.grad_embedding", quantizer.embedding.weight.grad)


def _tuples(notes: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in notes.items()}


@pytest.mark.parametrize("variant", ["latent", "pixel_default", "no_mid"])
def test_uvit_gives_the_reference_features_and_velocity(variant: str) -> None:
    with golden("flow_uvit", variant) as (notes, values):
        encoder = values.load(ShallowUViTEncoder(UViTEncoderConfig(**_tuples(notes["encoder"]))), "encoder.")
        decoder = values.load(ShallowUViTDecoder(UViTDecoderConfig(**_tuples(notes["decoder"]))), "decoder.")
        inputs = values.inputs
        blocks = encoder.mid_block.res_blocks
        watched = {"in_conv": encoder.in_conv, **({"resblock0": blocks[0]} if len(blocks) else {})}
        with torch.no_grad(), recorded(**watched) as aux:
            features, time = encoder(inputs["x"], inputs["timesteps"])
            values.check("out.x_emb", features)
            values.check("out.t_emb", time)
            values.check("out.decoder", decoder(inputs["decoder_x"], features, time))
            values.check("aux.time_proj", time_projection(inputs["timesteps"], encoder.channels))
            if len(blocks):
                values.check("aux.in_conv", aux["in_conv"])
                values.check("aux.resblock0", aux["resblock0"])
                values.check("out.grn", blocks[0].channelwise_norm(inputs["grn_x"]))


def test_vae_gives_the_reference_latents_and_pixels() -> None:
    with golden("sdxl_like_vae") as (notes, values):
        names = ("block_out_channels", "layers_per_block", "latent_channels", "norm_num_groups", "sample_size", "scaling_factor")
        config = VAEConfig(**_tuples({name: notes[name] for name in names}))
        vae = values.load(AutoencoderKL(config))
        with torch.no_grad():
            posterior = vae.encode(values.inputs["image"])
            values.check("out.encode_moments", torch.cat((posterior.mean, posterior.logvar), dim=1))
            values.check("out.encode_mode", posterior.mode())
            decoded = vae.decode(values.inputs["z"] / config.scaling_factor)
        values.check("out.decoded", decoded)
        unit = decoded.clamp(-1, 1) * 0.5 + 0.5
        values.check("out.unit_range_readme", unit)
        # A pixel that sits on the edge between two levels may fall to either side.
        levels = (decoded.clamp(-1, 1) + 1).div(2).mul(255).byte().permute(0, 2, 3, 1)
        expected = values.expected.pop("out.uint8_app")
        assert (levels.int() - expected.int()).abs().max() <= 1
