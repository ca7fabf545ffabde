"""`openjanus serve`: an OpenAI-compatible API and a web page."""

import os
from pathlib import Path
from typing import Annotated

import typer

from openjanus.cli import options

KEYS = "OPENJANUS_API_KEYS"


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="As everywhere; several times for several models.",
            show_default="janus-tiny",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        list[str] | None, typer.Option(help=f"Who knows it may ask; several times for several. Better in ${KEYS} or a file.")
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="A file with a key in each line.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let everybody ask who reaches --host.")] = False,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Whether / is a web page.")] = True,
    queue: Annotated[int, typer.Option(help="Answers and pictures open, per model; more are refused (503).")] = 256,
    rows: Annotated[
        int | None, typer.Option(help="Rows that run at a time; a picture takes two.", show_default="what memory holds")
    ] = None,
    rate: Annotated[int, typer.Option(help="Requests a minute of each key, else of each address (429); 0 is off.")] = 0,
    concurrent: Annotated[int, typer.Option(help="Requests at a time of each key, else of each address (429); 0 is off.")] = 0,
    max_images: Annotated[int, typer.Option(help="Images in a request.")] = 16,
    max_pixels: Annotated[int, typer.Option(help="Pixels of an image, in millions.")] = 64,
    max_body: Annotated[int, typer.Option(help="Size of a request, in MiB.")] = 32,
    max_characters: Annotated[int, typer.Option(help="Characters of text in a request.")] = 100_000,
    max_n: Annotated[int, typer.Option(help="Answers or pictures of one request.")] = 10,
    timeout: Annotated[int, typer.Option(help="Seconds that a request may take (504).")] = 1800,
    step_seconds: Annotated[int, typer.Option(help="A step of the model that takes longer makes /health say stuck (503).")] = 600,
    picture_seconds: Annotated[int, typer.Option(help="How long links to pictures hold.")] = 3600,
    allow_remote_images: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help='Fetch images from it ("*": all public).', show_default="none"),
    ] = None,
    cors: Annotated[list[str] | None, typer.Option(metavar="ORIGIN", help="Let pages of this origin call the API.")] = None,
    public_url: Annotated[
        str | None, typer.Option(help="What links to pictures begin with, behind a proxy.", show_default="as asked")
    ] = None,
    drain_seconds: Annotated[int, typer.Option(help="After SIGTERM: how long to finish what was begun.")] = 60,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Write what people ask into the log.")] = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
) -> None:
    """Serve models to the `openai` client, and as a web page.

    openjanus serve --model deepseek-ai/Janus-Pro-1B --device cuda

    The page is at /, the API at /v1, its reference at /docs; /health, /ready and /metrics are for machines. Logs are JSON, a
    line a request, on standard error. Ctrl-C and SIGTERM finish what was begun; a second one does not wait.
    """
    from openjanus.errors import ConfigError

    try:
        from openjanus.serve.run import address, listen
        from openjanus.serve.run import serve as run

        if page:
            from openjanus.serve.page import mount_page
    except ModuleNotFoundError as error:
        raise ConfigError(f"serving needs {error.name}, which is not installed; pip install 'openjanus[serve]'") from error
    from openjanus.cli.console import load_model, note
    from openjanus.engine.engine import EngineOptions
    from openjanus.serve.app import create_app
    from openjanus.serve.settings import Limits, ServeSettings

    keys = [*(api_key or []), *_keys_of_file(api_key_file), *os.environ.get(KEYS, "").split()]
    limits = Limits(
        queue=queue,
        rate=rate,
        concurrent=concurrent,
        body_bytes=max_body << 20,
        images=max_images,
        pixels=max_pixels * 1_000_000,
        characters=max_characters,
        n=max_n,
        seconds=timeout,
        step_seconds=step_seconds,
        picture_seconds=picture_seconds,
    )
    settings = ServeSettings(
        host,
        port,
        tuple(keys),
        insecure,
        limits,
        tuple(name.lower() for name in allow_remote_images or ()),
        tuple(cors or ()),
        public_url,
        log_prompts,
        drain_seconds,
    )
    bound = listen(settings)  # a port that is taken is told before a large model is loaded
    named: list[str | None] = list(model) if model else [None]
    loaded = [(_name(name), load_model(name, device, dtype, quantize)) for name in named]
    app = create_app(loaded, settings, EngineOptions(lanes=rows))
    if page:
        app = mount_page(app)
    where = f"{address(bound)} ({'page at /, ' if page else ''}API at /v1)"
    note(f"serving {', '.join(name for name, _ in loaded)} at {where}")
    raise typer.Exit(run(app, settings, bound))


def _name(model: str | None) -> str:
    """What a model is called: a folder by its last part, everything else as it is."""
    name = model or "janus-tiny"
    return Path(name).resolve().name if Path(name).is_dir() else name


def _keys_of_file(path: Path | None) -> list[str]:
    """The lines of a file that hold something and are no comments; ConfigError if it cannot be read."""
    from openjanus.errors import ConfigError

    if path is None:
        return []
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the API keys in {path} cannot be read ({error}); give a text file with a key in each line") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"{path} holds no API key; write one in each line")
    return keys
