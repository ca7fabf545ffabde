"""The bundled janus-tiny and janusflow-tiny, until trained ones take their place: the right shapes, random weights.

    python recipes/untrained_tiny.py           # writes src/openjanus/assets/; seconds on a CPU

64-pixel images; both variants read them as 8 x 8 patches and paint them as 8 x 8 positions (VQ codes, or 2 x 2 cells of a
16 x 16 latent). The tokenizer is a byte-level BPE of 512 entries with the published special tokens, trained on the words below.
"""

import argparse
from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers

from openjanus.checkpoints.save import save_checkpoint
from openjanus.config import (
    FlowGenerationConfig,
    JanusConfig,
    LanguageConfig,
    ProjectorConfig,
    TokenGenerationConfig,
    TowerConfig,
    UnderstandingConfig,
    UViTDecoderConfig,
    UViTEncoderConfig,
    VAEConfig,
    VQConfig,
)
from openjanus.models.janus import JanusModel
from openjanus.processing.chat import ChatFormat
from openjanus.processing.images import ImageProcessor, ImageProcessorConfig
from openjanus.processing.prompts import Processor
from openjanus.processing.tokenizer import FLOW_TAGS, Tokenizer

ASSETS = Path(__file__).parents[1] / "src" / "openjanus" / "assets"

SPECIAL = [
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜▁pad▁｜>",
    "<image_placeholder>",
    "<begin_of_image>",
    "<end_of_image>",
    "<|User|>",
    "<|Assistant|>",
    *FLOW_TAGS[-1:],
]
VOCABULARY = 512
WIDTH = 64
HALF = (0.5, 0.5, 0.5)

COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "black", "white"]
SHAPES = ["circle", "square", "triangle", "diamond", "star", "cross"]

LANGUAGE = LanguageConfig(
    vocab_size=VOCABULARY,
    hidden_size=WIDTH,
    intermediate_size=176,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=1024,
)
TOWER = TowerConfig(
    image_size=64, patch_size=8, width=WIDTH, layers=2, heads=4, select_layer=-1, model_name="siglip_tiny_patch8_64"
)
CONFIGS = {
    "janus-tiny": JanusConfig(
        LANGUAGE,
        UnderstandingConfig(TOWER, ProjectorConfig(WIDTH, WIDTH, "mlp_gelu", depth=2)),
        TokenGenerationConfig(
            VQConfig(256, 8, ch=32, encoder_ch_mult=(1, 1, 1, 1), decoder_ch_mult=(1, 1, 1, 1), num_res_blocks=1, z_channels=32),
            ProjectorConfig(8, WIDTH, "mlp_gelu", depth=2),
            head_dim=WIDTH,
            grid=(8, 8),
        ),
    ),
    "janusflow-tiny": JanusConfig(
        LANGUAGE,
        UnderstandingConfig(TOWER, ProjectorConfig(WIDTH, WIDTH, "linear"), begin=True),
        FlowGenerationConfig(
            UViTEncoderConfig(4, 2, 2, 0, (32,), 2, WIDTH),
            UViTDecoderConfig(32, 4, (32,), 1, 2, WIDTH),
            latent_size=(16, 16),
            vae=VAEConfig(block_out_channels=(32, 32, 32), layers_per_block=1, norm_num_groups=16, sample_size=64),
        ),
    ),
}


def words() -> list[str]:
    """Sentences of the world that the models will live in."""
    things = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    lines = [f"a {one} left of a {other}. right of, above, below" for one in things for other in things[::5]]
    lines += [f"How many {shape}s are there? There are two {shape}s." for shape in SHAPES]
    lines += [f"What colour is the {shape}? The {shape} is {colour}." for shape in SHAPES for colour in COLOURS]
    lines += ["Is there a photo of three squares? Yes. No. one two three four", "Describe the picture: it shows an object."]
    return lines


def train_tokenizer() -> tokenizers.Tokenizer:
    """A byte-level BPE of VOCABULARY entries, special tokens last as in the published ones."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    size = VOCABULARY - len(SPECIAL)
    backend.train_from_iterator(words(), trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    backend.add_special_tokens(SPECIAL)
    return backend


def build(name: str, backend: tokenizers.Tokenizer) -> tuple[JanusModel, Processor]:
    """One of CONFIGS with random weights, the same every time, and its processor."""
    config = CONFIGS[name]
    flow = config.understanding.begin
    torch.manual_seed(0)
    model = JanusModel(config).to(torch.bfloat16).eval()
    processor = Processor(
        Tokenizer(backend, extra_tags=FLOW_TAGS if flow else ()),
        ImageProcessor(ImageProcessorConfig(image_size=64, image_mean=HALF, image_std=HALF)),
        ChatFormat(roles=("User", "Assistant") if flow else ("<|User|>", "<|Assistant|>")),
        slots_per_image=config.understanding.slots,
        begin_is_slot=flow,
    )
    return model, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=ASSETS)
    output: Path = parser.parse_args().output
    backend = train_tokenizer()
    for name in CONFIGS:
        model, processor = build(name, backend)
        save_checkpoint(model, processor, output / name, untrained=True)
        print(output / name)


if __name__ == "__main__":
    main()
