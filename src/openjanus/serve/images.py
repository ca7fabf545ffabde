"""POST /v1/images/generations: pictures of a prompt."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from PIL import Image
from pydantic import BaseModel, Field

from openjanus.engine.request import Finished, ImageRequest, Picture, Preview, Progress
from openjanus.models.randomness import fresh_seed
from openjanus.serve.chat import OPEN
from openjanus.serve.parameters import IMAGES, check_extras
from openjanus.serve.pictures import base64_of, encode, encode_picture
from openjanus.serve.refusals import Refusal
from openjanus.serve.service import Service
from openjanus.serve.streams import EventStream, begun, now, sse, while_connected
from openjanus.serve.worker import Work, Worker
from openjanus.types import ImageOptions


class ImagesRequest(BaseModel):
    """A prompt, and how it is to be painted. Picture i of n is painted from seed + i.

    guidance_scale: how closely to follow the prompt, 1 is off. temperature, top_p, top_k: of models that paint with codes; steps:
    of flow models.
    """

    model_config = OPEN
    prompt: str = Field(min_length=1)
    model: str | None = None
    n: int | None = Field(default=None, ge=1)
    size: str | None = None
    response_format: Literal["b64_json", "url"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: int | None = Field(default=None, ge=0, le=100)
    stream: bool | None = None
    partial_images: int | None = Field(default=None, ge=0, le=3)
    seed: int | None = Field(default=None, ge=0, lt=2**63 - 1000)
    guidance_scale: float | None = Field(default=None, ge=0, le=1000, allow_inf_nan=False)
    temperature: float | None = Field(default=None, ge=0, le=100, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(default=None, ge=0, lt=2**31)
    steps: int | None = Field(default=None, ge=1, le=1000)


@dataclass(frozen=True)
class _Painting:
    """A request that was found good. tokens: of the prompt."""

    worker: Worker
    asked: ImagesRequest
    options: tuple[ImageOptions, ...]
    tokens: int

    @property
    def kind(self) -> Literal["png", "jpeg", "webp"]:
        return self.asked.output_format or "png"

    @property
    def quality(self) -> int | None:
        """What OpenAI calls compression: 100 is the best."""
        return self.asked.output_compression

    def about(self) -> dict[str, Any]:
        return {"background": "opaque", "output_format": self.kind, "quality": "auto", "size": self.worker.size}

    def usage(self, pictures: int) -> dict[str, Any]:
        painted = self.worker.janus.model.config.generation.positions * pictures
        return {
            "input_tokens": self.tokens,
            "input_tokens_details": {"text_tokens": self.tokens, "image_tokens": 0},
            "output_tokens": painted,
            "total_tokens": self.tokens + painted,
        }

    async def file(self, picture: Picture) -> bytes:
        return await asyncio.to_thread(encode_picture, picture, self.worker.name, self.kind, self.quality)

    async def unfinished(self, picture: Image.Image) -> bytes:
        return await asyncio.to_thread(encode, picture, self.kind, self.quality)


def image_routes(service: Service) -> APIRouter:
    """The endpoints: pictures, the links to them, and what cannot be had."""
    router = APIRouter(tags=["OpenAI"])

    @router.post("/v1/images/generations", summary="Paint pictures", response_model=None)
    async def generations(asked: ImagesRequest, request: Request) -> Response:
        """Pictures of a prompt, whole or, with stream, also while they are painted, as server-sent events."""
        painting = await while_connected(request.receive, _checked(service, asked))
        notes = request.scope["openjanus.notes"]
        notes |= {"model": painting.worker.name, "pictures": len(painting.options), "prompt_tokens": painting.tokens}
        if service.settings.log_prompts:
            notes["prompt"] = asked.prompt
        previews = (asked.partial_images or 0) if asked.stream else 0
        work = service.take(painting.worker, [ImageRequest(asked.prompt, one, previews) for one in painting.options])
        if asked.stream:
            return EventStream(request, await begun(request, _stream(work, painting)))
        files = await while_connected(request.receive, _files(work, painting))
        data = [
            await _entry(service, request, painting, file, one.seed) for file, one in zip(files, painting.options, strict=True)
        ]
        return JSONResponse({"created": now(), "data": data, **painting.about(), "usage": painting.usage(len(data))})

    @router.get("/pictures/{name}", summary="A picture that was asked for as a link", response_model=None)
    async def picture(name: str) -> Response:
        """A picture, for as long as its link holds."""
        found = service.pictures.get(name)
        if found is None:
            raise Refusal(404, "there is no such picture, or its link has expired; paint it again with its seed", "not_found")
        data, media = found
        return Response(data, media_type=media, headers={"Cache-Control": "private, max-age=3600"})

    @router.post("/v1/images/edits", include_in_schema=False)
    @router.post("/v1/images/variations", include_in_schema=False)
    async def cannot() -> Response:
        raise Refusal(
            400, "these models cannot edit pictures or vary them; /v1/images/generations paints new ones", "unsupported"
        )

    return router


async def _checked(service: Service, asked: ImagesRequest) -> _Painting:
    """What is to be painted; Refusal for what cannot be had."""
    check_extras(asked.model_extra, IMAGES, list(ImagesRequest.model_fields))
    worker, limits = service.worker(asked.model), service.settings.limits
    n = asked.n or 1
    if n > limits.n:
        raise Refusal(400, f"n is {n}; at most {limits.n} pictures at a time", "invalid_value", "n")
    if asked.size not in (None, "auto", worker.size):
        raise Refusal(
            400, f"size is {asked.size[:40]!r}; {worker.name} paints {worker.size} only (or say auto)", "invalid_value", "size"
        )
    if asked.stream and asked.response_format == "url":
        raise Refusal(400, "a stream holds pictures, not links; leave response_format out", "invalid_value", "response_format")
    if len(asked.prompt) > limits.characters:
        raise Refusal(400, f"the prompt has more than {limits.characters:,} characters", "context_length_exceeded", "prompt")
    idle = ("temperature", "top_p", "top_k") if worker.takes_steps else ("steps",)
    for name in idle:
        if getattr(asked, name) is not None:
            way = "paints in steps (steps)" if worker.takes_steps else "paints with codes (temperature, top_p, top_k)"
            raise Refusal(400, f"{name} does nothing here: {worker.name} {way}; leave it out", "unsupported_parameter", name)
    chosen = {"guidance": asked.guidance_scale, "temperature": asked.temperature, "top_p": asked.top_p, "top_k": asked.top_k}
    settings: dict[str, Any] = {name: value for name, value in {**chosen, "steps": asked.steps}.items() if value is not None}
    seed = fresh_seed() if asked.seed is None else asked.seed
    options = tuple(ImageOptions(seed=seed + i, **settings) for i in range(n))
    prompt = await service.prepare(worker.janus.processor.generation_prompt, asked.prompt)
    return _Painting(worker, asked, options, len(prompt))


async def _files(work: Work, painting: _Painting) -> list[bytes]:
    files: dict[int, bytes] = {}
    async with work:
        async for which, event in work:
            if isinstance(event, Finished) and isinstance(event.result, tuple):
                files[which] = await painting.file(event.result[0])
    return [files[which] for which in sorted(files)]


async def _entry(service: Service, request: Request, painting: _Painting, file: bytes, seed: int | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"b64_json": None, "url": None, "revised_prompt": None, "seed": seed}
    if painting.asked.response_format != "url":
        return {**entry, "b64_json": base64_of(file)}
    base = (service.settings.public_url or str(request.base_url)).rstrip("/")
    return {**entry, "url": f"{base}/pictures/{service.pictures.put(file, painting.kind)}"}


async def _stream(work: Work, painting: _Painting) -> AsyncIterator[bytes]:
    shown: dict[int, int] = {}
    async with work:
        async for which, event in work:
            if isinstance(event, Progress) and event.done == 1 and not which:
                # It has begun: the head of the answer can go out.
                yield b": painting\n\n"
            if isinstance(event, Preview):
                data = base64_of(await painting.unfinished(event.picture))
                place = shown.setdefault(which, 0)
                shown[which] += 1
                yield _event("partial_image", painting, data, {"partial_image_index": place, "index": which})
            elif isinstance(event, Finished) and isinstance(event.result, tuple):
                (picture,) = event.result
                rest = {"index": which, "seed": picture.seed, "usage": painting.usage(1)}
                yield _event("completed", painting, base64_of(await painting.file(picture)), rest)


def _event(kind: str, painting: _Painting, data: str, rest: dict[str, Any]) -> bytes:
    name = f"image_generation.{kind}"
    return sse({"type": name, "b64_json": data, "created_at": now(), **painting.about(), **rest}, name)
