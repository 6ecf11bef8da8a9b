"""What a master's journal says, read without the code that wrote it.

Each event is a plain mapping with its class's name under ``type``; what is not looked at here may
change without this noticing. Read-only: a journal that is being written may be read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

Event = dict[str, Any]


def events(data: Path, after: int = 0) -> Iterator[tuple[int, Event]]:
    """Every event behind record `after` with its place, in order."""
    path = data / "titan.sqlite"
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        rows = connection.execute(
            "SELECT seq, body FROM journal WHERE seq > ? ORDER BY seq", (after,)
        )
        for seq, body in rows:
            yield seq, msgspec.msgpack.decode(body)
    finally:
        connection.close()


def of_type(data: Path, *kinds: str) -> list[Event]:
    """The events of these kinds, in order."""
    return [event for _, event in events(data) if event["type"] in kinds]
