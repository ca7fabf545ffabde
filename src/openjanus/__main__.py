"""`python -m openjanus` is the `openjanus` command."""

import sys

from openjanus.cli import main

if __name__ == "__main__":
    sys.exit(main())
