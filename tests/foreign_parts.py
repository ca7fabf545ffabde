"""Parts as other projects save them, small and random, with the modules of transformers that they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import AddedToken, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from made_tokenizers import byte_level
from openjanus.config import VQConfig
from openjanus.models.vq import VQTokenizer

VISION = {
    "hidden_size": 24,
    "intermediate_size": 50,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
CODES = VQConfig(48, ch=32, encoder_ch_mult=(1, 2, 2), decoder_ch_mult=(1, 2, 2), num_res_blocks=1, z_channels=16)


@dataclass(frozen=True)
class Language:
    """A language model in a folder, with its tokenizer as transformers reads it."""

    folder: Path
    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast


def siglip(folder: Path, alone: bool = False, **changes: Any) -> Any:
    """A SigLIP, whole or its vision model alone; returns the vision model."""
    torch.manual_seed(0)
    if alone:
        model: Any = SiglipVisionModel(SiglipVisionConfig(**VISION | changes))
    else:
        text = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
        text |= {"bos_token_id": 1, "eos_token_id": 2, "projection_size": 24}
        model = SiglipModel(SiglipConfig(vision_config=VISION | changes, text_config=text))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.eval().save_pretrained(folder)
    return model if alone else model.vision_model


def llama(folder: Path, rows: int = 0, backend: tokenizers.Tokenizer | None = None, **changes: Any) -> Language:
    """A Llama with grouped-query attention and a tokenizer that says <s> and </s>; rows: of its embeddings."""
    torch.manual_seed(0)
    backend = backend or byte_level(["<s>", "</s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    sizes = {
        "vocab_size": rows or backend.get_vocab_size(),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    model = LlamaForCausalLM(LlamaConfig(**sizes | changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Language(folder, model, tokenizer)


def llamagen(path: Path, config: VQConfig = CODES) -> VQTokenizer:
    """LlamaGen's image tokenizer as it saves one."""
    torch.manual_seed(0)
    tokenizer = VQTokenizer(config)
    torch.save({"model": tokenizer.state_dict()}, path)
    return tokenizer


def word_level(words: list[str]) -> tokenizers.Tokenizer:
    """A tokenizer that knows these words and no others."""
    backend = tokenizers.Tokenizer(models.WordLevel({word: id for id, word in enumerate(words)}, unk_token=words[0]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", "</s>")])
    return backend
