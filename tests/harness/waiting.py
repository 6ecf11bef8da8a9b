"""Waiting for a condition of the outside world that tells nobody when it comes true."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_EVERY_S = 0.02


def wait_until(look: Callable[[], T], *, within_s: float, what: str) -> T:
    """The first true answer of `look`; fails when none came in time."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        pause.wait(LOOK_EVERY_S)
    return found
