"""Whether `import janus` means this distribution, and what to do if it does not.

PyPI's `janus` is an unrelated asyncio queue with the same import name: where both are installed, one overwrites or hides the
other without a word. This module has a name of its own, so that it can be asked even then: `python -m openjanus_dropin`.
"""

import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

OURS = Path(__file__).resolve().parent / "janus" / "__init__.py"
CURE = "pip uninstall -y janus && pip install --force-reinstall --no-deps openjanus-dropin"


def check() -> str | None:
    """None if `import janus` gives the drop-in and nothing contends for the name; otherwise what is wrong and how to mend it."""
    try:
        other: str | None = version("janus")
    except PackageNotFoundError:
        other = None
    spec = find_spec("janus")
    found = Path(spec.origin).resolve() if spec is not None and spec.origin else None
    if other is not None:
        return (
            f"the distribution 'janus' {other} (PyPI's asyncio queue) is installed beside openjanus-dropin, and both own the "
            f"import name janus; run: {CURE}"
        )
    if found != OURS:
        return f"`import janus` gives {found}, not {OURS}; remove or rename that one, or run: {CURE}"
    return None


def main() -> int:
    """Print what `check` found; exit status 1 if something is wrong."""
    problem = check()
    print(problem or f"import janus is openjanus-dropin: {OURS.parent}")
    return int(problem is not None)


if __name__ == "__main__":
    sys.exit(main())
