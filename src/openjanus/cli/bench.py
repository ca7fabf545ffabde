"""`openjanus bench`: speed and memory on this machine."""

from typing import Annotated, Literal

import typer

from openjanus.cli import options

Kind = Literal["generate", "understand", "flow", "load", "memory"]


def bench(
    kind: Annotated[Kind, typer.Argument(help="What to measure.")],
    preset: Annotated[
        str | None, typer.Option(help="A published size, with random weights.", show_default="janus-pro-1b")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A checkpoint instead.", show_default="none")] = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Images of a prompt.")] = 1,
    prompts: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 1,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", "--tokens", min=2, help="Only the first so many; of a flow, images of so many.", show_default="all"
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each side is measured, in turn.")] = 3,
    peer: Annotated[
        str | None,
        typer.Option(
            help="In the same run: eager, the published loop on transformers' Llama; or transformers, its own port.",
            show_default="none",
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "bfloat16",
    quantize: options.Quantize = None,
    as_json: options.Json = False,
) -> None:
    """Measure speed or memory, with random weights of a published size: nothing is downloaded.

    openjanus bench generate --preset janus-pro-1b --quantize int4 --steps 32 --peer eager

    generate: a step of images made of codes. flow: a step of JanusFlow. understand: a token of an answer. load: a checkpoint.
    memory: weights, and the cache of a row of --steps positions, counted before anything runs. The ratio is the peer's median
    step over ours; limit_fraction how near ours comes to what this machine can read a second, or of a flow multiply.
    """
    import json

    from openjanus.bench.run import Work, measure, measure_load, memory
    from openjanus.checkpoints.load import stored_quantization
    from openjanus.cli.console import note
    from openjanus.device import pick_device, pick_dtype
    from openjanus.engine.linear import check_quantization_on
    from openjanus.errors import ConfigError

    where, number = pick_device(device), pick_dtype(dtype)
    stored = "none" if model is None else stored_quantization(model)
    quantization = check_quantization_on(quantize or stored, where)
    name = preset or model or ("janusflow-1.3b" if kind == "flow" else "janus-pro-1b")
    assert number is not None
    if kind == "load":
        if preset is not None:
            raise ConfigError("load measures a checkpoint, and a preset is none; give --model, a folder or a name")
        report = measure_load(model or "janus-tiny", where, None, quantization, rounds)
    elif kind == "memory":
        report = memory(name, where, number, quantization, steps)
    else:
        work = Work(kind, name, n, prompts, steps, rounds, quantization, peer)
        report = measure(work, where, number, note)
    print(json.dumps(report) if as_json else "\n".join(_lines(report)))


def _lines(report: dict[str, object]) -> list[str]:
    """The report for people: a line a number."""
    lines = []
    for name, value in report.items():
        if isinstance(value, dict):
            lines += [f"{name}.{key}: {inner}" for key, inner in value.items() if inner is not None]
        else:
            lines.append(f"{name}: {value}")
    return lines
