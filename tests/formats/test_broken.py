"""What is said of files and records that nothing can be learned from: what came, where, what is allowed, what to do."""

import gzip
import importlib.util
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openjanus.data.checking import check
from openjanus.data.conversations import to_record, to_sample
from openjanus.data.forms import COLUMNS
from openjanus.data.records import RecordFiles
from openjanus.data.samples import KINDS, Kind
from openjanus.errors import DataError

from .written import CAPTIONS, captioned, painted, picture, write_lines, write_parquet, write_tar


def told(path: Path, number: int = 0) -> str:
    """What the error says that reading a record raises, or opening the file."""
    with pytest.raises(DataError) as error:
        RecordFiles([path]).sample(number)
    assert str(path) in str(error.value)
    return str(error.value)


def wrote(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def quietly(done: int, count: int) -> None:
    pass


# -- files -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.tar", "a.parquet", "a.csv", "a.tsv", "a.xlsx", "folder"])
def test_a_path_that_is_not_there(tmp_path: Path, name: str):
    if name == "a.parquet":
        pytest.importorskip("pyarrow")
    assert "cannot be read: No such file or directory; give .jsonl" in told(tmp_path / name)


def test_a_format_that_is_not_known(tmp_path: Path):
    path = wrote(tmp_path / "shard.tar.gz", gzip.compress(b"x"))
    assert "of no format that records are read from; give .jsonl, .ndjson, .json, .tar, .parquet" in told(path)


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", "\n\n"), ("a.json", "[ ]"), ("a.csv", ""), ("a.csv", "image,caption\n")]
)
def test_a_file_without_records(tmp_path: Path, name: str, content: str):
    assert "there is no record in" in told(wrote(tmp_path / name, content))


def test_a_folder_without_images(tmp_path: Path):
    wrote(tmp_path / "a.txt", "A caption of nothing.")
    assert "there is no record in" in told(tmp_path)


def test_a_folder_that_may_not_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    captioned(tmp_path, "folder")
    scan = os.scandir

    def forbidden(path: str) -> object:
        if str(path).endswith("deeper"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    assert "folder cannot be read: Permission denied" in told(tmp_path / "folder")


def test_a_line_that_is_not_json_is_told_as_editors_count(tmp_path: Path):
    path = wrote(tmp_path / "a.jsonl", '{"text": "fine"}\n\n{"text"\n')
    assert "a.jsonl, line 3: it is not JSON at column 8" in told(path, 1)


def test_a_line_of_a_wrong_shape_is_told_as_editors_count(tmp_path: Path):
    path = wrote(tmp_path / "a.jsonl", '\n{"text": "fine"}\n \n\n[]\n\n{"text": "fine too"}\n{"caption": "no image"}')
    assert "a.jsonl, line 5: a record is {" in told(path, 1)
    assert [RecordFiles([path]).origin(number) for number in range(4)] == [f"{path}, line {line}" for line in (2, 5, 7, 8)]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ('[{"text": "fine"},\n {"text"}]', "line 2, column 9"),
        ('[{"text": "fine"}\n {"text": "x"}]', "line 2, column 2"),
        ('[{"text": "fine"},', "line 1, column 19"),
        ('{"text": "x"}\n{"text": "y"}', "line 1, column 1"),
        ("[]\n[]", "line 1, column 3"),
        ("", "line 1, column 1"),
    ],
)
def test_a_json_that_is_no_list_is_told_with_its_line(tmp_path: Path, content: str, place: str):
    assert f"{place}: it is not a JSON list of records" in told(wrote(tmp_path / "a.json", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0.png,a fox\n1.png,a hen\n", "line 1: the header names 0.png, a fox; it must name a text"),
        ("image,score\n0.png,3\n", "line 1: the header names image, score"),
        ('image,caption\n0.png,fine\n1.png,"never closed\n2.png,x\n', "line 3: unexpected end of data; mend the quotes"),
        ("image,caption\n0.png,one,two\n", "line 2: the row has 3 cells, and the header names 2 columns"),
        ("image,caption\n,a fox\n", "line 2: the row names no image"),
        ("image,caption\n0.png,\n", "line 2: there is an image and no text with it"),
        (b"image,caption\n0.png,\xff\xfe\n", "line 2: 'utf-8' codec can't decode"),
    ],
)
def test_a_table_that_cannot_be_read_is_told_with_its_line(tmp_path: Path, content: bytes | str, message: str):
    assert f"a.csv, {message}" in told(wrote(tmp_path / "a.csv", content))


def test_a_table_in_another_encoding_is_told(tmp_path: Path):
    assert "a.csv cannot be read: 'utf-8' codec can't decode" in told(
        wrote(tmp_path / "a.csv", "image,caption\n".encode("utf-16"))
    )


def test_a_table_may_begin_with_empty_lines(tmp_path: Path):
    path = wrote(tmp_path / "a.csv", "\n\nimage,caption\n0.png,a fox\n")
    assert RecordFiles([path]).sample(0).origin == f"{path}, line 4"


def test_a_file_that_has_become_another_is_told(tmp_path: Path):
    for name in ("shard.tar", "rows.parquet", "table.csv", "captions.json", "captions.jsonl"):
        path = captioned(tmp_path, name)
        files = RecordFiles([path])
        path.write_bytes(path.read_bytes()[:7] + b"\xff" * 4000)
        with pytest.raises(DataError, match=name):
            files.sample(3)
        path.unlink()
        with pytest.raises(DataError, match=name):
            files.sample(3)


def test_a_file_that_is_no_tar(tmp_path: Path):
    for content in (b"", b"I am text", gzip.compress(bytes(2048))):
        assert "is no tar archive" in told(wrote(tmp_path / "a.tar", content))


def test_of_a_shard_that_was_cut_off_the_records_before_the_cut_are_whole(tmp_path: Path):
    path = captioned(tmp_path, "shard.tar")
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        ends = [member.offset_data + -(-member.size // 512) * 512 for member in archive][1::2]
    for place in (*range(512, ends[-1], 300), *ends[:-1], ends[-1]):
        files = RecordFiles([wrote(tmp_path / "cut.tar", whole[:place])])
        report = check(files, quietly)
        assert len(report.broken) == 1, place
        assert "the archive is cut off here and must be fetched or written again; mend it or take it out" in report.broken[0]
        good = [files.sample(number).messages[0].text for number in range(len(files) - 1)]
        assert good == list(CAPTIONS[: len(good)])
        # What stands last may have lost something behind it.
        assert len(good) >= sum(end <= place for end in ends) - 1
    assert not check(RecordFiles([wrote(tmp_path / "cut.tar", whole[: ends[-1] + 512])]), quietly).broken


def test_a_shard_with_two_members_of_one_name(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", [("a.png", picture(0)), ("a.txt", b"one"), ("a.txt", b"two")])
    assert "a.tar, a: two members are named a.txt" in told(path)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("openjanus.data.formats.parquet.find_spec", lambda name: None if name == "pyarrow" else found(name))
    path = wrote(tmp_path / "a.parquet", b"PAR1")
    assert "pyarrow, which is not installed; run: pip install 'openjanus[data]'" in told(path)


def test_parquet_that_is_damaged_or_of_something_else(tmp_path: Path):
    whole = write_parquet(tmp_path / "a.parquet", [{"text": "x"}]).read_bytes()
    assert "is a damaged parquet file" in told(wrote(tmp_path / "cut.parquet", whole[:-20]))
    half = len(whole) // 2
    assert "is a damaged parquet file" in told(wrote(tmp_path / "spoiled.parquet", whole[:4] + bytes(half) + whole[4 + half :]))
    assert "is no parquet file" in told(wrote(tmp_path / "text.parquet", "I am text"))
    other = write_parquet(tmp_path / "other.parquet", [{"x": 1, "y": 2}])
    assert "has the columns x, y; it needs some of messages" in told(other)


# -- records ---------------------------------------------------------------------------


@pytest.mark.parametrize("beside", ["folder", "a.tar"])
@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".cls", b"3", "no .txt or .json with its caption lies beside the image"),
        (".txt", b" \n", "there is an image and no text with it"),
        (".txt", b"\xff", "codec can't decode"),
        (".json", b"{", "Expecting property name"),
        (".json", b"[1]", "the .json beside the image is no object"),
        (".json", b'{"score": 3}', "there is an image and no text with it"),
    ],
)
def test_an_image_without_a_caption(tmp_path: Path, beside: str, suffix: str, content: bytes, message: str):
    path, members = tmp_path / beside, [("7.png", picture(0)), (f"7{suffix}", content)]
    if beside == "a.tar":
        write_tar(path, members)
    else:
        path.mkdir()
        for name, data in members:
            wrote(path / name, data)
    assert message in told(path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("text", "a record is"),
        ({"prompt": "a fox"}, "a record is"),
        ({"image": "a.png"}, "there is an image and no text with it"),
        ({"image": ["a.png", "b.png"], "caption": "x"}, "one text of the user and one image of the assistant"),
        ({"conversations": [{"from": "robot", "value": "x"}]}, "each turn of conversations needs"),
        ({"conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "x"}]}, "1 <image> for 0 images"),
        ({"conversations": [{"from": [], "value": "x"}]}, "each turn of conversations needs"),
        ({"conversations": [{"from": "gpt", "value": "x"}], "image": "a.png"}, "1 images and no turn of the user"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "the last message is the user's"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "image": "a.png"}, "0 places for 1 images"),
        ({"text": "half \ud800"}, "half a character"),
        (painted("x", "a.png") | {"messages": [*painted("x", "a.png")["messages"]] * 2}, "one text of the user and one image"),
    ],
)
def test_a_record_of_no_known_form(record: object, message: str):
    with pytest.raises(DataError, match=message):
        to_sample(record, Path(), 0)


PICTURE = {"type": "image", "image": "a.png"}
CAT, PAINTED = {"role": "user", "content": "a cat"}, {"role": "assistant", "content": [PICTURE]}


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "Be kind."}, CAT, PAINTED],
        [CAT, PAINTED, {"role": "user", "content": "Make it black."}, PAINTED],
        [CAT, {"role": "assistant", "content": "What colour?"}, CAT, PAINTED],
        [{"role": "user", "content": [PICTURE]}, {"role": "assistant", "content": "A cat."}, CAT, PAINTED],
    ],
)
def test_a_talk_that_ends_in_a_picture_is_to_be_split(messages: list[object]):
    split = "split it into one record a picture, with all that the picture needs in its user message"
    with pytest.raises(DataError, match=split):
        to_sample({"messages": messages}, Path(), 0)


def test_more_placeholders_than_images():
    parts = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "<image_placeholder> or <image_placeholder>?"}]
    talk = [{"role": "user", "content": parts}, {"role": "assistant", "content": "x"}]
    with pytest.raises(DataError, match="2 <image_placeholder> for 1 images"):
        to_sample({"messages": talk}, Path(), 0)


# Words that mean something in records, with values that may or may not.
WORDS = (*COLUMNS, "role", "content", "type", "from", "value", "url", "path", "bytes")
VALUES = ("user", "assistant", "human", "gpt", "image", "text", "<image>", "a.png", "")
ANY = st.recursive(
    st.none() | st.integers() | st.sampled_from(VALUES) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)
TURNS = st.lists(st.fixed_dictionaries({"role": ANY, "content": ANY, "from": ANY, "value": ANY}), min_size=1, max_size=3)
RECORD = st.dictionaries(st.sampled_from(COLUMNS), ANY | TURNS, max_size=4)


@given(record=ANY | RECORD, kind=st.sampled_from([None, *KINDS]))
@settings(max_examples=500, deadline=None)
def test_anything_is_a_sample_or_refused(record: object, kind: Kind | None):
    try:
        sample = to_sample(record, Path(), 0, kind)
    except DataError:
        return
    assert to_sample(to_record(sample, str), Path(), 0) == sample


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(Path.unlink, "there is no image at"), (cut_off, "damaged"), (lambda path: path.write_text("text"), "is not an image")],
)
@pytest.mark.parametrize("name", ["captions.jsonl", "captions.json", "table.csv", "folder"])
def test_an_image_that_cannot_be_read_is_found_and_the_others_counted(
    tmp_path: Path, name: str, spoil: Callable[[Path], object], message: str
):
    path = captioned(tmp_path, name)
    spoil(path / "1.png" if name == "folder" else tmp_path / "images" / "1.png")
    found = check(RecordFiles([path]), quietly)
    gone = name == "folder" and message == "there is no image at"  # then there is no record of it either
    assert found.kinds == {"generation": len(CAPTIONS) - 1}
    assert [message in line and str(path) in line for line in found.broken] == ([] if gone else [True])


def test_an_embedded_image_that_cannot_be_read_is_told_with_its_record(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", [("a.png", b"text"), ("a.txt", b"a fox")])
    (line,) = check(RecordFiles([path]), quietly).broken
    assert line.startswith(f"{path}, a: ") and "not an image" in line


def test_what_stands_there_twice_is_told(tmp_path: Path):
    for number in range(2):
        wrote(tmp_path / f"{number}.png", picture(number))
    pairs = [("a fox", "0.png"), ("a fox", "1.png"), ("a hen", "0.png"), ("a fox", "0.png")]
    path = write_lines(tmp_path / "a.jsonl", *({"caption": text, "image": image} for text, image in pairs))
    shard = write_tar(tmp_path / "a.tar", [("x.png", picture(1)), ("x.txt", b"a fox")])
    found = check(RecordFiles([path, shard]), quietly)
    assert found.duplicates == ((f"{path}, line 4", f"{path}, line 1"), (f"{shard}, x", f"{path}, line 2"))
    assert json.loads(json.dumps(found.to_json()))["images"] == 5


def test_a_text_beside_a_painted_image_is_told(tmp_path: Path):
    wrote(tmp_path / "a.png", picture(0))
    said = {"type": "text", "text": "Here is your picture."}
    asked = [CAT, {"role": "user", "content": [PICTURE, {"type": "text", "text": "Make it black."}]}]
    talks = [
        [user, {"role": "assistant", "content": content}]
        for user in asked
        for content in ([said, PICTURE], [PICTURE, said], [PICTURE], [PICTURE, {"type": "text", "text": " "}])
    ]
    path = write_lines(tmp_path / "a.jsonl", *({"messages": talk} for talk in talks))
    found = check(RecordFiles([path]), quietly)
    assert found.spoken == tuple(f"{path}, line {line}" for line in (1, 2, 5, 6)) and not found.broken
    assert f"texts beside painted images, which are not learned: 4\n  {path}, line 1\n" in found.to_text()


def test_an_empty_answer_is_told(tmp_path: Path):
    user, silence, answer = CAT, {"role": "assistant", "content": " "}, {"role": "assistant", "content": "Yes."}
    talks = [[user, silence], [user, answer], [user, silence, user, answer], [user, {"role": "assistant", "content": []}]]
    path = write_lines(tmp_path / "a.jsonl", *({"messages": talk} for talk in talks), {"text": ""})
    found = check(RecordFiles([path]), quietly)
    assert found.silent == tuple(f"{path}, line {line}" for line in (1, 3, 4, 5)) and found.kinds == {"text": 5}
    assert f"empty answers, which teach silence: 4\n  {path}, line 1\n" in found.to_text()
