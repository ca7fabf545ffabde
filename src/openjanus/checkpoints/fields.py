"""JSON objects of configurations: read key by key with errors that name the key, written back without losing others' keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from openjanus.errors import ConfigError


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT: Any = _Absent()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


class Section:
    """One JSON object and where it stands. Every reader returns the value or `default`; without a default the key is required.

    null counts as absent. ConfigError names the key, what came and what is allowed.
    """

    def __init__(self, values: Any, path: str) -> None:
        if not isinstance(values, Mapping):
            raise ConfigError(f"{path} is {values!r}; it must be a JSON object")
        self.values = values
        self.path = path

    def name(self, key: str) -> str:
        """The key with its path, as errors print it."""
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str, allowed: str) -> ConfigError:
        """The error for a value that is not allowed."""
        return ConfigError(f"{self.name(key)} is {self.values.get(key)!r}; it must be {allowed}")

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is not None:
            return value
        if default is ABSENT:
            raise ConfigError(f"the configuration lacks {self.name(key)}")
        return default

    def section(self, key: str, default: Any = ABSENT) -> "Section":
        """The JSON object under `key`."""
        return Section(self._get(key, default), self.name(key))

    def integer(self, key: str, default: Any = ABSENT, least: int = 1) -> Any:
        """A whole number of at least `least`; a default passes unchecked."""
        value = self._get(key, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.fail(key, f"a whole number of {least} or more")
        return value

    def number(self, key: str, default: Any = ABSENT, above: float = -inf) -> float:
        """A finite number larger than `above`."""
        value = self._get(key, default)
        if not _is_number(value) or value <= above:
            raise self.fail(key, "a number" if above == -inf else f"a number above {above:g}")
        return float(value)

    def flag(self, key: str, default: Any = ABSENT) -> bool:
        """True or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, "true or false")
        return value

    def text(self, key: str, default: Any = ABSENT) -> str:
        """A string."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.fail(key, "a string")
        return value

    def integers(self, key: str, default: Any = ABSENT) -> tuple[int, ...]:
        """A list of whole numbers of 1 or more, not empty."""
        value = self._get(key, default)
        listed = isinstance(value, list | tuple) and value
        if not listed or any(isinstance(item, bool) or not isinstance(item, int) or item < 1 for item in value):
            raise self.fail(key, "a list of whole numbers of 1 or more")
        return tuple(value)

    def numbers(self, key: str, default: Any, count: int) -> tuple[float, ...] | None:
        """A list of `count` finite numbers."""
        value = self._get(key, default)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or len(value) != count or not all(map(_is_number, value)):
            raise self.fail(key, f"a list of {count} numbers")
        return tuple(float(item) for item in value)

    def grid(self, key: str, default: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of one number or a pair."""
        value = self._get(key, default)
        pair = (value, value) if isinstance(value, int) else value
        listed = isinstance(pair, list | tuple) and len(pair) == 2
        if not listed or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in pair):
            raise self.fail(key, "a whole number or a pair [height, width]")
        return pair[0], pair[1]

    def only(self, key: str, allowed: tuple[Any, ...], reason: str) -> None:
        """ConfigError unless the key is absent or holds one of `allowed`; `reason` says what openjanus does instead."""
        value = self.values.get(key)
        if value is not None and value not in allowed:
            raise ConfigError(f"{self.name(key)} is {value!r}; {reason}")


@dataclass(frozen=True)
class Field:
    """A value to write; `default` is what readers assume without it, `published` whether published files spell it out anyway."""

    value: Any
    default: Any = ABSENT
    published: bool = False


def merge(base: Mapping[str, Any] | None, fields: Mapping[str, Field]) -> dict[str, Any]:
    """`base` with our fields in it: keys of others stay, ours are written where they stood or where a reader would go wrong."""
    merged = dict(base or {})
    for key, field in fields.items():
        if key in merged or field.value != field.default or (field.published and base is None):
            merged[key] = list(field.value) if isinstance(field.value, tuple) else field.value
    return merged


def as_grid(grid: tuple[int, int]) -> int | list[int]:
    """A grid as configurations write it: one number when square, else [height, width]."""
    return grid[0] if grid[0] == grid[1] else list(grid)
