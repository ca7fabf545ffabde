"""The web page: one chat in which a person shows pictures, asks, and has pictures painted. Gradio, nothing from elsewhere.

It asks the same workers as the API. What a visitor has said and got is kept in a `Talk` on the server, for as long as the page is
open; files live in Gradio's cache, which forgets them after a day.
"""

import json
import logging
import re
import time
from collections.abc import AsyncIterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio.processing_utils import save_pil_to_cache
from gradio.utils import get_upload_folder
from PIL import Image
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as SentMessage

from openjanus.checkpoints.locate import BUNDLED
from openjanus.engine.request import Answer, Finished, ImageRequest, Picture, Piece, Preview, Progress, TextRequest
from openjanus.errors import ImageError, JanusError
from openjanus.models.randomness import fresh_seed
from openjanus.processing.prompts import Processor
from openjanus.serve.guard import CALLER
from openjanus.serve.refusals import Refusal, invalid
from openjanus.serve.service import Service
from openjanus.serve.sources import small_image
from openjanus.serve.worker import Work, Worker
from openjanus.types import ImageOptions, Message, Prompt, TextOptions

JOIN = "/gradio_api/queue/join"
log = logging.getLogger("openjanus.serve")
BUSY = "Something is being made: wait for it, or press Stop."
KEPT = 50  # pictures of a visitor
PREVIEWS = 8  # unfinished pictures that are shown of each
SPEAK_EVERY = 0.2  # seconds between two updates of the page
# What the page asks Gradio for. It has more (recordings, editors, a proxy, runs kept in the cloud), for nobody here.
PARTS = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)/?|/(assets|static)/.*"
    r"|/gradio_api/(info|app_id|startup-events|upload|upload_progress|cancel|reset|queue/join|queue/data)/?"
    r"|/gradio_api/(heartbeat/|file=).*"
)
FILES = [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"]
STYLE = """
footer { display: none !important; }
/* It would send the picture to a company. */
#chat button[aria-label="Share"], #chat button[title="Share"] { display: none !important; }
/* Small models paint pictures of a few dozen pixels: they are shown larger, in their own proportions, on a phone too. */
#chat .image-frame img { min-width: min(176px, 50vw); object-fit: contain; }
/* As high with a bar as without, so that no button moves while somebody reaches for it. */
.status { min-height: 2.2em; }
.status progress { display: block; width: 100%; height: .5em; border: 0; appearance: none; background: var(--neutral-200); }
.status progress::-webkit-progress-bar { background: var(--neutral-200); }
.status progress::-webkit-progress-value { background: var(--color-accent); }
.status progress::-moz-progress-bar { background: var(--color-accent); }
.status .trouble { color: var(--error-text-color, #b91c1c); }
"""
# The bundled models know nothing but drawn shapes.
SHAPES = ("a red circle", "two green squares", "a blue star left of a yellow triangle")
WORLD = ("a fox reading a book, woodcut", "a glass of orange juice on a wooden table", "a lighthouse at dusk, oil painting")


class Talk:
    """What a visitor has said and got. shown: the chat as the page shows it; messages: as the model reads it.

    pictures, and their files in the same order; unfinished: files of what is being painted; chosen: a place in the gallery; busy:
    whether something is being made, for which work is asked.
    """

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self.messages: list[Message] = []
        self.pictures: list[Picture] = []
        self.files: list[str] = []
        self.unfinished: dict[int, str] = {}
        self.chosen = 0
        self.status = ""
        self.busy = False
        self.work: Work | None = None

    def gallery(self) -> list[tuple[str, str]]:
        """What the gallery shows: what is being painted, then what was painted, the newest first."""
        painting = [(file, "painting") for _, file in sorted(self.unfinished.items())]
        done = [(file, f"seed {picture.seed}") for file, picture in zip(self.files, self.pictures, strict=True)]
        return [*painting, *reversed(done)]

    def picture(self) -> Picture | None:
        """The picture that was chosen in the gallery, else the newest."""
        place = self.chosen - len(self.unfinished)
        return self.pictures[-1 - place] if 0 <= place < len(self.pictures) else None

    def stop(self) -> None:
        """End what is being made."""
        if self.work is not None:
            self.work.stop()

    def say(self, role: str, *content: Any) -> None:
        """Add to the chat that is shown."""
        self.shown += [{"role": role, "content": one} for one in content]

    def trouble(self, words: str) -> None:
        """Say what went wrong, where it is seen and heard."""
        self.status = f"<div role='alert' class='trouble'>{escape(words)}</div>"

    def progress(self, words: str, done: int = 0, steps: int = 0) -> None:
        """Say how far it is."""
        bar = f"<progress value='{done}' max='{steps}' aria-label='progress'></progress>" if steps else ""
        self.status = f"<div role='status'>{escape(words)}{bar}</div>"


class Page:
    """What the page's buttons do. Every answer is (chat, gallery, status) or begins with it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def ask(
        self,
        asked: dict[str, Any],
        talk: Talk,
        model: str,
        temperature: float,
        tokens: float,
        seed: float | None,
        request: gr.Request,
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Answer a question, word by word. What was written comes back if it cannot be answered."""
        if talk.busy:
            talk.trouble(BUSY)
            yield *_shown(talk), gr.skip()
            return
        talk.busy = True
        text, files = (asked.get("text") or "").strip(), [_path(file) for file in asked.get("files") or []]
        before = len(talk.shown)
        talk.say("user", *({"path": file} for file in files), *([text] if text else []))
        talk.progress("reading")
        yield *_shown(talk), _empty()
        answer = ""
        try:
            with self._service.rates.counted(_caller(request)):
                worker = self._service.worker(model or None)
                options = TextOptions(int(tokens), temperature, seed=None if seed is None else int(seed))
                message, prompt = await self._read(worker, talk, text, files)
                talk.say("assistant", "")
                spoken = 0.0
                async with self._service.take(worker, [TextRequest(prompt, options)]) as talk.work:
                    async for _, event in talk.work:
                        if isinstance(event, Piece):
                            answer += event.text
                        if isinstance(event, Finished) and isinstance(event.result, Answer):
                            answer = event.result.text
                        talk.shown[-1]["content"] = answer
                        if time.monotonic() - spoken > SPEAK_EVERY:
                            spoken = time.monotonic()
                            talk.progress("answering")
                            yield *_shown(talk), gr.skip()
            talk.status = ""
        except (JanusError, Refusal) as error:
            if _was_stopped(error):
                talk.progress("stopped")
                yield *_shown(talk), gr.skip()
                return
            del talk.shown[before:]
            long = talk.messages and not (isinstance(error, Refusal) and error.status_code >= 429)
            talk.trouble(_words(error) + (" A new conversation begins with nothing to remember." if long else ""))
            yield *_shown(talk), {"text": text, "files": files}
            return
        finally:
            talk.busy, talk.work = False, None
            # Also when it was stopped: as far as it came, unless all was forgotten.
            if answer and len(talk.shown) > before:
                talk.messages += [message, Message("assistant", answer)]
        yield *_shown(talk), gr.skip()

    async def paint(
        self, asked: dict[str, Any], talk: Talk, model: str, n: float, guidance: float, temperature: float, steps: float,
        seed: float | None, request: gr.Request,
    ) -> AsyncIterator[tuple[Any, ...]]:  # fmt: skip
        """Paint pictures of what is written."""
        prompt = (asked.get("text") or "").strip()
        async for update in self._paint(request, prompt, talk, model, int(n), guidance, temperature, int(steps), seed):
            yield update

    async def again(
        self, talk: Talk, model: str, n: float, guidance: float, temperature: float, steps: float, request: gr.Request
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Paint the chosen picture's prompt again from its seed, with the settings as they are now."""
        picture = talk.picture()
        if picture is None:
            talk.trouble("There is no picture yet: write what to paint and press Paint.")
            yield _shown(talk)
            return
        settings = int(n), guidance, temperature, int(steps), picture.seed
        async for update in self._paint(request, picture.prompt, talk, model, *settings):
            yield update

    async def _paint(
        self, request: gr.Request, prompt: str, talk: Talk, model: str, n: int, guidance: float, temperature: float, steps: int,
        seed: float | None,
    ) -> AsyncIterator[tuple[Any, ...]]:  # fmt: skip
        if talk.busy:
            talk.trouble(BUSY)
            yield _shown(talk)
            return
        talk.busy = True
        before = len(talk.shown)
        talk.say("user", f"Paint: {prompt}")
        talk.unfinished.clear()
        talk.chosen = 0
        try:
            with self._service.rates.counted(_caller(request)):
                worker = self._service.worker(model or None)
                n = max(1, min(n, self._service.settings.limits.n))
                _check_length(self._service, prompt)
                first = fresh_seed() if seed is None else int(seed)
                options = [ImageOptions(1, first + i, guidance, temperature, steps=steps) for i in range(n)]
                talk.progress("waiting")
                yield _shown(talk)
                async with self._service.take(worker, [ImageRequest(prompt, one, PREVIEWS) for one in options]) as talk.work:
                    async for update in self._watch(talk.work, talk, worker):
                        yield update
            painted = talk.pictures[-n:]
            talk.say("assistant", *({"path": file} for file in talk.files[-n:]))
            seeds = ", ".join(str(picture.seed) for picture in painted)
            talk.say("assistant", f"Painted from seed{'s' * (n > 1)} {seeds}.")
            talk.status = ""
        except (JanusError, Refusal) as error:
            if _was_stopped(error):
                talk.progress("stopped")
            else:
                del talk.shown[before:]
                talk.trouble(_words(error))
        finally:
            talk.busy, talk.work = False, None
            talk.unfinished.clear()
        yield _shown(talk)

    async def _watch(self, work: Work, talk: Talk, worker: Worker) -> AsyncIterator[tuple[Any, ...]]:
        """Show pictures while they are painted, and keep them when they are done, in the order of their seeds."""
        done: dict[int, int] = {}
        finished: dict[int, Picture] = {}
        spoken = 0.0
        async for which, event in work:
            if isinstance(event, Preview):
                talk.unfinished[which] = _file(event.picture)
            elif isinstance(event, Finished) and isinstance(event.result, tuple):
                finished[which] = event.result[0]
                talk.unfinished[which] = _file_of(event.result[0], worker)
            elif isinstance(event, Progress):
                done[which] = event.done
                mean = sum(done.values()) // len(work.tasks)
                talk.progress(f"painting: {mean} of {event.steps} steps", mean, event.steps)
            if time.monotonic() - spoken > SPEAK_EVERY:
                spoken = time.monotonic()
                yield _shown(talk)
        for which in sorted(finished):
            talk.pictures.append(finished[which])
            talk.files.append(talk.unfinished[which])
        del talk.pictures[:-KEPT], talk.files[:-KEPT]

    async def _read(self, worker: Worker, talk: Talk, text: str, files: Sequence[str]) -> tuple[Message, Prompt]:
        limits = self._service.settings.limits
        _check_length(self._service, text)
        if len(files) > limits.images:
            raise Refusal(400, f"{len(files)} pictures are too many; at most {limits.images} at a time")
        processor, earlier = worker.janus.processor, list(talk.messages)
        return await self._service.prepare(_understanding, processor, earlier, text, files, limits.pixels)

    def use(self, talk: Talk, asked: dict[str, Any]) -> tuple[Any, ...]:
        """Put the chosen picture beside the words that are being written."""
        picture = talk.picture()
        if picture is None:
            talk.trouble("There is no picture yet: write what to paint and press Paint.")
            return *_shown(talk), gr.skip()
        file = talk.files[talk.pictures.index(picture)]
        talk.progress("The picture goes with your next question.")
        return *_shown(talk), {
            "text": (asked or {}).get("text") or "",
            "files": [*map(_path, (asked or {}).get("files") or []), file],
        }

    async def stop(self, talk: Talk) -> None:
        """Stop what is being made, which then says so itself."""
        talk.stop()

    def choose(self, talk: Talk, event: gr.SelectData) -> None:
        """Remember which picture was chosen."""
        talk.chosen = event.index if isinstance(event.index, int) else 0

    async def forget(self, talk: Talk) -> tuple[Any, ...]:
        """A new conversation."""
        talk.stop()
        for one in (talk.shown, talk.messages, talk.pictures, talk.files, talk.unfinished):
            one.clear()
        talk.status = ""
        return *_shown(talk), _empty()

    def model(self, name: str) -> tuple[Any, ...]:
        """The settings that a model has."""
        worker = self._service.worker(name)
        config = worker.janus.model.config.generation
        return (
            gr.update(value=config.default_guidance),
            gr.update(visible=not worker.takes_steps),
            gr.update(visible=worker.takes_steps),
            *(gr.update(value=prompt) for prompt in _examples(worker)),
        )


def mount_page(app: FastAPI) -> FastAPI:
    """The application with the page at /."""
    service: Service = app.state.service
    blocks = _build(service)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        ssr_mode=False,
        max_file_size=service.settings.limits.body_bytes,
        theme=gr.themes.Default(),
        css=STYLE,
        run_history=False,
    )
    blocks.has_launched = True  # so that Gradio looks, too
    mount = next(route for route in mounted.routes if isinstance(route, Mount))
    mount.app = _Door(mount.app)
    return mounted


class _Door:
    """Lets through to Gradio what the page asks for, and has its refusals speak as ours do.

    Gradio copies whatever file or address a request names into its cache, from where it can be fetched, and looks whether it may
    only in applications that it launches itself. Here it is looked first: no file but an uploaded one is named.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not PARTS.fullmatch(scope["path"]):
            raise Refusal(404, f"there is nothing at {scope['path'][:100]}", "not_found")
        if scope["type"] == "http" and scope["path"].rstrip("/") == JOIN:
            receive = await _checked(receive)
        status, body = 200, b""

        async def passed_on(message: SentMessage) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start" and message["status"] >= 400 and message["status"] != 503:
                status = message["status"]
            if status == 200:
                await send(message)
            else:
                body += message.get("body", b"")

        try:
            await self._app(scope, receive, passed_on)
        except Exception as error:
            if status == 200:
                raise
            log.warning(json.dumps({"event": "page", "path": scope["path"][:200], "error": repr(error)[:500]}))
        if status != 200:
            raise _refusal(status, body)


async def _checked(receive: Receive) -> Receive:
    """`receive`, once all of a body has been read and names no file but uploaded ones; Refusal for others."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    uploads = Path(get_upload_folder()).resolve()

    def look(found: dict[str, Any]) -> None:
        if "path" in found and not _is_upload(found["path"], uploads):
            raise Refusal(400, "a file is named that was not uploaded to this page; upload it", "invalid_value", "path")

    try:
        json.loads(body, object_hook=look)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON; load the page again", "invalid_json") from None
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def again() -> SentMessage:
        return next(messages, None) or await receive()

    return again


def _is_upload(path: Any, uploads: Path) -> bool:
    try:
        return isinstance(path, str) and Path(path).resolve().is_relative_to(uploads)
    except (OSError, ValueError):  # it can be no path at all
        return False


def _refusal(status: int, body: bytes) -> Refusal:
    """What Gradio refuses, in our words. It breaks off (500) on what its own page never sends."""
    try:
        detail = json.loads(body)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = None
    if status >= 500:
        return Refusal(400, "this is nothing that the page sends; load the page again", "bad_request")
    if isinstance(detail, list) and detail:
        return invalid(detail)
    return Refusal(status, f"the page cannot do this: {str(detail or 'it was not understood')[:300]}", "bad_request")


def _build(service: Service) -> gr.Blocks:
    page = Page(service)
    worker = service.worker(None)
    guidance_default = worker.janus.model.config.generation.default_guidance
    with gr.Blocks(title="openjanus", analytics_enabled=False, delete_cache=(3600, 86400)) as blocks:
        talk = gr.State(Talk())
        names = list(service.workers)
        with gr.Row():
            gr.Markdown(
                f"# openjanus\n{'Several models' if len(names) > 1 else f'`{worker.name}`'}: ask about pictures, paint pictures."
            )
            model = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                chat = gr.Chatbot(
                    label="Conversation", height="55vh", elem_id="chat", placeholder=_welcome(worker), buttons=["copy"]
                )
                status = gr.HTML(elem_classes="status", elem_id="status")
                written = gr.MultimodalTextbox(
                    label="Your words and pictures",
                    placeholder="Ask something (Enter), or describe a picture and press Paint",
                    file_count="multiple",
                    file_types=FILES,
                    submit_btn="Ask",
                    autofocus=True,
                    elem_id="written",
                    max_plain_text_length=service.settings.limits.characters,
                )
                with gr.Row():
                    paint = gr.Button("Paint", variant="primary", elem_id="paint", min_width=100)
                    stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=100)
                    fresh = gr.Button("New conversation", elem_id="new", min_width=100)
                with gr.Row():
                    examples = [gr.Button(text, size="sm", elem_classes="example", min_width=140) for text in _examples(worker)]
            with gr.Column(scale=2, min_width=320):
                gallery = gr.Gallery(
                    label="Pictures",
                    columns=2,
                    height="auto",
                    object_fit="contain",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    format="png",
                    elem_id="gallery",
                )
                with gr.Row():
                    use = gr.Button("Use this picture in the chat", size="sm", elem_id="use", min_width=140)
                    again = gr.Button("Paint again with this seed", size="sm", elem_id="again", min_width=140)
                with gr.Accordion("Settings of pictures", open=True):
                    n = gr.Slider(1, service.settings.limits.n, value=1, step=1, label="How many", elem_id="n")
                    guidance = gr.Slider(
                        0, 15, value=guidance_default, step=0.1, label="Guidance: how closely to follow the words (1 is off)"
                    )
                    temperature = gr.Slider(
                        0,
                        2,
                        value=1,
                        step=0.05,
                        label="Temperature: 0 takes the likeliest",
                        visible=not worker.takes_steps,
                        elem_id="temperature",
                    )
                    steps = gr.Slider(1, 100, value=30, step=1, label="Steps", visible=worker.takes_steps, elem_id="steps")
                with gr.Accordion("Seed, and settings of answers", open=False):
                    seed = gr.Number(None, label="Seed (empty: a fresh one)", precision=0, minimum=0, elem_id="seed")
                    answer_temperature = gr.Slider(
                        0, 2, value=0, step=0.05, label="Temperature of answers: 0 takes the likeliest word"
                    )
                    tokens = gr.Slider(1, 2048, value=512, step=1, label="Longest answer, in tokens")
        shown = [chat, gallery, status]
        settings = [n, guidance, temperature, steps]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        written.submit(page.ask, [written, talk, model, answer_temperature, tokens, seed], [*shown, written], **quiet)
        paint.click(page.paint, [written, talk, model, *settings, seed], shown, **quiet)
        again.click(page.again, [talk, model, *settings], shown, **quiet)
        stop.click(page.stop, [talk], None, **quiet)
        for forget in (fresh.click, chat.clear):
            forget(page.forget, [talk], [*shown, written], **quiet)
        use.click(page.use, [talk, written], [*shown, written], **quiet)
        gallery.select(page.choose, [talk], None, **quiet)
        model.change(page.model, [model], [guidance, temperature, steps, *examples], **quiet)
        for example in examples:
            example.click(_typed, [example, written], [written], **quiet)
    # Many visitors at a time: it is the workers who keep the queue.
    blocks.queue(default_concurrency_limit=64, max_size=512)
    return blocks


def _examples(worker: Worker) -> Sequence[str]:
    return SHAPES if worker.name in BUNDLED else WORLD


def _welcome(worker: Worker) -> str:
    knows = " This small model knows nothing but drawn shapes." if worker.name in BUNDLED else ""
    return f"Show a picture and ask about it, or have one painted.{knows}"


def _typed(example: str, asked: dict[str, Any] | None) -> dict[str, Any]:
    return {"text": example, "files": [_path(file) for file in (asked or {}).get("files") or []]}


def _caller(request: gr.Request) -> str:
    """Who has pressed a button, as the guard calls them."""
    assert request.request is not None
    return str(request.request.scope[CALLER])


def _empty() -> dict[str, Any]:
    return {"text": "", "files": []}


def _shown(talk: Talk) -> tuple[Any, Any, Any]:
    return talk.shown, talk.gallery(), talk.status


def _path(file: Any) -> str:
    """The path of an uploaded file, which Gradio has checked to lie among its own."""
    return str(file["path"] if isinstance(file, dict) else getattr(file, "path", file))


def _file(image: Image.Image, name: str = "unfinished") -> str:
    """A PNG in Gradio's cache, with what the image carries along."""
    return str(save_pil_to_cache(image, cache_dir=get_upload_folder(), name=name, format="png"))


def _file_of(picture: Picture, worker: Worker) -> str:
    image = picture.image.copy()
    image.info.update(picture.metadata(worker.name))
    return _file(image, f"painted_{picture.seed}")


def _understanding(
    processor: Processor, earlier: Sequence[Message], text: str, files: Sequence[str], pixels: int
) -> tuple[Message, Prompt]:
    images = tuple(_image(Path(file), pixels, processor) for file in files)
    message = Message("user", text, images)
    return message, processor.understanding_prompt([*earlier, message])


def _image(file: Path, pixels: int, processor: Processor) -> Image.Image:
    try:
        return small_image(file.read_bytes(), pixels, processor)
    except ImageError as error:
        raise ImageError(f"in {file.name}, {error}") from error


def _check_length(service: Service, text: str) -> None:
    if len(text) > service.settings.limits.characters:
        raise Refusal(400, f"the text has more than {service.settings.limits.characters:,} characters; shorten it")


def _was_stopped(error: JanusError | Refusal) -> bool:
    return isinstance(error, Refusal) and error.code == "stopped"


def _words(error: JanusError | Refusal) -> str:
    words = str(error.detail) if isinstance(error, Refusal) else str(error)
    return words[:1].upper() + words[1:] + "."
