"""FID and CLIP scores: the distance against torchmetrics, the network against what is known of it, sets from end to end."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from openjanus.errors import CheckpointError, DataError
from openjanus.evaluate.benchmark import Case, Sample, Settings
from openjanus.evaluate.generation.fid import (
    Statistics,
    clean_pixels,
    distance,
    features,
    read_statistics,
    square,
    write_statistics,
)
from openjanus.evaluate.generation.fid_sets import COCO30K, MJHQ30K
from openjanus.evaluate.judges.inception import Inception
from openjanus.evaluate.scoring import judged, measured, score_of
from openjanus.evaluate.tools import JudgeOptions, Tools

from .official import picture, write_json, write_picture


def test_the_distance_agrees_with_torchmetrics_on_the_same_features():
    image = pytest.importorskip("torchmetrics.image.fid")

    class Flat(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :24].float() / 64

    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(24, 24))
    real = rng.integers(0, 200, (300, 24)).astype(np.uint8)
    fake = np.clip(rng.normal(100, 40, (200, 24)) @ (np.eye(24) + 0.1 * mixing), 0, 255).astype(np.uint8)
    metric = image.FrechetInceptionDistance(feature=Flat(), input_img_size=(3, 4, 2), normalize=False)
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(real.reshape(-1, 3, 4, 2)), real=True)
    metric.update(torch.from_numpy(fake.reshape(-1, 3, 4, 2)), real=False)
    ours = distance(Statistics.of(fake / 64), Statistics.of(real / 64))
    assert ours == pytest.approx(float(metric.compute()), abs=1e-4)


def test_the_distance_of_known_distributions_is_that_of_the_formula():
    def normal(mean: float, deviation: float) -> Statistics:
        return Statistics(np.full(3, mean), np.eye(3) * deviation**2, 0)

    assert distance(normal(1, 2), normal(1, 2)) == pytest.approx(0, abs=1e-9)
    # In each of three dimensions (2 - 1)**2 + (3 - 1)**2.
    assert distance(normal(2, 3), normal(1, 1)) == pytest.approx(15)
    # Fewer pictures than features: a covariance without full rank.
    few = Statistics.of(np.random.default_rng(0).normal(size=(4, 8)))
    assert np.isfinite(distance(few, few)) and distance(few, few) == pytest.approx(0, abs=1e-6)


def test_inception_has_the_names_of_the_standard_file():
    with torch.device("meta"):
        network = Inception()
    names = network.state_dict()
    assert sum(one.numel() for one in network.parameters()) == 21_785_568  # of the published network, without its classifier
    assert names["Mixed_6b.branch7x7dbl_5.conv.weight"].shape == (192, 128, 1, 7)
    assert names["Mixed_7c.branch3x3dbl_3b.conv.weight"].shape == (384, 384, 3, 1)
    assert "Conv2d_1a_3x3.bn.running_mean" in names


def test_pooling_is_tensorflows():
    from openjanus.evaluate.judges import inception

    ones = torch.ones(1, 1, 4, 4)
    assert torch.equal(inception._average(ones), ones)  # padding does not count
    with torch.device("meta"):
        network = inception.Inception()
    assert [network.Mixed_7b.largest, network.Mixed_7c.largest] == [False, True]


def test_pixels_are_resized_as_floats():
    image = Image.fromarray(np.random.default_rng(0).integers(90, 160, (64, 64, 3), np.uint8))
    pixels = clean_pixels(image)
    assert pixels.shape == (3, 299, 299) and pixels.min() >= 0 and pixels.max() <= 255
    # Rounded to bytes on the way, which clean-fid warns of, it would be this.
    rounded = torch.from_numpy(
        np.asarray(image.resize((299, 299), Image.Resampling.BICUBIC), np.float32).transpose(2, 0, 1).copy()
    )
    difference = (pixels - rounded).abs()
    assert 0 < difference.max() < 2 and (pixels != pixels.round()).any()


def test_the_centre_of_the_long_edge_is_what_is_compared():
    image = Image.new("RGB", (30, 10), "red")
    image.paste(Image.new("RGB", (10, 10), "blue"), (10, 0))
    assert np.asarray(square(4, Image.Resampling.BICUBIC)(image)).reshape(-1, 3).tolist() == [[0, 0, 255]] * 16


def test_missing_weights_name_the_file_that_is_wanted(tmp_path: Path):
    for given in ("", str(tmp_path / "absent.pth"), str(tmp_path)):
        with pytest.raises(CheckpointError, match=r"pt_inception-2015-12-05-6726825d.pth.*--inception PATH"):
            _ = Tools(tmp_path, JudgeOptions(inception=given, device="cpu")).inception
    (tmp_path / "broken.pth").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="cannot be read as Inception"):
        Inception.read(str(tmp_path / "broken.pth"), "cpu")


class Network:
    """Six features of a picture, quickly."""

    name = "made"

    def __init__(self) -> None:
        self.seen = 0

    def features(self, pixels: Tensor) -> Tensor:
        self.seen += len(pixels)
        return torch.cat([pixels.mean((2, 3)), pixels.std((2, 3))], 1)


class Words:
    """A CLIP that finds every picture half right."""

    def images(self, images: list[Image.Image]) -> Tensor:
        return torch.tensor([[1.0, 0.0]] * len(images))

    def texts(self, texts: list[str]) -> Tensor:
        assert all(text.startswith("A photo depicts ") for text in texts)
        return torch.tensor([[0.5, 0.75**0.5]] * len(texts))


def made_tools(folder: Path, reference: str = "") -> Tools:
    tools = Tools(folder, JudgeOptions(reference=reference))
    tools.__dict__["inception"] = Network()
    tools.clip = lambda usual: Words()  # type: ignore[method-assign, assignment, return-value]
    return tools


def coco_files(folder: Path, captions: int = 5) -> Path:
    notes = [{"id": number, "image_id": number, "caption": f"picture {number}\n"} for number in range(captions)]
    write_json(folder / "annotations" / "captions_val2014.json", {"annotations": notes})
    for number in range(4):
        write_picture(folder / "val2014" / f"COCO_val2014_{number:012d}.jpg", number)
    return folder


def painted(cases: list[Case], folder: Path) -> dict[tuple[str, int], Sample]:
    samples = {}
    for number, case in enumerate(cases):
        write_picture(folder / case.files[0], 10 + number)
        samples[case.id, 0] = Sample(case.id, 0, image=case.files[0])
    return samples


def test_coco_from_end_to_end(tmp_path: Path):
    benchmark = COCO30K(Settings())
    cases = benchmark.cases(coco_files(tmp_path))
    assert sorted(case.id for case in cases) == ["0", "1", "2", "3", "4"] and cases[0].text == "picture 0"
    samples = painted(cases, tmp_path / "out")
    tools = made_tools(tmp_path / "out")
    judgements = judged(benchmark, cases, samples, tools)
    told = {one.name: score_of(one) for one in measured(benchmark, judgements)}
    assert told["CLIP score"].value == pytest.approx(50)

    def statistics(pictures: list[Image.Image], filter: Image.Resampling) -> Statistics:
        pixels = torch.stack([clean_pixels(square(256, filter)(one)) for one in pictures])
        return Statistics.of(Network().features(pixels).numpy())

    real = [Image.open(path).convert("RGB") for path in sorted((tmp_path / "val2014").glob("*.jpg"))]
    own = [Image.open(tmp_path / "out" / case.files[0]).convert("RGB") for case in cases]
    expected = distance(statistics(own, Image.Resampling.BICUBIC), statistics(real, Image.Resampling.LANCZOS))
    assert told["FID"].value == pytest.approx(expected) and told["FID"].low is None and not told["FID"].higher
    # Features and statistics are kept: nothing is looked at again.
    again = made_tools(tmp_path / "out")
    assert judged(benchmark, cases, samples, again) == judgements and again.inception.seen == 0  # type: ignore[attr-defined]
    assert "there are 5 captions; FID depends on their number (30,000)" in benchmark.warnings(cases)


def test_captions_are_drawn_always_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(COCO30K, "captions", 3)
    coco_files(tmp_path, captions=50)
    drawn = [case.id for case in COCO30K(Settings(seed=1)).cases(tmp_path)]
    assert len(drawn) == 3 and drawn == [case.id for case in COCO30K(Settings(seed=2)).cases(tmp_path)]


def test_statistics_of_a_file_are_used_and_written(tmp_path: Path):
    benchmark = COCO30K(Settings())
    cases = benchmark.cases(coco_files(tmp_path))
    samples = painted(cases, tmp_path / "out")
    reference = tmp_path / "coco.npz"
    judged(benchmark, cases, samples, made_tools(tmp_path / "out", str(reference)))
    assert read_statistics(reference).count == 4
    write_statistics(reference, Statistics(np.full(6, 1e3), np.eye(6), 9))
    judgements = judged(benchmark, cases, samples, made_tools(tmp_path / "out", str(reference)))
    assert next(score_of(one).value for one in measured(benchmark, judgements)) > 1e6
    reference.write_bytes(b"nothing")
    with pytest.raises(DataError, match="holds no statistics"):
        read_statistics(reference)


def test_an_unreadable_picture_is_skipped_and_listed(tmp_path: Path):
    benchmark = COCO30K(Settings())
    cases = benchmark.cases(coco_files(tmp_path))
    samples = painted(cases, tmp_path / "out")
    (tmp_path / "out" / cases[2].files[0]).write_bytes(b"")
    judgements = judged(benchmark, cases, samples, made_tools(tmp_path / "out"))
    assert [bool(one.skipped) for one in judgements] == [False, False, True, False, False]
    told = {one.name: score_of(one) for one in measured(benchmark, judgements)}
    assert told["FID"].count == 4


def test_mjhq_has_a_distance_for_each_category(tmp_path: Path):
    records = {}
    for category in ("animals", "food"):
        for number in range(2):
            name = f"{category[0]}{number}"
            records[name] = {"category": category, "prompt": f"a {name}"}
            write_picture(tmp_path / "mjhq30k_imgs" / category / f"{name}.jpg", number)
    write_json(tmp_path / "meta_data.json", records)
    benchmark = MJHQ30K(Settings())
    cases = benchmark.cases(tmp_path)
    assert cases[0].files == ("images/animals/a0.png",)
    judgements = judged(benchmark, cases, painted(cases, tmp_path / "out"), made_tools(tmp_path / "out"))
    assert [one.name for one in measured(benchmark, judgements)] == ["FID", "FID animals", "FID food", "CLIP score"]
    assert MJHQ30K(Settings(protocol="playground")).side == 1024
    (tmp_path / "mjhq30k_imgs" / "food" / "f1.jpg").unlink()
    with pytest.raises(DataError, match="mjhq30k lacks 1 of 4 images"):
        MJHQ30K(Settings()).cases(tmp_path)


def test_features_are_kept_chunk_by_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("openjanus.evaluate.generation.fid.CHUNK", 3)
    network, names = Network(), [str(number) for number in range(7)]

    def opened(name: str) -> Image.Image:
        if name == "6" and network.seen == 6:
            raise KeyboardInterrupt
        return picture(int(name))

    with pytest.raises(KeyboardInterrupt):
        features(names, opened, lambda one: one, network, tmp_path)  # type: ignore[arg-type]
    network.seen = 0
    made = features(names, opened, lambda one: one, network, tmp_path)  # type: ignore[arg-type]
    assert made.shape == (7, 6) and network.seen == 1
