"""The two endpoints of the published FastAPI demo, for the programs that were written for it.

Differs from it: pictures come as a correct multipart body, and a mistake of the caller's is answered with 4xx, not 500.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from secrets import token_hex
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, Response
from PIL import Image
from starlette.types import Receive, Scope, Send

from openjanus.engine.request import Answer, Finished, ImageRequest, TextRequest
from openjanus.processing.prompts import Processor
from openjanus.serve.pictures import encode
from openjanus.serve.refusals import Refusal
from openjanus.serve.service import Service
from openjanus.serve.sources import small_image
from openjanus.serve.streams import while_connected
from openjanus.serve.worker import Work
from openjanus.types import ImageOptions, Message, Prompt, TextOptions

PICTURES, SIDE = 5, 1024  # as the demo answers


def demo_routes(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["published demo"])

    @router.post("/understand_image_and_question/", summary="Answer a question about an image", response_model=None)
    async def understand(
        request: Request,
        file: Annotated[UploadFile, File()],
        question: Annotated[str, Form()],
        seed: Annotated[int, Form(ge=0, lt=2**63 - 1000)] = 42,
        top_p: Annotated[float, Form(gt=0, le=1, allow_inf_nan=False)] = 0.95,
        temperature: Annotated[float, Form(ge=0, le=2, allow_inf_nan=False)] = 0.1,
    ) -> Response:
        """{"response": text}"""
        worker, pixels = service.worker(None), service.settings.limits.pixels
        _check_length(service, question)
        prompt = await service.prepare(_prompt, worker.janus.processor, await file.read(), question, pixels)
        work = service.take(worker, [TextRequest(prompt, TextOptions(temperature=temperature, top_p=top_p, seed=seed))])
        return JSONResponse({"response": await while_connected(request.receive, _answer(work))})

    @router.post("/generate_images/", summary="Paint five pictures", response_model=None)
    async def generate(
        prompt: Annotated[str, Form()],
        seed: Annotated[int | None, Form(ge=0, lt=2**63 - 1000)] = None,
        guidance: Annotated[float | None, Form(ge=0, le=1000, allow_inf_nan=False)] = None,
    ) -> Response:
        """Five PNGs of 1024 x 1024, enlarged, as the parts of a multipart/related body, in the order of their seeds."""
        worker = service.worker(None)
        _check_length(service, prompt)
        await service.prepare(worker.janus.processor.generation_prompt, prompt)
        first = 12345 if seed is None else seed
        requests = [ImageRequest(prompt, ImageOptions(seed=first + i, guidance=guidance)) for i in range(PICTURES)]
        return Multipart(_pictures(service.take(worker, requests)), "image/png")

    return router


def _check_length(service: Service, text: str) -> None:
    if len(text) > service.settings.limits.characters:
        raise Refusal(400, f"the text has more than {service.settings.limits.characters:,} characters", "context_length_exceeded")


def _prompt(processor: Processor, data: bytes, question: str, pixels: int) -> Prompt:
    return processor.understanding_prompt([Message("user", question, (small_image(data, pixels, processor),))])


async def _answer(work: Work) -> str:
    async with work:
        async for _, event in work:
            if isinstance(event, Finished) and isinstance(event.result, Answer):
                return event.result.text
    return ""


async def _pictures(work: Work) -> AsyncIterator[bytes]:
    """PNGs in the order they were asked for, each as soon as those before it are there."""
    found: dict[int, Image.Image] = {}
    following = 0
    async with work:
        async for which, event in work:
            if isinstance(event, Finished) and isinstance(event.result, tuple):
                found[which] = event.result[0].image
            while following in found:
                large = found.pop(following).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
                yield await asyncio.to_thread(encode, large, "png")
                following += 1


class Multipart(Response):
    """Files as the parts of one body, sent as they come."""

    def __init__(self, files: Any, part_type: str) -> None:
        self._boundary, self._files, self._part_type = token_hex(16), files, part_type
        super().__init__(media_type=f'multipart/related; boundary="{self._boundary}"; type="{part_type}"')

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._files) as files:
            # The first is waited for, so that what goes wrong before it has a status of its own.
            part = await while_connected(receive, _next(files))
            headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await while_connected(receive, self._send(send, part))

    async def _send(self, send: Send, part: bytes | None) -> None:
        while part is not None:
            head = f"--{self._boundary}\r\nContent-Type: {self._part_type}\r\nContent-Length: {len(part)}\r\n\r\n".encode()
            await send({"type": "http.response.body", "body": head + part + b"\r\n", "more_body": True})
            part = await _next(self._files)
        await send({"type": "http.response.body", "body": f"--{self._boundary}--\r\n".encode(), "more_body": False})


async def _next(files: AsyncIterator[bytes]) -> bytes | None:
    return await anext(files, None)
