"""`openjanus train`: carry a recipe through its stages."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from openjanus.cli import options


def train(
    recipe: Annotated[str, typer.Argument(help="A name in recipes/, or the path of a recipe's .py file.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, e.g. stages.adapt.steps=100 seed=1.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The run's folder.", show_default="runs/NAME")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run the last two steps of each stage, print the plan, write nothing.")
    ] = False,
    planned: Annotated[
        bool, typer.Option("--plan", help="Estimate memory and time on other machines, and start nothing; see --gpus, --memory.")
    ] = False,
    gpus: Annotated[int, typer.Option(help="With --plan: GPUs of all machines.")] = 1,
    memory: Annotated[float, typer.Option(help="With --plan: GiB of each.")] = 80.0,
    tflops: Annotated[float, typer.Option(help="With --plan: peak TFLOP/s of each (312: A100 in bfloat16).")] = 312.0,
    shards: Annotated[
        int | None,
        typer.Option(help="Processes that hold one copy of the model together, e.g. those of a machine.", show_default="all"),
    ] = None,
    async_saves: Annotated[
        bool,
        typer.Option(
            "--async-saves", help="Write states while the run goes on; takes memory for a copy of this process's share."
        ),
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare batches ahead.")] = 0,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Train a model by a recipe, and print where it is.

    openjanus train tiny_janus stages.adapt.steps=100 -o runs/first

    openjanus train finetune_lora settings.init=deepseek-ai/Janus-Pro-7B --plan --gpus 8 --memory 80

    A run that was stopped goes on where it was: give the same command again. Ctrl-C finishes the step and saves. On several GPUs:
    torchrun --nproc-per-node 8 -m openjanus train RECIPE ...
    """
    from openjanus.cli.training_progress import training_progress
    from openjanus.train import estimate, parallel, plan, trainer
    from openjanus.train.overrides import override
    from openjanus.train.recipe_files import load_recipe

    chosen = override(load_recipe(recipe), settings or [])
    if planned:
        counted = estimate.estimate(chosen, gpus, memory, tflops, shards)
        print(json.dumps(counted.to_json()) if as_json else counted.to_text())
        return
    folder = output or Path("runs") / chosen.name
    with parallel.joined(device, shards) as world:
        if dry_run:
            expected = plan.dry_run(chosen, world)
            if world.leads:
                print(json.dumps(expected.to_json()) if as_json else expected.to_text())
            return
        with training_progress(chosen.name, speaks=world.leads) as reporter:
            result = trainer.train(chosen, folder, world, reporter, workers, async_saves)
    if world.leads and result.final is not None:
        print(json.dumps({"folder": str(result.final), "steps": result.step}) if as_json else result.final)
    if world.size > 1:
        # A process of several still has threads for talking, which now and then abort a clean exit; everything is written.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0 if result.signal is None else 128 + result.signal)
    if result.signal is not None:
        # What a process says that a signal has ended, so that scripts do not take the run for finished.
        raise typer.Exit(128 + result.signal)
