"""What the recipes of both bundled models share: the language model's sizes, the text tokenizer, the template, the data."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import tokenizers

from openjanus.checkpoints.parts import load_part
from openjanus.config import JanusConfig, LanguageConfig
from openjanus.data.samples import InTurn, Kind, Source
from openjanus.data.shapes_questions import KINDS
from openjanus.data.shapes_streams import (
    LookupSource,
    PaintingSource,
    ReadingSource,
    TalkSource,
    ToldSource,
    painting,
    plain_text,
    reading,
    talk,
)
from openjanus.errors import CheckpointError
from openjanus.models.janus import JanusModel
from openjanus.processing.chat import ChatFormat
from openjanus.processing.images import ImageProcessor, ImageProcessorConfig
from openjanus.processing.prompts import Processor
from openjanus.processing.tokenizer import Tokenizer
from openjanus.train.parts import belongs
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Precision, Stage
from openjanus.train.text_tokenizer import train_text_tokenizer
from openjanus.train.unified import Start, UnifiedSettings, UnifiedTask

PARTS = Path(__file__).resolve().parent / "parts"
SIZE = 48
VOCABULARY = 640
LANGUAGE = LanguageConfig(
    vocab_size=VOCABULARY,
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=6,
    num_attention_heads=6,
    max_position_embeddings=1024,
)
# Single objects are learned in the first minutes, so most captions are of more. Of "a circle and a star" and "three circles"
# there are twelve each for training, which can be learned by heart: hence what else leaves colours unsaid.
TASKS = {
    "two_object": 0.1,
    "counting": 0.18,
    "colors": 0.05,
    "position": 0.24,
    "color_attr": 0.2,
    "free": 0.07,
    "unsaid": 0.16,
}
LONG = 0.2  # of texts to paint, those of several sentences, which say where things are
# Answers that need two or three thoughts (which letter stands before the colour of the star) are asked for more often, and most
# of all where things are: with one such question in eight a model did not come to tell left from right (nor with one in four, nor
# in 200,000 samples), so it is asked where everything is as well: the answer holds more than one word of two.
ASKED = (
    *KINDS,
    "description",
    *("places",) * 3,
    *("position",) * 5,
    *("caption", "choice", "comparison") * 2,
    *("count", "color", "attribute"),
)
# Weights that nothing draws back grow until no step moves them: a model trained so for 360,000 samples learned lookups more
# slowly than one that began anew.
BASE = Stage("base", steps=1, batch=32, rate=5e-3, warmup=100, optimizer="muon", weight_decay=0.1, precision="float32")
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


def processor(roles: tuple[str, str], slots: int, begin: bool) -> Processor:
    """Prompts of a bundled model: its family's template without a system prompt, which would be longer than most of its texts."""
    half = (0.5, 0.5, 0.5)
    return Processor(
        Tokenizer(text_tokenizer()),
        ImageProcessor(ImageProcessorConfig(image_size=SIZE, image_mean=half, image_std=half)),
        ChatFormat(roles=roles, system_prompt=""),
        slots_per_image=slots,
        begin_is_slot=begin,
        context=LANGUAGE.max_position_embeddings,
        vocab_size=VOCABULARY,
    )


@dataclass(frozen=True)
class Settings(UnifiedSettings):
    """Where the parts lie, beside what every unified run can be told. recipes/parts has those that their recipes made."""

    context: int = 512
    saved: Precision = "bfloat16"
    text_weight: float = 4.0
    contrast_weight: float = 2.0
    language: str = str(PARTS / "tiny_language")
    encoder: str = str(PARTS / "tiny_encoder")
    begin: str = ""
    """A result of the same recipe, to begin with all of its weights instead of with parts."""
    preview_prompts: tuple[str, ...] = PROMPTS
    preview_questions: tuple[str, ...] = QUESTIONS
    preview_image: str = str(PARTS.parents[1] / "examples/images/shapes.png")


def start(recipe: Recipe, config: JanusConfig, processor: Processor, parts: tuple[str, ...], needed: tuple[str, ...]) -> Start:
    """A model with random weights but for the language model and the other parts, which hold all that is `needed`.

    And what is learned from in which stage: talk, questions in a row on one picture, captions with their pictures; first of all
    single objects by name.
    """
    model = JanusModel(config)
    begin = recipe.settings.begin
    parts = (begin,) if begin else (recipe.settings.language, *parts)
    wanted = ("language", "understanding", "generation") if begin else ("language", *needed)
    # A part may be a whole checkpoint, of another variant even: a language model that has seen and painted is a better beginning.
    state = {name: tensor for part in parts for name, tensor in load_part(part).items() if belongs(name, wanted)}
    missing = [name for name in model.state_dict() if belongs(name, wanted) and name not in state]
    if missing:
        raise CheckpointError(f"{' and '.join(parts)} hold no {missing[0]}; train these parts first, as the recipe says")
    model.load_state_dict(state, strict=False)
    seed, (painted, _) = recipe.seed, config.generation.image_size
    own: dict[Kind, Source] = {
        "text": InTurn((ToldSource(seed), LookupSource(seed), ToldSource(seed + 1), TalkSource(seed))),
        "understanding": ReadingSource(seed, SIZE, turns=6, kinds=ASKED),
        "generation": PaintingSource(seed, painted, TASKS, LONG, rivals=recipe.settings.contrast_weight > 0),
    }
    # Captions teach a language model to see sooner than questions do, whose answers are a word or two.
    captions = ReadingSource(seed, SIZE, turns=2, kinds=("caption", "description", "places"))
    names = own | {"understanding": captions, "generation": PaintingSource(seed, painted, categories=True)}
    return Start(model, processor, own, {"adapt": names, "names": names})


def recipe_of(name: str, start: Callable[[Recipe], Start], settings: Settings, seed: int, stages: tuple[Stage, ...]) -> Recipe:
    """The recipe of a bundled model."""
    return Recipe(
        name=name,
        task=lambda recipe: UnifiedTask(recipe, recipe.settings, lambda: start(recipe)),
        settings=settings,
        seed=seed,
        save_every=500,
        preview_every=2000,
        stages=stages,
    )


def stages(base: Stage, vision: tuple[str, ...], decoder: tuple[str, ...]) -> tuple[Stage, Stage, Stage, Stage]:
    """The papers' order: adaptors, names, everything, and everything with the tower.

    vision: the parts that are never trained before the last stage. decoder: those that are not even then.
    """
    mix = {"understanding": 3, "text": 2, "generation": 4}
    return (
        replace(base, name="adapt", steps=200, mix={"understanding": 1, "generation": 3}, frozen=(*vision, "language")),
        replace(base, name="names", steps=400, mix=mix, frozen=vision),
        replace(base, name="pretrain", steps=2600, mix=mix, frozen=vision, schedule="cosine", floor=0.1, ema=0.999),
        # A quarter of the rate before: at half of it the tower forgets what it knew.
        replace(base, name="tune", steps=500, mix=mix, frozen=decoder, rate=1.2e-3, schedule="cosine", floor=0.02, ema=0.999),
    )
