"""Running an ended run again: which of its jobs run, and which are taken over as they ended.

Pure questions about a spec and how its jobs ended. What is taken over has succeeded, and so have all
that it depended on; what runs again takes everything with it that hangs on it. Called by
``history.py``, which knows ended runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from titan_proto.messages import RerunRun
from titan_proto.specs import RunSpec
from titan_proto.states import JobState


def rerun_digest(request: RerunRun) -> str:
    """What must be equal for the same key to mean the same repetition."""
    content = (request.run, request.failed, request.from_job)
    return hashlib.sha256(msgspec.msgpack.encode(content)).hexdigest()


class NothingToRerun(Exception):
    """The request fits no job; the text says why, for people."""


def taken_over(spec: RunSpec, ends: Mapping[str, JobState], request: RerunRun) -> tuple[str, ...]:
    """The jobs that do not run again, in the order of the submission. Raises NothingToRerun."""
    if request.from_job and request.from_job not in ends:
        raise NothingToRerun(f"it has no job {request.from_job!r}")
    if not request.failed and not request.from_job:
        return ()
    again = {job.id for job in spec.jobs if ends.get(job.id) is not JobState.SUCCEEDED}
    # What was skipped for its own condition alone is decided about again, and is no reason to run again.
    is_wanted = any(ends.get(name) is not JobState.SKIPPED for name in again)
    if request.from_job:
        again.add(request.from_job)
    again = _with_all_below(spec, again)
    if not is_wanted and not request.from_job:
        raise NothingToRerun("nothing of it failed: name one with --from, or leave --failed out")
    return tuple(job.id for job in spec.jobs if job.id not in again)


def _with_all_below(spec: RunSpec, tops: set[str]) -> set[str]:
    """These and what comes after them: some of that may have succeeded, after a failure too."""
    children: dict[str, list[str]] = {}
    for job in spec.jobs:
        for parent in job.dependencies:
            children.setdefault(parent, []).append(job.id)
    found = set(tops)
    todo = list(tops)
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in found:
                found.add(child)
                todo.append(child)
    return found
