"""What an attempt left in its output file: read once, after a clean exit, and within bounds.

    titan_workspace/jobs/<run>/<job>.<n>/outputs    lines of key=value; there if the job wrote any

The job is told the path as ``$TITAN_OUTPUT`` and makes the file itself, by appending to it: most jobs leave
nothing, and then there is nothing to make or to read. What the job did with its folder meanwhile is not
trusted: no link is followed, nothing but an ordinary file is read, and never more than OUTPUT_FILE_BYTES.
Decides what a file says, not what becomes of the attempt. Called by the engine.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final, NamedTuple

from titan_proto.limits import OUTPUT_FILE_BYTES, OUTPUTS_PER_JOB
from titan_proto.outputs import KEY_RULE, complaint, is_key

# Looked for after every job: no pathlib.

NAME: Final = "outputs"
"""In the attempt's folder, beside its logs."""
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a pipe that the job put there would be waited for.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SHOWN_CHARS: Final = 60


class Found(NamedTuple):
    """What a job left."""

    outputs: dict[str, str]
    problem: str = ""
    """Why the file cannot be read, for people; then there are no outputs at all."""


NOTHING: Final = Found({})


def collect(attempt: str) -> Found:
    """The outputs in the folder of an attempt whose process has ended."""
    if not os.path.lexists(f"{attempt}/{NAME}"):
        return NOTHING
    try:
        raw = _read(attempt)
    except OSError as error:
        why = "it is a link" if error.errno == errno.ELOOP else error.strerror
        return Found({}, f"its $TITAN_OUTPUT cannot be read: {why}")
    if raw is None:
        return Found({}, "its $TITAN_OUTPUT is no ordinary file")
    if len(raw) > OUTPUT_FILE_BYTES:
        return Found(
            {}, f"its $TITAN_OUTPUT is larger than OUTPUT_FILE_BYTES ({OUTPUT_FILE_BYTES})"
        )
    return parse(raw)


def parse(raw: bytes) -> Found:
    """What the bytes of an output file say: the last line of a key counts, all or nothing."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad = raw.count(b"\n", 0, error.start) + 1
        return Found({}, f"line {bad} of its $TITAN_OUTPUT is not UTF-8 text")
    found: dict[str, str] = {}
    # Only a line feed ends a line: values may hold what Python also takes for one.
    for number, line in enumerate(text.split("\n"), 1):
        written = line.removesuffix("\r")
        if not written.strip() or written.startswith("#"):
            continue
        key, equals, value = written.partition("=")
        if not equals or not is_key(key):
            what = f"{key[:_SHOWN_CHARS]!r} cannot be a key ({KEY_RULE})"
            why = what if equals else f"{written[:_SHOWN_CHARS]!r} is not of the form key=value"
            return Found({}, f"line {number} of its $TITAN_OUTPUT: {why}")
        found[key] = value
        if len(found) > OUTPUTS_PER_JOB:
            break  # that is complained of below, and no more of it is kept
    problem = complaint(found)
    return Found({}, f"its $TITAN_OUTPUT cannot be taken: {problem}") if problem else Found(found)


def _read(attempt: str) -> bytes | None:
    """The file's bytes, one more than allowed at most; None if it is no ordinary file."""
    folder = os.open(attempt, _FOLDER)
    try:
        file = os.open(NAME, _FILE, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        parts: list[bytes] = []
        left = OUTPUT_FILE_BYTES + 1
        while left and (part := os.read(file, left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    finally:
        os.close(file)
