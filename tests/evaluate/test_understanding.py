"""Benchmarks of understanding: official files become the papers' prompts, and answers the official scores, worked out by hand."""

from pathlib import Path

import pytest

from openjanus.errors import ConfigError, DataError, ImageError
from openjanus.evaluate.benchmark import Question, Settings
from openjanus.evaluate.understanding.gqa import GQA
from openjanus.evaluate.understanding.mmbench import MMBench
from openjanus.evaluate.understanding.mme import COGNITION, MME, PERCEPTION
from openjanus.evaluate.understanding.mmmu import MMMU
from openjanus.evaluate.understanding.pope import POPE
from openjanus.evaluate.understanding.seed import SEED
from openjanus.evaluate.understanding.vqa import ChartQA, TextVQA, VQAv2

from .official import answered, encoded, scored, write_json, write_lines, write_picture, write_table

DEFAULT = Settings()


# -- POPE ------------------------------------------------------------------------------


def pope_files(folder: Path) -> Path:
    for split in ("random", "popular", "adversarial"):
        records = [
            {
                "question_id": number,
                "image": f"COCO_val2014_{image}.jpg",
                "text": f"Is there a {thing} in the image?",
                "label": label,
            }
            for number, (image, thing, label) in enumerate(
                [("1", "dog", "yes"), ("1", "cat", "no"), ("2", "cup", "yes"), ("2", "car", "no")], 1
            )
        ]
        write_lines(folder / "coco" / f"coco_pope_{split}.json", records)
    for image in "12":
        write_picture(folder / "val2014" / f"COCO_val2014_{image}.jpg")
    return folder


def test_pope_asks_in_the_adapters_words(tmp_path: Path):
    cases = POPE(DEFAULT).cases(pope_files(tmp_path))
    assert len(cases) == 12 and [case.task for case in cases[::4]] == ["random", "popular", "adversarial"]
    first = cases[0]
    assert isinstance(first, Question) and first.system_prompt == "" and first.images[0]().size == (16, 16)
    assert first.text == "<image_placeholder>\nIs there a dog in the image?\nAnswer the question using a single word or phrase."
    assert first.group == cases[1].group != cases[2].group
    table = tmp_path / "table"
    row = {"index": 0, "category": "popular", "question": "Is there a dog in the image? Please answer yes or no."}
    write_table(table / "POPE.tsv", [row | {"answer": "Yes", "image": encoded(), "image_path": "1.jpg"}])
    (case,) = POPE(DEFAULT).cases(table)
    assert case.text == first.text and case.facts == {"answer": "yes"}


def test_pope_scores_by_hand(tmp_path: Path):
    benchmark = POPE(DEFAULT)
    cases = benchmark.cases(pope_files(tmp_path))
    # random: all right; popular: says yes to everything; adversarial: mumbles twice, which is no yes.
    told = scored(benchmark, cases, ["Yes", "No", "Yes", "No"] + ["Yes"] * 4 + ["hm", "hm", "Yes", "No"], tmp_path / "out")
    assert told["random F1"] == told["random accuracy"] == 100
    assert told["popular precision"] == 50 and told["popular recall"] == 100 and told["popular yes ratio"] == 100
    assert told["popular F1"] == pytest.approx(200 / 3)
    # adversarial: one true yes of two, no false one; "hm" is wrong for the no as well.
    assert told["adversarial F1"] == pytest.approx(200 / 3) and told["adversarial accuracy"] == 50
    # pooled: 5 true yes of 6, 2 false.
    assert told["F1"] == pytest.approx(100 * 10 / 13)


def test_pope_by_the_official_script_takes_everything_undenied_for_yes_and_averages_splits(tmp_path: Path):
    benchmark = POPE(Settings(protocol="official"))
    cases = benchmark.cases(pope_files(tmp_path))
    told = scored(benchmark, cases, ["Yes", "No", "Yes", "No"] + ["Yes"] * 4 + ["hm", "hm", "Yes", "No"], tmp_path / "out")
    assert told["adversarial accuracy"] == 75 and told["adversarial F1"] == pytest.approx(80)
    assert told["F1"] == pytest.approx((100 + 200 / 3 + 80) / 3)


def test_a_question_that_is_in_several_splits_counts_in_each(tmp_path: Path):
    benchmark = POPE(DEFAULT)
    rows = [{"index": 0, "category": "popular,random", "answer": "Yes"}, {"index": 1, "category": "random", "answer": "No"}]
    path = [row | {"question": "?", "image": encoded()} for row in rows]
    write_table(tmp_path / "POPE.tsv", path)
    told = scored(benchmark, benchmark.cases(tmp_path), ["yes", "yes"], tmp_path)
    # exploded: two true yes, one false.
    assert told["F1"] == pytest.approx(80) and told["popular F1"] == 100 and told["random F1"] == pytest.approx(200 / 3)


def test_other_numbers_of_questions_are_told(tmp_path: Path):
    benchmark = POPE(DEFAULT)
    assert "split random has 4 questions; the official one has 3000" in benchmark.warnings(benchmark.cases(pope_files(tmp_path)))


# -- MME -------------------------------------------------------------------------------


def mme_files(folder: Path) -> Path:
    for task in (*PERCEPTION, *COGNITION):
        for image in "ab":
            place = folder / "MME_Benchmark_release_version" / task
            # Half of the release keeps images in a folder of their own.
            inner = place / "images" if task in PERCEPTION else place
            write_picture(inner / f"{image}.png")
            texts = place / "questions_answers_YN" if task in PERCEPTION else place
            texts.mkdir(parents=True, exist_ok=True)
            lines = f"Is it {image}? Please answer yes or no.\tYes\nIs it c? Please answer yes or no.\tNo\n"
            (texts / f"{image}.txt").write_text(lines)
    return folder


def test_mme_adds_accuracy_of_questions_and_of_images(tmp_path: Path):
    benchmark = MME(DEFAULT)
    cases = benchmark.cases(mme_files(tmp_path))
    assert len(cases) == 14 * 4
    assert cases[0].text.startswith("<image_placeholder>\nIs it a? Please answer yes or no.\nAnswer the question using")
    # Everything right but one question of existence, and all of code_reasoning.
    answers = [case.facts["answer"] for case in cases]
    answers[0] = "no"
    answers = ["" if case.task == "code_reasoning" else answer for case, answer in zip(cases, answers, strict=True)]
    told = scored(benchmark, cases, answers, tmp_path)
    assert told["existence"] == 75 + 50 and told["count"] == 200 and told["code_reasoning"] == 0
    assert told["perception"] == 9 * 200 + 125 and told["cognition"] == 600


def test_an_image_of_mme_that_lost_a_question_leaves_with_the_other(tmp_path: Path):
    from openjanus.evaluate.benchmark import Sample
    from openjanus.evaluate.scoring import judged, measured, score_of
    from openjanus.evaluate.tools import Tools

    benchmark = MME(DEFAULT)
    cases = benchmark.cases(mme_files(tmp_path))
    samples = {(case.id, 0): Sample(case.id, 0, text=case.facts["answer"]) for case in cases}
    samples[cases[0].id, 0] = Sample(cases[0].id, 0, error="broken")
    measures = measured(benchmark, judged(benchmark, cases, samples, Tools(tmp_path)))
    told = {one.name: one.count for one in measures}
    assert told["existence"] == 2 and told["count"] == 4
    assert {score_of(one).value for one in measures} == {2000, 800, 200}


# -- MMBench ---------------------------------------------------------------------------

MMB = {
    "index": 7,
    "question": "What is it?",
    "hint": "Look.",
    "A": "a cat",
    "B": "a dog",
    "C": "a cow",
    "answer": "B",
    "category": "what",
}


def test_mmbench_turns_the_options_where_the_file_does_not(tmp_path: Path):
    write_table(tmp_path / "MMBench_DEV_EN.tsv", [MMB | {"image": encoded()}])
    cases = MMBench(DEFAULT).cases(tmp_path)
    assert [case.id for case in cases] == ["7", "1000007", "2000007"] and {case.group for case in cases} == {"7"}
    assert [case.facts["options"][case.facts["answer"]] for case in cases] == ["a dog"] * 3
    assert len({tuple(case.facts["options"].values()) for case in cases}) == 3
    assert cases[0].text == (
        "<image_placeholder>\nHint: Look.\nWhat is it?\nA. a cat\nB. a dog\nC. a cow\n\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_mmbench_takes_the_rotations_of_the_file_with_the_image_of_the_first(tmp_path: Path):
    turned = MMB | {"index": 1_000_007, "A": "a dog", "B": "a cow", "C": "a cat", "answer": "A", "image": "7"}
    write_table(tmp_path / "MMBench_DEV_EN.tsv", [MMB | {"image": encoded(3)}, turned])
    first, second = MMBench(DEFAULT).cases(tmp_path)
    assert first.images[0]().tobytes() == second.images[0]().tobytes()
    assert second.facts["answer"] == "A" and second.group == "7"


def test_a_question_of_mmbench_is_right_only_in_every_rotation(tmp_path: Path):
    rows = [
        MMB | {"index": number, "image": encoded(), "l2-category": kind}
        for number, kind in ((1, "x"), (2, "x"), (3, "y"), (4, "y"))
    ]
    write_table(tmp_path / "MMBench_DEV_EN.tsv", rows)
    benchmark = MMBench(DEFAULT)
    cases = benchmark.cases(tmp_path)
    answers = [case.facts["answer"] for case in cases]
    answers[4] = "Z"  # question 2, second rotation
    answers[6] = "It is a dog, I think"  # question 3: the text of the right option
    answers[9] = "A" if cases[9].facts["answer"] != "A" else "B"  # question 4, first
    told = scored(benchmark, cases, answers, tmp_path)
    assert told == {"overall": 50, "x": 50, "y": 50, "one pass": 75}


def test_mmbench_test_answers_go_to_the_server(tmp_path: Path):
    write_table(tmp_path / "MMBench_TEST_EN.tsv", [{key: MMB[key] for key in MMB if key != "answer"} | {"image": encoded()}])
    benchmark = MMBench(DEFAULT)
    cases = benchmark.cases(tmp_path)
    told, judgements = answered(benchmark, cases, ["A"] * 3, tmp_path)
    assert told == {} and {one.skipped for one in judgements} == {"its answer is not public"}
    from openjanus.evaluate.benchmark import Sample

    (path,) = benchmark.export([(case, [Sample(case.id, 0, text="A")]) for case in cases], tmp_path / "out")
    assert path.read_text().splitlines()[1] == "7\tWhat is it?\ta cat\ta dog\ta cow\t\tA"
    assert any("answers are not public" in warning for warning in benchmark.warnings(cases))


# -- SEED ------------------------------------------------------------------------------


def seed_files(folder: Path) -> Path:
    question = {"question": "What?", "choice_a": "one", "choice_b": "two", "choice_c": "three", "choice_d": "four"}
    records = [
        question
        | {"question_id": f"{number}", "answer": "B", "data_id": f"{number}", "question_type_id": kind, "data_type": data}
        for number, kind, data in ((1, 1, "image"), (2, 1, "image"), (3, 9, "image"), (4, 10, "video"))
    ]
    write_json(
        folder / "SEED-Bench.json", {"questions": records, "question_type": {"Scene Understanding": 1, "Text": 9, "Action": 10}}
    )
    for number in (1, 2, 3):
        path = write_picture(folder / "SEED-Bench-image" / f"{number}.png")
        path.rename(path.with_suffix(""))  # the release has names without suffix
    return folder


def test_seed_is_the_accuracy_on_images(tmp_path: Path):
    benchmark = SEED(DEFAULT)
    cases = benchmark.cases(seed_files(tmp_path))
    assert [case.task for case in cases] == ["Scene Understanding", "Scene Understanding", "Text"]
    told = scored(benchmark, cases, ["B", "it is two", "(C)"], tmp_path)
    assert told == pytest.approx({"accuracy": 200 / 3, "Scene Understanding": 100, "Text": 0})
    first_character = SEED(Settings(protocol="lmms-eval"))
    assert scored(first_character, cases, ["B", "it is two", "b"], tmp_path)["accuracy"] == pytest.approx(200 / 3)


# -- GQA, VQAv2, TextVQA, ChartQA --------------------------------------------------------


def gqa_files(folder: Path) -> Path:
    question = {"question": "What colour?", "answer": "light blue", "imageId": "n1", "types": {"structural": "query"}}
    write_json(
        folder / "testdev_balanced_questions.json",
        {"1": question, "2": question | {"answer": "yes", "types": {"structural": "verify"}}},
    )
    write_picture(folder / "images" / "n1.jpg")
    return folder


def test_gqa_is_exact_match(tmp_path: Path):
    cases = GQA(DEFAULT).cases(gqa_files(tmp_path))
    # No line break before the question: the adapter leaves these prompts to the data set.
    assert cases[0].text == "<image_placeholder>What colour?\nAnswer the question using a single word or phrase."
    answers = ["Light Blue", "yes."]
    assert scored(GQA(DEFAULT), cases, answers, tmp_path) == {"accuracy": 50, "query": 100, "verify": 0}
    assert scored(GQA(Settings(protocol="llava")), cases, answers, tmp_path)["accuracy"] == 100


def people(*answers: str) -> list[dict[str, object]]:
    return [{"answer": answer, "answer_id": number} for number, answer in enumerate(answers)]


def test_vqav2_normalises_people_only_where_they_differ(tmp_path: Path):
    questions = [{"question_id": number, "image_id": 9, "question": "Who?"} for number in (1, 2)]
    write_json(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    notes = [
        {"question_id": 1, "answer_type": "other", "answers": people(*["The dog"] * 10)},  # all alike: stays as it is
        {"question_id": 2, "answer_type": "number", "answers": people(*["two"] * 2, *["3"] * 8)},
    ]
    write_json(tmp_path / "v2_mscoco_val2014_annotations.json", {"annotations": notes})
    write_picture(tmp_path / "val2014" / "COCO_val2014_000000000009.jpg")
    benchmark = VQAv2(DEFAULT)
    cases = benchmark.cases(tmp_path)
    told = scored(benchmark, cases, ["dog", "2"], tmp_path)
    assert told == pytest.approx({"accuracy": 30, "other": 0, "number": 60})


def test_vqav2_test_answers_go_to_the_server(tmp_path: Path):
    from openjanus.evaluate.benchmark import Sample

    write_json(
        tmp_path / "v2_OpenEnded_mscoco_test-dev2015_questions.json",
        {"questions": [{"question_id": 5, "image_id": 9, "question": "Who?"}]},
    )
    write_picture(tmp_path / "test2015" / "COCO_test2015_000000000009.jpg")
    benchmark = VQAv2(DEFAULT)
    (case,) = benchmark.cases(tmp_path)
    (path,) = benchmark.export([(case, [Sample("5", 0, text="The two dogs.")])], tmp_path)
    assert '"answer": "2 dogs"' in path.read_text() and '"question_id": 5' in path.read_text()


def test_textvqa_and_chartqa(tmp_path: Path):
    answers = ["joe's"] * 5 + ["joes"] * 5
    write_json(
        tmp_path / "TextVQA_0.5.1_val.json",
        {"data": [{"question_id": 1, "image_id": "i", "question": "Whose?", "answers": answers}]},
    )
    write_picture(tmp_path / "train_images" / "i.jpg")
    cases = TextVQA(DEFAULT).cases(tmp_path)
    assert scored(TextVQA(DEFAULT), cases, ["Joe's"], tmp_path)["accuracy"] == 100
    assert scored(TextVQA(DEFAULT), cases, ["joe"], tmp_path)["accuracy"] == 0
    for split, label in (("human", "100"), ("augmented", "Yes")):
        write_json(tmp_path / f"test_{split}.json", [{"imgname": "c.png", "query": "How much?", "label": label}])
    write_picture(tmp_path / "png" / "c.png")
    charts = ChartQA(DEFAULT)
    assert scored(charts, charts.cases(tmp_path), ["104", "no"], tmp_path) == {"accuracy": 50, "human": 100, "augmented": 0}
    write_table(
        tmp_path / "t" / "TextVQA_VAL.tsv", [{"index": 1, "question": "Whose?", "answer": str(answers), "image": encoded()}]
    )
    (row,) = TextVQA(DEFAULT).cases(tmp_path / "t")
    assert row.facts["answers"] == answers


# -- MMMU ------------------------------------------------------------------------------


def mmmu_table(folder: Path) -> Path:
    two = str([encoded(1), encoded(2)])
    base = {"split": "validation", "category": "Art"}
    write_table(
        folder / "MMMU_DEV_VAL.tsv",
        [
            base
            | {
                "index": 1,
                "id": "v1",
                "question": "<image 1> or <image 2>?",
                "A": "left",
                "B": "right",
                "answer": "B",
                "image": two,
            },
            base
            | {"index": 2, "id": "v2", "question": "How many? <image 1>", "A": "", "B": "", "answer": "3.14", "image": encoded()},
            base
            | {"index": 3, "id": "d1", "split": "dev", "question": "?", "A": "x", "B": "y", "answer": "A", "image": encoded()},
        ],
    )
    return folder


def test_mmmu_with_the_adapters_prompts_makes_open_questions_choices(tmp_path: Path):
    benchmark = MMMU(DEFAULT)
    first, second = benchmark.cases(mmmu_table(tmp_path))
    assert first.text.startswith(
        "<image_placeholder><image_placeholder>\n<image 1> or <image 2>?\nA. left\nB. right\n\nAnswer with"
    )
    left, right = (image().tobytes() for image in first.images)
    assert left != right
    assert second.text == "<image_placeholder>\nHow many? <image 1>\nAnswer the question directly. "
    told = scored(benchmark, [first, second], ["B", "about 3.14"], tmp_path)
    assert told == {"accuracy": 100, "Art": 100}
    assert scored(benchmark, [first, second], ["B", "other answers"], tmp_path)["accuracy"] == 50


def test_mmmu_by_its_own_rules_shows_images_where_the_question_does(tmp_path: Path):
    benchmark = MMMU(Settings(protocol="official"))
    first, second = benchmark.cases(mmmu_table(tmp_path))
    assert first.text == (
        "<image_placeholder> or <image_placeholder>?\n\n(A) left\n(B) right\n\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert second.text == "How many? <image_placeholder>\n\nAnswer the question using a single word or phrase."
    assert scored(benchmark, [first, second], ["(A) no, (B)", "so it is 3.1415"], tmp_path)["accuracy"] == 100


def test_mmmu_reads_the_parquet_files_of_the_hub(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    image = {"bytes": write_picture(tmp_path / "x.png").read_bytes(), "path": "x.png"}
    record = {
        "id": "validation_Art_1",
        "question": "What is <image 1>?",
        "options": "['one', 'two']",
        "answer": "A",
        "question_type": "multiple-choice",
    }
    images = {f"image_{number}": image if number == 1 else None for number in range(1, 8)}
    (tmp_path / "Art").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist([record | images]), tmp_path / "Art" / "validation-00000-of-00001.parquet")
    (case,) = MMMU(DEFAULT).cases(tmp_path)
    assert case.task == "Art" and case.facts["options"] == {"A": "one", "B": "two"} and case.images[0]().size == (16, 16)


# -- bad input -------------------------------------------------------------------------


def test_without_data_the_message_says_what_is_wanted_and_from_where():
    with pytest.raises(DataError, match=r"pope needs its official files: say --data FOLDER.*coco_pope_random.json.*POPE.tsv"):
        POPE(DEFAULT).cases(None)


def test_missing_images_are_counted_before_anything_runs(tmp_path: Path):
    pope_files(tmp_path)
    (tmp_path / "val2014" / "COCO_val2014_2.jpg").unlink()
    (tmp_path / "val2014" / "COCO_val2014_1.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"pope lacks 2 of 2 images .*the download is not whole"):
        POPE(DEFAULT).cases(tmp_path)


def test_a_line_that_was_cut_is_named(tmp_path: Path):
    path = pope_files(tmp_path) / "coco" / "coco_pope_popular.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=r"coco_pope_popular.json line 4 is no JSON.*half-downloaded"):
        POPE(DEFAULT).cases(tmp_path)


def test_a_table_that_was_cut_is_named(tmp_path: Path):
    row = {"index": 1, "image": encoded(), "question": "?", "answer": "Yes", "category": "random"}
    path = write_table(tmp_path / "POPE.tsv", [row])
    path.write_text(path.read_text()[:100])
    with pytest.raises(DataError, match=r"POPE.tsv row 1 has 2 cells where 5 belong; it is broken or half-downloaded"):
        POPE(DEFAULT).cases(tmp_path)


def test_another_version_of_a_file_is_told_by_its_fields(tmp_path: Path):
    write_lines(pope_files(tmp_path) / "coco" / "coco_pope_random.json", [{"id": 1, "prompt": "?"}])
    with pytest.raises(DataError, match=r"line 1 has no field 'question_id' \(it has id, prompt\).*another version"):
        POPE(DEFAULT).cases(tmp_path)
    write_table(tmp_path / "t" / "GQA_TestDev_Balanced.tsv", [{"index": 1, "text": "?"}])
    with pytest.raises(DataError, match=r"has no column 'question' \(it has index, text\)"):
        GQA(DEFAULT).cases(tmp_path / "t")


def test_an_id_that_is_there_twice_is_refused(tmp_path: Path):
    row = {"index": 1, "question": "?", "answer": "yes", "category": "random", "image": encoded()}
    write_table(tmp_path / "POPE.tsv", [row, row])
    with pytest.raises(DataError, match=r"has the id 1 twice"):
        POPE(DEFAULT).cases(tmp_path)


def test_an_image_in_a_table_that_is_broken_says_so_when_it_is_wanted(tmp_path: Path):
    write_table(tmp_path / "POPE.tsv", [{"index": 1, "question": "?", "answer": "yes", "category": "random", "image": "?" * 100}])
    (case,) = POPE(DEFAULT).cases(tmp_path)
    with pytest.raises(ImageError, match="not valid base64"):
        case.images[0]()


def test_an_unknown_protocol_lists_those_there_are():
    with pytest.raises(ConfigError, match="pope has no protocol 'x'; there is vlmevalkit, official"):
        POPE(Settings(protocol="x"))
