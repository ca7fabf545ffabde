"""Being asked to stop: Ctrl-C, or SIGTERM from a cluster. The first time the step is finished, the second time it is not."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

_WORDS = b"\nstopping after this step, with a state to go on from; once more to leave at once\n"
# torchrun passes a signal on that the terminal has sent to its processes already.
_SAME = 1.0


class Stopping:
    """Inside the `with` block, `signal` is the number of the signal that has come, or None. A second one is KeyboardInterrupt."""

    def __init__(self, speaks: bool) -> None:
        self.signal: int | None = None
        self._asked = 0.0
        self._speaks = speaks
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stopping":
        # Python lets only the main thread handle signals; elsewhere they stay with whoever has them.
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.signal(one, self._ask) for one in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._asked = number, now
            if self._speaks:
                # Not print: the signal may have come in the middle of one.
                os.write(2, _WORDS)
        elif now - self._asked > _SAME:
            raise KeyboardInterrupt
