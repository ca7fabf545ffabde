"""`openjanus generate`: paint images."""

import json
from pathlib import Path
from typing import Annotated

import typer

from openjanus.cli import options


def generate(
    prompt: Annotated[list[str] | None, typer.Argument(help="What to paint; several prompts are painted in one batch.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="A file of prompts instead: a text a line, or .jsonl with prompt, images and seed. Prompt k is drawn from seed "
            "(0) + k * n. A job that was killed goes on; torchrun divides it.",
        ),
    ] = None,
    batch: options.Batch = 16,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", "-i", help="An image that the prompt changes; may be given several times."),
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", help="Images of each prompt.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Image i is drawn from seed + i.", show_default="a fresh one")] = None,
    guidance: options.Guidance = None,
    image_guidance: options.ImageGuidance = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest code each time (not for flow models).")] = 1.0,
    top_p: options.TopP = 1.0,
    top_k: options.TopK = 0,
    steps: options.Steps = 30,
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder, or a .png file.")] = Path("out"),
    model: options.Model = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
    adapter: options.Adapter = None,
    as_json: options.Json = False,
) -> None:
    """Paint images of a prompt, and print where they are.

    openjanus generate "three red circles" -n 4 --seed 0 -o out/
    openjanus generate "make the circle blue" --image scene.png
    openjanus generate --prompts prompts.txt -n 4 -o out/

    The PNG files carry prompt, seed and settings in their metadata. Nothing is ever written over.
    """
    from openjanus.cli.console import load_model, progress_bar
    from openjanus.cli.offline import Loaded, run_job
    from openjanus.cli.pictures import prepare_output, save_pictures
    from openjanus.errors import PromptError
    from openjanus.types import ImageOptions

    if (prompts is None) == (not prompt) or (prompts is not None and image):
        raise PromptError(
            "give either prompts or --prompts FILE, whose lines name their own images; "
            "openjanus generate --help shows what there is"
        )
    asked = ImageOptions(n, seed, guidance, temperature, top_p, top_k, steps, image_guidance)
    if prompts is not None:
        from openjanus.jobs.painting import paint, read_prompts

        wanted = read_prompts(prompts)
        run_job(
            "painting",
            lambda janus, share, progress, note: paint(janus, wanted, output, asked, share, batch, progress, note),
            Loaded(model, device, dtype, quantize, adapter),
            output,
            "prompts",
            as_json,
        )
        return
    assert prompt
    prepare_output(output)
    janus = load_model(model, device, dtype, quantize, adapter)
    with progress_bar("painting") as progress:
        pictures = janus.paint(prompt, asked, progress, [image or []] * len(prompt))
    paths = save_pictures(pictures, output, janus.name)
    if as_json:
        found = [{"prompt": p.prompt, "seed": p.seed, "path": str(path)} for p, path in zip(pictures, paths, strict=True)]
        print(json.dumps(found))
        return
    for path in paths:
        print(path)
