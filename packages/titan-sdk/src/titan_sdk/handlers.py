"""What is done after everything else: the jobs of `on_failure`, `on_success` and `always`.

Decides what such a job comes after, and with which trigger. Which jobs there are is said by
`pipeline`, which calls this; whether the graph is valid, by `titan_proto.validation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from titan_proto.specs import JobSpec, Shape, Trigger

HANDLERS: Final = {
    "on_failure": Trigger.ANY_FAILED,
    "on_success": Trigger.NONE_FAILED,
    "always": Trigger.ALL_DONE,
}
"""The keys of a pipeline, and the trigger of their jobs."""

GIVEN: Final = ("dependencies", "trigger")
"""Keys that such a job is given and does not say."""

_HANDS_ON: Final = (Trigger.ALL_SUCCEEDED, Trigger.NONE_FAILED)
"""What a failure above it fails, too: whoever looks at it need not look at what it depends on."""

_USUAL: Final = Shape()


def ends_of(jobs: Sequence[JobSpec], shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """The jobs after which all others are over, and of which one counts as failed if any of all did."""
    hands_on = [job for job in jobs if shapes.get(job.id, _USUAL).trigger in _HANDS_ON]
    covered = {parent for job in hands_on for parent in job.dependencies}
    ends = tuple(dict.fromkeys(job.id for job in jobs if job.id not in covered))
    # In a graph with a circle there may be none. It is refused for that, not for what follows from it.
    return ends or tuple(dict.fromkeys(job.id for job in jobs))
