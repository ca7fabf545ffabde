"""Waiting for something, but not for ever."""

import asyncio

import pytest

from openjanus.serve.waiting import within


async def _after(turns: int) -> str:
    for _ in range(turns):
        await asyncio.sleep(0)
    return "done"


def test_what_is_done_in_time_comes_back_and_what_fails_fails():
    async def fail() -> None:
        raise ValueError("so")

    assert asyncio.run(within(5, _after(3))) == "done"
    with pytest.raises(ValueError, match="so"):
        asyncio.run(within(5, fail()))


@pytest.mark.parametrize("seconds", [0.05, 0, -1])
def test_what_takes_longer_is_cancelled(seconds: float):
    async def both() -> bool:
        never = asyncio.get_running_loop().create_future()
        with pytest.raises(asyncio.TimeoutError):
            await within(seconds, never)
        return never.cancelled()

    assert asyncio.run(both())


@pytest.mark.parametrize("turns", range(1, 8))
def test_who_is_cancelled_at_the_moment_when_the_work_is_done_is_cancelled(turns: int):
    async def both() -> None:
        waiting = asyncio.ensure_future(within(5, _after(3)))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not waiting.done():
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(both())
