"""Samples become documents that hold token for token what inference builds, and packing changes nothing."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tiny
from openjanus.config import JanusConfig
from openjanus.data.documents import Document, Writer
from openjanus.data.packing import batch, pack
from openjanus.data.samples import KINDS, InTurn, Mixture, Sample
from openjanus.errors import ConfigError, PromptError
from openjanus.models.alignment import Alignment, clean_features
from openjanus.models.attention import Documents
from openjanus.models.flow_generation import FLOW
from openjanus.models.janus import JanusModel
from openjanus.types import IGNORE, Message

PAD = 342


def picture(seed: int = 0, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def talk(*turns: str, images: tuple = (), seed: int = 0) -> Sample:
    roles = ("user", "assistant")
    messages = [Message(roles[i % 2], text, images if i == 0 else ()) for i, text in enumerate(turns)]
    return Sample("understanding" if images else "text", tuple(messages), seed)


def drawing(text: str, seed: int = 0) -> Sample:
    return Sample("generation", (Message("user", text),), seed, picture(seed))


def writer(variant: str, **changes: object) -> Writer:
    config: JanusConfig = tiny.CONFIGS[variant]
    return dataclasses.replace(Writer(tiny.tiny_processor(variant), config.generation), **changes)


# -- documents -----------------------------------------------------------------------


def test_an_answer_is_learned_behind_the_very_prompt_of_inference(variant: str):
    pen = writer(variant)
    document = pen.document(talk("What is it?", "A cube.", images=(picture(),)))
    prompt = pen.processor.understanding_prompt([Message("user", "What is it?", (picture(),))])
    tokenizer = pen.processor.tokenizer
    answer = document.ids[len(prompt) :].tolist()
    assert torch.equal(document.ids[: len(prompt)], prompt.ids)
    assert torch.equal(document.slots[: len(prompt)], prompt.slots)
    assert torch.equal(document.pixels, prompt.pixels)
    assert tokenizer.decode(answer) == " A cube."
    assert answer[-1] == tokenizer.eos
    learned = (document.labels != IGNORE).nonzero()[:, 0].tolist()
    assert learned == list(range(len(prompt) - 1, len(document) - 1))
    assert document.labels[learned].tolist() == answer


def test_every_answer_of_a_conversation_is_learned_and_no_question(variant: str):
    pen = writer(variant)
    document = pen.document(talk("Hello", "Hi.", "How many?", "Two.", images=()))
    words = pen.processor.tokenizer.decode(document.labels[document.labels != IGNORE].tolist())
    assert words == " Hi. Two."
    said = [Message("user", "Hello"), Message("assistant", "Hi."), Message("user", "How many?")]
    prompt = pen.processor.understanding_prompt(said)
    assert torch.equal(document.ids[: len(prompt)], prompt.ids)


def test_an_answer_without_a_question_is_plain_text_between_begin_and_end_of_sentence(variant: str):
    pen = writer(variant)
    document = pen.document(Sample("text", (Message("assistant", "A cube is red."),), 0))
    tokenizer = pen.processor.tokenizer
    assert document.ids.tolist() == [*tokenizer.encode(" A cube is red."), tokenizer.eos]
    assert document.labels[:-1].tolist() == document.ids[1:].tolist()


def test_prompts_are_learned_too_where_a_stage_says_so_but_never_images(variant: str):
    document = writer(variant, supervise_prompts=True).document(talk("What is it?", "A cube.", images=(picture(),)))
    predicted = document.labels != IGNORE
    assert predicted[:-1].sum() == len(document) - 1 - document.slots[1:].sum()
    assert not predicted[:-1][document.slots[1:]].any()


def test_a_picture_follows_the_very_prompt_of_inference(variant: str):
    pen = writer(variant, guidance_dropout=0.0)
    document = pen.document(drawing("a red cube"))
    prompt = pen.processor.generation_prompt("a red cube")
    positions = pen.generation.positions
    own = len(prompt) - 1 if variant == "janusflow" else len(prompt)
    assert torch.equal(document.ids[:own], prompt.ids[:own])
    assert document.inputs.nonzero()[:, 0].tolist() == list(range(own, own + positions))
    assert document.outputs.nonzero()[:, 0].tolist() == list(range(len(prompt) - 1, len(prompt) - 1 + positions))
    assert document.attended.all()
    assert (document.labels == IGNORE).all()
    height, width = pen.generation.image_size
    assert document.pictures.shape == (1, 3, height, width)
    assert document.pictures.abs().max() <= 1


def test_a_dropped_text_is_the_blank_row_of_inference(variant: str):
    pen = writer(variant, guidance_dropout=1.0)
    document = pen.document(drawing("a red cube"))
    blank = pen.processor.blank(pen.processor.generation_prompt("a red cube"))
    last = len(blank) - 1
    assert torch.equal(document.ids[:last], blank.ids[:last])
    hidden = (~document.attended).nonzero()[:, 0].tolist()
    assert hidden == ([] if variant == "janus" else list(range(1, last)))


def test_texts_are_dropped_in_their_share_and_by_the_sample_alone(variant: str):
    pen = writer(variant)
    blank = [PAD in pen.document(drawing("a red cube", seed)).ids[1:6].tolist() for seed in range(400)]
    assert 20 <= sum(blank) <= 62
    assert blank == [PAD in pen.document(drawing("a red cube", seed)).ids[1:6].tolist() for seed in range(400)]


def test_pictures_are_cropped_to_the_models_shape_at_random_or_at_the_centre(variant: str):
    crops = {tuple(writer(variant).document(drawing("a", seed)).pictures.flatten()[:6].tolist()) for seed in range(3)}
    assert len(crops) == 3
    centred = [writer(variant, random_crop=False)._pixels(dataclasses.replace(drawing("a"), seed=s)) for s in (1, 2)]
    assert torch.equal(*centred)


def test_samples_with_nothing_to_learn_are_refused(variant: str):
    with pytest.raises(PromptError, match="assistant"):
        writer(variant).document(talk("Hello?"))
    with pytest.raises(PromptError, match="picture"):
        writer(variant).document(Sample("generation", (Message("user", "a cube"),), 0))


# -- mixture -------------------------------------------------------------------------


class Counter:
    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __getitem__(self, k: int) -> Sample:
        return Sample(self.kind, (), k)


@pytest.mark.parametrize("ratio", [(2, 3, 5), (7, 3, 10), (1, 0, 3), (14, 6, 80), (1, 1, 1)])
def test_every_round_of_the_ratio_is_exact_and_every_sample_comes_once(ratio: tuple[int, ...]):
    shares = dict(zip(KINDS[:3], ratio, strict=True))
    mixture = Mixture({kind: Counter(kind) for kind in KINDS}, shares, batch=7)
    samples = [sample for step in range(sum(ratio) * 2) for sample in mixture.samples(step)]
    for kind, share in shares.items():
        numbers = [sample.seed for sample in samples if sample.kind == kind]
        assert numbers == list(range(share * 14))
    for start in range(0, len(samples), sum(ratio)):
        chunk = [sample.kind for sample in samples[start : start + sum(ratio)]]
        assert all(chunk.count(kind) == share for kind, share in shares.items())


def test_a_mixture_goes_on_where_another_has_left_each_kind():
    sources = {kind: Counter(kind) for kind in KINDS}
    first = Mixture(sources, {"text": 1, "generation": 2}, batch=4)
    second = Mixture(sources, {"understanding": 3, "text": 1, "generation": 1}, 4, first.taken(5))
    samples = [sample for mixture in (first, second) for step in range(5) for sample in mixture.samples(step)]
    for kind in KINDS[:3]:
        numbers = [sample.seed for sample in samples if sample.kind == kind]
        assert numbers == list(range(len(numbers))), kind
        assert second.taken(5)[kind] == len(numbers)


def test_sources_in_turn_give_each_of_their_samples_once():
    class Numbers:
        def __init__(self, first: int) -> None:
            self.first = first

        def __getitem__(self, k: int) -> Sample:
            return Sample("text", (), self.first + k)

    source = InTurn((Numbers(0), Numbers(100), Numbers(200)))
    assert [source[k].seed for k in range(7)] == [0, 100, 200, 1, 101, 201, 2]


def test_a_ratio_of_nothing_or_without_a_source_is_refused():
    with pytest.raises(ConfigError, match="holds nothing"):
        Mixture({}, {"text": 0}, 4)
    with pytest.raises(ConfigError, match="no source"):
        Mixture({}, {"text": 1}, 4)


# -- packing and losses --------------------------------------------------------------


def documents(variant: str) -> list[Document]:
    pen = writer(variant, guidance_dropout=0.5)
    samples = [
        talk("What is it?", "A cube.", images=(picture(),)),
        drawing("a red cube", 1),
        talk("Hello", "Hi.", "How many?", "Two."),
        drawing("a blue ball on a table", 2),
        drawing("a star", 3),
        talk("Which?", "The first.", images=(picture(1), picture(2))),
    ]
    return [pen.document(sample) for sample in samples]


def test_packing_fills_rows_in_order_and_loses_nothing(variant: str):
    made = documents(variant)
    rows = pack(made, context=130)
    assert sorted(id(document) for row in rows for document in row) == sorted(map(id, made))
    assert len(rows) < len(made)
    assert all(sum(map(len, row)) <= 130 for row in rows)
    with pytest.raises(PromptError, match=r"\d+ tokens, a row holds 20"):
        pack(made, context=20)


def test_packed_losses_equal_those_of_each_document_alone(variant: str):
    model, made = tiny.tiny_model(variant), documents(variant)
    together = model.losses(batch(pack(made, 130), PAD))
    alone = [model.losses(batch([[document]], PAD)) for document in made]
    for kind in ("text", "image"):
        expected = sum(losses[kind][0] for losses in alone if kind in losses)
        count = sum(losses[kind][1] for losses in alone if kind in losses)
        assert together[kind][1] == count
        torch.testing.assert_close(together[kind][0] / count, expected / count, rtol=0, atol=1e-5)


def test_a_rival_stands_behind_its_own_text_with_the_same_picture_and_chance(variant: str):
    pen = writer(variant, guidance_dropout=0.5)
    kept = 0
    for seed in range(20):
        sample = dataclasses.replace(drawing("a red cube", seed), rival="a blue ball")
        made = pen.documents(sample)
        assert torch.equal(made[0].ids, pen.document(sample).ids)
        if PAD in made[0].ids[1:6].tolist():
            assert len(made) == 1, "a picture without its text has no rival"
            continue
        kept += 1
        own, other = made
        assert torch.equal(own.pictures, other.pictures) and torch.equal(own.seeds, other.seeds)
        assert (own.rivals.tolist(), other.rivals.tolist()) == ([False], [True])
        assert torch.equal(other.ids, pen.document(drawing("a blue ball", seed)).ids)
    assert 3 < kept < 17
    assert len(pen.documents(drawing("a red cube"))) == 1


def test_contrast_by_hand(variant: str):
    """Two pictures with rivals and one without, packed in any order: the odds of both texts, by Bayes' rule."""
    model, pen = tiny.tiny_model(variant), writer(variant, guidance_dropout=0.0)
    samples = [
        dataclasses.replace(drawing("a red cube", 1), rival="a blue cube"),
        drawing("a ball", 2),
        dataclasses.replace(drawing("two balls left of a cube", 3), rival="two"),
    ]
    made = [document for sample in samples for document in pen.documents(sample)]
    assert len(made) == 5
    alone = [float(model.losses(batch([[pen.document(drawing(d, s))]], PAD))["image"][0]) for d, s in TEXTS]
    nats = 1.0 if variant == "janus" else 0.05
    expected = sum(np.log1p(np.exp((own - other) * nats)) / nats for own, other in (alone[:2], alone[3:]))
    for order in (made, made[::-1]):
        losses = model.losses(batch(pack(order, 130), PAD))
        assert losses["contrast"][1] == 2
        assert float(losses["contrast"][0]) == pytest.approx(expected, rel=1e-4)
        assert losses["image"][1] == 3 * pen.generation.elements
        assert float(losses["image"][0]) == pytest.approx(alone[0] + alone[2] + alone[3], rel=1e-5)


TEXTS = [("a red cube", 1), ("a blue cube", 1), ("a ball", 2), ("two balls left of a cube", 3), ("two", 3)]


def test_text_loss_by_hand(variant: str):
    """Two samples: each answer token's negative log-probability, from a plain forward of the whole sequence."""
    model, pen = tiny.tiny_model(variant), writer(variant)
    samples = [talk("Hello", "Hi."), talk("What is it?", "A cube.", images=(picture(),))]
    total, count = 0.0, 0
    for sample in samples:
        document = pen.document(sample)
        answer = [*pen.processor.tokenizer.encode(" " + sample.messages[1].text)[1:], pen.processor.tokenizer.eos]
        prompt = pen.processor.understanding_prompt(sample.messages[:1])
        ids = torch.cat((prompt.ids, torch.tensor(answer)))
        embeddings = model.language.embed(ids)[None]
        if len(prompt.pixels):
            embeddings[0, : len(prompt)][prompt.slots] = model.understanding.read(prompt.pixels)[0]
        logits = model.language.logits(model.language(embeddings, torch.arange(len(ids))[None]))[0]
        for place, token in enumerate(answer, start=len(prompt)):
            total -= float(logits[place - 1].log_softmax(-1)[token])
            count += 1
        assert len(document) == len(ids)
    ours, number = model.losses(batch(pack([pen.document(sample) for sample in samples], 320), PAD))["text"]
    assert number == count
    assert float(ours) == pytest.approx(total, abs=1e-3)


def test_code_loss_by_hand():
    """Two pictures: each code's negative log-probability; <begin_of_image> predicts the first code."""
    model, pen = tiny.tiny_model("janus"), writer("janus", guidance_dropout=0.0)
    total = 0.0
    samples = [drawing("a red cube", 1), drawing("a ball", 2)]
    for sample in samples:
        document = pen.document(sample)
        codes = model.generation.tokenizer.encode(document.pictures).codes.flatten()
        ids = pen.processor.generation_prompt(sample.messages[0].text).ids
        x = torch.cat((model.language.embed(ids), model.generation.embed_codes(codes[:-1])))[None]
        hidden = model.language(x, torch.arange(x.shape[1])[None])[0, len(ids) - 1 :]
        total += float(F.nll_loss(model.generation.logits(hidden).log_softmax(-1), codes, reduction="sum"))
    ours, number = model.losses(batch(pack([pen.document(sample) for sample in samples], 100), PAD))["image"]
    assert number == 30
    assert float(ours) == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize("earlier", [0.0, 1.5])
def test_flow_loss_by_hand(earlier: float):
    """Two pictures: squared distance of the predicted velocity from latent minus noise, at a time of each picture's own."""
    model, pen = tiny.tiny_model("janusflow"), writer("janusflow", guidance_dropout=0.0)
    generation, total, count = model.generation, 0.0, 0
    samples = [drawing("a red cube", 1), drawing("a ball", 2)]
    for sample in samples:
        document = pen.document(sample)
        posterior = generation.vae.encode(document.pictures)
        source = np.random.default_rng((sample.seed, FLOW))
        wobble, noise = torch.from_numpy(source.standard_normal((2, 4, 6, 10), dtype=np.float32))[:, None]
        time = float(1 / (1 + np.exp(earlier - source.standard_normal())))
        latent = 0.13025 * (posterior.mean + (0.5 * posterior.logvar).exp() * wobble)
        tokens, skip, embedded = generation.encode(time * latent + (1 - time) * noise, torch.tensor([time]))
        ids = pen.processor.generation_prompt(sample.messages[0].text).ids[:-1]
        x = torch.cat((model.language.embed(ids)[None], tokens), dim=1)
        hidden = model.language(x, torch.arange(x.shape[1])[None])[:, len(ids) :]
        predicted = generation.velocity(hidden, skip, embedded)
        total += float((predicted - (latent - noise)).square().sum())
        count += predicted.numel()
    packed = batch(pack([pen.document(sample) for sample in samples], 100), PAD)
    ours, number = model.losses(packed, earlier=earlier)["image"]
    assert number == count
    assert float(ours) == pytest.approx(total, rel=1e-4)


def test_gradients_reach_both_pathways_and_never_the_picture_tokenizer(variant: str):
    torch.manual_seed(0)
    model = type(tiny.tiny_model(variant))(tiny.CONFIGS[variant])
    losses = model.losses(batch(pack(documents(variant), 130), PAD))
    sum(total / count for total, count in losses.values() if count).backward()
    frozen = "generation.tokenizer." if variant == "janus" else "generation.vae."
    for name, parameter in model.named_parameters():
        unused = "attn_pool" in name
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached != (name.startswith(frozen) or unused) or parameter.numel() == 0, name


def test_alignment_is_the_negated_cosine_at_the_positions_of_the_picture():
    """A square latent, so that it has the tower's 4 x 4 positions; the time's position is left out."""
    config = tiny.CONFIGS["janusflow"]
    config = dataclasses.replace(config, generation=dataclasses.replace(config.generation, latent_size=(8, 8)))
    torch.manual_seed(0)
    model = JanusModel(config).eval()
    alignment = Alignment(32, 24, block=1, hidden=16)
    pen = Writer(tiny.tiny_processor("janusflow"), config.generation, guidance_dropout=0.0)
    document = pen.document(drawing("a red cube"))
    total, count = model.losses(batch([[document]], PAD), alignment)["alignment"]
    assert count == 16

    lesson = model.generation.teach(document.pictures, document.seeds)
    x = torch.cat((model.language.embed(document.ids[: document.inputs.nonzero()[0]])[None], lesson.inputs), dim=1)
    whole = Documents.found([torch.arange(x.shape[1])[None]], x.shape[:2])
    hidden = model.language.run_documents(x, whole, [None], stop=1)
    features = model.understanding.encoder(document.pictures)
    expected = F.cosine_similarity(alignment.mlp(hidden[:, -16:]), features, dim=-1).sum()
    torch.testing.assert_close(total, -expected, rtol=0, atol=1e-4)


def test_features_of_another_grid_are_means_over_its_areas():
    tower = tiny.tiny_model("janusflow").understanding.encoder
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = clean_features(tower, pictures, 16, (4, 4))
    torch.testing.assert_close(whole, tower(pictures))
    halves = clean_features(tower, pictures, 16, (4, 2))
    torch.testing.assert_close(halves, whole.unflatten(1, (4, 2, 2)).mean(3).flatten(1, 2))
    assert clean_features(tower, pictures, 16, (3, 3)).shape == (2, 9, whole.shape[2])
    assert clean_features(tower, pictures[:0], 16, (3, 3)).shape == (0, 9, whole.shape[2])
