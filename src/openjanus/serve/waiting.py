"""Waiting for something, but not for ever."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float, work: Awaitable[T]) -> T:
    """What the work comes to; asyncio.TimeoutError, with the work cancelled, if that takes longer.

    What asyncio.wait_for is for. But before Python 3.12 that forgets that it was cancelled if the work is done at that moment,
    and who works for somebody who has left would go on to the end.
    """
    working = asyncio.ensure_future(work)
    try:
        if seconds > 0:
            await asyncio.wait({working}, timeout=seconds)
        if not working.done():
            raise asyncio.TimeoutError
        return working.result()
    finally:
        if not working.done():
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
