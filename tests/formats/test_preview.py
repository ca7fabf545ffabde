"""What a preview says of each position."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest

import tiny
from openjanus.data.documents import Writer
from openjanus.data.preview import View, spread, views
from openjanus.data.records import RecordFiles
from openjanus.types import IGNORE

from .written import picture


def seen(tmp_path: Path, variant: str, record: object, dropout: float = 0.0) -> tuple[View, Writer]:
    (tmp_path / "0.png").write_bytes(picture(0))
    (tmp_path / "a.jsonl").write_text(json.dumps(record), encoding="utf-8")
    writer = Writer(tiny.tiny_processor(variant), tiny.CONFIGS[variant].generation, guidance_dropout=dropout)
    (view,) = views(RecordFiles([tmp_path / "a.jsonl"]), [0], writer)
    return view, writer


def test_the_answer_is_shown_as_learned_and_the_image_as_slots(tmp_path: Path, variant: str):
    parts = [{"type": "image", "image": "0.png"}, {"type": "text", "text": "What is it?"}]
    record = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "Noise."}]}
    view, writer = seen(tmp_path, variant, record)
    learned = "".join(piece.text for piece in view.pieces if piece.role == "learned")
    assert learned == f" Noise.{writer.processor.tokenizer.eos_tag}"
    assert view.words == sum(piece.role == "learned" for piece in view.pieces)
    assert [piece.text for piece in view.pieces if piece.role == "slot"] == [f"{writer.processor.slots_per_image} positions"]
    assert view.images[0][0] == "read: 9 x 6 as 16 x 16"
    supervised = dataclasses.replace(writer, supervise_prompts=True)
    (more,) = views(RecordFiles([tmp_path / "a.jsonl"]), [0], supervised)
    assert more.words > view.words


def test_a_dropped_text_is_shown_as_pads_or_as_not_attended_to(tmp_path: Path, variant: str):
    view, writer = seen(tmp_path, variant, {"caption": "a red cube", "image": "0.png"}, dropout=1.0)
    roles = Counter(piece.role for piece in view.pieces)
    assert roles["pad" if writer.generation.attends_blank else "unseen"] > 3
    assert "red" not in "".join(piece.text for piece in view.pieces)
    assert (view.codes, view.words) == (writer.generation.positions, 0)
    document = writer.document(RecordFiles([tmp_path / "a.jsonl"]).sample(0))
    assert view.tokens == len(document) and bool((document.labels == IGNORE).all())


@pytest.mark.parametrize(
    ("count", "wanted", "found"), [(3, 20, [0, 1, 2]), (10, 2, [0, 5]), (7, 3, [0, 2, 4]), (4, 4, [0, 1, 2, 3])]
)
def test_what_is_shown_lies_evenly_over_all(count: int, wanted: int, found: list[int]):
    assert spread(count, wanted) == found
