"""Every format as the one format, with the images it held."""

import json
from pathlib import Path

import pytest

from openjanus.data.conversations import to_record, to_sample
from openjanus.data.converting import convert
from openjanus.data.records import RecordFiles
from openjanus.data.samples import Kind
from openjanus.errors import DataError

from .test_broken import quietly
from .written import CAPTIONS, FORMATS, captioned, picture, plain, write_tar

# What messages are to teach is theirs to say; captioned images become what is wanted.
KINDS = [(name, "generation") for name in FORMATS] + [(name, "understanding") for name in FORMATS if "messages" not in name]


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_records_are_the_same_after_they_were_converted(tmp_path: Path, name: str, kind: Kind):
    before = RecordFiles([captioned(tmp_path, name)], kind)
    output = tmp_path / "new" / "out.jsonl"
    written = convert(before, output, "stop", lambda done, count: None)
    embedded = name in ("shard.tar", "rows.parquet")
    assert (written.records, written.images, written.skipped) == (4, 4 * embedded, ())
    assert (output.parent / "out_images").is_dir() == embedded
    after = RecordFiles([output], kind)
    assert [plain(after.sample(i)) for i in range(4)] == [plain(before.sample(i)) for i in range(4)]
    if embedded:
        found = [path.read_bytes() for path in sorted((output.parent / "out_images").iterdir())]
        assert found == [picture(number) for number in range(len(CAPTIONS))]


IMAGE, TEXT = {"type": "image", "image": "0.png"}, {"type": "text", "text": "What?"}
ANSWER = {"role": "assistant", "content": "Noise."}


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": [IMAGE, TEXT, IMAGE]}, ANSWER],
        [{"role": "user", "content": [TEXT, IMAGE, TEXT, IMAGE]}, ANSWER],
        [{"role": "user", "content": [IMAGE, IMAGE]}, ANSWER],
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": [IMAGE, TEXT]}, ANSWER],
        [{"role": "user", "content": [IMAGE, TEXT]}, ANSWER, {"role": "user", "content": [TEXT, IMAGE]}, ANSWER],
        [{"role": "user", "content": "a fox"}, {"role": "assistant", "content": [IMAGE]}],
        [{"role": "user", "content": "a fox"}, {"role": "assistant", "content": [TEXT, IMAGE]}],
        [{"role": "user", "content": [IMAGE, TEXT]}, {"role": "assistant", "content": [IMAGE, TEXT]}],
        [ANSWER],
    ],
)
def test_a_sample_is_the_same_as_a_record_and_back(messages: list[object]):
    sample = to_sample({"messages": messages}, Path(), 3)
    record = json.loads(json.dumps(to_record(sample, str)))
    assert to_sample(record, Path(), 3) == sample
    texts = [json.dumps(one).count("What?") for one in (messages, record)]
    assert texts[0] == texts[1]


def test_an_embedded_image_that_is_none_is_a_broken_record(tmp_path: Path):
    members = [("a.png", b"text"), ("a.txt", b"a fox"), ("b.png", picture(0)), ("b.txt", b"a hen")]
    files = RecordFiles([write_tar(tmp_path / "a.tar", members)])
    with pytest.raises(DataError, match=r"a\.tar, a: its image is none that can be read here; mend it or take it out"):
        convert(files, tmp_path / "out.jsonl", "stop", quietly)
    assert not list(tmp_path.glob("out*"))
    written = convert(files, tmp_path / "out.jsonl", "skip", quietly)
    assert (written.records, written.images, len(written.skipped)) == (1, 1, 1)


def test_images_of_before_are_not_written_over(tmp_path: Path):
    files = RecordFiles([captioned(tmp_path, "shard.tar")])
    (tmp_path / "out_images").mkdir()
    (tmp_path / "out_images" / "mine.png").write_bytes(b"mine")
    with pytest.raises(DataError, match="out_images exists and is not written over"):
        convert(files, tmp_path / "out.jsonl", "stop", quietly)
    assert [path.name for path in tmp_path.glob("out*/*")] == ["mine.png"]
