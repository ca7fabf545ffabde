"""`openjanus train` as a program of its own, for tests that need processes."""

import typer

from openjanus.cli.train import train

if __name__ == "__main__":
    typer.run(train)
