"""The application: every endpoint put together around the models, behind the guard."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import compile_path

from openjanus.engine.engine import EngineOptions
from openjanus.engine.memory import shares
from openjanus.errors import JanusError
from openjanus.janus import Janus
from openjanus.models.cache import bytes_per_entry
from openjanus.serve.chat import chat_routes
from openjanus.serve.demo import demo_routes
from openjanus.serve.guard import Guard
from openjanus.serve.images import image_routes
from openjanus.serve.metrics import Metrics
from openjanus.serve.reference import reference_page
from openjanus.serve.refusals import Refusal, invalid, refusal_of
from openjanus.serve.service import Service
from openjanus.serve.settings import ServeSettings
from openjanus.serve.worker import SICK, Worker

ABOUT = "DeepSeek's Janus models: questions about images answered, pictures painted. The `openai` client works unchanged."
# Headers that pages of other origins may read.
TOLD = ["Retry-After", "X-Request-ID", *(f"X-RateLimit-{name}-Requests" for name in ("Limit", "Remaining", "Reset"))]


def create_app(
    models: Sequence[tuple[str, Janus]], settings: ServeSettings | None = None, engine: EngineOptions | None = None
) -> FastAPI:
    """An ASGI application that serves models under their names; the first answers where none is named.

    engine: of each model; where it names no memory, the models of a device share what a cache may take. Its threads run from the
    application's start to its end. `app.state.service` is what its endpoints share; page.py adds the web page. ConfigError for
    settings that cannot be.
    """
    settings = settings or ServeSettings()
    metrics = Metrics()
    options = _options([janus for _, janus in models], engine or EngineOptions())
    workers = [Worker(name, janus, metrics, settings.limits, one) for (name, janus), one in zip(models, options, strict=True)]
    service = Service(settings, workers, metrics)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        for worker in workers:
            worker.start()
        yield
        for worker in workers:
            worker.stop()

    app = FastAPI(title="openjanus", version="v1", description=ABOUT, lifespan=life, docs_url=None, redoc_url=None)
    app.state.service = service
    app.include_router(chat_routes(service))
    app.include_router(image_routes(service))
    app.include_router(demo_routes(service))
    _add_model_routes(app, service)
    _add_watching_routes(app, service)
    _add_errors(app)
    app.add_middleware(Guard, settings=settings, metrics=metrics, rates=service.rates)
    if settings.cors:
        # Around the guard, so that pages can read what it refuses.
        every: dict[str, Any] = {"allow_methods": ["*"], "allow_headers": ["*"], "expose_headers": TOLD}
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors, **every)
    return app


def _options(models: Sequence[Janus], engine: EngineOptions) -> list[EngineOptions]:
    """What each model's engine may use."""
    if engine.memory is not None:
        return [engine] * len(models)
    caches = [(one.model.device, bytes_per_entry(one.model.config.language, one.model.dtype)) for one in models]
    return [replace(engine, memory=memory) for memory in shares(caches)]


def _add_model_routes(app: FastAPI, service: Service) -> None:
    def describe(worker: Worker) -> dict[str, Any]:
        return {"id": worker.name, "object": "model", "created": worker.created, "owned_by": "openjanus", "size": worker.size}

    @app.get("/v1/models", tags=["OpenAI"], summary="The models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [describe(worker) for worker in service.workers.values()]}

    @app.get("/v1/models/{model:path}", tags=["OpenAI"], summary="One model")
    async def model(model: str) -> dict[str, Any]:
        return describe(service.worker(model))

    @app.api_route("/v1/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    async def nothing(path: str) -> Response:
        there = "/v1/models, /v1/chat/completions and /v1/images/generations"
        raise Refusal(404, f"there is no /v1/{path[:100]} here; there are {there}", "unknown_url")


def _add_watching_routes(app: FastAPI, service: Service) -> None:
    @app.head("/health", include_in_schema=False)
    @app.get("/health", tags=["watching"], summary="Whether the server should be left running")
    async def health() -> JSONResponse:
        broken = [worker.name for worker in service.workers.values() if worker.state in SICK]
        return JSONResponse({"status": "broken" if broken else "ok", "broken": broken}, 503 if broken else 200)

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready", tags=["watching"], summary="Whether the server takes more requests now")
    async def ready() -> JSONResponse:
        states = {worker.name: "draining" if service.draining else worker.state for worker in service.workers.values()}
        good = all(state == "ready" for state in states.values())
        return JSONResponse({"ready": good, "models": states}, 200 if good else 503, {} if good else {"Retry-After": "5"})

    @app.get("/metrics", tags=["watching"], summary="Numbers for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(reference_page(app.openapi()))


def _methods(app: FastAPI, path: str) -> list[str]:
    """What a path of the API may be asked with; nothing for other paths."""
    found = [methods for there, methods in app.openapi()["paths"].items() if compile_path(there)[0].match(path)]
    return sorted({method.upper() for methods in found for method in methods})


def _add_errors(app: FastAPI) -> None:
    """Every error in OpenAI's shape."""

    def answer(request: Request, refusal: Refusal) -> JSONResponse:
        request.scope.setdefault("openjanus.notes", {})["code"] = refusal.code
        return refusal.response(request.scope["path"])

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        path, method = request.scope["path"], request.method[:20]
        allowed = _methods(app, path) if error.status_code in (404, 405) else []
        if allowed and method not in allowed:
            # Also where something that takes all paths, as the page does, has found nothing.
            wrong = Refusal(405, f"{path[:100]} is asked with {' or '.join(allowed)}, not {method}", "method_not_allowed")
            wrong.headers = {"Allow": ", ".join(allowed)}
            return answer(request, wrong)
        if isinstance(error, Refusal):
            return answer(request, error)
        words = {404: f"there is nothing at {path[:100]}", 405: f"{method} cannot be used here"}
        refusal = Refusal(error.status_code, words.get(error.status_code, str(error.detail)), "bad_request")
        refusal.headers = error.headers
        return answer(request, refusal)

    @app.exception_handler(RequestValidationError)
    async def mistaken(request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(request, invalid(error.errors()))

    @app.exception_handler(JanusError)
    async def ours(request: Request, error: JanusError) -> JSONResponse:
        return answer(request, refusal_of(error))
