"""Records on disk: what each kind of conversation teaches, in which order they come, and what is said of broken ones."""

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from openjanus.data.conversations import to_sample
from openjanus.data.order import shuffled
from openjanus.data.records import Records, first_sentence
from openjanus.data.samples import Kind
from openjanus.errors import DataError
from openjanus.types import Message


def conversation(user: object, assistant: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]}


def image(path: str) -> dict[str, str]:
    return {"type": "image", "image": path}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


# -- what a record teaches -------------------------------------------------------------


def test_an_image_with_the_user_is_understanding():
    sample = to_sample(conversation([image("a.png"), text("What is it?")], "A cat."), Path("/data"), 3)
    assert (sample.kind, sample.seed) == ("understanding", 3)
    assert sample.messages == (Message("user", "What is it?", (Path("/data/a.png"),)), Message("assistant", "A cat."))


def test_an_image_with_the_assistant_is_generation():
    sample = to_sample(conversation("a cat", [image("/far/b.png")]), Path("/data"), 0)
    assert sample.kind == "generation"
    assert sample.messages == (Message("user", "a cat"),)
    assert sample.picture == Path("/far/b.png")


def test_a_picture_may_have_a_rival_of_its_text():
    record = conversation("a cat on a sofa", [image("b.png")]) | {"rival": "a cat under a sofa"}
    assert to_sample(record, Path(), 0).rival == "a cat under a sofa"
    with pytest.raises(DataError, match="rival is 3"):
        to_sample(record | {"rival": 3}, Path(), 0)


def test_no_image_is_text_and_so_is_plain_text():
    assert to_sample(conversation("Hello", "Hi."), Path(), 0).kind == "text"
    assert to_sample({"text": "Once."}, Path(), 0).messages == (Message("assistant", "Once."),)


def test_images_behind_a_text_keep_their_places():
    content = [
        text("First"),
        image("a.png"),
        text("then"),
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
    ]
    (message, _) = to_sample(conversation(content, "Yes."), Path("/d"), 0).messages
    assert message.text == "First\n<image_placeholder>\nthen\n<image_placeholder>"
    assert message.images == (Path("/d/a.png"), "data:image/png;base64,AA")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "a record is"),
        ({"messages": []}, "a record is"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "needs a role"),
        (conversation(3, "x"), "a text or a list of parts"),
        (conversation([{"type": "video"}], "x"), "a part of a content"),
        (conversation([{"type": "image"}], "x"), "an image is a path"),
        (conversation("", [image("b.png")]), "the text of the picture is empty"),
        (conversation("two", [image("a.png"), image("b.png")]), "one text of the user and one image"),
    ],
)
def test_a_record_that_means_nothing_is_refused(record: object, message: str):
    with pytest.raises(DataError, match=message):
        to_sample(record, Path(), 0)


# -- files -----------------------------------------------------------------------------


def test_each_pass_takes_every_record_once_in_an_order_of_its_own(tmp_path: Path):
    first = write(tmp_path / "a.jsonl", *({"text": f"a{i}"} for i in range(7)))
    (tmp_path / "a.jsonl").write_text(first.read_text() + "\n\n", encoding="utf-8")
    second = write(tmp_path / "b.jsonl", *({"text": f"b{i}"} for i in range(4)))
    source = Records("text", [first, second], seed=5)
    passes = [[source[k].messages[0].text for k in range(11 * n, 11 * (n + 1))] for n in range(3)]
    every = {f"a{i}" for i in range(7)} | {f"b{i}" for i in range(4)}
    assert all(set(one) == every for one in passes)
    assert passes[0] != passes[1] != passes[2]
    assert [Records("text", [first, second], seed=5)[k].messages[0].text for k in range(11)] == passes[0]
    assert len({source[k].seed for k in range(33)}) == 33
    assert [source.record(i).messages[0].text for i in (0, 6, 7, 10)] == ["a0", "a6", "b0", "b3"]


def test_a_sample_knows_its_record(tmp_path: Path):
    first = write(tmp_path / "a.jsonl", *({"text": f"a{i}"} for i in range(7)))
    second = write(tmp_path / "b.jsonl", conversation("Hello", "Hi."), {"text": "b1"})
    source = Records("text", [first, second])
    assert [source.record(i).origin for i in (0, 6, 7, 8)] == [
        f"{first}, line 1",
        f"{first}, line 7",
        f"{second}, line 1",
        f"{second}, line 2",
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 10, 257])
def test_a_shuffle_is_a_permutation_and_differs_by_seed(size: int):
    orders = [[shuffled(place, size, (seed,)) for place in range(size)] for seed in range(3)]
    assert all(sorted(order) == list(range(size)) for order in orders)
    assert size < 10 or orders[0] != orders[1] != orders[2]


def test_a_shuffle_favours_no_place():
    first = Counter(shuffled(0, 5, (seed,)) for seed in range(2000))
    assert min(first.values()) > 320 and max(first.values()) < 480


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ("", "text", r"there is no record in .*a\.jsonl"),
        ("\n\n", "text", "there is no record"),
        ('{"text": "x"}\n', "generation", r"a\.jsonl, line 1: it is a record of text, and this is the data for generation"),
        ('{"text": "x"\n', "text", r"a\.jsonl, line 1: .*delimiter"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path: Path, content: str, kind: Kind, message: str):
    path = tmp_path / "a.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        Records(kind, [path])[0]


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"nowhere\.jsonl cannot be read: No such file"):
        Records("text", [tmp_path / "nowhere.jsonl"])


# -- first sentences -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("whole", "first"),
    [
        ("A cat. It sleeps.", "A cat."),
        ("Really? Yes. No", "Really?"),
        ("no end", "no end"),
        ("v1.5 of it", "v1.5 of it"),
        ("", ""),
    ],
)
def test_the_first_sentence_of_a_caption(whole: str, first: str):
    assert first_sentence(whole) == first


def test_a_share_of_captions_is_their_first_sentence(tmp_path: Path):
    Image.new("RGB", (4, 4)).save(tmp_path / "p.png")
    path = write(tmp_path / "a.jsonl", conversation("A cat. It sleeps.", [image("p.png")]))
    source = Records("generation", [path], seed=1, first_sentence=0.25)
    cut = [source[k].messages[0].text == "A cat." for k in range(400)]
    assert 70 < sum(cut) < 130
    assert cut == [source[k].messages[0].text == "A cat." for k in range(400)]
