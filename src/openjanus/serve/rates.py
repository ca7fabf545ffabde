"""How often a caller may ask, and how much at a time: one count for the API and the page."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from openjanus.serve.refusals import Refusal

CALLERS = 10_000  # callers remembered


@dataclass
class _Caller:
    """What a caller has left. tokens: requests it may still make at once."""

    tokens: float
    seen: float
    running: int = 0


@dataclass
class Rates:
    """A bucket of requests for each caller, filled at an even rate, and how many run."""

    rate: int
    concurrent: int
    callers: dict[str, _Caller] = field(default_factory=dict)

    @contextmanager
    def counted(self, name: str) -> Iterator[dict[str, str]]:
        """While a request of a caller runs: what its answer's headers say. Refusal 429 if it is one too many."""
        headers = self.enter(name, time.monotonic())
        try:
            yield headers
        finally:
            self.leave(name)

    def enter(self, name: str, now: float) -> dict[str, str]:
        """Count a request in and return what its answer's headers say; Refusal 429 if it is one too many."""
        caller = self.callers.setdefault(name, _Caller(self.rate, now))
        caller.tokens = min(self.rate, caller.tokens + (now - caller.seen) * self.rate / 60)
        caller.seen = now
        if self.concurrent and caller.running >= self.concurrent:
            message = f"{caller.running} of your requests are being answered, which is as many as may be; wait for one to end"
            raise Refusal(429, message, "concurrency_limit", retry_after=1)
        if self.rate and caller.tokens < 1:
            wait = int((1 - caller.tokens) * 60 / self.rate) + 1
            message = f"you may ask {self.rate} times a minute; ask again in {wait} s"
            raise Refusal(429, message, "rate_limit_exceeded", retry_after=wait)
        caller.running += 1
        if not self.rate:
            return {}
        caller.tokens -= 1
        full = (self.rate - caller.tokens) * 60 / self.rate
        left = {"limit": str(self.rate), "remaining": str(int(caller.tokens)), "reset": f"{full:.0f}s"}
        return {f"x-ratelimit-{name}-requests": value for name, value in left.items()}

    def leave(self, name: str) -> None:
        """Count a request out. Who has a full bucket and nothing running need not be remembered."""
        self.callers[name].running -= 1
        if len(self.callers) > CALLERS:
            idle = [name for name, one in self.callers.items() if not one.running]
            for one in sorted(idle, key=lambda name: self.callers[name].seen)[: CALLERS // 2]:
                del self.callers[one]
