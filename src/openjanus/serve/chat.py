"""POST /v1/chat/completions: answers about images, or about none."""

from collections.abc import AsyncIterator, Sequence
from secrets import token_hex
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from openjanus.engine.request import Answer, Event, Finished, Piece, TextRequest
from openjanus.processing.prompts import Processor
from openjanus.serve.parameters import CHAT, check_extras
from openjanus.serve.refusals import Refusal
from openjanus.serve.service import Service
from openjanus.serve.sources import bytes_of_data_url, small_image
from openjanus.serve.streams import EventStream, begun, now, sse, while_connected
from openjanus.serve.worker import Work, Worker
from openjanus.types import Message, Prompt, TextOptions

STRICT = ConfigDict(strict=True, extra="forbid")
OPEN = ConfigDict(strict=True, extra="allow")


class TextPart(BaseModel):
    """Words."""

    model_config = STRICT
    type: Literal["text"]
    text: str


class ImageAddress(BaseModel):
    """Where an image is. Every image is read at one size, whatever detail says."""

    model_config = STRICT
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(BaseModel):
    """An image."""

    model_config = STRICT
    type: Literal["image_url"]
    image_url: ImageAddress


class Turn(BaseModel):
    """One message. Images stand before the words of their turn, or where these say <image_placeholder>."""

    model_config = STRICT
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]
    name: str | None = None
    # An answer of ours sent back as it was got.
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None
    annotations: list[Any] | None = Field(default=None, max_length=0)


class StreamOptions(BaseModel):
    """Whether the last event of a stream tells how many tokens there were."""

    model_config = STRICT
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(BaseModel):
    """A conversation that ends with the user's turn, and how it is to be answered. Temperature 0, the default, is greedy."""

    model_config = OPEN
    messages: list[Turn] = Field(min_length=1, max_length=1000)
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(default=None, ge=0, lt=2**31)
    n: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63 - 1000)
    stop: str | list[str] | None = None


def chat_routes(service: Service) -> APIRouter:
    """The endpoint."""
    router = APIRouter(tags=["OpenAI"])

    @router.post("/v1/chat/completions", summary="Answer a conversation", response_model=None)
    async def completions(asked: ChatRequest, request: Request) -> Response:
        """Answers to a conversation, whole or, with stream, word by word as server-sent events."""
        worker, options = _checked(service, asked)
        prompt = await while_connected(request.receive, _prompt(service, worker, asked.messages))
        notes = request.scope["openjanus.notes"]
        notes |= {"model": worker.name, "images": len(prompt.pixels), "prompt_tokens": len(prompt)}
        if service.settings.log_prompts:
            notes["messages"] = [{"role": turn.role, "text": _words(turn)} for turn in asked.messages]
        seeds = [None if options.seed is None else options.seed + i for i in range(asked.n or 1)]
        requests = [TextRequest(prompt, _with_seed(options, seed)) for seed in seeds]
        head = {"id": f"chatcmpl-{token_hex(12)}", "created": now(), "model": worker.name}
        work = service.take(worker, requests)
        if asked.stream:
            events = _stream(work, head, notes, bool(asked.stream_options and asked.stream_options.include_usage))
            return EventStream(request, await begun(request, events))
        answers = await while_connected(request.receive, _answers(work))
        usage = _usage(answers)
        notes["completion_tokens"] = usage["completion_tokens"]
        choices = [
            {"index": i, "message": _message(answer.text), "finish_reason": answer.reason, "logprobs": None}
            for i, answer in enumerate(answers)
        ]
        return JSONResponse({**head, "object": "chat.completion", "choices": choices, "usage": usage, "system_fingerprint": None})

    return router


def _checked(service: Service, asked: ChatRequest) -> tuple[Worker, TextOptions]:
    """Who is asked, and how; Refusal for what cannot be had."""
    check_extras(asked.model_extra, CHAT, list(ChatRequest.model_fields))
    worker, limits = service.worker(asked.model), service.settings.limits
    most = asked.max_completion_tokens or asked.max_tokens or TextOptions().max_tokens
    if asked.max_tokens and asked.max_completion_tokens and asked.max_tokens != asked.max_completion_tokens:
        raise Refusal(400, "max_tokens and max_completion_tokens differ; give one of them", "invalid_value", "max_tokens")
    context = worker.janus.model.config.language.max_position_embeddings
    if most > context and (asked.max_completion_tokens or asked.max_tokens):
        raise Refusal(400, f"max_tokens is {most}; the model's context is {context}", "invalid_value", "max_tokens")
    if (asked.n or 1) > limits.n:
        raise Refusal(400, f"n is {asked.n}; at most {limits.n} answers at a time", "invalid_value", "n")
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    if len(stop) > 16 or any(not 0 < len(text) <= 500 for text in stop):
        raise Refusal(400, "stop must be at most 16 texts of 1 to 500 characters", "invalid_value", "stop")
    images = sum(isinstance(part, ImagePart) for turn in asked.messages for part in _parts(turn))
    if images > limits.images:
        raise Refusal(
            400, f"{images} images were sent; at most {limits.images} are read at a time", "too_many_images", "messages"
        )
    characters = sum(len(_words(turn)) for turn in asked.messages)
    if characters > limits.characters:
        message = f"the messages have {characters:,} characters; at most {limits.characters:,} are read"
        raise Refusal(400, message, "context_length_exceeded", "messages")
    return worker, TextOptions(most, asked.temperature or 0.0, asked.top_p or 1.0, asked.top_k or 0, tuple(stop), asked.seed)


def _parts(turn: Turn) -> Sequence[TextPart | ImagePart]:
    return [TextPart(type="text", text=turn.content)] if isinstance(turn.content, str) else turn.content


def _words(turn: Turn) -> str:
    return "\n".join(part.text for part in _parts(turn) if isinstance(part, TextPart))


def _with_seed(options: TextOptions, seed: int | None) -> TextOptions:
    return TextOptions(options.max_tokens, options.temperature, options.top_p, options.top_k, options.stop, seed)


async def _prompt(service: Service, worker: Worker, turns: Sequence[Turn]) -> Prompt:
    files: list[list[str | bytes]] = []
    for turn in turns:
        addresses = [part.image_url.url for part in _parts(turn) if isinstance(part, ImagePart)]
        if addresses and turn.role != "user":
            raise Refusal(400, f"a message of the {turn.role} holds an image; only the user's may", "invalid_value", "messages")
        files.append([url if url[:5].lower() == "data:" else await service.remote.fetch(url) for url in addresses])
    processor, pixels = worker.janus.processor, service.settings.limits.pixels
    return await service.prepare(_understanding, processor, turns, files, pixels)


def _understanding(processor: Processor, turns: Sequence[Turn], files: Sequence[Sequence[str | bytes]], pixels: int) -> Prompt:
    messages = []
    for turn, mine in zip(turns, files, strict=True):
        images = [small_image(bytes_of_data_url(f) if isinstance(f, str) else f, pixels, processor) for f in mine]
        role = "system" if turn.role == "developer" else turn.role
        messages.append(Message(role, _words(turn), tuple(images)))
    return processor.understanding_prompt(messages)


async def _answers(work: Work) -> list[Answer]:
    answers: dict[int, Answer] = {}
    async with work:
        async for which, event in work:
            if isinstance(event, Finished) and isinstance(event.result, Answer):
                answers[which] = event.result
    return [answers[which] for which in sorted(answers)]


async def _stream(work: Work, head: dict[str, Any], notes: dict[str, Any], usage: bool) -> AsyncIterator[bytes]:
    chunk = {**head, "object": "chat.completion.chunk", "system_fingerprint": None, **({"usage": None} if usage else {})}
    answers: list[Answer] = []
    begun: set[int] = set()
    async with work:
        async for which, event in work:
            for choice in _choices(which, event, begun):
                yield sse({**chunk, "choices": [choice]})
            if isinstance(event, Finished) and isinstance(event.result, Answer):
                answers.append(event.result)
    counted = _usage(answers)
    notes["completion_tokens"] = counted["completion_tokens"]
    if usage:
        yield sse({**chunk, "choices": [], "usage": counted})
    yield sse("[DONE]")


def _choices(which: int, event: Event, begun: set[int]) -> list[dict[str, Any]]:
    """What an event adds to an answer: the first time its role, then words, at last the reason why it ended."""
    deltas: list[tuple[dict[str, Any], str | None]] = []
    if which not in begun:
        begun.add(which)
        deltas.append(({"role": "assistant", "content": ""}, None))
    if isinstance(event, Piece):
        deltas.append(({"content": event.text}, None))
    if isinstance(event, Finished) and isinstance(event.result, Answer):
        deltas.append(({}, event.result.reason))
    return [{"index": which, "delta": delta, "finish_reason": reason, "logprobs": None} for delta, reason in deltas]


def _message(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "refusal": None}


def _usage(answers: Sequence[Answer]) -> dict[str, int]:
    prompt, completion = answers[0].prompt_tokens if answers else 0, sum(len(answer.ids) for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
