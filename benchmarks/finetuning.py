"""Two small things to teach a bundled model, and how well it has learned them: what docs/finetuning.md reports.

    python benchmarks/finetuning.py records word FOLDER --model janus-tiny     writes records, and others to replay
    python benchmarks/finetuning.py score word --model RUN/final               prints one JSON object

word: "zib", which is a blue star, from 100 pictures to paint and 100 questions. edit: "make the circle blue", from 20,000 pairs
of pictures. Scores are of scenes and seeds that no record has.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from openjanus.checkpoints.load import load_without_weights
from openjanus.data.conversations import to_record
from openjanus.data.samples import Sample
from openjanus.data.shapes import COLOURS, PALETTE, SHAPES, WITHHELD, Object, Scene, arrange, draw
from openjanus.data.shapes_compositions import NUMBERS
from openjanus.data.shapes_streams import PaintingSource, ReadingSource, TalkSource, ToldSource
from openjanus.evaluate.shapes import normalise
from openjanus.evaluate.shapes_reader import Found, read_scene
from openjanus.janus import Janus, load
from openjanus.types import Message

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))

import tiny_world

WORD, THING = "zib", ("blue", "star")
REPLAYED = 4000
EDITS = 20_000
SCORED, SCORED_EDITS = 64, 256
# Best of fifteen choices on other scenes, neither learned from nor scored: most of a picture is to be copied, which wants
# the likelier codes and less guidance than Janus-4o's.
EDITING = {"guidance": 2.0, "image_guidance": 1.0, "temperature": 0.3}
# Where nothing that is learned from begins.
UNSEEN = 10**6


def chance(name: str, k: int) -> np.random.Generator:
    """The source of randomness of one record or case."""
    return np.random.default_rng([*name.encode(), k])


def kinds(rng: np.random.Generator, count: int, without: tuple[str, str] | None = None) -> list[tuple[str, str]]:
    """Colours and shapes of some objects; none of them a withheld pair, or `without`."""
    found: list[tuple[str, str]] = []
    while len(found) < count:
        kind = COLOURS[rng.integers(len(COLOURS))], SHAPES[rng.integers(len(SHAPES))]
        if kind not in WITHHELD and kind != without:
            found.append(kind)
    return found


# -- a word ----------------------------------------------------------------------------


def wanted(rng: np.random.Generator) -> tuple[str, list[tuple[str, str]]]:
    """A text that names the word, and what a picture of it holds."""
    if rng.random() < 0.5:
        return f"a {WORD}", [THING]
    ((colour, shape),) = kinds(rng, 1, THING)
    other = f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}"
    return (
        (f"a {WORD} and {other}", [THING, (colour, shape)])
        if rng.random() < 0.5
        else (f"{other} and a {WORD}", [(colour, shape), THING])
    )


def asked(rng: np.random.Generator) -> tuple[Scene, str, str]:
    """A scene, a question about the word, and its answer. Where there is none, a star or something blue is often there."""
    there = rng.random() < 0.5
    others = kinds(rng, int(rng.integers(1, 3)), THING)
    near = [("blue", "circle"), ("red", "cross"), ("green", "star"), ("blue", "square"), ("yellow", "star")]
    if not there and rng.random() < 0.7:
        others[0] = near[rng.integers(len(near))]
    number = int(rng.integers(1, 3)) if there else 0
    scene = arrange(rng, [THING] * number + others)
    if rng.random() < 0.5:
        return scene, f"Is there a {WORD}?", "yes" if there else "no"
    return scene, f"How many {WORD}s are there?", NUMBERS[number]


def word_samples(read: int, paint: int) -> Iterator[tuple[str, Sample]]:
    """The 200 examples, by kind."""
    for k in range(100):
        rng = chance("word paint", k)
        text, objects = wanted(rng)
        yield "generation", Sample("generation", (Message("user", text),), k, draw(arrange(rng, objects), paint))
        scene, question, answer = asked(chance("word read", k))
        messages = (Message("user", question, (draw(scene, read),)), Message("assistant", answer))
        yield "understanding", Sample("understanding", messages, k)


def score_word(janus: Janus) -> dict[str, Any]:
    """Shares of pictures that hold what was asked for, and of right answers."""
    size = janus.processor.images.config.image_size
    prompts = [wanted(chance("word paint", UNSEEN + k)) for k in range(SCORED)]
    pictures: list[Image.Image] = []
    for i in range(0, SCORED, 16):
        pictures += janus.generate([text for text, _ in prompts[i : i + 16]], seed=i)
    right = [holds(read_scene(picture), objects) for picture, (_, objects) in zip(pictures, prompts, strict=True)]
    cases = [asked(chance("word read", UNSEEN + k)) for k in range(2 * SCORED)]
    images = [[Image.fromarray(draw(scene, size))] for scene, _, _ in cases]
    answers = janus.understand([question for _, question, _ in cases], images, max_tokens=16)
    told = [normalise(answer) == normalise(case[2]) for answer, case in zip(answers, cases, strict=True)]
    return {"painting": float(np.mean(right)), "questions": float(np.mean(told)), "pictures": len(right), "asked": len(told)}


def holds(found: list[Found], objects: list[tuple[str, str]]) -> bool:
    """Whether each of the objects is found in a picture."""
    left = [(one.colour, one.shape) for one in found]
    for thing in objects:
        if thing not in left:
            return False
        left.remove(thing)
    return True


# -- an edit ---------------------------------------------------------------------------


def edit(rng: np.random.Generator) -> tuple[Scene, str, Scene]:
    """A scene, what is to be done to it, and the scene that comes of it."""
    shapes = [SHAPES[i] for i in rng.permutation(len(SHAPES))[: rng.integers(1, 4)]]
    objects = [next(kind for kind in iter(lambda: kinds(rng, 1)[0], None) if kind[1] == shape) for shape in shapes]
    scene = arrange(rng, objects)
    place = int(rng.integers(len(objects)))
    old, shape = objects[place]
    new = next(c for c in (COLOURS[i] for i in rng.permutation(len(COLOURS))) if c != old and (c, shape) not in WITHHELD)
    thing: Object = replace(scene.objects[place], colour=new, rgb=PALETTE[new])
    others = tuple(thing if i == place else one for i, one in enumerate(scene.objects))
    return scene, f"make the {shape} {new}", replace(scene, objects=others)


def edit_samples(read: int, paint: int) -> Iterator[tuple[str, Sample]]:
    """The pairs."""
    for k in range(EDITS):
        before, text, after = edit(chance("edit", k))
        message = Message("user", text, (draw(before, read),))
        yield "editing", Sample("editing", (message,), k, draw(after, paint))


def score_edit(janus: Janus) -> dict[str, Any]:
    """Shares of pictures that hold what they should: all of it; the thing that changes; and the others, as they were."""
    size = janus.processor.images.config.image_size
    cases = [edit(chance("edit", UNSEEN + k)) for k in range(SCORED_EDITS)]
    whole, changed, kept = [], [], []
    for k, (before, text, after) in enumerate(cases):
        (picture,) = janus.generate(text, images=[Image.fromarray(draw(before, size))], seed=k, **EDITING)
        found = read_scene(picture)
        new = [(one.colour, one.shape) for one in after.objects if one not in before.objects]
        others = [(one.colour, one.shape) for one in after.objects if one in before.objects]
        changed.append(holds(found, new))
        kept.append(holds(found, others))
        whole.append(changed[-1] and kept[-1] and len(found) == len(after.objects))
    shares: dict[str, Any] = {name: float(np.mean(of)) for name, of in (("whole", whole), ("changed", changed), ("kept", kept))}
    return shares | {"edits": len(cases), **EDITING}


# -- both ------------------------------------------------------------------------------

SAMPLES = {"word": word_samples, "edit": edit_samples}
SCORES = {"word": score_word, "edit": score_edit}


def write(folder: Path, samples: Iterator[tuple[str, Sample]]) -> None:
    """Samples as files of records by kind, with their pictures beside them."""
    (folder / "images").mkdir(parents=True)
    lines: dict[str, list[str]] = {}
    number = 0

    def address(image: Any) -> str:
        nonlocal number
        number += 1
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        return f"images/{number}.png"

    for kind, sample in samples:
        lines.setdefault(kind, []).append(json.dumps(to_record(sample, address)))
    for kind, records in lines.items():
        (folder / f"{kind}.jsonl").write_text("\n".join(records) + "\n", encoding="utf-8")


def replayed(read: int, paint: int) -> Iterator[tuple[str, Sample]]:
    """What the model knows already, of each kind; pictures and questions in the shares in which it has learned them."""
    for k in range(REPLAYED):
        yield "understanding", ReadingSource(7, read, turns=3, kinds=tiny_world.ASKED)[k]
        yield "generation", PaintingSource(7, paint, tiny_world.TASKS, tiny_world.LONG, rivals=True)[k]
        yield "text", (TalkSource(7) if k % 2 else ToldSource(7))[k]


def main() -> None:
    """Write records, or score a model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("records", "score"))
    parser.add_argument("task", choices=tuple(SAMPLES))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--model", default="janus-tiny")
    parser.add_argument("--adapter")
    arguments = parser.parse_args()
    if arguments.what == "score":
        janus = load(arguments.model, adapter=arguments.adapter)
        print(json.dumps({"model": arguments.model, "task": arguments.task, **SCORES[arguments.task](janus)}))
        return
    if arguments.folder is None:
        parser.error("records needs a FOLDER")
    _, config = load_without_weights(arguments.model)
    sizes = config.understanding.encoder.image_size, config.generation.image_size[0]
    write(arguments.folder / "own", SAMPLES[arguments.task](*sizes))
    write(arguments.folder / "replay", replayed(*sizes))
    print(arguments.folder)


if __name__ == "__main__":
    main()
