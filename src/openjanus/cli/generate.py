"""`openjanus generate`: paint images."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openjanus.cli import options

if TYPE_CHECKING:
    from openjanus.types import ImageOptions


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
        _paint_file(prompts, asked, output, batch, (model, device, dtype, quantize, adapter), as_json)
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


def _paint_file(
    prompts: Path, asked: "ImageOptions", output: Path, batch: int, loaded: tuple[str | None, ...], as_json: bool
) -> None:
    """Paint a file's prompts, or this process's share of them; ends with 1 if some cannot be painted."""
    from openjanus.cli.console import load_model, note, progress_bar
    from openjanus.environment import Share
    from openjanus.jobs.painting import paint, read_prompts

    wanted, share = read_prompts(prompts), Share.launched()
    model, device, *others = loaded
    janus = load_model(model, str(share.device(device)), *others)  # type: ignore[arg-type]
    with progress_bar("painting") as progress:
        done, failed = paint(janus, wanted, output, asked, share, batch, progress, note)
    print(json.dumps({"folder": str(output), "prompts": done, "failed": failed}) if as_json else output)
    if failed:
        raise typer.Exit(1)
