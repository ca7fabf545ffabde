"""Recipe files: found by path and by name, and what is said when they are not."""

from pathlib import Path

import pytest

from openjanus.errors import ConfigError
from openjanus.train.recipe_files import load_recipe, recipe_files

from .running import TOY


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with recipes/janus_small.py, and something beside it that is no recipe."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "janus_small.py").write_text(TOY.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "script.py").write_text("print('no recipe')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_recipe_is_found_by_name_and_by_path(here: Path):
    assert load_recipe("janus_small").name == load_recipe("recipes/janus_small.py").name == "toy"
    assert "script" not in recipe_files()


def test_loading_a_recipe_writes_nothing(here: Path):
    load_recipe("janus_small")
    assert not (here / "__pycache__").exists()


def test_a_recipe_may_be_a_function_and_import_its_neighbours(here: Path):
    (here / "shared.py").write_text("from janus_small import RECIPE as BASE\n", encoding="utf-8")
    text = "from dataclasses import replace\nfrom shared import BASE\ndef recipe():\n    return replace(BASE, name='made')\n"
    (here / "made.py").write_text(text, encoding="utf-8")
    assert load_recipe("made").name == "made"


def test_an_unknown_name_offers_the_nearest_and_the_list(here: Path):
    with pytest.raises(ConfigError, match=r"no recipe 'janus_smal'; did you mean janus_small\? recipes: .*janus_small"):
        load_recipe("janus_smal")
    with pytest.raises(ConfigError, match=r"no recipe file nowhere\.py"):
        load_recipe("nowhere.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RECIPE = 3\n", "defines no recipe"),
        ("x = 1\n", "defines no recipe"),
        ("\nRECIPE = undefined\n", r"line 2 fails: NameError: .*undefined"),
        ("RECIPE = (\n", "fails: SyntaxError"),
    ],
)
def test_a_broken_file_is_named_with_its_line(here: Path, text: str, message: str):
    (here / "broken.py").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_recipe("recipes/broken.py")
