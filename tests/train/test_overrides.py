"""key=value: what it sets, and what it says when it cannot."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from openjanus.errors import ConfigError
from openjanus.train.overrides import override
from openjanus.train.recipe import Recipe, flat

from .running import toy


@dataclass(frozen=True)
class Sizes:
    width: int = 64
    ratio: float | None = None


@dataclass(frozen=True)
class Deep:
    sizes: Sizes = field(default_factory=Sizes)
    folder: Path = Path("data")
    words: tuple[str, ...] = ()
    on: bool = False


def deep(*assignments: str) -> Recipe:
    return override(replace(toy(), settings=Deep()), assignments)


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("seed=7", "seed", 7),
        ("stages.adapt.steps=3", "stages.adapt.steps", 3),
        ("stages.tune.rate=2e-5", "stages.tune.rate", 2e-5),
        ("stages.tune.betas=0.8,0.99", "stages.tune.betas", [0.8, 0.99]),
        ("stages.tune.frozen=encoder,layers.0", "stages.tune.frozen", ["encoder", "layers.0"]),
        ("stages.adapt.frozen=", "stages.adapt.frozen", []),
        ("stages.tune.ema=none", "stages.tune.ema", None),
        ("stages.tune.compile=true", "stages.tune.compile", True),
        ("stages.adapt.micro_batch=2", "stages.adapt.micro_batch", 2),
        ("stages.adapt.precision=bfloat16", "stages.adapt.precision", "bfloat16"),
        ("stages.adapt.mix.b=5", "stages.adapt.mix.b", 5),
        ("settings.sizes.width=128", "settings.sizes.width", 128),
        ("settings.sizes.ratio=0.5", "settings.sizes.ratio", 0.5),
        ("settings.folder=a=b", "settings.folder", "a=b"),
        ("settings.words=one,two", "settings.words", ["one", "two"]),
        ("settings.on=yes", "settings.on", True),
    ],
)
def test_a_key_is_set_and_nothing_else_is(assignment: str, key: str, value: object):
    before, after = flat(deep().to_json()), flat(deep(assignment).to_json())
    assert after[key] == value
    assert {name for name in before if before[name] != after[name]} <= {key}


def test_a_key_of_stages_without_a_name_sets_every_stage():
    assert [stage.steps for stage in toy("stages.steps=2").stages] == [2, 2]


def test_the_last_of_two_settings_of_one_key_holds():
    assert toy("seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("seed", "'seed' sets nothing; write key=value"),
        ("sead=1", "no key 'sead'; did you mean seed"),
        ("steps=1", "did you mean stages.steps"),
        ("stages.adapt.stesp=1", r"did you mean stages.adapt.steps"),
        ("stages.adpat.rate=1", r"did you mean .*stages.adapt.rate"),
        ("rat=1", "did you mean stages.rate"),
        ("settings.sizes.widht=1", "did you mean settings.sizes.width"),
        ("name=other", "no key 'name'"),
        ("stages.adapt.name=other", "no key"),
        ("zzz=1", "there are seed, save_every"),
        ("seed=1.5", "seed is '1.5'; it must be a whole number"),
        ("stages.adapt.rate=fast", "it must be a number"),
        ("stages.adapt.rate=inf", "it must be a number"),
        ("stages.adapt.betas=0.9", "it must be a list of a number, a number"),
        ("stages.adapt.ema=maybe", "it must be a number or none"),
        ("stages.adapt.schedule=linear", "it must be constant or cosine"),
        ("stages.adapt.compile=maybe", "it must be true or false"),
        ("stages.adapt.steps=0", "stages.adapt.steps is 0; it must be 1 or more"),
        ("stages.mix.a=1", r"stages.mix.a is not in every stage; set it stage by stage: stages.NAME.mix.a=1"),
        ("save_every=0", "save_every is 0"),
    ],
)
def test_a_mistake_is_named_and_the_nearest_offered(assignment: str, message: str):
    with pytest.raises(ConfigError, match=message):
        deep(assignment)


def test_stages_must_be_named_apart_and_not_after_their_own_fields():
    recipe = toy()
    adapt, tune = recipe.stages
    with pytest.raises(ConfigError, match="two stages of one name"):
        replace(recipe, stages=(adapt, adapt))
    with pytest.raises(ConfigError, match="stage named 'rate'"):
        replace(recipe, stages=(adapt, replace(tune, name="rate")))
    with pytest.raises(ConfigError, match="no stages"):
        replace(recipe, stages=())
    with pytest.raises(ConfigError, match="no stage comes before"):
        toy("stages.adapt.continues=true")
