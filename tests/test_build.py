"""The kernels in C compile wherever they may be built, from all that a source archive holds."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "src" / "openjanus" / "kernels"


def test_what_kernels_include_is_named_where_they_are_built():
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (depends,) = re.findall(r"^depends = \[(.+)\]", settings, flags=re.MULTILINE)
    named = {Path(name).name for name in re.findall(r'"(.+?)"', depends)}
    sources = [path.read_text(encoding="utf-8") for path in KERNELS.glob("*.[ch]")]
    included = {name for source in sources for name in re.findall(r'#include "(.+)"', source)}
    # What is not named is missing from a source archive, and a change of it builds nothing anew.
    assert named == included == {path.name for path in KERNELS.glob("*.h")}


@pytest.mark.parametrize("switch", ["-O1", "-DWITHOUT_MATRICES"])
def test_kernels_compile_without_a_warning(switch: str):
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc here")
    if "x86_64" not in subprocess.run(["gcc", "-dumpmachine"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("these kernels are for x86")
    command = ["gcc", "-fsyntax-only", "-fopenmp", "-Wall", "-Wextra", "-Werror", switch, str(KERNELS / "decode.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
