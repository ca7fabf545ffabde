"""GenEval: its rules on made detections of all six tasks, and the whole of it with a small random detector and CLIP."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from openjanus.cli.console import Follower
from openjanus.environment import Share
from openjanus.errors import CheckpointError, DataError
from openjanus.evaluate.benchmark import Judgement, Sample, Settings
from openjanus.evaluate.generation.geneval import GenEval, colour_classifier, cut_out
from openjanus.evaluate.generation.geneval_rules import CLASSES, COLOURS, kept, relations, wrong_with
from openjanus.evaluate.judges.detector import Detected, Detector, detector_pixels, read_out
from openjanus.evaluate.run import Plan, run
from openjanus.evaluate.scoring import judged, measured, score_of
from openjanus.evaluate.tools import JudgeOptions, Tools

from .official import write_lines, write_picture


def found(name: str, score: float = 0.95, box: tuple[float, float, float, float] = (0, 0, 10, 10)) -> Detected:
    return Detected(CLASSES.index(name), score, box)


def say(*colours: str) -> Any:
    """A namer of colours that says these, in order of the objects it is shown."""
    return lambda objects, name: list(colours[: len(objects)])


def unasked(objects: Sequence[Detected], name: str) -> list[str]:
    raise AssertionError("no colour was asked for")


def wanted(tag: str, *include: dict[str, Any], exclude: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    return {"tag": tag, "include": list(include), "exclude": list(exclude)}


def judge(detected: Sequence[Detected], metadata: dict[str, Any], colours: Any = unasked) -> str:
    return wrong_with(kept(detected, metadata["tag"]), metadata, colours)


ONE_CAT = {"class": "cat", "count": 1}


def test_there_are_cocos_eighty_classes_under_genevals_names():
    assert len(CLASSES) == len(set(CLASSES)) == 80
    assert CLASSES[0] == "person" and CLASSES[64:68] == ("computer mouse", "tv remote", "computer keyboard", "cell phone")


# -- which objects count -----------------------------------------------------------------


def test_objects_count_above_the_threshold_of_their_task():
    cats = [found("cat", 0.3), found("cat", 0.31), found("cat", 0.9), found("cat", 0.91)]
    assert [one.score for one in kept(cats, "colors")["cat"]] == [0.91, 0.9, 0.31]
    assert [one.score for one in kept(cats, "counting")["cat"]] == [0.91]


def test_at_most_sixteen_of_a_class_are_kept_and_none_is_suppressed():
    cats = [found("cat", 0.5 + number / 100) for number in range(20)]  # all in one place
    assert [one.score for one in kept(cats, "two_object")["cat"]] == [0.5 + number / 100 for number in range(19, 3, -1)]


# -- the six tasks -----------------------------------------------------------------------


def test_single_object():
    task = wanted("single_object", ONE_CAT)
    assert judge([found("cat", 0.31), found("dog")], task) == ""
    assert judge([found("cat", 0.3)], task) == "0 of 1 cat"
    assert judge([found("cat"), found("cat")], task) == ""  # more do no harm


def test_two_object():
    task = wanted("two_object", ONE_CAT, {"class": "dog", "count": 1})
    assert judge([found("dog"), found("cat")], task) == ""
    assert judge([found("dog")], task) == "0 of 1 cat"
    assert judge([], task) == "0 of 1 cat; 0 of 1 dog"


def test_counting_is_exact():
    task = wanted("counting", {"class": "cat", "count": 3}, exclude=[{"class": "cat", "count": 4}])
    cats = [found("cat", 0.95)] * 3
    assert judge(cats, task) == ""
    assert judge([*cats, found("cat", 0.9)], task) == ""  # not sure enough to be one
    assert judge([*cats, found("cat", 0.91)], task) == "4 cat, and fewer than 4 are allowed"
    assert judge(cats[:2], task) == "2 of 3 cat"


def test_colors_are_of_the_surest():
    task = wanted("colors", ONE_CAT | {"color": "red"})
    assert judge([found("cat")], task, say("red")) == ""
    assert judge([found("cat")], task, say("blue")) == "the cat is blue, not red"
    # Of two cats the surer is looked at, and no other.
    two = [found("cat", 0.5, (0, 0, 1, 1)), found("cat", 0.8, (5, 5, 9, 9))]

    def by_place(objects: Sequence[Detected], name: str) -> list[str]:
        return ["red" if one.box[0] == 5 else "blue" for one in objects]

    assert judge(two, task, by_place) == ""
    # Two are wanted: both must be it.
    pair = wanted("colors", {"class": "cat", "count": 2, "color": "red"})
    assert judge(two, pair, by_place) == "the cat is red, blue, not red"


def test_color_attr():
    task = wanted("color_attr", ONE_CAT | {"color": "red"}, {"class": "dog", "count": 1, "color": "blue"})

    def colours(objects: Sequence[Detected], name: str) -> list[str]:
        return [{"cat": "red", "dog": "green"}[name]] * len(objects)

    assert judge([found("cat"), found("dog")], task, colours) == "the dog is green, not blue"
    assert judge([found("cat"), found("dog")], task, lambda objects, name: [{"cat": "red", "dog": "blue"}[name]]) == ""


def test_position():
    task = wanted("position", ONE_CAT, {"class": "dog", "count": 1, "position": ["right of", 0]})
    left, right = (0, 0, 10, 10), (40, 0, 50, 10)
    assert judge([found("cat", box=left), found("dog", box=right)], task) == ""
    assert judge([found("cat", box=right), found("dog", box=left)], task) == "the dog is left of, not right of"
    assert judge([found("dog", box=right)], task) == "0 of 1 cat; nothing that the dog could be right of"
    # Every pair must fit.
    pair = wanted("position", {"class": "cat", "count": 2}, {"class": "dog", "count": 1, "position": ["right of", 0]})
    cats = [found("cat", 0.9, left), found("cat", 0.8, (80, 0, 90, 10))]
    assert judge([*cats, found("dog", box=right)], pair) == "the dog is left of, not right of"


def test_a_target_of_the_wrong_colour_is_no_target():
    task = wanted("position", ONE_CAT | {"color": "red"}, {"class": "dog", "count": 1, "position": ["right of", 0]})
    both = [found("cat", box=(0, 0, 10, 10)), found("dog", box=(40, 0, 50, 10))]
    assert judge(both, task, say("blue")) == "the cat is blue, not red; nothing that the dog could be right of"


@pytest.mark.parametrize(
    ("box", "other", "holds"),
    [
        ((0, 0, 10, 10), (20, 0, 30, 10), {"left of"}),
        ((0, 0, 10, 10), (0, 20, 10, 30), {"above"}),
        ((20, 20, 30, 30), (0, 0, 10, 10), {"right of", "below"}),
        ((0, 0, 10, 10), (0, 0, 10, 10), set()),
        # Offset 2 across, and a tenth of both widths is 2: nothing is left of it.
        ((0, 0, 10, 10), (2, 0, 12, 10), set()),
        # Offset 3: 1 is left, which is a third of the offset, less than half.
        ((0, 0, 10, 10), (3, 0, 13, 10), set()),
        # Offset 4: 2 are left, exactly half, which is not more.
        ((0, 0, 10, 10), (4, 0, 14, 10), set()),
        ((0, 0, 10, 10), (5, 0, 15, 10), {"left of"}),
        # Offset (20, 10): (18, 8) are left, 0.80 and 0.36 of its length.
        ((0, 0, 10, 10), (20, 10, 30, 20), {"left of"}),
    ],
)
def test_relations_are_of_centres_less_a_tenth_of_the_sizes(box: Any, other: Any, holds: set[str]):
    assert relations(box, other) == holds


# -- detections and colours ----------------------------------------------------------------


def test_detections_are_read_out_as_mmdetection_does():
    logits = torch.full((2, 81), -20.0)
    logits[0, 15], logits[0, 16] = 2.0, 1.0  # a query may be two classes
    logits[1, 80] = 20.0  # nothing
    masks = torch.full((2, 8, 8), -5.0)
    masks[0, 2:4, 3:6] = 3.0
    read = read_out(logits, masks)
    assert len(read) == 100
    first, second = sorted(read, key=lambda one: -one.score)[:2]
    assert (first.label, second.label) == (15, 16) and first.box == (3, 2, 6, 4)
    share = torch.tensor([2.0, 1.0]).softmax(0) * torch.tensor(3.0).sigmoid()
    assert [first.score, second.score] == pytest.approx(share.tolist(), rel=1e-4)
    assert first.mask is not None and first.mask.sum() == 6


def test_an_empty_mask_has_no_box_and_no_score():
    logits = torch.zeros(1, 81)
    (one, *_) = read_out(logits, torch.full((1, 4, 4), -1.0))
    assert one.score == 0 and one.box == (0, 0, 0, 0)


def test_pictures_are_made_ready_as_mmdetection_does():
    pixels, inner = detector_pixels(Image.new("RGB", (384, 384), (124, 116, 104)))
    assert inner == (800, 800) and pixels.shape == (3, 800, 800)
    assert pixels.abs().max() < 0.02  # the mean of ImageNet
    pixels, inner = detector_pixels(Image.new("RGB", (900, 300)))
    assert inner == (444, 1333) and pixels.shape == (3, 448, 1344)
    assert pixels[:, 444:].abs().max() == 0  # padded with zeros


def test_an_object_is_cut_out_on_grey():
    image = Image.new("RGB", (20, 10), (255, 0, 0))
    mask = np.zeros((10, 20), np.bool_)
    mask[2:4, 3:5] = True
    cut = np.asarray(cut_out(image, Detected(0, 1.0, (3, 2, 6, 4), mask)))
    assert cut.shape == (2, 3, 3)
    assert (cut[:, :2] == (255, 0, 0)).all() and (cut[:, 2] == 0x99).all()


def test_a_colour_is_named_by_three_wordings_of_each():
    class Words:
        def classifier(self, classes: Sequence[Sequence[str]]) -> Any:
            self.classes = classes

    words = Words()
    colour_classifier(words, "bear")  # type: ignore[arg-type]
    assert len(words.classes) == len(COLOURS)
    assert words.classes[0] == ["a photo of a red bear", "a photo of a red-colored bear", "a photo of a red object"]


# -- the whole ---------------------------------------------------------------------------

OFFICIAL = [
    {"tag": "single_object", "include": [ONE_CAT], "prompt": "a photo of a cat"},
    {"tag": "two_object", "include": [ONE_CAT, {"class": "dog", "count": 1}], "prompt": "a photo of a cat and a dog"},
    {
        "tag": "counting",
        "include": [{"class": "cat", "count": 2}],
        "exclude": [{"class": "cat", "count": 3}],
        "prompt": "a photo of two cats",
    },
    {"tag": "colors", "include": [ONE_CAT | {"color": "red"}], "prompt": "a photo of a red cat"},
    {
        "tag": "position",
        "include": [ONE_CAT, {"class": "dog", "count": 1, "position": ["right of", 0]}],
        "prompt": "a photo of a dog right of a cat",
    },
    {
        "tag": "color_attr",
        "include": [ONE_CAT | {"color": "red"}, {"class": "dog", "count": 1, "color": "blue"}],
        "prompt": "a photo of a red cat and a blue dog",
    },
]


def test_prompts_and_pictures_lie_as_the_official_script_has_them(tmp_path: Path):
    write_lines(tmp_path / "prompts" / "evaluation_metadata.jsonl", OFFICIAL)
    cases = GenEval(Settings()).cases(tmp_path)
    assert [case.task for case in cases] == [line["tag"] for line in OFFICIAL]
    last = cases[-1]
    assert last.text == "a photo of a red cat and a blue dog" and last.count == 4
    assert last.files[0] == "00005/samples/0000.png" and json.loads(last.beside["00005/metadata.jsonl"]) == OFFICIAL[-1]


def test_the_overall_score_is_the_mean_of_the_tasks():
    benchmark = GenEval(Settings())
    judgements = [
        Judgement(f"{number}", 0, task, f"{number}", value)
        for number, (task, value) in enumerate([("single_object", 1.0)] * 8 + [("position", 1.0), ("position", 0.0)])
    ]
    told = {one.name: score_of(one).value for one in measured(benchmark, judgements)}
    assert told == {"overall": 0.75, "single_object": 1.0, "position": 0.5}


def test_another_version_of_the_prompts_is_refused(tmp_path: Path):
    path = tmp_path / "evaluation_metadata.jsonl"
    write_lines(path, [OFFICIAL[0] | {"tag": "styles"}])
    with pytest.raises(DataError, match="line 1 has the tag 'styles'"):
        GenEval(Settings()).cases(tmp_path)
    write_lines(path, [{"tag": "counting", "include": [{"class": "dragon", "count": 1}], "prompt": "?"}])
    with pytest.raises(DataError, match="asks for a 'dragon'"):
        GenEval(Settings()).cases(tmp_path)
    write_lines(path, [OFFICIAL[0]])
    warnings = GenEval(Settings()).warnings(GenEval(Settings()).cases(tmp_path))
    assert "task single_object has 1 prompts; the official file has 80" in warnings


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> JudgeOptions:
    """Folders of a small random Mask2Former for COCO's classes and a small random CLIP, as transformers saves them."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("scipy")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("judges")
    torch.manual_seed(0)
    backbone = transformers.SwinConfig(
        image_size=32,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone,
        num_labels=80,
        num_queries=12,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=16,
    )
    transformers.Mask2FormerForUniversalSegmentation(config).save_pretrained(folder / "detector")
    letters = {letter: number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz-")} | {
        "<s>": 27,
        "</s>": 28,
        "[UNK]": 29,
    }
    tokenizer = Tokenizer(models.BPE(letters, [], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 27), ("</s>", 28)])
    text = {
        "vocab_size": 30,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "eos_token_id": 28,
        "bos_token_id": 27,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    clip = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    clip.save_pretrained(folder / "clip")
    tokenizer.save(str(folder / "clip" / "tokenizer.json"))
    return JudgeOptions(detector=str(folder / "detector"), clip=str(folder / "clip"), device="cpu")


def test_the_whole_pipeline_runs_with_small_random_judges(judges: JudgeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Random weights are sure of nothing: a picture must be found to hold things for colours and places to be asked for.
    monkeypatch.setattr("openjanus.evaluate.generation.geneval_rules.CONFIDENCE", 0.0)
    monkeypatch.setattr("openjanus.evaluate.generation.geneval_rules.COUNTING_CONFIDENCE", 0.0)
    monkeypatch.setattr("openjanus.evaluate.judges.detector.SHORT", 64)
    monkeypatch.setattr("openjanus.evaluate.judges.detector.MOST", 12 * 80)
    write_lines(tmp_path / "evaluation_metadata.jsonl", OFFICIAL)
    benchmark = GenEval(Settings(images_per_prompt=1))
    cases = benchmark.cases(tmp_path)
    samples = {}
    for number, case in enumerate(cases):
        write_picture(tmp_path / "out" / case.files[0], number)
        samples[case.id, 0] = Sample(case.id, 0, image=case.files[0], seed=0)
    (tmp_path / "out" / cases[0].files[0]).write_bytes(b"no picture")
    tools = Tools(tmp_path / "out", judges)
    benchmark.wanted(tools)
    judgements = judged(benchmark, cases, samples, tools)
    assert "samples/0000.png" in judgements[0].skipped  # listed, and no more than that
    assert [one.skipped for one in judgements[1:]] == [""] * 5
    names = [score.name for score in map(score_of, measured(benchmark, judgements))]
    assert names == ["overall", "two_object", "counting", "colors", "position", "color_attr"]
    asked = (tmp_path / "out" / "verdicts.jsonl").read_text()
    assert asked.count("\n") == 5
    # Verdicts are kept: nothing is looked at a second time.
    again = Tools(tmp_path / "out", JudgeOptions(detector=judges.detector, clip=judges.clip))
    monkeypatch.setattr(Detector, "detect", lambda *_: pytest.fail("looked again"))
    assert judged(benchmark, cases[1:], samples, again) == judgements[1:]


def test_prompts_become_a_report_through_model_and_judges(judges: JudgeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("openjanus.evaluate.judges.detector.SHORT", 64)
    write_lines(tmp_path / "data" / "evaluation_metadata.jsonl", OFFICIAL)
    plan = Plan(("geneval",), tmp_path / "run", tmp_path / "data", Settings(images_per_prompt=1), judges)
    (finished,) = run(plan, lambda: tiny.tiny_janus("janus"), Share(), Follower(quiet=True))
    assert finished.result["counted"] == 6 and finished.result["scores"][0]["name"] == "overall"
    assert json.loads((tmp_path / "run" / "geneval" / "00003" / "metadata.jsonl").read_text()) == OFFICIAL[3]
    assert (tmp_path / "run" / "geneval" / "00003" / "samples" / "0000.png").is_file()
    assert "GenEval: 553 prompts" in (tmp_path / "run" / "report.html").read_text()


def test_features_do_not_depend_on_what_is_beside_them(judges: JudgeOptions, tmp_path: Path):
    clip = Tools(tmp_path, judges).clip("")
    texts = ["a cat", "a very long text about dogs and cats"]
    together = clip.texts(texts)
    torch.testing.assert_close(together, torch.cat([clip.texts([text]) for text in texts]))
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(2))
    long = clip.texts(["word " * 60])
    assert long.shape == (1, 8)  # cut, not refused


@pytest.mark.parametrize("option", ["detector", "clip"])
def test_missing_judges_say_which_weights_are_wanted(option: str, tmp_path: Path):
    pytest.importorskip("transformers")
    name = {"detector": "detector", "clip": "clip"}[option]
    tools = Tools(tmp_path, JudgeOptions(**{name: str(tmp_path / "absent")}, device="cpu"))
    with pytest.raises(CheckpointError, match=rf"there is no folder .*absent.*--{option} wants .*a Hugging Face id"):
        _ = tools.detector if option == "detector" else tools.clip("")


def test_a_detector_of_other_classes_is_refused(judges: JudgeOptions, tmp_path: Path):
    copy = tmp_path / "detector"
    copy.mkdir()
    source = Path(judges.detector)
    config = json.loads((source / "config.json").read_text())
    config["id2label"] = dict(list(config["id2label"].items())[:79])
    config.pop("label2id", None)
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "model.safetensors").symlink_to(source / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"knows 79 classes|holds no Mask2Former"):
        Detector(str(copy), "cpu")
