"""Equal records are equal samples, whatever file they come in."""

import json
import multiprocessing
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openjanus.data.conversations import to_question, to_sample
from openjanus.data.formats.json_list import JsonList
from openjanus.data.formats.names import Names
from openjanus.data.formats.opening import open_records
from openjanus.data.forms import DESCRIBE
from openjanus.data.records import RecordFiles, Records
from openjanus.data.samples import Sample
from openjanus.types import Message

from .written import CAPTIONS, FORMATS, captioned, painted, picture, plain, write_lines, write_parquet, write_table, write_tar


def samples(path: Path, **options: Any) -> list[Sample]:
    files = RecordFiles([path], **options)
    return [files.sample(number, seed=number) for number in range(len(files))]


# -- captioned images ------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_captioned_images_are_the_same_samples_in_every_format(tmp_path: Path, name: str):
    expected = samples(captioned(tmp_path, "messages.jsonl"))
    assert [sample.messages[0].text for sample in expected] == list(CAPTIONS)
    assert list(map(plain, samples(captioned(tmp_path, name)))) == list(map(plain, expected))


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "messages.jsonl"])
def test_captioned_images_are_described_where_understanding_is_wanted(tmp_path: Path, name: str):
    sample = samples(captioned(tmp_path, name), kind="understanding")[1]
    question, answer = sample.messages
    assert (sample.kind, question.text, len(question.images)) == ("understanding", DESCRIBE, 1)
    assert answer == Message("assistant", CAPTIONS[1])


@pytest.mark.parametrize("name", FORMATS)
def test_a_shuffled_endless_source_is_the_same_in_every_process(tmp_path: Path, name: str):
    source = Records("generation", [captioned(tmp_path, name), captioned(tmp_path, "captions.jsonl")], seed=3)
    expected = [plain(source[k]) for k in range(20)]
    copy = pickle.loads(pickle.dumps(source))
    assert [plain(copy[k]) for k in range(20)] == expected
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(Reading(source), range(20)) == expected
    assert all(len({plain(source[k])[1][0][1] for k in range(8 * turn, 8 * turn + 8)}) == len(CAPTIONS) for turn in range(2))


class Reading:
    """A function that another process can be sent."""

    def __init__(self, source: Records) -> None:
        self.source = source

    def __call__(self, k: int) -> tuple[Any, ...]:
        return plain(self.source[k])


@pytest.mark.parametrize(
    ("name", "origins"),
    [
        ("captions.jsonl", ["captions.jsonl, line 1", "captions.jsonl, line 3"]),
        ("captions.json", ["captions.json, record 1", "captions.json, record 3"]),
        ("folder", ["folder/0.png", "folder/deeper/2.png"]),
        ("shard.tar", ["shard.tar, a/0", "shard.tar, a/2"]),
        ("rows.parquet", ["rows.parquet, row 1", "rows.parquet, row 3"]),
        # The second caption has two lines.
        ("table.csv", ["table.csv, line 2", "table.csv, line 5"]),
    ],
)
def test_a_sample_tells_where_it_was_found(tmp_path: Path, name: str, origins: list[str]):
    files = RecordFiles([captioned(tmp_path, name)])
    assert [files.sample(number).origin for number in (0, 2)] == [f"{tmp_path}/{origin}" for origin in origins]
    assert files.origin(2) == f"{tmp_path}/{origins[1]}"


# -- conversations ---------------------------------------------------------------------

TALK = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "Noise."}]


@pytest.mark.parametrize("name", ["llava.json", "llava.jsonl", "shard.tar", "folder", "rows.parquet", "messages.jsonl"])
def test_conversations_are_the_same_samples_in_every_format(tmp_path: Path, name: str):
    path, row = tmp_path / name, {"id": 7, "conversations": TALK}
    (tmp_path / "7.png").write_bytes(picture(7))
    if name == "llava.json":
        path.write_text(json.dumps([row | {"image": "7.png"}, {"conversations": [{**TALK[0], "value": "Hello"}, TALK[1]]}]))
    elif name == "llava.jsonl":
        write_lines(path, row | {"image": ["7.png"]})
    elif name == "shard.tar":
        # The path of another machine: the image is the one beside it.
        beside = json.dumps(row | {"image": "train/7.jpg"}).encode()
        write_tar(path, [("7.png", picture(7)), ("7.json", beside)])
    elif name == "folder":
        path.mkdir()
        (path / "7.png").write_bytes(picture(7))
        parts = [{"type": "image", "image": "/gone/7.png"}, {"type": "text", "text": "What is it?"}]
        talk = [{"role": "user", "content": parts}, {"role": "assistant", "content": "Noise."}]
        (path / "7.json").write_text(json.dumps({"messages": talk}))
    elif name == "rows.parquet":
        write_parquet(path, [row | {"image": {"bytes": picture(7), "path": "7.png"}}])
    else:
        write_lines(path, {"messages": [{"role": "user", "content": "<image>What is it?"}, answer()], "images": ["7.png"]})
    first, *others = samples(path)
    messages = (("user", "What is it?", 1), ("assistant", "Noise.", 0))
    assert plain(first)[:2] == ("understanding", list(messages))
    assert open_equal(first, 7)
    assert [sample.kind for sample in others] == ["text"] * (name == "llava.json")


def answer() -> dict[str, str]:
    return {"role": "assistant", "content": "Noise."}


def open_equal(sample: Sample, number: int) -> bool:
    expected = Sample("generation", (), 0, picture(number))
    return bool(plain(sample)[2] == plain(expected)[2])


@pytest.mark.parametrize(
    ("said", "images", "text"),
    [
        ("<image>\nWhat?", 1, "What?"),
        ("What?", 2, "What?"),
        ("What?\n<image>", 1, "What?\n<image_placeholder>"),
        ("<image><image>\nWhich?", 2, "Which?"),
        ("Is <image> or <image> older?", 2, "Is <image_placeholder> or <image_placeholder> older?"),
        ("<image>", 1, ""),
    ],
)
def test_images_stand_where_llava_says(tmp_path: Path, said: str, images: int, text: str):
    names = [f"{number}.png" for number in range(images)]
    turns = [{"from": "system", "value": "Be kind."}, {"from": "human", "value": said}, TALK[1]]
    path = write_lines(tmp_path / "a.jsonl", {"conversations": turns, "image": names})
    (sample,) = samples(path)
    assert sample.messages[1] == Message("user", text, tuple(tmp_path / name for name in names))


def test_images_of_several_turns_go_to_their_own(tmp_path: Path):
    turns = [{"from": "human", "value": "<image>First?"}, TALK[1], {"from": "human", "value": "And <image>?"}, TALK[1]]
    path = write_lines(tmp_path / "a.jsonl", {"conversations": turns, "image": ["1.png", "2.png"]})
    (sample,) = samples(path)
    assert [message.images for message in sample.messages[::2]] == [(tmp_path / "1.png",), (tmp_path / "2.png",)]


def test_parts_without_a_path_take_the_images_beside_the_messages(tmp_path: Path):
    parts = [{"type": "image"}, {"type": "text", "text": "or"}, {"type": "image"}]
    talk = [{"role": "user", "content": parts}, answer()]
    path = write_lines(tmp_path / "a.jsonl", {"messages": talk, "images": ["1.png", "2.png"]})
    (sample,) = samples(path)
    images = (tmp_path / "1.png", tmp_path / "2.png")
    assert sample.messages[0] == Message("user", "<image_placeholder>\nor\n<image_placeholder>", images)


def test_images_that_messages_name_may_be_named_beside_them_too(tmp_path: Path):
    parts = [{"type": "image", "image": "1.png"}, {"type": "text", "text": "What?"}]
    talk = [{"role": "user", "content": parts}, answer()]
    path = write_lines(tmp_path / "a.jsonl", {"messages": talk, "image": "1.png"}, {"messages": talk})
    first, second = samples(path)
    assert first.messages == second.messages


def test_a_picture_may_be_asked_for_in_messages_with_images_beside_them(tmp_path: Path):
    talk = [{"role": "user", "content": "a fox"}, {"role": "assistant", "content": "<image>"}]
    path = write_lines(tmp_path / "a.jsonl", {"messages": talk, "images": ["1.png"]})
    assert samples(path)[0].picture == tmp_path / "1.png"


def test_a_caption_keeps_its_rival(tmp_path: Path):
    path = write_lines(tmp_path / "a.jsonl", {"caption": "a fox", "image": "1.png", "rival": "a hen"})
    assert samples(path)[0].rival == "a hen"


def test_the_examples_of_the_page_on_data_mean_what_it_says():
    page = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL)
    found = [to_sample(json.loads(line), Path(), 0) for line in block.splitlines()]
    assert [sample.kind for sample in found] == ["understanding", "generation", "editing", "text", "text"]


# -- forms in columns ------------------------------------------------------------------

ROWS = [
    {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]},
    {"messages": [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "x"}], "images": ["0.png"]},
    {"conversations": TALK, "image": "0.png"},
    {"caption": "a fox", "image": "0.png", "rival": "a hen"},
    {"prompt": "a fox", "file_name": "0.png"},
    {"input_prompt": "a fox", "output_image": "0.png"},
    {"input_prompt": "Make it black.", "input_image": ["0.png"], "output_image": "1.png"},
    {"text": "Plain text."},
]


@pytest.mark.parametrize("row", ROWS, ids="-".join)
def test_a_form_is_the_same_sample_in_columns_as_in_json(tmp_path: Path, row: dict[str, Any]):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    expected = list(map(plain, samples(write_lines(tmp_path / "a.jsonl", row))))
    assert list(map(plain, samples(write_parquet(tmp_path / "a.parquet", [row])))) == expected
    cells = {name: value[0] if name == "input_image" else value for name, value in row.items()}
    if len(row) > 1 and all(isinstance(value, str) for value in cells.values()):
        assert list(map(plain, samples(write_table(tmp_path / "a.csv", [cells])))) == expected


def test_images_in_rows_of_sharegpt_may_be_bytes_and_absent(tmp_path: Path):
    images = [{"bytes": picture(number), "path": None} for number in range(2)]
    row = {"input_prompt": "more", "input_image": images[:1], "output_image": images[1]}
    edit, painting = samples(write_parquet(tmp_path / "a.parquet", [row, row | {"input_image": None}]))
    assert (edit.kind, edit.images) == ("editing", (picture(0), picture(1)))
    assert (painting.kind, painting.images) == ("generation", (picture(1),))


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv"])
def test_a_question_is_the_same_in_columns_as_in_json(tmp_path: Path, name: str):
    rows = [{"question": "What?", "image": "0.png", "answer": "Noise."}]
    write = {"a.jsonl": lambda path, rows: write_lines(path, *rows), "a.parquet": write_parquet, "a.csv": write_table}
    file = open_records(write[name](tmp_path / name, rows))
    assert to_question(file.read(0), file.folder) == ((Message("user", "What?", (tmp_path / "0.png",)),), "Noise.")


# -- what formats allow ----------------------------------------------------------------


def test_a_shard_may_have_long_names_folders_other_files_and_members_apart(tmp_path: Path):
    deep = "x" * 90 + "/" + "y" * 120
    members = [(f"{deep}.png", picture(0)), ("b.PNG", picture(1)), ("b.cls", b"3"), (f"{deep}.txt", b"far"), ("b.txt", b"near")]
    found = samples(write_tar(tmp_path / "a.tar", members))
    assert [sample.messages[0].text for sample in found] == ["far", "near"]
    assert open_equal(found[0], 0) and open_equal(found[1], 1)


def test_a_text_without_an_image_in_a_shard_is_text(tmp_path: Path):
    (sample,) = samples(write_tar(tmp_path / "a.tar", [("a.txt", b"Once.")]))
    assert (sample.kind, sample.messages) == ("text", (Message("assistant", "Once."),))


def test_a_folder_leaves_alone_what_is_no_image_and_what_the_system_has_left(tmp_path: Path):
    path = captioned(tmp_path, "folder")
    (path / "README.txt").write_text("About.")
    (path / "._0.png").write_bytes(b"resources")
    assert len(RecordFiles([path])) == len(CAPTIONS)


def test_a_table_may_begin_with_a_byte_order_mark_and_have_more_columns(tmp_path: Path):
    (tmp_path / "0.png").write_bytes(picture(0))
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffImage,Width,Caption\n0.png,9,"a ""red"" fox"\n\n'.encode())
    (sample,) = samples(path)
    assert sample.messages[0].text == 'a "red" fox'


def test_text_in_parquet_is_text(tmp_path: Path):
    rows = [{"text": f"Number {number}."} for number in range(5)]
    found = samples(write_parquet(tmp_path / "a.parquet", rows))
    assert [sample.messages[0].text for sample in found] == [row["text"] for row in rows]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(records=st.lists(JSON, max_size=5), indent=st.sampled_from([None, 0, 2]), ascii=st.booleans(), bom=st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_list_is_read_by_number(tmp_path: Path, records: list[Any], indent: int | None, ascii: bool, bom: bool):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(records, indent=indent, ensure_ascii=ascii), encoding="utf-8-sig" if bom else "utf-8")
    file = JsonList(path)
    assert [file.read(number) for number in range(len(file))] == records


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"))))
def test_names_are_kept_as_they_were(names: list[str]):
    found = Names(names)
    assert [found[number] for number in range(len(found))] == names


def test_plain_text_and_pictures_may_stand_in_one_file(tmp_path: Path):
    path = write_lines(tmp_path / "a.jsonl", {"text": "Once."}, painted("a fox", "1.png"))
    assert [sample.kind for sample in samples(path)] == ["text", "generation"]
