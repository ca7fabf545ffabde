"""A run: benchmarks from their files to their report. Samples first, then scores; what is there already is not made again."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from openjanus.engine.threads import working_with
from openjanus.environment import Share
from openjanus.errors import ConfigError, DataError, JanusError
from openjanus.evaluate.benchmark import Benchmark, Case, Judgement, Settings, limited
from openjanus.evaluate.catalogue import benchmark_of
from openjanus.evaluate.examples import write_examples
from openjanus.evaluate.files.finding import check_ids, read_json
from openjanus.evaluate.report import write_report
from openjanus.evaluate.samples import Samples
from openjanus.evaluate.sampling import Progress, sample, speaking, wait, whole
from openjanus.evaluate.scoring import judged, result_of, write_judgements
from openjanus.evaluate.tools import JudgeOptions, Tools
from openjanus.files import write_json
from openjanus.janus import Janus


class Reporter(Protocol):
    """Whoever follows a run."""

    def note(self, text: str) -> None:
        """Something people should know."""

    def progress(self, title: str) -> AbstractContextManager[Progress]:
        """A bar for one benchmark."""


@dataclass(frozen=True)
class Plan:
    """What is asked for. settings: protocol "" is each benchmark's first. score_only: samples are there, score them again."""

    names: tuple[str, ...]
    folder: Path
    data: Path | None = None
    settings: Settings = field(default_factory=Settings)
    judges: JudgeOptions = field(default_factory=JudgeOptions)
    score_only: bool = False


@dataclass(frozen=True)
class Finished:
    """What became of one benchmark: what result.json says, every judgement, and the seconds that it took this time."""

    benchmark: Benchmark
    result: Mapping[str, Any]
    judgements: Sequence[Judgement]
    seconds: float


def run(plan: Plan, load: Callable[[], Janus], share: Share, reporter: Reporter) -> list[Finished]:
    """Run benchmarks and write results and report into the folder; [] on all processes but the first.

    Data is checked before the model is loaded. Errors: DataError (files, disk), ConfigError (another run is in the folder),
    CheckpointError (a judge's weights). Samples stay whatever happens: the same command goes on from them.
    """
    prepared = [_prepare(name, plan) for name in plan.names]
    about: list[dict[str, Any]] = [dict(stored) for _, _, stored in prepared]
    spent: dict[str, float] = {}
    if not plan.score_only:
        _look_for_judges(prepared, plan, share, reporter)
        janus = load()
        about = [_settle(benchmark, janus, plan, share, reporter) for benchmark, _, _ in prepared]
        for benchmark, cases, _ in prepared:
            begun = time.monotonic()
            samples = Samples(plan.folder / benchmark.name, share.rank)
            threads = working_with(benchmark.settings.threads)
            with samples.locked(), threads, reporter.progress(benchmark.name) as progress:
                sample(cases, speaking(janus, benchmark.roles), samples, benchmark.settings, share, progress)
            spent[benchmark.name] = time.monotonic() - begun
    if not share.leads:
        return []
    finished = []
    for (benchmark, cases, _), told in zip(prepared, about, strict=True):
        with working_with(benchmark.settings.threads):
            one = _score(benchmark, cases, told, plan, share, reporter)
        finished.append(replace(one, seconds=one.seconds + spent.get(benchmark.name, 0.0)))
    write_report(plan.folder)
    return finished


def _prepare(name: str, plan: Plan) -> tuple[Benchmark, list[Case], Mapping[str, Any]]:
    """A benchmark, its cases, and what its folder says of the run before, if scores alone are wanted."""
    settings, stored = plan.settings, {}
    if plan.score_only:
        path = plan.folder / name / "settings.json"
        if not path.is_file():
            raise DataError(f"{plan.folder} has no samples of {name}; run the same command without --score-only to make them")
        stored = read_json(path)
        settings = Settings(**{**stored["settings"], "protocol": plan.settings.protocol or stored["settings"]["protocol"]})
    benchmark = benchmark_of(name, settings)
    benchmark.settings = replace(settings, protocol=benchmark.protocol)
    data = plan.data or (Path(stored["data"]) if stored.get("data") else None)
    cases = limited(benchmark.cases(data), settings.limit)
    if not cases:
        raise DataError(f"the files of {name} hold no case; fetch them again")
    check_ids((case.id for case in cases), f"the files of {name}")
    return benchmark, cases, stored


def _look_for_judges(prepared: Sequence[tuple[Benchmark, list[Case], Any]], plan: Plan, share: Share, reporter: Reporter) -> None:
    """Say what scoring will lack now, and not after hours; samples are worth making all the same."""
    if not share.leads:
        return
    for benchmark, _, _ in prepared:
        try:
            benchmark.wanted(Tools(plan.folder / benchmark.name, plan.judges))
        except JanusError as error:
            reporter.note(f"{benchmark.name} will be sampled, and can be scored later with --score-only: {error}")


def _settle(benchmark: Benchmark, janus: Janus, plan: Plan, share: Share, reporter: Reporter) -> dict[str, Any]:
    """Write settings.json, or hold it against what is there; ConfigError if that is another run."""
    benchmark.fit(janus.processor.images.config.image_size)
    settings = replace(benchmark.settings, protocol=benchmark.protocol)
    about = {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "settings": asdict(settings),
        "model": _model(janus),
        "data": None if plan.data is None else str(plan.data.resolve()),
        "versions": _versions(),
    }
    path = plan.folder / benchmark.name / "settings.json"
    # Without a sample there is no run to go on: a mistake in the first try must not cost the folder.
    if path.is_file() and Samples(path.parent).read():
        before = read_json(path)
        for place, now, then in _differences(about, before):
            raise ConfigError(
                f"{path.parent} holds another run: {place} is {then!r} there and {now!r} here; "
                "give the same settings, or choose another folder with -o"
            )
        if share.leads:
            reporter.note(f"{benchmark.name}: going on with the samples in {path.parent}")
        return dict(before)
    if share.leads:
        write_json(path, about)
    return about


def _differences(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What makes samples another run's: the settings and the weights."""
    pairs = [(name, value, then["settings"].get(name)) for name, value in now["settings"].items()]
    pairs += [(f"the model's {name}", now["model"][name], then["model"][name]) for name in ("fingerprint", "dtype")]
    return [(name, one, other) for name, one, other in pairs if one != other]


def _model(janus: Janus) -> dict[str, Any]:
    return {
        "name": janus.name,
        "fingerprint": janus.fingerprint,
        "dtype": str(janus.model.dtype).removeprefix("torch."),
        "device": janus.model.device.type,
        "parameters": sum(one.numel() for one in janus.model.parameters()),
        "untrained": janus.untrained,
    }


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()}


def _score(
    benchmark: Benchmark, cases: Sequence[Case], about: Mapping[str, Any], plan: Plan, share: Share, reporter: Reporter
) -> Finished:
    started = time.monotonic()
    folder = plan.folder / benchmark.name
    samples = Samples(folder, share.rank)
    have = whole(cases, samples) if share.size == 1 else wait(cases, samples, reporter.note)
    tools = Tools(folder, plan.judges)
    judgements = judged(benchmark, cases, have, tools)
    warnings = benchmark.warnings(cases)
    if about["settings"]["limit"] is not None:
        warnings.insert(0, f"only the first {about['settings']['limit']} of each task were run (--limit)")
    if about["settings"]["protocol"] != benchmark.protocol:
        warnings.append(f"sampled under the protocol {about['settings']['protocol']}, scored under {benchmark.protocol}")
    told = {**about, "protocol": benchmark.protocol, "judges": _judges(plan.judges)}
    write_judgements(folder, judgements)
    result = result_of(benchmark, judgements, have, told, warnings)
    write_json(folder / "result.json", result)
    done = [(case, [have[case.id, number] for number in range(case.count)]) for case in cases]
    benchmark.export(done, folder)
    write_examples(folder, done, judgements, tools)
    return Finished(benchmark, result, judgements, time.monotonic() - started)


def _judges(options: JudgeOptions) -> dict[str, Any]:
    """The judges, without how they were reached."""
    told = asdict(options)
    del told["device"], told["timeout"]
    return told
