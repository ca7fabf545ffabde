"""What importing `janus` does, and does not do, to a process; and whose `janus` it is. Each in a fresh interpreter."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

import janus
import openjanus_dropin

ROOT = Path(__file__).resolve().parents[2]


def run(code: str, *arguments: str) -> str:
    """Standard output of a fresh interpreter that sees this checkout."""
    prelude = f"import sys; sys.path[:0] = [{str(ROOT / 'src')!r}, {str(ROOT / 'dropin' / 'src')!r}]\n"
    done = subprocess.run([sys.executable, "-c", prelude + code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_janus_is_light_and_silent() -> None:
    code = "import janus; print(sorted({'torch', 'transformers', 'openjanus'} & sys.modules.keys()))"
    assert run(code) == "[]\n"


def test_importing_the_models_prints_nothing_and_patches_nothing() -> None:
    code = """
import collections, torch, transformers
from transformers import LlamaForCausalLM, PreTrainedModel
before = set(dir(collections)), LlamaForCausalLM.forward, PreTrainedModel.from_pretrained.__func__, torch.nn.Module.__call__
import janus.models, janus.janusflow.models, janus.utils.io, janus.utils.conversation
after = set(dir(collections)), LlamaForCausalLM.forward, PreTrainedModel.from_pretrained.__func__, torch.nn.Module.__call__
assert before == after
"""
    assert run(code) == ""


@pytest.mark.parametrize("module", ["janus.models", "janus.janusflow.models"])
def test_either_import_makes_both_variants_known(module: str, folders: Any) -> None:
    code = f"""
import {module}
from transformers import AutoConfig, AutoModelForCausalLM
for folder in sys.argv[1:]:
    print(type(AutoConfig.from_pretrained(folder)).__module__)
    print(type(AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)).__module__)
"""
    expected = ["janus.models.modeling_vlm"] * 2 + ["janus.janusflow.models.modeling_vlm"] * 2
    assert run(code, str(folders("janus")), str(folders("janusflow"))).split() == expected


def test_who_looks_for_the_asyncio_queue_is_told() -> None:
    with pytest.raises(AttributeError, match="not the asyncio queue"):
        _ = janus.Queue
    with pytest.raises(AttributeError, match=r"has no attribute 'nothing'$"):
        _ = janus.nothing


def test_the_check_is_content_with_this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(openjanus_dropin, "version", absent)
    assert openjanus_dropin.check() is None
    assert openjanus_dropin.main() == 0


def test_the_check_finds_the_queue_installed_beside_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(openjanus_dropin, "version", lambda name: "2.0.0")
    assert openjanus_dropin.main() == 1
    assert "pip uninstall -y janus" in capsys.readouterr().out


def test_the_check_finds_another_janus_in_front(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    (tmp_path / "janus" / "__init__.py").write_text("class Queue: ...\n")
    code = "sys.path.insert(0, sys.argv[1]); import openjanus_dropin; print(openjanus_dropin.check())"
    assert str(tmp_path) in run(code, str(tmp_path))
