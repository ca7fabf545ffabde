"""The house keeps its promises: floors, light imports, quick help."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "openjanus"

# A file may import its own folder, and what stands on a lower floor.
FLOORS = {
    "errors": -1,  # under floor 0, so that the other words may use it
    "config": 0,
    "types": 0,
    "files": 0,
    "device": 0,
    "environment": 0.5,  # it picks a device
    "models": 1,
    "processing": 1,
    "kernels": 2,
    "checkpoints": 2,
    "data": 2,
    "engine": 3,
    "janus": 4,
    "train": 5,
    "jobs": 5,
    "evaluate": 5,
    "bench": 5,
    "serve": 5,
    "cli": 6,
    "__init__": 7,
    "__main__": 7,
}


def _room(module: str) -> str:
    """openjanus.models.llama -> models."""
    return module.split(".")[1] if "." in module else "__init__"


def _imports(path: Path) -> set[str]:
    """The rooms of the package that a file imports, anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    modules += [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    return {_room(module) for module in modules if module.split(".")[0] == "openjanus"}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_floor_imports_only_floors_below_it(path: Path):
    room = path.relative_to(SOURCE).with_suffix("").parts[0]
    for other in _imports(path) - {room}:
        # The command's --version is the one look upwards.
        allowed = FLOORS[other] < FLOORS[room] or (room == "cli" and other == "__init__")
        assert allowed, f"{path.name} on floor {FLOORS[room]} imports {other} on floor {FLOORS[other]}"


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_own_code_is_imported_inside_functions_only_where_it_keeps_start_up_light(path: Path):
    if path.relative_to(SOURCE).parts[0] == "cli":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inner = [
        n for f in functions for n in ast.walk(f) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("openjanus")
    ]
    assert not inner, f"line {inner[0].lineno if inner else 0}: import it at the top of the file"


def _python(code: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(SOURCE.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_heavy():
    assert _python("import openjanus, sys; print({'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules))") == "set()"


def test_loading_and_running_never_need_transformers():
    assert _python("from openjanus import load; import sys; print('transformers' in sys.modules)") == "False"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["understand"],
        ["generate"],
        ["chat"],
        ["train"],
        ["evaluate"],
        ["serve"],
        ["inspect"],
        ["convert"],
        ["data"],
        ["data", "check"],
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str]):
    # This, and not a time, is what keeps help quick: it takes about 0.15 s of CPU time, torch alone would take 2 s.
    heavy = "{'torch', 'transformers', 'numpy', 'PIL', 'tokenizers', 'safetensors', 'huggingface_hub'}"
    code = f"import sys; from openjanus.cli import main; main([*{arguments}, '--help']); print({heavy} & set(sys.modules))"
    assert _python(code).splitlines()[-1] == "set()"


def test_an_unknown_name_says_which_there_are():
    import openjanus

    with pytest.raises(AttributeError, match=r"no attribute 'laod'.*load"):
        openjanus.laod  # noqa: B018
    assert set(openjanus.__all__) <= set(dir(openjanus))
