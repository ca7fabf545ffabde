"""The `openjanus` command. One file a command; nothing heavy is imported before a command's body runs."""

import io
import os
import sys

import typer

from openjanus.cli import bench, chat, convert, data, evaluate, generate, inspect, serve, train, understand
from openjanus.cli.console import NO_MEMORY, fail
from openjanus.errors import JanusError

app = typer.Typer(
    help="Janus, Janus-Pro and JanusFlow: ask about images, paint images.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    understand.understand,
    generate.generate,
    chat.chat,
    serve.serve,
    train.train,
    evaluate.evaluate,
    inspect.inspect,
    convert.convert,
    bench.bench,
):
    app.command()(command)
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    """Janus, Janus-Pro and JanusFlow: ask about images, paint images."""
    if version:
        from openjanus import __version__

        print(f"openjanus {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: list[str] | None = None) -> int:
    """Run a command line (None: sys.argv's) and return its exit code: 0 done, 2 a mistake to mend, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character shows its number; it is no reason to lose an answer.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of our output (head, less) has left; point stdout elsewhere so that closing it cannot fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except JanusError as error:
        return fail(str(error))
    except OSError as error:
        return fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except MemoryError:
        return fail(NO_MEMORY)


def _run(arguments: list[str] | None) -> int:
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="openjanus", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except typer.Exit as leave:
        code = leave.exit_code
    except Exception as error:
        # A word the command line does not know: typer's own errors carry their text, everything else is handled above or ours.
        if hasattr(error, "format_message"):
            return fail(f"{error.format_message()} ({_helpful(error)} --help shows what there is)")
        if type(error).__name__ == "OutOfMemoryError":
            return fail(NO_MEMORY)
        raise
    if code == 130:
        print(file=sys.stderr)  # the shell's prompt belongs under the half answer, not behind it
    return code if isinstance(code, int) else 0


def _helpful(error: Exception) -> str:
    """The command whose help lists what a usage error is about."""
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "openjanus"
