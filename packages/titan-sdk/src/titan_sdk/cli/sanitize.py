"""Control sequences out of text that a terminal will show.

A job's output is hostile input: what it writes must not move the cursor, change the title, or
paste into the shell. Only what goes to a terminal passes here; files get every byte.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

# One sequence from ESC (or its 8-bit form) to its end; strings such as OSC end at BEL or ST.
_SEQUENCE: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-Z\\^-~]"
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_UNFINISHED: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*\Z"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*\x1b?\Z"
    r"|\x1b[ -/]*\Z"
)
_HELD_MAX: Final = 4096
"""A sequence that is still open after this many characters is none."""


class Cleaner:
    """Cleans a stream that comes in pieces cut anywhere."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, data: bytes) -> str:
        """What of the stream so far may be shown now."""
        return self._clean(self._held + self._decoder.decode(data))

    def finish(self) -> str:
        """The rest, once the stream has ended."""
        rest = self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        return clean(rest)

    def _clean(self, text: str) -> str:
        match = _UNFINISHED.search(text)
        cut = match.start() if match and len(text) - match.start() <= _HELD_MAX else len(text)
        if cut == len(text) and text.endswith("\r"):
            cut -= 1  # perhaps the first half of a line's end
        self._held = text[cut:]
        return clean(text[:cut])


def clean(text: str) -> str:
    """Text without control sequences; a bare carriage return becomes a line's end."""
    bare = _SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("", bare)
