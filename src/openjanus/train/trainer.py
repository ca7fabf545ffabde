"""A run from beginning to end: its stages one after the other, states on the way, what was learned as a folder at the end.

Every stage begins as a resumed run does, with a module built anew and filled from the newest state: there is one way to go on.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from openjanus.errors import CheckpointError, DataError, JanusError, TrainingError
from openjanus.train.data import follow
from openjanus.train.folder import aside, keep_records, locked, other_records, settle, states, writing
from openjanus.train.learner import Learner, Outcome, fitting
from openjanus.train.metrics import Curves, Line, memory_mib
from openjanus.train.parallel import World
from openjanus.train.recipe import Recipe
from openjanus.train.skipped import Skipped
from openjanus.train.stage import Stage
from openjanus.train.state import Place, Saver, load_state, read_place
from openjanus.train.stopping import Stopping
from openjanus.train.task import Batch


class Reporter(Protocol):
    """Who follows a run on a screen."""

    def note(self, text: str) -> None:
        """Something has happened that is worth a line."""

    def step(self, line: Line, steps: int) -> None:
        """A step of the run's `steps` is done."""


@dataclass(frozen=True)
class Result:
    """How a run ended: `final` holds what was learned, or `signal` is what stopped it before."""

    step: int
    final: Path | None
    signal: int | None


def train(recipe: Recipe, folder: Path, world: World, reporter: Reporter, workers: int = 0, background: bool = False) -> Result:
    """Carry a recipe through all of its stages in a folder, from the newest state there if there is one.

    Every process calls it. workers: processes that prepare batches ahead, beside each of these. background: states are written
    while the run goes on. Ctrl-C and SIGTERM end it after a step, with a state. ConfigError if the folder holds another run,
    TrainingError if this one cannot go on; what was saved before stays whole.
    """
    with locked(folder) if world.leads else nullcontext():
        if world.leads:
            for change in settle(folder, recipe):
                reporter.note(f"changed since this run was last here: {change}")
        world.barrier()
        return _Run(recipe, folder, world, reporter, workers, background).go()


class _Run:
    def __init__(self, recipe: Recipe, folder: Path, world: World, reporter: Reporter, workers: int, background: bool) -> None:
        self._recipe = recipe
        self._folder = folder
        self._world = world
        self._reporter = reporter
        self._workers = workers
        self._states = folder / "state"
        self._saver = Saver(self._states, world, background)
        self._final = folder / "final"
        self._place = next(map(read_place, states(self._states)), None)
        self._saved = self._step

    def go(self) -> Result:
        stages, done = self._left()
        if done and self._final.is_dir():
            self._reporter.note("this run is finished; to go on, raise the steps of its last stage")
            return Result(self._step, self._final, None)
        if self._place is not None:
            self._reporter.note(f"going on from step {self._step}, in stage {self._place.stage}")
        skipped = Skipped(self._folder, self._step) if self._world.leads else None
        with Stopping(self._world.leads) as stopping, self._curves() as curves, self._telling(skipped):
            for stage in stages:
                with self._failing(stage):
                    signal = self._stage(stage, stopping, curves, skipped)
                if signal is not None:
                    return Result(self._step, None, signal)
        return Result(self._step, self._final, None)

    @contextmanager
    def _telling(self, skipped: Skipped | None) -> Iterator[None]:
        """However the run ends, it says what it has left out."""
        try:
            yield
        finally:
            if skipped:
                records = "1 record" if len(skipped) == 1 else f"{len(skipped)} records"
                verb = "was" if len(skipped) == 1 else "were"
                self._reporter.note(f"{records} could not be used and {verb} skipped; {skipped.path} lists them")

    @property
    def _step(self) -> int:
        return self._place.step if self._place else 0

    def _left(self) -> tuple[tuple[Stage, ...], bool]:
        """The stages that are not over (the last is always among them), and whether all are."""
        stages = self._recipe.stages
        if self._place is None:
            return stages, False
        names = [stage.name for stage in stages]
        if self._place.stage not in names:
            raise CheckpointError(
                f"{self._states} stands in a stage {self._place.stage!r}, which the recipe does not have "
                f"({', '.join(names)}); give it back its name or choose another folder with -o"
            )
        index = names.index(self._place.stage)
        over = self._place.stage_step >= stages[index].steps
        last = index + 1 == len(stages)
        return stages[index + (over and not last) :], over and last

    def _curves(self) -> "Curves | nullcontext[None]":
        return Curves(self._folder, self._step) if self._world.leads else nullcontext()

    def _stage(self, stage: Stage, stopping: Stopping, curves: Curves | None, skipped: Skipped | None) -> int | None:
        """Finish a stage, and the run if it is the last; the signal, if one has stopped it."""
        learner = Learner(self._recipe, stage, self._world)
        start = self._fill(learner)
        self._look(learner, skipped)
        clock = time.perf_counter()
        for step, batches in follow(learner.task, stage, start, self._world, self._workers):
            if isinstance(batches, JanusError):
                self._leave(learner, curves, batches)
                raise batches
            outcome = self._learn(learner, step, batches)
            before, clock = clock, time.perf_counter()
            self._advance(stage, step)
            self._saver.look()
            measured = self._validate(learner)
            if curves is not None:
                line = self._line(learner, outcome, clock - before, measured)
                curves.add(line)
                self._reporter.step(line, self._recipe.steps)
            said = self._world.gather((stopping.signal or 0, [text for batch in batches for text in batch.skipped]))
            if skipped is not None:
                skipped.add(self._step, [text for _, texts in said for text in texts])
            signal = max(signal for signal, _ in said)
            if signal or step + 1 == stage.steps or self._step % self._recipe.save_every == 0:
                self._save(learner, curves)
            if signal or step + 1 == stage.steps:
                self._saver.finish()
            if signal:
                return signal
            if self._recipe.preview_every and self._step % self._recipe.preview_every == 0 and learner.task.has_preview:
                self._preview(learner, curves)
        if stage is self._recipe.stages[-1]:
            self._finish(learner)
        return None

    def _look(self, learner: Learner, skipped: Skipped | None) -> None:
        """What can be said of the data before a step."""
        if self._world.leads:
            for note in learner.task.notes if self._step == 0 else ():
                self._reporter.note(note)
            for change in other_records(self._folder, learner.task.records()):
                self._reporter.note(f"changed since this run was last here: {change}")
        unusable = learner.task.look()
        if skipped is not None:
            skipped.add(self._step, unusable)

    def _learn(self, learner: Learner, step: int, batches: Sequence[Batch[Any]]) -> Outcome:
        try:
            return learner.learn(step, batches)
        except TrainingError as error:
            raise TrainingError(f"step {self._step + 1}: {error}") from error

    def _fill(self, learner: Learner) -> int:
        """Fill a stage's learner from the newest state, if there is one; the step of the stage that comes next."""
        if self._place is None:
            return 0
        inside = self._place.stage == learner.stage.name
        goes_on = inside or learner.stage.continues
        load_state(states(self._states)[0], learner.tensors() if goes_on else learner.module_tensors())
        if not goes_on:
            learner.begin()
        return self._place.stage_step if inside else 0

    def _advance(self, stage: Stage, step: int) -> None:
        samples = (self._place.samples if self._place else 0) + stage.batch
        self._place = Place(stage.name, step + 1, self._step + 1, samples)

    def _validate(self, learner: Learner) -> dict[str, float]:
        """Numbers of what is never learned from, after the steps at which they are wanted."""
        every = self._recipe.validate_every
        if not every or self._step % every:
            return {}
        found = learner.validate()
        if found:
            said = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
            self._reporter.note(f"held out, after step {self._step}: {said}")
        return {f"validation/{name}": value for name, value in found.items()}

    def _line(self, learner: Learner, outcome: Outcome, seconds: float, measured: dict[str, float]) -> Line:
        assert self._place is not None
        return Line(
            step=self._place.step,
            stage=self._place.stage,
            loss=outcome.loss,
            losses=outcome.losses,
            gradient_norms=outcome.gradient_norms,
            rate=outcome.rate,
            samples=self._place.samples,
            samples_per_second=learner.stage.batch / seconds,
            tokens_per_second=outcome.tokens / seconds,
            memory_mib=memory_mib(self._world.device),
            metrics={**learner.task.metrics(), **measured},
        )

    def _save(self, learner: Learner, curves: Curves | None) -> None:
        assert self._place is not None
        if curves is not None:
            curves.sync()
            keep_records(self._folder, learner.task.records())
        self._saver.save(learner.tensors(), self._place)
        self._saved = self._step

    def _leave(self, learner: Learner, curves: Curves | None, reason: JanusError) -> None:
        """Save what was learned before a run ends because there is nothing to go on with."""
        if self._step == self._saved:
            return
        try:
            self._save(learner, curves)
            self._saver.finish()
        except TrainingError as error:
            raise type(reason)(f"{reason}; and the steps before it could not be saved: {error}") from error

    def _preview(self, learner: Learner, curves: Curves | None) -> None:
        folder = self._folder / "previews" / f"{self._step:08d}"
        with writing(folder), aside(folder) if self._world.leads else nullcontext() as partial:
            learner.preview(partial, self._step)
        if curves is not None:
            curves.show(self._step, folder)

    def _finish(self, learner: Learner) -> None:
        tensors = learner.result()
        if self._world.leads:
            with writing(self._final), aside(self._final) as partial:
                learner.task.export(partial, tensors)
        self._world.barrier()

    @contextmanager
    def _failing(self, stage: Stage) -> Iterator[None]:
        """What stops the run also says where it can go on."""
        advice = "free some of it and start the same command again"
        try:
            with fitting(f"stage {stage.name}", self._world.device, advice), closing(self._saver):
                yield
        except (TrainingError, DataError) as error:
            kept = states(self._states)
            safe = f"The last state is that of step {int(kept[0].name)}, in {self._states}" if kept else "No state was saved yet"
            raise type(error)(f"{error}. {safe}") from error
