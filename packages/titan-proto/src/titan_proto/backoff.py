"""How long to wait before the next try: exponential, shifted, never above a cap.

Pure arithmetic that the master needs for retries and the worker for restarts. Whether there is a next
try is decided by each of them. There are no dice in a core, so the shift comes from a name: what failed
together does not come back together, and a journal that is read again says the same.
"""

from __future__ import annotations

import hashlib
from typing import Final

JITTER_PERMILLE: Final = 250
"""A delay is shifted by at most so much of itself, either way."""


def delay_ms(step: int, first_ms: int, percent: int, most_ms: int, shift_by: str = "") -> int:
    """The delay before try `step`, in milliseconds.

    Args:
        step: 1 for the first delay, and so on.
        first_ms: the first delay.
        percent: each later delay is so many hundredths of the one before.
        most_ms: what delays stop growing at, shifted or not.
        shift_by: what the shift is drawn from; empty for none.
    """
    delay = first_ms
    for _ in range(step - 1):
        if delay >= most_ms:
            break
        delay = delay * percent // 100
    delay = min(delay, most_ms)
    if shift_by:
        drawn = int.from_bytes(hashlib.sha256(shift_by.encode()).digest()[:4], "big")
        delay += delay * (drawn % (2 * JITTER_PERMILLE + 1) - JITTER_PERMILLE) // 1000
    return min(delay, most_ms)
