"""What of this machine can be counted out to jobs, where nobody has said it. Called by ``app``."""

from __future__ import annotations

import os

import psutil


def cores() -> int:
    """The processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def detected() -> dict[str, int]:
    """The processors that this process may use, in thousandths, and the machine's memory in bytes."""
    return {"cpu": 1000 * cores(), "memory": psutil.virtual_memory().total}
