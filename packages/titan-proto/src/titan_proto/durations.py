"""How long something is, as daemons' options say it: ``30s``, ``500ms``, ``2m``, ``1.5h``.

Reads text and decides nothing about what is too long. Called by the daemons' ``config``.
"""

from __future__ import annotations

import re
from typing import Final

from titan_proto.errors import TitanError

_DURATION: Final = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h)\Z")
_UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


class BadDuration(TitanError):
    """Text that says no length of time; the message says what to write instead."""


def parse_duration(text: str) -> int:
    """Milliseconds in ``30s``, ``500ms``, ``2m`` or ``1.5h``. Raises BadDuration."""
    match = _DURATION.match(text.strip())
    if match is None:
        raise BadDuration(f"{text!r} is no duration: write a number and ms, s, m or h, such as 30s")
    return int(float(match.group(1)) * _UNITS[match.group(2)])
