"""Why a run does not go on, said while somebody waits for it: once, and again when it is another why.

Decides when a run stands still: nothing of it runs, something of it waits, and from one look to the
next nothing has moved. Asks for the counts of the run at each look, for a job only when it stands.
Used by `titan run` and `titan retry` through `progress` and for what they follow.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from titan_proto.errors import TitanError
from titan_proto.messages import JobView, ListJobs
from titan_proto.states import JobState
from titan_sdk.reasons import why_not_started

if TYPE_CHECKING:
    from titan_sdk.client import TitanClient

LOOK_S: Final = 1.0
"""Two looks that find the same make a stall, so a reason comes after some 2 s."""
_MOVING: Final = frozenset({JobState.RUNNING, JobState.CANCELLING})
_WAITING: Final = (JobState.QUEUED, JobState.PLACED, JobState.SCHEDULED, JobState.BACKOFF)
"""The states that keep a run standing, those first that a person can do something about."""


@contextlib.contextmanager
def explained(
    client: TitanClient, run_id: str, tell: Callable[[JobView, str], None]
) -> Iterator[None]:
    """While inside, `tell` hears from another thread which job waits and for what."""
    over = threading.Event()
    threading.Thread(target=_look, args=(client, run_id, tell, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _look(
    client: TitanClient,
    run_id: str,
    tell: Callable[[JobView, str], None],
    over: threading.Event,
) -> None:
    before: dict[str, int] = {}
    said = ("", "")
    try:
        while not over.wait(LOOK_S):
            counts = client.view(run_id).counts
            if counts == before and _stands(counts):
                job = _first_waiting(client, run_id)
                reason = ("", "") if job is None else (job.job_id, _why(client, job))
                if job is not None and reason != said and not over.is_set():
                    tell(job, reason[1])
                    said = reason
            before = counts
    except TitanError:
        return  # what is wrong is told by whoever waits


def _stands(counts: dict[str, int]) -> bool:
    return not any(counts.get(state) for state in _MOVING) and any(
        counts.get(state) for state in _WAITING
    )


def _first_waiting(client: TitanClient, run_id: str) -> JobView | None:
    """The job to speak of, as it stands now; of a large run only the first page is looked at."""
    jobs = client.ask(ListJobs(run=run_id)).jobs
    found = next((job for state in _WAITING for job in jobs if job.state is state), None)
    return None if found is None else client.job(found.job_id, run=run_id)


def _why(client: TitanClient, job: JobView) -> str:
    if job.state is JobState.QUEUED and job.message:
        return job.message
    return why_not_started(job, client.stats()).removeprefix(f"{job.state}, ")
