"""docs/serving.md says what is so: its examples run, its options and numbers are there."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml
from typer.main import get_command

from serve.live import running
from serve.server_process import ROOT

GUIDE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
HERE = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def run(words: list[str]) -> str:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_that_asks_runs_as_it_stands(tmp_path: Path):
    curl = shutil.which("curl")
    lines = [block for block in blocks("bash") if block.startswith("curl")]
    assert len(blocks("python")) == 1 and len(lines) == 1 and lines[0].count("curl") == 2
    with running() as live:
        script = tmp_path / "example.py"
        script.write_text(blocks("python")[0].replace(HERE, live.url), encoding="utf-8")
        printed = run([sys.executable, str(script)]).splitlines()
        assert printed[0], "an answer"
        kinds = [line.rsplit(" ", 1) for line in printed[1:]]
        assert [kind for kind, _ in kinds] == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
        assert all(int(size) > 1000 for _, size in kinds)
        if curl is None:
            pytest.skip("curl is not installed")
        told = run(["bash", "-ec", lines[0].replace(HERE, live.url)])
        assert told.count("data: {") > 2 and "data: [DONE]" in told and f'"url":"{live.url}/pictures/' in told
        link = re.search(r'"url":"(.*?)"', told)
        assert link and httpx.get(link[1]).headers["content-type"] == "image/png"


def test_every_option_is_told_and_there_is_no_other():
    from openjanus.cli import app

    command = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    options = {name for option in command.params for name in option.opts if name.startswith("--")}
    told = set(
        re.findall(
            r"(?<![\w-])(--[a-z][a-z-]+)", re.sub(r"```(dockerfile|ini|yaml)\n.*?```|`docker run.*?`", "", GUIDE, flags=re.DOTALL)
        )
    )
    others = {"--gpus", "--stop-timeout"}  # docker's
    assert told - others <= options | {"--no-page"}
    assert options - told <= {"--help", "--page"}


def test_services_are_started_with_options_that_there_are():
    from openjanus.cli import app

    command = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    unit = next(line for line in blocks("ini")[0].splitlines() if line.startswith("ExecStart="))
    lists = dict(re.findall(r"^(ENTRYPOINT|CMD) (\[.*\])$", blocks("dockerfile")[0], re.MULTILINE))
    deployment = next(iter(yaml.safe_load_all(blocks("yaml")[0])))
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    entry = json.loads(lists["ENTRYPOINT"])
    lines = [unit.removeprefix("ExecStart=").split(), entry + json.loads(lists["CMD"]), entry + container["args"]]
    for program, name, *arguments in lines:
        assert Path(program).name == "openjanus" and name == "serve"
        # Reads them as the command would, and starts nothing.
        command.make_context("serve", list(arguments))


def test_every_number_that_is_told_is_counted():
    with running() as live:
        counted = httpx.get(f"{live.url}/metrics").text
    told = set(re.findall(r"\b((?:openjanus|process)_[a-z_]+)\b", GUIDE))
    assert len(told) > 12
    assert not [name for name in told if f"# TYPE {name.removesuffix('_total')}" not in counted.replace("_total", "")]


def test_the_kubernetes_example_is_yaml_and_its_probes_are_there():
    deployment, service = yaml.safe_load_all(blocks("yaml")[0])
    assert (deployment["kind"], service["kind"]) == ("Deployment", "Service")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["containerPort"]
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    with running() as live:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert httpx.get(live.url + container[probe]["httpGet"]["path"]).status_code == 200
