"""`key=value` from a command line into a recipe: strict about names, kind about what was probably meant."""

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from openjanus.errors import ConfigError
from openjanus.train.recipe import Recipe, flat

_PLAIN = ("seed", "save_every", "preview_every", "validate_every")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """The recipe with each `key=value` put in.

    Keys: seed, save_every, preview_every, validate_every; settings.KEY; stages.NAME.KEY for one stage, stages.KEY for all of
    them; deeper values follow with more dots (stages.tune.mix.text). Values: numbers, words, true or false, none, lists with
    commas. ConfigError names an unknown key with the nearest there are, and a value that does not fit.
    """
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(
                f"{assignment!r} sets nothing; write key=value, for instance stages.{recipe.stages[0].name}.steps=100"
            )
        known = _keys(recipe)
        if key not in known:
            raise ConfigError(f"recipe {recipe.name} has no key {key!r}; {_nearest(key, known)}")
        recipe = _set_in_recipe(recipe, key, text)
    return recipe


def _keys(recipe: Recipe) -> list[str]:
    """Every key that can be set."""
    stages = {f"stages.{stage.name}.{key}" for stage in recipe.stages for key in _fields_of(stage)}
    shared = {f"stages.{key}" for stage in recipe.stages for key in _fields_of(stage)}
    return [*_PLAIN, *sorted(shared), *sorted(stages), *(f"settings.{key}" for key in _fields_of(recipe.settings))]


def _fields_of(value: Any) -> list[str]:
    fields = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else {}  # type: ignore[arg-type]
    return [key for key in flat(fields) if key != "name"] if fields else []


def _nearest(key: str, known: Sequence[str]) -> str:
    """A hint: keys that end alike, else keys that are spelled alike, else some that there are."""
    last = key.rsplit(".", 1)[-1]
    alike = [one for one in known if one.rsplit(".", 1)[-1] == last] or get_close_matches(key, known, 3, 0.6)
    if not alike:
        endings = get_close_matches(last, {one.rsplit(".", 1)[-1] for one in known}, 1)
        alike = [one for one in known if endings and one.rsplit(".", 1)[-1] == endings[0]]
    return f"did you mean {' or '.join(alike[:3])}?" if alike else f"there are {', '.join(known[:12])}, ..."


def _set_in_recipe(recipe: Recipe, key: str, text: str) -> Recipe:
    part, _, rest = key.partition(".")
    if part == "settings":
        return dataclasses.replace(recipe, settings=_set(recipe.settings, None, rest.split("."), text, key))
    if part == "stages":
        name, _, inner = rest.partition(".")
        only = name in {stage.name for stage in recipe.stages}
        path = (inner if only else rest).split(".")
        stages = [_set(s, None, path, text, key) if s.name == name or not only else s for s in recipe.stages]
        return dataclasses.replace(recipe, stages=tuple(stages))
    return dataclasses.replace(recipe, **{key: read(text, int, key)})


def _set(value: Any, hint: Any, path: Sequence[str], text: str, key: str) -> Any:
    """`value` with what lies at the end of the path replaced by what the text says."""
    if not path:
        return read(text, hint, key)
    first, *rest = path
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value))
        return dataclasses.replace(value, **{first: _set(getattr(value, first), hints[first], rest, text, key)})
    assert isinstance(value, Mapping), key
    if first not in value:  # a mix that only some of the stages have
        raise ConfigError(f"{key} is not in every stage; set it stage by stage: stages.NAME.{key.removeprefix('stages.')}={text}")
    kind = get_args(hint)[1] if len(get_args(hint)) == 2 else type(value[first])
    return {**value, first: _set(value[first], kind, rest, text, key)}


def read(text: str, hint: Any, key: str) -> Any:
    """The value of a type that a text means; ConfigError names the key."""
    try:
        return _read(text.strip(), hint)
    except ValueError:
        raise ConfigError(f"{key} is {text!r}; it must be {_describe(hint)}") from None


def _read(text: str, hint: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _read_union(text, inner)
    if origin is Literal and text in inner:
        return text
    if origin is tuple:
        return _read_tuple(text, inner)
    if hint is bool and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if hint in (int, str, Path) or (hint is float and math.isfinite(float(text))):
        return hint(text)
    raise ValueError(text)


def _read_union(text: str, members: tuple[Any, ...]) -> Any:
    if type(None) in members and text.lower() == "none":
        return None
    for member in members:
        try:
            return _read(text, member)
        except ValueError:
            continue
    raise ValueError(text)


def _read_tuple(text: str, inner: tuple[Any, ...]) -> tuple[Any, ...]:
    parts = [part for part in text.strip("()[]").split(",") if part.strip()]
    if len(inner) == 2 and inner[1] is Ellipsis:
        return tuple(_read(part.strip(), inner[0]) for part in parts)
    if len(parts) != len(inner):
        raise ValueError(text)
    return tuple(_read(part.strip(), kind) for part, kind in zip(parts, inner, strict=True))


def _describe(hint: Any) -> str:
    """A type in the words of the command line."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(member) for member in inner)
    if origin is Literal:
        return " or ".join(inner)
    if origin is tuple:
        return "a list of " + (_describe(inner[0]) if inner[-1] is Ellipsis else ", ".join(map(_describe, inner)))
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path", type(None): "none"}
    return words.get(hint, "something the command line cannot give")
