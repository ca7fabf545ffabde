"""Finding a recipe: by the path of its file, or by name in `recipes/`."""

import re
import sys
import traceback
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from openjanus.checkpoints.locate import expand_path
from openjanus.errors import ConfigError, JanusError
from openjanus.train.recipe import Recipe

# Beside the code in a checkout; the working folder's own come first.
_CHECKOUT = Path(__file__).resolve().parents[3] / "recipes"
_DEFINES = re.compile(r"^(RECIPE\b.*=|def recipe\()", re.MULTILINE)


def recipe_files() -> dict[str, Path]:
    """The recipes that can be called by name, sorted: files in ./recipes and in the checkout's that define one."""
    found: dict[str, Path] = {}
    for folder in (_CHECKOUT, Path("recipes")):
        for path in sorted(folder.glob("*.py")):
            if _DEFINES.search(path.read_text(encoding="utf-8", errors="replace")):
                found[path.stem] = path
    return dict(sorted(found.items()))


def load_recipe(name: str) -> Recipe:
    """The recipe of a file (`path/to/recipe.py`) or a name in `recipes/`.

    The file defines `RECIPE` or `recipe()`, and may import its neighbours. ConfigError for an unknown name, with the nearest and
    the list, and for a file that fails, with the line.
    """
    return _recipe_in(_find(name))


def _find(name: str) -> Path:
    path = expand_path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise ConfigError(f"there is no recipe file {name}")
        return path
    known = recipe_files()
    if name in known:
        return known[name]
    near = get_close_matches(name, known, 1, 0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    listed = ", ".join(known) or "none here (run from a checkout, or give the path of a .py file)"
    raise ConfigError(f"there is no recipe {name!r}; {hint}recipes: {listed}")


def _recipe_in(path: Path) -> Recipe:
    module = ModuleType(f"recipe_{path.stem}")
    module.__file__ = str(path)
    # Registered, because dataclasses and pickles look a module up by its name. Neighbours are imported as from any script.
    sys.modules[module.__name__] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
        found = module.recipe() if hasattr(module, "recipe") else getattr(module, "RECIPE", None)
    except JanusError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        raise ConfigError(f"recipe {where} fails: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    if not isinstance(found, Recipe):
        raise ConfigError(f"{path} defines no recipe; it must set RECIPE or define recipe() returning a Recipe")
    return found
