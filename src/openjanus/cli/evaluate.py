"""`openjanus evaluate`: benchmarks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openjanus.cli import options

if TYPE_CHECKING:
    from openjanus.evaluate.run import Finished

NAMES = (
    "shapes, pope, mme, mmbench, seed, gqa, mmmu, mmvet, vqav2, textvqa, chartqa (understanding), "
    "geneval, dpg, coco30k, mjhq30k (generation)"
)
_JUDGES = "Judges"


def evaluate(
    benchmark: Annotated[list[str] | None, typer.Argument(help=f"One or more of: {NAMES}.", show_default=False)] = None,
    model: options.Model = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The folder of the official files, or one with a folder NAME for each benchmark.", show_default="none"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The folder of the run: samples, scores, report.html. Start again, and it goes on.",
            show_default="none",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many cases of each task.", show_default="all")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Picture i of a prompt is drawn from seed + i.")] = 0,
    protocol: Annotated[
        str, typer.Option(help="Another way to prompt and score, where there are two.", show_default="the papers'")
    ] = "",
    images_per_prompt: Annotated[int | None, typer.Option(min=1, help="Pictures of each prompt.", show_default="4")] = None,
    guidance: options.Guidance = None,
    temperature: Annotated[float, typer.Option(min=0, help="Of codes; 0 is always the likeliest.")] = 1.0,
    steps: options.Steps = 30,
    batch: Annotated[int, typer.Option(min=1, help="Answers or pictures that run together.")] = 32,
    threads: Annotated[int, typer.Option(min=1, help="Of each process on a CPU. Other numbers may round otherwise.")] = 1,
    score_only: Annotated[bool, typer.Option("--score-only", help="Make no samples; score those in the folder of -o.")] = False,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Two runs' folders: which scores differ, and how surely.", show_default=False)
    ] = None,
    judge: Annotated[
        str, typer.Option(help="URL#MODEL of an OpenAI-compatible server that grades answers.", rich_help_panel=_JUDGES)
    ] = "",
    vqa: Annotated[
        str, typer.Option(help="For DPG-Bench: mplug, mplug:FOLDER, or URL#MODEL that sees images.", rich_help_panel=_JUDGES)
    ] = "",
    detector: Annotated[
        str, typer.Option(help="For GenEval: Mask2Former, a folder or Hugging Face id.", rich_help_panel=_JUDGES)
    ] = "facebook/mask2former-swin-small-coco-instance",
    clip: Annotated[
        str,
        typer.Option(
            help="A folder or Hugging Face id.", show_default="ViT-L/14 for GenEval, ViT-B/32 for scores", rich_help_panel=_JUDGES
        ),
    ] = "",
    inception: Annotated[
        str, typer.Option(help="For FID: the file pt_inception-2015-12-05-6726825d.pth.", rich_help_panel=_JUDGES)
    ] = "",
    reference: Annotated[
        str,
        typer.Option(help="For FID: statistics of real pictures (.npz), made if it is not there.", rich_help_panel=_JUDGES),
    ] = "",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a judge may take.", rich_help_panel=_JUDGES)] = 60.0,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
    adapter: options.Adapter = None,
    as_json: options.Json = False,
) -> None:
    """Measure a model: scores with 95 % intervals, the same for everyone who asks with the same settings.

    openjanus evaluate shapes --model janus-tiny -o runs/shapes

    openjanus evaluate pope mme --model deepseek-ai/Janus-Pro-1B --data DIR -o runs/pro

    torchrun --nproc-per-node 8 -m openjanus evaluate geneval ...    (shares the work between GPUs)

    shapes needs no data and no network. Where the files of the others come from: docs/evaluation.md.
    """
    import json
    from tempfile import TemporaryDirectory

    from openjanus.cli.console import Follower, load_model
    from openjanus.errors import PromptError

    if compare is not None:
        from openjanus.evaluate.comparing import compare_runs

        compared = compare_runs(*compare)
        print(json.dumps(compared.to_json(), ensure_ascii=False, indent=2) if as_json else compared.to_text())
        return
    if not benchmark:
        raise PromptError(f"no benchmark was named; name one or more of {NAMES}")
    from openjanus.environment import Share
    from openjanus.evaluate.benchmark import Settings
    from openjanus.evaluate.run import Plan, run
    from openjanus.evaluate.tools import JudgeOptions

    here = Share.launched()
    if output is None and (score_only or here.size > 1):
        raise PromptError("samples need a folder for this; name one with -o")
    place = str(here.device(device))
    settings = Settings(protocol, seed, limit, images_per_prompt, batch, guidance, temperature, steps, threads=threads)
    judges = JudgeOptions(judge, vqa, detector, clip, inception, reference, place, timeout)
    with TemporaryDirectory(prefix="openjanus-") as kept_nowhere:
        plan = Plan(tuple(dict.fromkeys(benchmark)), output or Path(kept_nowhere), data, settings, judges, score_only)
        finished = run(plan, lambda: load_model(model, place, dtype, quantize, adapter), here, Follower(quiet=not here.leads))
    if not finished:
        return
    if as_json:
        told = [_summary(one) for one in finished]
        print(json.dumps(told[0] if len(told) == 1 else told, ensure_ascii=False, indent=2))
        return
    print(*(_table(one) for one in finished), sep="\n\n")
    if output is not None:
        print(output / "report.html")


def _summary(one: "Finished") -> dict[str, Any]:
    """What --json prints of a benchmark; shapes has a form of its own, from before there were others."""
    from openjanus.evaluate.shapes import Shapes, report_of

    if isinstance(one.benchmark, Shapes):
        return report_of(one.result["model"]["name"], one.benchmark, one.judgements, one.seconds).summary()
    return dict(one.result)


def _table(one: "Finished") -> str:
    from openjanus.evaluate.report import table
    from openjanus.evaluate.shapes import Shapes, report_of

    if isinstance(one.benchmark, Shapes):
        return report_of(one.result["model"]["name"], one.benchmark, one.judgements, one.seconds).to_text()
    return table(one.result)
