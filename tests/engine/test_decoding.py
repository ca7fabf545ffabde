"""Requests on random models of both variants: cached, batched and padded runs against plain full forwards."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from openjanus.engine.request import Answer, Finished, TextRequest
from openjanus.errors import CheckpointError, PromptError
from openjanus.janus import Janus
from openjanus.models.llama import Llama
from openjanus.models.randomness import source
from openjanus.models.sampling import guide, pick
from openjanus.models.token_generation import CodeDecoding
from openjanus.processing.images import to_images
from openjanus.types import ImageOptions, Message, Prompt, TextOptions
from plain import collate, embed


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8))


def questions(janus: Janus) -> list[Prompt]:
    """Prompts of different lengths: one image, none, two."""
    messages = [
        Message("user", "What is it?", (picture(),)),
        Message("user", "Hello there, is this only text?"),
        Message("user", "Which one?", (picture(1), picture(2))),
    ]
    return [janus.processor.understanding_prompt([message]) for message in messages]


def answers(janus: Janus, prompts: list[Prompt], options: TextOptions) -> list[Answer]:
    """The answers to prompts that run together, in order."""
    events = janus.engine.run([TextRequest(prompt, options) for prompt in prompts])
    found = {event.request: event.result for event in events if isinstance(event, Finished)}
    return [found[number] for number in sorted(found)]


def tokens_by_full_forwards(janus: Janus, prompt: Prompt, options: TextOptions) -> list[int]:
    """The plainest loop there is: no cache, no batch, the whole sequence again for every token."""
    rows = collate([prompt], janus.processor.tokenizer.pad)
    draws = torch.from_numpy(source(options.seed or 0).random((1, options.max_tokens), dtype=np.float32))
    embeddings, tokens = embed(janus.model, rows), []
    for step in range(options.max_tokens):
        positions = torch.arange(embeddings.shape[1])[None]
        hidden = janus.model.language(embeddings, positions)
        logits = janus.model.language.logits(hidden[:, -1])
        token = pick(logits, draws[:, step], options.temperature, options.top_k, options.top_p)
        if int(token) == janus.processor.tokenizer.eos:
            break
        tokens.append(int(token))
        embeddings = torch.cat((embeddings, janus.model.language.embed(token[:, None])), dim=1)
    return tokens


@pytest.mark.parametrize("options", [TextOptions(16), TextOptions(16, temperature=1.5, top_p=0.9, seed=5)])
def test_batched_padded_cached_text_equals_one_at_a_time_full_forwards(janus: Janus, options: TextOptions):
    prompts = questions(janus)
    assert len({len(prompt) for prompt in prompts}) == 3
    together = [answer.text for answer in answers(janus, prompts, options)]
    plain = [janus.processor.tokenizer.decode(tokens_by_full_forwards(janus, prompt, options)) for prompt in prompts]
    assert together == [text.strip() for text in plain]
    assert len(set(plain)) == 3, "the prompts should lead to different answers, or this test shows nothing"


def codes_by_full_forwards(janus: Janus, text: str, options: ImageOptions) -> np.ndarray:
    """Codes of one image without cache, batch or padding; conditional and blank row each on their own."""
    processor, generation = janus.processor, janus.model.generation
    prompt = processor.generation_prompt(text)
    sequences = [janus.model.language.embed(row.ids[None]) for row in (prompt, processor.blank(prompt))]
    draws = source(options.seed or 0).random(15, dtype=np.float32)
    codes: list[int] = []
    for step in range(15):
        logits = []
        for sequence in sequences:
            hidden = janus.model.language(sequence, torch.arange(sequence.shape[1])[None])
            logits.append(generation.logits(hidden[:, -1]))
        guided = guide(logits[0], logits[1], options.guidance or 5.0)
        code = pick(guided, torch.tensor([draws[step]]), options.temperature, options.top_k, options.top_p)
        codes.append(int(code))
        sequences = [torch.cat((s, generation.embed_codes(code[:, None])), dim=1) for s in sequences]
    return np.array(codes)


@pytest.mark.parametrize(
    "options",
    [ImageOptions(seed=3), ImageOptions(seed=4, guidance=2.0, temperature=0.5, top_k=7), ImageOptions(temperature=0.0, seed=0)],
)
def test_batched_padded_cached_codes_equal_one_at_a_time_full_forwards(options: ImageOptions):
    janus = tiny.tiny_janus("janus")
    texts = ["a red cube", "two blue balls and a green star on a table"]
    pictures = janus.paint(texts, options)
    for picture_, text in zip(pictures, texts, strict=True):
        codes = codes_by_full_forwards(janus, text, options)
        with torch.inference_mode():
            pixels = janus.model.generation.decode(torch.from_numpy(codes)[None])
        assert np.array_equal(np.asarray(picture_.image), np.asarray(to_images(pixels)[0]))


def latent_by_full_forwards(janus: Janus, text: str, options: ImageOptions) -> torch.Tensor:
    """The final latent of one image without cache, batch or padding; the blank row's pads are left out, not masked."""
    processor, generation, language = janus.processor, janus.model.generation, janus.model.language
    ids = processor.generation_prompt(text).ids[None, :-1]
    latent = torch.from_numpy(source(options.seed or 0).standard_normal((4, 6, 10), dtype=np.float32))[None]
    for step in range(options.steps):
        tokens, skip, time = generation.encode(latent, torch.tensor([step / options.steps]))
        image_positions = torch.arange(tokens.shape[1]) + ids.shape[1]
        velocities = []
        for kept in (ids.shape[1], 1):
            x = torch.cat((language.embed(ids[:, :kept]), tokens), dim=1)
            positions = torch.cat((torch.arange(kept), image_positions))[None]
            hidden = language(x, positions)[:, kept:]
            velocities.append(generation.velocity(hidden, skip, time))
        latent = latent + guide(velocities[0], velocities[1], options.guidance or 2.0) / options.steps
    return latent


def test_batched_padded_cached_flow_equals_one_at_a_time_full_forwards():
    janus = tiny.tiny_janus("janusflow")
    texts = ["a red cube", "two blue balls and a green star on a table"]
    options = ImageOptions(seed=3, guidance=3.0, steps=4)
    pictures = janus.paint(texts, options)
    for picture_, text in zip(pictures, texts, strict=True):
        with torch.inference_mode():
            pixels = janus.model.generation.decode(latent_by_full_forwards(janus, text, options))
        expected = ((pixels[0] + 1) / 2 * 255).clamp(0, 255).permute(1, 2, 0).numpy()
        assert np.abs(np.asarray(picture_.image) - expected).max() < 1.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_image_does_not_change_with_its_neighbours_and_equals_its_own_seed(variant: str, dtype: torch.dtype):
    janus = tiny.tiny_janus(variant)
    janus.model = copy.deepcopy(janus.model).to(dtype)
    together = janus.generate(["a red cube", "a much longer prompt about a blue ball"], n=3, seed=10, steps=4)
    alone = janus.generate("a much longer prompt about a blue ball", seed=12, steps=4)[0]
    assert np.array_equal(np.asarray(together[5]), np.asarray(alone))
    assert not np.array_equal(np.asarray(together[3]), np.asarray(together[4]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_sampled_answer_does_not_change_with_its_neighbours(variant: str, dtype: torch.dtype):
    janus = tiny.tiny_janus(variant)
    janus.model = copy.deepcopy(janus.model).to(dtype)
    options = TextOptions(24, temperature=1.5, seed=3)
    prompts = questions(janus)
    alone = [answer for prompt in prompts for answer in answers(janus, [prompt], options)]
    assert answers(janus, prompts, options) == alone


def test_guidance_1_leaves_the_blank_rows_out_and_gives_the_conditional_image(janus: Janus, monkeypatch: pytest.MonkeyPatch):
    almost = janus.generate("a red cube", seed=0, guidance=1.0 + 1e-6, steps=3)[0]
    rows = []
    step = Llama.step
    monkeypatch.setattr(Llama, "step", lambda self, x, spans, cache: (rows.extend(spans), step(self, x, spans, cache))[1])
    plain = janus.generate("a red cube", seed=0, guidance=1.0, steps=3)[0]
    assert {(span.lanes.start, span.lanes.stop) for span in rows} == {(0, 1)}
    assert np.abs(np.asarray(plain).astype(int) - np.asarray(almost)).max() <= 1


def test_the_same_seed_gives_the_same_result_and_another_seed_another(janus: Janus):
    settings = {"temperature": 1.0, "steps": 2}
    first, again, other = (np.asarray(janus.generate("a cube", seed=seed, **settings)[0]) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    texts = [janus.understand("Say something", temperature=2.0, seed=seed, max_tokens=24) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_text_alone_never_runs_the_vision_tower(janus: Janus, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(type(janus.model.understanding), "read", lambda *_: pytest.fail("the vision tower ran"))
    assert isinstance(janus.understand("Hello", max_tokens=2), str)


def test_an_answer_depends_on_its_image(janus: Janus):
    answers = {janus.understand("What is it?", [picture(i)], max_tokens=16) for i in range(4)}
    assert len(answers) > 1


def test_streamed_pieces_join_to_the_answer_and_stop_ends_it(janus: Janus):
    whole = janus.understand("Hello there", max_tokens=24)
    pieces = list(janus.understand("Hello there", max_tokens=24, stream=True))
    assert "".join(pieces).strip() == whole
    stop = whole[3:5]
    cut = janus.understand("Hello there", max_tokens=24, stop=stop)
    assert cut == whole[: whole.index(stop)].strip()


def test_several_questions_run_as_one_batch_and_answer_as_alone(janus: Janus):
    asked, images = ["What is it?", "And what are these two?"], [[picture()], [picture(1), picture(2)]]
    together = janus.understand(asked, images, max_tokens=8)
    assert together == [janus.understand(q, i, max_tokens=8) for q, i in zip(asked, images, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_number_format_runs_end_to_end(variant: str, dtype: torch.dtype):
    janus = tiny.tiny_janus(variant)
    janus.model = copy.deepcopy(janus.model).to(dtype)
    assert isinstance(janus.understand("What is it?", [picture()], max_tokens=3), str)
    image = np.asarray(janus.generate("a red cube", seed=0, steps=3)[0])
    assert image.std() > 0


def test_an_answer_ends_where_the_context_ends(janus: Janus):
    prompt = janus.processor.understanding_prompt([Message("user", "word " * 60)])
    janus.processor.tokenizer.eos, eos = -1, janus.processor.tokenizer.eos
    (made,) = answers(janus, [prompt], TextOptions(max_tokens=10**6))
    janus.processor.tokenizer.eos = eos
    assert made.prompt_tokens == len(prompt)
    assert len(made.ids) == janus.model.config.language.max_position_embeddings - len(prompt) + 1
    assert made.reason == "length"


def test_what_does_not_fit_the_context_is_refused_with_both_numbers(janus: Janus):
    with pytest.raises(PromptError, match=r"\d+ tokens.*320"):
        janus.understand("word " * 400)
    # A prompt that fits alone, but not together with the 15 codes or the 16 positions of a flow step.
    text = "a"
    while len(janus.processor.generation_prompt(text)) < 315:
        text += "a"
    with pytest.raises(PromptError, match=r"prompt of 31\d tokens.*context of 320"):
        janus.generate(text)


def test_options_out_of_range_are_refused_by_name(janus: Janus):
    wrong = {
        "n": (0, 1.5, "3", True, None),
        "guidance": (float("nan"), float("inf"), -1, "5"),
        "steps": (0, 1.5, None),
        "seed": (-1, 1.5, 2**63),
        "temperature": (-1, None, "1"),
        "top_p": (0, 1.1, float("nan")),
        "top_k": (-1, 2.5),
    }
    for setting, values in wrong.items():
        for value in values:
            with pytest.raises(PromptError, match=f"{setting} is .*; it must be"):
                janus.generate("a cube", **{setting: value})
    for setting, value in (("max_tokens", 0), ("max_tokens", 2.5), ("stop", [""]), ("stop", [3])):
        with pytest.raises(PromptError, match=f"{setting} is .*; it must be"):
            janus.understand("Hello", **{setting: value})
    assert ImageOptions(seed=np.int64(3), guidance=np.float32(2)) == ImageOptions(seed=3, guidance=2.0)
    with pytest.raises(PromptError, match="unknown setting 'size'; there are"):
        janus.generate("a cube", size=512)
    with pytest.raises(PromptError, match="empty"):
        janus.generate("  ")
    with pytest.raises(PromptError, match="temperature"):
        janus.understand("Hello", temperature=float("nan"))


def test_progress_counts_every_step_to_the_end(janus: Janus):
    seen: list[tuple[int, int]] = []
    janus.generate("a cube", steps=3, seed=0, progress=lambda done, steps: seen.append((done, steps)))
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))


def test_a_flow_model_without_a_vae_reads_images_and_says_before_painting_what_it_lacks():
    janus = tiny.tiny_janus("janusflow")
    janus.model = copy.deepcopy(janus.model)
    janus.model.generation.vae = None
    assert isinstance(janus.understand("What is it?", [picture()], max_tokens=2), str)
    steps: list[int] = []
    with pytest.raises(CheckpointError, match="vae/"):
        janus.generate("a cube", steps=2, progress=lambda done, _: steps.append(done))
    assert not steps


def test_codes_embedded_by_one_table_paint_the_same_picture(monkeypatch: pytest.MonkeyPatch):
    made = tiny.tiny_janus("janus")
    codes = torch.randint(48, (3, 5))
    table = made.model.generation.table()
    torch.testing.assert_close(table[codes], made.model.generation.embed_codes(codes), atol=1e-6, rtol=1e-5)
    pictures = made.generate(["a red circle", "noise"], n=2, seed=3)
    monkeypatch.setattr(CodeDecoding, "folds", staticmethod(lambda device: True))
    folded = Janus(made.model, made.processor).generate(["a red circle", "noise"], n=2, seed=3)
    assert [one.tobytes() for one in folded] == [one.tobytes() for one in pictures]
