"""What every way of electing a master promises.

Called by ``app.py`` alone: `acquire` before anything is opened, `resign` last of all. The term
itself is the store's, which checks it inside every commit.
"""

from __future__ import annotations

from typing import Protocol


class NotLeading(Exception):
    """Another process leads; `holder` says who, as far as it is known."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"another master holds this: {holder}")
        self.holder = holder


class Leadership(Protocol):
    """The right to be the master."""

    def acquire(self) -> None:
        """Take it, or raise NotLeading at once."""
        ...

    def resign(self) -> None:
        """Give it back; harmless when it was never taken."""
        ...
