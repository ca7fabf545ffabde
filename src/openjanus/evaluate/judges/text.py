"""A judge of words: a language model behind an OpenAI-compatible server, asked over HTTP."""

import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from openjanus.environment import judge_key
from openjanus.errors import ConfigError, JanusError

TRIES = 3


class JudgeError(JanusError):
    """A judge failed or did not answer in time."""


@dataclass(frozen=True)
class Server:
    """An OpenAI-compatible server and the model that is asked there. `of` reads URL#MODEL, as people write it."""

    url: str
    model: str
    timeout: float = 60.0
    pause: float = 1.0

    @classmethod
    def of(cls, text: str, timeout: float) -> "Server":
        """ConfigError for anything but URL#MODEL."""
        url, _, model = text.partition("#")
        if not url.startswith(("http://", "https://")) or not model:
            raise ConfigError(
                f"{text!r} names no judge; write URL#MODEL, as in http://localhost:8000/v1#my-model or "
                "https://api.openai.com/v1#gpt-4-0613 (its key is read from OPENJANUS_JUDGE_KEY or OPENAI_API_KEY)"
            )
        return cls(url.rstrip("/"), model, timeout)

    def complete(self, content: Any, **options: Any) -> str:
        """The answer to one user's turn; JudgeError after TRIES failures, or at once where another try would not help."""
        body = {"model": self.model, "messages": [{"role": "user", "content": content}], **options}
        headers = {"Content-Type": "application/json"}
        if key := judge_key():
            headers["Authorization"] = f"Bearer {key}"
        request = Request(f"{self.url}/chat/completions", json.dumps(body).encode(), headers)
        said = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(self.pause * 2 ** (attempt - 1))
            try:
                with urlopen(request, timeout=self.timeout) as answer:
                    return str(json.load(answer)["choices"][0]["message"]["content"] or "")
            except HTTPError as error:
                said = f"HTTP {error.code} {error.reason}"
                if error.code in (400, 401, 403, 404):
                    break
            except (URLError, OSError) as error:  # a time-out is an OSError
                said = str(getattr(error, "reason", "") or error) or "no answer in time"
            except (ValueError, KeyError, IndexError, TypeError) as error:
                said = f"an answer that is no chat completion ({error})"
        raise JudgeError(f"the judge {self.model} at {self.url} failed: {said}")


class TextJudge:
    """Grades and matches answers."""

    def __init__(self, name: str, timeout: float = 60.0) -> None:
        self.name = name
        self._server = Server.of(name, timeout)

    def ask(self, prompt: str, temperature: float = 0.0, max_tokens: int = 16) -> str:
        """The judge's words; JudgeError if it fails or takes too long."""
        return self._server.complete(prompt, temperature=temperature, max_tokens=max_tokens)
