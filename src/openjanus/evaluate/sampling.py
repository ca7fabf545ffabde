"""Sampling: a model answers and paints, batch by batch, and each batch is on disk before the next begins.

A batch is a function of the cases alone. Processes share out whole batches, and after a kill an unfinished batch runs again as
it was, so that its sums, and with them every sample, come out the same however often and by however many it is done.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import replace

from PIL import Image

from openjanus.environment import Share
from openjanus.errors import DataError, ImageError, PromptError
from openjanus.evaluate.benchmark import Case, Painting, Question, Sample, Settings
from openjanus.evaluate.samples import Key, Samples, missing
from openjanus.janus import Janus
from openjanus.types import ImageOptions

Progress = Callable[[int, int], None]
PATIENCE = 10.0  # seconds between two words about processes that are still at work


def batches(cases: Sequence[Case], rows: int) -> Iterator[list[Case]]:
    """The cases in order, up to `rows` answers or pictures at a time, all of one kind and with the same options."""
    batch: list[Case] = []
    for case in cases:
        if batch and (_kind(case) != _kind(batch[0]) or (len(batch) + 1) * case.count > rows):
            yield batch
            batch = []
        batch.append(case)
    if batch:
        yield batch


def _kind(case: Case) -> tuple[object, ...]:
    if isinstance(case, Painting):
        return ("paint", case.count)
    return ("ask", case.system_prompt, case.max_tokens)


def sample(
    cases: Sequence[Case],
    janus: Janus,
    samples: Samples,
    settings: Settings,
    share: Share,
    progress: Progress = lambda done, total: None,
) -> None:
    """Make and keep what is missing of this process's share of the samples. progress counts samples of the share."""
    have = samples.read()
    own = [batch for number, batch in enumerate(batches(cases, settings.batch)) if number % share.size == share.rank]
    total = sum(case.count for batch in own for case in batch)
    done = total - sum(len(missing(batch, have)) for batch in own)
    for batch in own:
        lacking = set(missing(batch, have))
        if not lacking:
            continue
        # Nothing of earlier batches may show in this one: another process, or this one after a kill, has not run them.
        janus.forget()
        made = _paint(batch, janus, samples, settings) if isinstance(batch[0], Painting) else _ask(batch, janus)
        samples.add([one for one in made if (one.case, one.number) in lacking])
        done += len(lacking)
        progress(done, total)


def wait(cases: Sequence[Case], samples: Samples, tell: Callable[[str], None], pause: float = 0.5) -> dict[Key, Sample]:
    """All samples, once every process has written its own."""
    told = time.monotonic()
    while True:
        have = samples.read()
        lacking = missing(cases, have)
        if not lacking:
            return have
        if time.monotonic() - told > PATIENCE:
            told = time.monotonic()
            tell(f"waiting for {len(lacking)} samples of other processes")
        time.sleep(pause)


def whole(cases: Sequence[Case], samples: Samples) -> dict[Key, Sample]:
    """All samples of a finished run; DataError if some are missing."""
    have = samples.read()
    lacking = missing(cases, have)
    if lacking:
        raise DataError(
            f"{samples.folder} lacks {len(lacking)} of {sum(case.count for case in cases)} samples "
            f"(first: case {lacking[0][0]}); run the same command without --score-only to make them"
        )
    return have


# -- one batch -------------------------------------------------------------------------


def _paint(batch: Sequence[Case], janus: Janus, samples: Samples, settings: Settings) -> list[Sample]:
    count = batch[0].count
    options = ImageOptions(
        n=count, seed=settings.seed, guidance=settings.guidance, temperature=settings.temperature, steps=settings.steps
    )
    try:
        painted = janus.paint([case.text for case in batch], options)
    except PromptError as error:
        if len(batch) > 1:
            return [one for case in batch for one in _paint([case], janus, samples, settings)]
        return [Sample(batch[0].id, number, error=str(error)) for number in range(count)]
    made = []
    for place, case in enumerate(batch):
        assert isinstance(case, Painting)
        pictures = painted[place * count : (place + 1) * count]
        files = samples.save_pictures(case, [picture.image for picture in pictures])
        made += [
            Sample(case.id, number, image=file, seed=picture.seed)
            for number, (file, picture) in enumerate(zip(files, pictures, strict=True))
        ]
    return made


def _ask(batch: Sequence[Case], janus: Janus) -> list[Sample]:
    """Answers to questions; a question whose image cannot be read, or that is too long, has none and says why."""
    made: dict[str, Sample] = {}
    ready: list[tuple[Question, list[Image.Image]]] = []
    for case in batch:
        assert isinstance(case, Question)
        try:
            ready.append((case, [image() for image in case.images]))
        except ImageError as error:
            made[case.id] = Sample(case.id, 0, error=str(error))
    if ready:
        try:
            for (case, _), answer in zip(ready, _answers(ready, janus), strict=True):
                made[case.id] = Sample(case.id, 0, text=answer)
        except (PromptError, ImageError):
            for one in ready:
                made[one[0].id] = _one_answer(one, janus)
    return [made[case.id] for case in batch]


def _one_answer(one: tuple[Question, list[Image.Image]], janus: Janus) -> Sample:
    try:
        (answer,) = _answers([one], janus)
    except (PromptError, ImageError) as error:
        return Sample(one[0].id, 0, error=str(error))
    return Sample(one[0].id, 0, text=answer)


def _answers(asked: Sequence[tuple[Question, list[Image.Image]]], janus: Janus) -> list[str]:
    first = asked[0][0]
    system = {} if first.system_prompt is None else {"system_prompt": first.system_prompt}
    return janus.understand(
        [case.text for case, _ in asked], [images for _, images in asked], max_tokens=first.max_tokens, **system
    )


def speaking(janus: Janus, roles: tuple[str, str] | None) -> Janus:
    """The model with other role words in its template, or as it is."""
    if roles is None:
        return janus
    processor = copy(janus.processor)
    processor.chat = replace(processor.chat, roles=roles)
    return Janus(janus.model, processor, janus.name, janus.untrained, janus.fingerprint)
