"""What the engine does beside its turns."""

import asyncio

import pytest

from titan_worker.engine import Engine


@pytest.fixture
async def engine():
    return Engine(
        core=None,
        ledger=None,
        now_ms=lambda: 0,
        steady_at_s=float,
        loop=asyncio.get_running_loop(),
        on_joined=lambda: None,
    )


async def test_a_hunt_ends_when_it_is_told_to_though_an_attempt_ends_at_the_same_moment(engine):
    """Or the process would not end: before Python 3.12 `asyncio.wait_for` loses such a cancellation."""
    hunt = asyncio.ensure_future(engine.hunt())
    engine._has_left.set()
    for _ in range(3):  # until it waits for the next end
        await asyncio.sleep(0)

    engine._hunt_now.set()
    hunt.cancel()

    with pytest.raises(asyncio.CancelledError):
        await hunt
