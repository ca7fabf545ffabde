"""What a command's start must not cost."""

import subprocess
import sys
from pathlib import Path

SHAPES = Path(__file__).resolve().parents[2] / "examples" / "images" / "shapes.png"
CODE = f"""
import sys
from openjanus.janus import load
print(load("janus-tiny").understand("How many circles are there?", [{str(SHAPES)!r}], max_tokens=1))
print([name for name in ("torch._dynamo", "sympy", "transformers", "torch.distributed.fsdp") if name in sys.modules])
"""


def test_an_answer_needs_no_compiler_and_nothing_of_training():
    """torch's compiler takes more than a second to import, and drawing weights without memory would do so."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
