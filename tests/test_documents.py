"""What README and examples say works: their commands are run as they stand, with the bundled models."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def readme_commands() -> list[str]:
    """Every `openjanus` line; those that need a published checkpoint or a terminal are left out by name."""
    lines = [line.split("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("openjanus") and "deepseek-ai/" not in line]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """An empty folder that sees the repository's examples, so that nothing is written into the repository."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def run(command: list[str], folder: Path, answers: str = "") -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, input=answers, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_shows_commands():
    verbs = {shlex.split(command)[1] for command in readme_commands()}
    assert verbs == {"understand", "generate", "inspect", "convert", "evaluate", "bench"}


@pytest.mark.parametrize("command", readme_commands())
def test_readme_commands_run_as_written(command: str, workplace: Path):
    assert run([sys.executable, "-m", *shlex.split(command)], workplace).strip()


@pytest.mark.parametrize("code", blocks("python"))
def test_readme_python_runs_as_written(code: str, workplace: Path):
    assert run([sys.executable, "-c", code], workplace).strip()


def test_links_in_readme_and_docs_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "dropin").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"


@pytest.mark.parametrize(
    ("script", "flags", "answers", "images"),
    [
        ("run_understanding_inference", ["--model_path", "janus-tiny", "--image_file", "examples/images/shapes.png"], "", 0),
        ("run_understanding_inference", ["--model_path", "janusflow-tiny", "--question", "How many circles are there?"], "", 0),
        ("run_generation_inference", ["--model_path", "janus-tiny", "--prompt", "a red cube", "--dtype", "float32"], "", 2),
        ("run_generation_inference_janusflow", ["--model_path", "janusflow-tiny", "--inference_step", "2"], "", 2),
        ("run_interactivechat", ["--model_path", "janus-tiny", "--dtype", "bfloat16"], "none\n1\na red cube\n\nexit\n", 1),
    ],
)
def test_example_scripts_take_paddlemix_flags(script: str, flags: list[str], answers: str, images: int, workplace: Path):
    assert run([sys.executable, f"examples/janus/{script}.py", *flags], workplace, answers).strip()
    assert len(list((workplace / "generated_samples").glob("*.png"))) == images


def test_example_scripts_end_with_one_line_on_a_mistake(workplace: Path):
    command = [sys.executable, "examples/janus/run_generation_inference.py", "--model_path", "absent"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no folder 'absent'")
