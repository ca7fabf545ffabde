"""What a client is told when it does not get what it asked for: OpenAI's shape of an error, with the right status."""

from collections.abc import Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from openjanus.errors import EngineError, JanusError

PAGE = "/gradio_api/"  # where the page's script asks, which shows a person what stands under "detail"
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Refusal(HTTPException):
    """A request that is not answered, with what to do next. retry_after: seconds after which it may be."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None, retry_after: int | None = None
    ) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(status, message, headers)
        self.code, self.param = code, param

    def content(self) -> dict[str, Any]:
        """The body of the answer."""
        kind = _KINDS.get(self.status_code, "server_error" if self.status_code >= 500 else "invalid_request_error")
        # What a stranger sent may hold halves of characters, which no encoding knows.
        words = [None if word is None else str(word).encode("utf-8", "replace").decode() for word in (self.detail, self.param)]
        return {"error": {"message": words[0], "type": kind, "param": words[1], "code": self.code}}

    def response(self, path: str) -> JSONResponse:
        """The answer to a request for a path."""
        # What is left of a body that was refused is not read.
        closes = {"Connection": "close"} if self.status_code in (408, 413) else {}
        content = self.content()
        if path.startswith(PAGE):
            content["detail"] = content["error"]["message"]
        return JSONResponse(content, self.status_code, {**(self.headers or {}), **closes})


def refusal_of(error: JanusError) -> Refusal:
    """What a client is told of an error of ours."""
    if isinstance(error, EngineError):
        return Refusal(503, str(error), "overloaded", retry_after=5)
    return Refusal(400, str(error), "invalid_request")


def unhandled() -> Refusal:
    """What a client is told of an error that is our fault."""
    return Refusal(500, "the server made a mistake; its log tells more under this answer's x-request-id", "internal_error")


def invalid(errors: Sequence[Any]) -> Refusal:
    """What a client is told of fields that are not what they must be, as pydantic lists them."""
    # Of what may be one thing or another the mistake that lies deepest is the one that was made.
    first = max(errors, key=lambda error: len(error["loc"]))
    if first["type"] == "json_invalid":
        return Refusal(400, f"the body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}", "invalid_json")
    place = [str(part) for part in first["loc"] if part not in ("body", "str") and "[" not in str(part)]
    param = ".".join(place)[:200]
    if not place:
        return Refusal(
            400, f"the body must be a JSON object, with content-type application/json ({first['msg']})", "invalid_json"
        )
    return Refusal(400, f"{param}: {first['msg']}", "invalid_value", param)
