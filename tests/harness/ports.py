"""Ports that documents name, of which a machine has one each: whoever needs them takes turns."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from tests.harness.waiting import wait_until

TURN_S = 300.0
"""How long the others may take, who run these tests from another checkout."""
# A name without a file, free again with the process that holds it.
_NAME = "\0titan-tests-ports-of-documents"


@contextlib.contextmanager
def documented_ports() -> Iterator[None]:
    """While it lasts, no other test of this machine that asks for them uses 8080 and 9090."""
    with socket.socket(socket.AF_UNIX) as mine:

        def is_ours() -> bool:
            try:
                mine.bind(_NAME)
            except OSError:
                return False
            return True

        wait_until(is_ours, within_s=TURN_S, what="other tests give up the documents' ports")
        yield
