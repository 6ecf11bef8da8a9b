"""Identifiers: their shapes and the checks on them.

A run's id is 16 characters of lower-case base32, time-ordered, drawn in a shell (``io/entropy``).
Job ids are chosen by users and are safe folder names by their shape alone.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NewType

from msgspec import Struct

from titan_proto.limits import JOB_ID_CHARS, SLUG_CHARS

RunId = NewType("RunId", str)
JobId = NewType("JobId", str)
WorkerId = NewType("WorkerId", str)
Digest = NewType("Digest", str)
"""Lower-case hexadecimal SHA-256 of an artifact's bytes."""

JOB_ID_RULE: Final = (
    f"letters, digits, '_', '.', '-'; starts with a letter, a digit or '_'; "
    f"at most {JOB_ID_CHARS} characters; no '..'"
)

_JOB_ID = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{JOB_ID_CHARS - 1}}}\Z")
_RUN_ID = re.compile(r"[0-9a-z]{16}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_SLUG_GAP = re.compile(r"[^a-z0-9]+")


INSTANCE_MARK: Final = "~"
"""No job's own id has it."""


class AttemptRef(Struct, frozen=True, order=True, array_like=True):
    """Names one attempt: run, job, and the attempt's number (1, 2, 3 …).

    An array on the wire, because it is in every report: these three fields, for ever.
    """

    run_id: str
    job_id: str
    number: int

    def __str__(self) -> str:
        return f"{self.run_id}/{self.job_id}.{self.number}"


def made_id(at_ms: int, place: int, seed: str) -> str:
    """A run's id that is not drawn but follows from what it is for; sorts among those that are drawn.

    Args:
        at_ms: when.
        place: differs from that of every other one made in the same millisecond.
        seed: what it is for.
    """
    dice = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
    number = ((at_ms * 1_000 + place % 1_000) << _DICE_BITS) | (dice & ((1 << _DICE_BITS) - 1))
    return "".join(_DIGITS[number >> 5 * digit & 31] for digit in range(15, -1, -1))


_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_DICE_BITS: Final = 25


def is_job_id(text: str) -> bool:
    """Whether `text` may name a job, and so a folder."""
    return _JOB_ID.match(text) is not None and ".." not in text


def instance_id(job_id: str, number: int) -> str:
    """What the further instances of a service are called: the first one has the job's own id."""
    return f"{job_id}{INSTANCE_MARK}{number}"


def is_instance_id(text: str) -> bool:
    """Whether `text` may name what is executed: a job, or an instance of a service beside the first."""
    job_id, mark, number = text.partition(INSTANCE_MARK)
    is_number = number.isascii() and number.isdecimal() and number[:1] != "0" and len(number) <= 9
    return is_job_id(job_id) and (not mark or is_number)


def is_run_id(text: str) -> bool:
    """Whether `text` has the shape of a run's id."""
    return _RUN_ID.match(text) is not None


def is_digest(text: str) -> bool:
    """Whether `text` has the shape of an artifact's digest."""
    return _DIGEST.match(text) is not None


def slug(name: str) -> str:
    """The part of a run's alias before its number: ``Nightly-Data-Pipeline`` → ``nightly-data-pipeline``."""
    short = _SLUG_GAP.sub("-", name.lower()).strip("-")[:SLUG_CHARS].strip("-")
    return short or "run"
