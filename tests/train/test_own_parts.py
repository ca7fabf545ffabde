"""Parts from one's own data, by the recipes of published sizes made small: two steps of each, and a Janus of what they leave."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from PIL import Image

from openjanus.checkpoints.assembly import assemble
from openjanus.config import TokenGenerationConfig
from openjanus.errors import ConfigError, DataError
from openjanus.processing.tokenizer import SPECIAL_TOKENS
from openjanus.train.encoder import EncoderTask
from openjanus.train.language import LanguageTask
from openjanus.train.overrides import override
from openjanus.train.own_records import OwnRecords
from openjanus.train.pictures import UNSEEN
from openjanus.train.recipe import Recipe
from openjanus.train.recipe_files import load_recipe

from .running import curve, run

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
STEPS = ["stages.steps=2", "stages.warmup=0", "stages.micro_batch=2", "stages.precision=float32", "preview_every=2"]
LANGUAGE = [
    "settings.language.num_key_value_heads=2",
    "settings.language.num_attention_heads=2",
    "settings.language.head_dim=8",
    "settings.language.hidden_size=16",
    "settings.language.intermediate_size=32",
    "settings.language.num_hidden_layers=1",
    "settings.language.vocab_size=320",
    "settings.vocabulary=300",
    "settings.context=256",
    "stages.batch=4",
]
TOWER = [
    "settings.tower.heads=2",
    "settings.tower.width=16",
    "settings.tower.layers=1",
    "settings.tower.image_size=32",
    "settings.tower.patch_size=8",
    "settings.text_layers=1",
    "settings.vocabulary=280",
    "stages.batch=4",
]
SMALL = ["settings.size=32", "settings.likeness.perceptual=0", "settings.adversary.start=1", "settings.adversary.width=8"]
VAE = [
    "settings.vae.block_out_channels=16,16",
    "settings.vae.layers_per_block=1",
    "settings.vae.norm_num_groups=8",
    "stages.batch=4",
]
VQ = [
    "settings.tokenizer.ch=32",
    "settings.tokenizer.encoder_ch_mult=1,1",
    "settings.tokenizer.decoder_ch_mult=1,1",
    "settings.tokenizer.num_res_blocks=0",
    "settings.tokenizer.codebook_size=32",
    "stages.batch=2",
]


def recipe(name: str, *told: str) -> Recipe:
    """A recipe with two steps of each stage, made small."""
    return override(load_recipe(str(RECIPES / f"{name}.py")), [*STEPS, *told])


def pictures(folder: Path, count: int = 24) -> Path:
    """Noise, wide and high, with a caption beside each picture."""
    folder.mkdir()
    chance = np.random.default_rng(0)
    for k in range(count):
        shape = ((40, 24), (24, 40))[k % 2]
        Image.fromarray(chance.integers(0, 255, (*shape, 3), dtype=np.uint8)).save(folder / f"{k:02}.png")
        (folder / f"{k:02}.txt").write_text(f"noise number {k}", encoding="utf-8")
    return folder


def texts(path: Path) -> Path:
    """Plain texts, of which some fill no row and some more than one, and a conversation."""
    chance = np.random.default_rng(0)
    lines: list[object] = [{"text": f"Text {k}: {' '.join(map(str, chance.integers(0, 999, k % 3 * 90)))}"} for k in range(20)]
    turns = [("user", "What?"), ("assistant", "That.")]
    lines.append({"messages": [{"role": role, "content": content} for role, content in turns]})
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def losses(folder: Path) -> set[str]:
    return set(curve(folder)[-1]["losses"])


def test_a_janus_is_put_together_of_what_the_recipes_make_of_ones_own_data(tmp_path: Path):
    shown, told = pictures(tmp_path / "pictures"), texts(tmp_path / "texts.jsonl")
    runs: dict[str, tuple[Sequence[str], set[str]]] = {
        "deepseek_1b": ([*LANGUAGE, f"settings.data={told}"], {"text"}),
        "siglip_large": ([*TOWER, f"settings.data={shown}"], {"captions"}),
        "sdxl_vae": ([*SMALL, *VAE, f"settings.pictures={shown}"], {"l1", "kl", "fooling", "telling"}),
        "vq16": ([*SMALL, *VQ, f"settings.pictures={shown}"], {"l2", "codebook", "commitment", "fooling", "telling"}),
    }
    parts = {}
    for name, (values, expected) in runs.items():
        result = run(tmp_path / name, recipe=recipe(name, *values))
        assert losses(tmp_path / name) == expected
        parts[name] = str(result.final)
    assert {path.name for path in (tmp_path / "siglip_large" / "previews").rglob("*.txt")} == {"captions.txt"}
    for painter, flow in (("vq16", False), ("sdxl_vae", True)):
        begun = assemble([parts["deepseek_1b"], parts["siglip_large"], parts[painter]])
        assert begun.config.language.hidden_size == 16 and begun.config.understanding.encoder.image_size == 32
        assert begun.config.generation.image_size == (32, 32)
        assert isinstance(begun.config.generation, TokenGenerationConfig) is not flow
        # All tokens have rows of their own that were learned: none has to be added.
        language = next(part for part in begun.parts if part.place == "language")
        assert language.vocabulary is not None and language.vocabulary.added == ()
        assert begun.config.language.vocab_size == 320
        for part in begun.parts:
            assert all(tensor.isfinite().all() for tensor in part.read().values())


def test_the_language_model_ends_its_rate_in_steps_with_one_optimizer(tmp_path: Path):
    small = recipe("deepseek_1b", *LANGUAGE, f"settings.data={texts(tmp_path / 'texts.jsonl')}")
    run(tmp_path / "run", recipe=small)
    lines = curve(tmp_path / "run")
    assert [line["stage"] for line in lines] == [name for name in ("learn", "settle", "end") for _ in range(2)]
    assert [line["rate"] / lines[0]["rate"] for line in lines[::2]] == pytest.approx([1, 0.316, 0.1])


def test_of_a_long_text_a_stretch_is_learned_and_another_one_the_next_time(tmp_path: Path):
    small = recipe("deepseek_1b", *LANGUAGE, f"settings.data={texts(tmp_path / 'texts.jsonl')}")
    task = small.task(small)
    assert isinstance(task, LanguageTask)
    documents = [task._documents(task._source[k]) for k in range(200)]
    assert {len(group) for group in documents} == {1} and max(len(group[0]) for group in documents) == 256
    whole = task._writer.document(task._source[0])
    long = [group[0] for group in documents if len(group[0]) == 256]
    assert len({tuple(one.ids.tolist()) for one in long}) > len(long) / 3
    for one in long:
        # Every token but the last is told what comes behind it, and so is the last.
        assert torch.equal(one.labels[:-1], one.ids[1:])
        assert int(one.labels[-1]) >= 0 or int(one.ids[-1]) == task.processor.tokenizer.eos
    assert whole.ids[0] == task.processor.tokenizer.bos
    refusing = override(small, ["settings.stretches=false"])
    with pytest.raises(DataError, match=r"texts\.jsonl, .*tokens, and a row holds settings\.context=256"):
        refusing.task(refusing).batches(small.stages[0], 0, 0, 1)


def test_a_tokenizer_of_ones_own_takes_the_place_of_a_trained_one(tmp_path: Path):
    told, shown = texts(tmp_path / "texts.jsonl"), pictures(tmp_path / "pictures")
    first = recipe("deepseek_1b", *LANGUAGE, f"settings.data={told}")
    backend = first.task(first).processor.tokenizer.backend  # type: ignore[attr-defined]
    assert backend.get_vocab_size() == 300 and all(backend.token_to_id(token) is not None for token in SPECIAL_TOKENS)
    (tmp_path / "own").mkdir()
    bare = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    bare.save(str(tmp_path / "own" / "tokenizer.json"))
    for given in ("own", "own/tokenizer.json"):
        second = override(first, [f"settings.tokenizer={tmp_path / given}"])
        tokenizer = second.task(second).processor.tokenizer  # type: ignore[attr-defined]
        assert tokenizer.vocab_size == 3 + len(SPECIAL_TOKENS) and tokenizer.encode("ab")[1:] == [2]
    third = recipe("siglip_large", *TOWER, f"settings.data={shown}", f"settings.tokenizer={tmp_path / 'own'}")
    task = third.task(third)
    assert isinstance(task, EncoderTask) and task.module.text.embed.num_embeddings == 4


def test_a_picture_is_shown_as_a_janus_will_see_it_with_its_caption(tmp_path: Path):
    small = recipe("siglip_large", *TOWER, f"settings.data={pictures(tmp_path / 'pictures')}")
    task = small.task(small)
    assert isinstance(task, EncoderTask)
    shown = task.source.shown({}, 0)
    assert shown.pixels.shape == (3, 32, 32) and shown.labels is None and min(shown.words) >= 1
    # 40 x 24 pixels in a square of 32: six and seven rows or columns of grey beside them, nothing cut off.
    grey = (shown.pixels - (2 * 127 / 255 - 1)).abs().amax(0) < 1e-3
    assert grey.all(0).sum() + grey.all(1).sum() == 13
    (batch, *_) = task.batches(small.stages[0], 0, 0, 1)
    assert batch.counts == {"captions": 2} and batch.tokens == 2 * 16
    assert set(task.measure(8)) == {"captions"}


def test_a_tenth_of_the_records_is_never_learned_from(tmp_path: Path):
    records = OwnRecords("generation", [pictures(tmp_path / "pictures")])
    learned, unseen = ({records[start + k].messages[0].text for k in range(60)} for start in (0, UNSEEN))
    assert len(learned) == 22 and len(unseen) == 2 and not learned & unseen
    assert set(records.texts(1000)) == learned and len(list(records.texts(5))) == 5


def test_what_a_recipe_lacks_is_asked_for(tmp_path: Path):
    for name, key in (("siglip_large", "data"), ("deepseek_1b", "data"), ("sdxl_vae", "vgg")):
        made = recipe(name)
        with pytest.raises(ConfigError, match=rf"settings\.{key} names no file"):
            made.task(made)
    shown = pictures(tmp_path / "pictures")
    told = texts(tmp_path / "texts.jsonl")
    for name, values, message in (
        ("siglip_large", [f"settings.data={shown}", "settings.labels=1"], "nobody knows what is on the patches"),
        (
            "deepseek_1b",
            [f"settings.data={told}", "settings.vocabulary=330"],
            "has 330 entries, and settings.language.vocab_size is",
        ),
    ):
        made = recipe(name, *(LANGUAGE if name == "deepseek_1b" else TOWER), *values)
        with pytest.raises(ConfigError, match=message):
            made.task(made)
    few = pictures(tmp_path / "few", 9)
    with pytest.raises(DataError, match="few: there are 9 records; 10 or more are needed"):
        OwnRecords("generation", [few])
    (shown / "03.png").write_bytes(b"no picture")
    made = recipe("siglip_large", *TOWER, f"settings.data={shown}", "settings.tokenizer_records=3")
    with pytest.raises(DataError, match=r"03\.png.*mend it or take it out"):
        made.task(made).batches(replace(made.stages[0], batch=22), 0, 0, 1)
