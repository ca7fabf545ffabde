"""The official client, unchanged, against a live server of each bundled model; answers equal those of the model itself."""

import base64
import json
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from openjanus.engine import memory
from openjanus.engine.engine import EngineOptions
from openjanus.serve.app import create_app
from serve.live import BUNDLED, SHAPES, Live, bundled, running

QUESTION = "How many circles are there?"


def data_url(image: Image.Image | None = None) -> str:
    if image is None:
        return "data:image/png;base64," + base64.b64encode(SHAPES.read_bytes()).decode()
    file = BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def image_part(url: str | None = None) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url or data_url()}}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": parts[0] if isinstance(parts[0], str) else list(parts)}


def opened(text: str) -> Image.Image:
    image = Image.open(BytesIO(base64.b64decode(text)))
    image.load()
    return image


def quick(live: Live) -> dict[str, Any]:
    """Settings with which a picture takes little time, where a model has such."""
    return {"steps": 2} if live.worker.takes_steps else {}


def test_the_models_are_listed(live: Live):
    client = live.client()
    assert [model.id for model in client.models.list()] == [live.name]
    assert client.models.retrieve(live.name).id == live.name
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4o' here; there is"):
        client.models.retrieve("gpt-4o")


def test_an_answer_is_the_models_own(live: Live):
    own = live.own()
    answer = live.client().chat.completions.create(
        model=live.name, messages=[user(text_part(QUESTION), image_part())], max_tokens=12
    )
    assert answer.choices[0].message.content == own.understand(QUESTION, [SHAPES], max_tokens=12)
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage and answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens > 0
    assert answer.usage.prompt_tokens > own.processor.slots_per_image


def test_several_images_and_turns_are_read(live: Live):
    from openjanus.types import Message, TextOptions

    own = live.own()
    red, blue = Image.new("RGB", (50, 40), "red"), Image.new("RGB", (40, 50), "blue")
    turns = [
        {"role": "system", "content": "Answer briefly."},
        user(image_part(data_url(red)), image_part(data_url(blue)), text_part("Which is red?")),
        {"role": "assistant", "content": "The first."},
        user("And the other?"),
    ]
    answer = live.client().chat.completions.create(model=live.name, messages=turns, max_completion_tokens=8)  # type: ignore[arg-type]
    messages = [
        Message("system", "Answer briefly."),
        Message("user", "Which is red?", (red, blue)),
        Message("assistant", "The first."),
        Message("user", "And the other?"),
    ]
    assert answer.choices[0].message.content == "".join(own.chat(messages, TextOptions(8))).strip()


def test_an_answer_can_be_sent_back_as_it_came(live: Live):
    client = live.client()
    first = client.chat.completions.create(model=live.name, messages=[user("Hello")], max_tokens=4)
    turns: Any = [user("Hello"), first.choices[0].message, user("And now?")]
    turns_as_json = [turns[0], first.choices[0].message.model_dump(), turns[2]]
    for again in (turns, turns_as_json):
        assert client.chat.completions.create(model=live.name, messages=again, max_tokens=2).choices


def test_a_stream_comes_to_the_same_in_pieces(live: Live):
    client = live.client()
    asked: dict[str, Any] = {"model": live.name, "messages": [user(image_part(), text_part(QUESTION))], "max_tokens": 12}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.strip() == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1 and len(chunks) > 3
    assert all(chunk.usage is None for chunk in client.chat.completions.create(**asked, stream=True))


def test_several_answers_are_drawn_from_seeds_that_follow_each_other(live: Live):
    own = live.own()
    client = live.client()
    hot: dict[str, Any] = {"model": live.name, "messages": [user("Hello")], "max_tokens": 10, "temperature": 1.8, "top_p": 0.95}
    three = client.chat.completions.create(**hot, n=3, seed=5)
    texts = [choice.message.content for choice in three.choices]
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    alone = [client.chat.completions.create(**hot, seed=5 + i).choices[0].message.content for i in range(3)]
    assert texts == alone and len(set(texts)) > 1
    direct = own.understand("Hello", max_tokens=10, temperature=1.8, top_p=0.95, seed=6)
    assert texts[1] == direct
    streamed: dict[int, str] = {}
    for chunk in client.chat.completions.create(**hot, n=3, seed=5, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] = streamed.get(choice.index, "") + (choice.delta.content or "")
    assert [streamed[i].strip() for i in range(3)] == texts


def test_an_answer_ends_before_a_stop_string(live: Live):
    client = live.client()
    asked: dict[str, Any] = {"model": live.name, "messages": [user(image_part(), text_part("Describe the picture."))]}
    whole = client.chat.completions.create(**asked, max_tokens=24).choices[0].message.content or ""
    word = whole.split()[2]
    cut = client.chat.completions.create(**asked, max_tokens=24, stop=[word, "never said"]).choices[0]
    assert cut.message.content == whole[: whole.index(word)].strip() and cut.finish_reason == "stop"
    short = client.chat.completions.create(**asked, max_tokens=2).choices[0]
    assert short.finish_reason == "length"


def test_pictures_are_the_models_own(live: Live):
    own = live.own()
    extra = {"seed": 3, "guidance_scale": 2.0, **quick(live)}
    result = live.client().images.generate(model=live.name, prompt="a red circle", n=2, size=live.worker.size, extra_body=extra)
    assert result.data and len(result.data) == 2
    expected = own.generate("a red circle", n=2, seed=3, guidance=2.0, **quick(live))
    for entry, picture in zip(result.data, expected, strict=True):
        image = opened(entry.b64_json or "")
        assert np.array_equal(np.asarray(image), np.asarray(picture))
        assert image.text["prompt"] == "a red circle" and json.loads(image.text["settings"])["model"] == live.name
    assert [entry.seed for entry in result.data] == [3, 4]  # type: ignore[attr-defined]
    assert result.usage and result.usage.total_tokens == result.usage.input_tokens + result.usage.output_tokens
    assert result.size == live.worker.size


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_pictures_come_in_the_format_that_was_asked_for(live: Live, kind: str):
    result = live.client().images.generate(
        prompt="a red circle", output_format=kind, output_compression=80, size="auto", extra_body=quick(live)
    )
    assert result.data and opened(result.data[0].b64_json or "").format == kind.upper()


def test_a_picture_is_shown_while_it_is_painted(live: Live):
    own = live.own()
    extra = {"seed": 1, **({"steps": 8} if live.worker.takes_steps else {})}
    events = list(
        live.client().images.generate(prompt="a blue star", model=live.name, stream=True, partial_images=3, extra_body=extra)
    )
    assert [event.type for event in events] == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:3]] == [0, 1, 2]
    pictures = [np.asarray(opened(event.b64_json)).astype(int) for event in events]
    distances = [np.abs(one - pictures[-1]).mean() for one in pictures]
    assert distances == sorted(distances, reverse=True) and distances[0] > distances[-2] > 0
    expected = own.generate("a blue star", **extra)[0]
    assert np.array_equal(pictures[-1], np.asarray(expected))
    assert events[-1].usage.output_tokens > 0


def test_a_stream_without_unfinished_pictures_holds_the_finished_ones(live: Live):
    events = list(live.client().images.generate(prompt="a star", n=2, stream=True, extra_body={"seed": 1, **quick(live)}))
    assert sorted(event.index for event in events) == [0, 1]  # type: ignore[union-attr]
    assert all(event.type == "image_generation.completed" for event in events)


def test_links_to_pictures_hold_for_a_while(live: Live):
    result = live.client().images.generate(prompt="a star", response_format="url", extra_body=quick(live))
    assert result.data and result.data[0].url and result.data[0].b64_json is None
    found = httpx.get(result.data[0].url)
    assert found.headers["content-type"] == "image/png" and Image.open(BytesIO(found.content)).size[0] > 0
    service = live.service
    clock = service.pictures.clock
    try:
        service.pictures.clock = lambda: clock() + service.settings.limits.picture_seconds + 1
        gone = httpx.get(result.data[0].url)
    finally:
        service.pictures.clock = clock
    assert gone.status_code == 404 and "expired" in gone.json()["error"]["message"]
    assert not service.pictures._files, "what has expired is not kept"


def test_errors_have_the_clients_classes(live: Live):
    client = live.client()
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4o", messages=[user("Hi")])
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="temperature") as bad:
        client.chat.completions.create(model=live.name, messages=[user("Hi")], temperature=-1)
    assert bad.value.param == "temperature" and bad.value.type == "invalid_request_error"
    assert bad.value.request_id and bad.value.request_id == bad.value.response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools is not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format is not supported"),
        ({"logprobs": True}, "logprobs is not supported"),
        ({"presence_penalty": 1.0}, "presence_penalty is not supported"),
        ({"modalities": ["text", "audio"]}, "modalities is not supported"),
        ({"extra_body": {"temprature": 1}}, "unknown parameter 'temprature'"),
    ],
)
def test_what_a_model_cannot_do_in_a_chat_is_refused_by_name(janus_server: Live, settings: dict[str, Any], words: str):
    with pytest.raises(openai.BadRequestError, match=words):
        janus_server.client().chat.completions.create(model=janus_server.name, messages=[user("Hi")], **settings)


def test_what_asks_for_nothing_is_taken(janus_server: Live):
    answer = janus_server.client().chat.completions.create(
        model=janus_server.name,
        messages=[user("Hi")],
        max_tokens=1,
        presence_penalty=0,
        frequency_penalty=0.0,
        logprobs=False,
        tool_choice="none",
        response_format={"type": "text"},
        user="somebody",
        metadata={"a": "b"},
    )
    assert answer.choices


def test_what_a_model_cannot_paint_is_refused_by_name(live: Live):
    images = live.client().images
    with pytest.raises(openai.BadRequestError, match=rf"size is '1024x1024'; {live.name} paints {live.worker.size} only"):
        images.generate(prompt="a star", size="1024x1024")
    with pytest.raises(openai.BadRequestError, match="background is not supported"):
        images.generate(prompt="a star", background="transparent")
    with pytest.raises(openai.BadRequestError, match="cannot edit pictures"):
        images.edit(prompt="a star", image=SHAPES.read_bytes())
    with pytest.raises(openai.BadRequestError, match="a stream holds pictures, not links"):
        images.generate(prompt="a star", stream=True, response_format="url")
    idle = "temperature" if live.worker.takes_steps else "steps"
    with pytest.raises(openai.BadRequestError, match=f"{idle} does nothing here"):
        images.generate(prompt="a star", extra_body={idle: 1})
    with pytest.raises(openai.NotFoundError, match="there is no /v1/embeddings here"):
        live.client().embeddings.create(model=live.name, input="a")


def test_several_models_are_served_under_their_names():
    with running(("janus-tiny", "janusflow-tiny")) as live:
        client = live.client()
        assert [model.id for model in client.models.list()] == ["janus-tiny", "janusflow-tiny"]
        sizes = [client.images.generate(prompt="a star", model=name).size for name in ("janus-tiny", "janusflow-tiny")]
        assert sizes == ["48x48", "48x48"]
        assert client.images.generate(prompt="a star").size == "48x48", "the first answers where none is named"

        def painted(**named: str) -> str | None:
            (picture,) = client.images.generate(prompt="a star", extra_body={"seed": 7}, **named).data or []  # type: ignore[call-overload]
            return picture.b64_json

        first, second = painted(model="janus-tiny"), painted(model="janusflow-tiny")
        assert first != second and painted() == first, "each paints as itself"


def test_several_models_share_the_memory_that_one_would_take(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "allowance", lambda _: 100 << 20)
    alone, together = (
        [worker.engine for worker in create_app([(name, bundled(name)) for name in names]).state.service.workers.values()]
        for names in (BUNDLED[:1], BUNDLED)
    )
    assert [engine._memory for engine in alone] == [100 << 20]
    assert 99 << 20 < sum(engine._memory for engine in together) <= 100 << 20
    first, second = (engine._most(64) for engine in together)
    assert abs(first - second) <= 1, "each has as many rows"
    own = EngineOptions(memory=5 << 20)
    told = create_app([(name, bundled(name)) for name in BUNDLED], engine=own).state.service.workers.values()
    assert [worker.engine._memory for worker in told] == [5 << 20] * 2, "what is asked for is each model's"
