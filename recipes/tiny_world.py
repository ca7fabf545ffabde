"""What the recipes of both bundled models share: the language model's sizes, the text tokenizer, the template, the data."""

from functools import cache

import tokenizers

from openjanus.config import LanguageConfig, TowerConfig
from openjanus.data.samples import Kind, Source
from openjanus.data.shapes_streams import PaintingSource, ReadingSource, TalkSource, painting, plain_text, reading, talk
from openjanus.processing.chat import ChatFormat
from openjanus.processing.images import ImageProcessor, ImageProcessorConfig
from openjanus.processing.prompts import Processor
from openjanus.processing.tokenizer import Tokenizer
from openjanus.train.text_tokenizer import train_text_tokenizer

SIZE = 48
VOCABULARY = 640
LANGUAGE = LanguageConfig(
    vocab_size=VOCABULARY,
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=6,
    num_attention_heads=4,
    max_position_embeddings=1024,
)
PROMPTS = ("a red circle", "two green squares", "a blue star left of a yellow triangle", "a white cross and a black diamond")
QUESTIONS = ("How many circles are there?", "What color is the star?", "Describe the picture.")


@cache
def text_tokenizer() -> tokenizers.Tokenizer:
    """The byte-level BPE of this world: the same every time, from 6,000 texts of it."""
    texts: list[str] = []
    for k in range(1500):
        texts += [painting(0, k).text, plain_text(0, k)]
        texts += [words for turn in (*reading(0, k, 2).turns, *talk(0, k)) for words in (turn.question, turn.answer)]
    return train_text_tokenizer(texts, VOCABULARY)


def processor(tower: TowerConfig, roles: tuple[str, str], begin: bool) -> Processor:
    """Prompts of a bundled model: its family's template without a system prompt, which would be longer than most of its texts."""
    half = (0.5, 0.5, 0.5)
    return Processor(
        Tokenizer(text_tokenizer()),
        ImageProcessor(ImageProcessorConfig(image_size=SIZE, image_mean=half, image_std=half)),
        ChatFormat(roles=roles, system_prompt=""),
        slots_per_image=tower.patches + int(begin),
        begin_is_slot=begin,
        context=LANGUAGE.max_position_embeddings,
        vocab_size=VOCABULARY,
    )


def sources(seed: int) -> dict[Kind, Source]:
    """Talk, questions in a row on one picture, captions with their pictures."""
    return {
        "text": TalkSource(seed),
        "understanding": ReadingSource(seed, SIZE, turns=6),
        "generation": PaintingSource(seed, SIZE),
    }
