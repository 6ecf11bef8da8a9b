"""What must be true of everything that was acknowledged, whatever was killed meanwhile.

Takes what clients were told, what the master answers, what its journal says and what the jobs
themselves left behind; gives back every contradiction in words, sorted by what it would cost a user.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from tests.chaos.journal import Event, events
from tests.chaos.load import Promise
from tests.harness.cluster import Cluster
from titan_proto.messages import JobView, RunView
from titan_proto.states import JOB_TERMINAL, ExitReason, JobState, RunState
from titan_sdk import TitanClient

Key = tuple[str, str]
_QUARANTINE = (ExitReason.QUARANTINED, ExitReason.CRASH_LIMIT)


class Faults(Struct, kw_only=True):
    """What is wrong; nothing, if all four are empty."""

    lost: list[str] = []
    """Acknowledged, and not there, or there in another shape."""
    double: list[str] = []
    """Two runs for one submission, two results for one job, one attempt begun twice."""
    stuck: list[str] = []
    """Not terminal although everything has been done for it."""
    order: list[str] = []
    """Begun before what it waits for had succeeded."""

    def all(self) -> list[str]:
        """Every fault, with its kind in front."""
        kinds = {"lost": self.lost, "double": self.double, "stuck": self.stuck, "order": self.order}
        return [f"{kind}: {fault}" for kind, faults in kinds.items() for fault in faults]

    def add(self, other: Faults) -> None:
        """Take over another audit's."""
        self.lost += other.lost
        self.double += other.double
        self.stuck += other.stuck
        self.order += other.order


class Marks(Struct, kw_only=True):
    """What the jobs left behind: who began and ended, in order."""

    begun: dict[Key, list[int]]
    """Attempts of a job in the order in which they began."""
    begin_at: dict[tuple[str, str, int], int]
    end_at: dict[tuple[str, str, int], int]
    """Line numbers; of several, the first begin and the last end."""


def read_marks(path: Path) -> Marks:
    """The marks of all jobs. A line may be missing where its process was killed, never torn."""
    marks = Marks(begun=defaultdict(list), begin_at={}, end_at={})
    for number, line in enumerate(path.read_text().splitlines()):
        run_id, job_id, attempt, word = line.split()
        key = (run_id, job_id, int(attempt))
        if word == "begin":
            marks.begun[run_id, job_id].append(int(attempt))
            marks.begin_at.setdefault(key, number)
        else:
            marks.end_at[key] = number
    return marks


def check_views(promise: Promise, run: RunView, jobs: Sequence[JobView]) -> Faults:
    """The master's own answers about one run."""
    faults = Faults()
    who = f"{promise.name} ({promise.run_id})"
    if (run.name, sorted(job.job_id for job in jobs)) != (promise.name, sorted(promise.parents)):
        faults.lost.append(f"{who} is {run.name} with {[job.job_id for job in jobs]}")
    if run.state is RunState.ACTIVE:
        faults.stuck.append(f"{who} is still ACTIVE")
    for job in jobs:
        if job.state not in JOB_TERMINAL:
            faults.stuck.append(f"{who}/{job.job_id} is {job.state}")
        elif job.state is JobState.SUCCEEDED and job.attempt != job.lost + 1:
            faults.double.append(
                f"{who}/{job.job_id} took attempt {job.attempt} with {job.lost} lost"
            )
        elif job.state is not JobState.SUCCEEDED and not _is_quarantine(job, jobs):
            faults.lost.append(f"{who}/{job.job_id} is {job.state} {job.reason} {job.message}")
    return faults


def _is_quarantine(job: JobView, jobs: Sequence[JobView]) -> bool:
    """A job whose workers were killed three times over ends so, and its children are skipped."""
    if job.state is JobState.SKIPPED:
        return any(other.state is JobState.FAILED for other in jobs)
    return job.state is JobState.FAILED and job.reason in _QUARANTINE and job.lost >= 3


def check_marks(promise: Promise, jobs: Sequence[JobView], marks: Marks) -> Faults:
    """What the jobs of one run did, against what the master says they did."""
    faults = Faults()
    accepted = {job.job_id: job for job in jobs if job.state is JobState.SUCCEEDED}
    for job_id, parents in promise.parents.items():
        who = f"{promise.name} ({promise.run_id})/{job_id}"
        begun = marks.begun.get((promise.run_id, job_id), [])
        faults.double += [
            f"{who} began attempt {attempt} {times} times"
            for attempt, times in Counter(begun).items()
            if times > 1
        ]
        job = accepted.get(job_id)
        if job is None:
            continue
        if (promise.run_id, job_id, job.attempt) not in marks.end_at:
            faults.lost.append(f"{who} succeeded by attempt {job.attempt}, which did not finish")
        if any(attempt > job.attempt for attempt in begun):
            faults.double.append(f"{who} succeeded by attempt {job.attempt}, but began {begun}")
        first = min(marks.begin_at[promise.run_id, job_id, number] for number in begun)
        for parent in parents:
            end = _accepted_end(promise.run_id, accepted.get(parent), marks)
            if end is None or end > first:
                faults.order.append(f"{who} began before {parent} had succeeded")
    return faults


def _accepted_end(run_id: str, parent: JobView | None, marks: Marks) -> int | None:
    return None if parent is None else marks.end_at.get((run_id, parent.job_id, parent.attempt))


def check_journal(promises: Iterable[Promise], told: Iterable[Event]) -> Faults:
    """Exactly one acceptance of each run, one end of each job, one end of each attempt placed."""
    names: Counter[str] = Counter()
    ends: Counter[Key] = Counter()
    placed: Counter[tuple[str, str, int]] = Counter()
    attempts: Counter[tuple[str, str, int]] = Counter()
    results: Counter[Key] = Counter()
    for event in told:
        kind = event["type"]
        if kind == "RunAccepted":
            names[event["name"]] += 1
        elif kind == "JobEnded":
            ends[event["run_id"], event["job_id"]] += 1
        elif kind == "JobsDropped":
            ends.update((event["run_id"], job_id) for job_id in event["job_ids"])
        elif kind == "AttemptPlaced":
            placed[event["run_id"], event["job_id"], event["number"]] += 1
        elif kind == "AttemptEnded":
            attempts[event["run_id"], event["job_id"], event["number"]] += 1
            if event["reason"] != "LOST":
                results[event["run_id"], event["job_id"]] += 1
    faults = Faults()
    for promise in promises:
        if names[promise.name] != 1:
            which = faults.double if names[promise.name] else faults.lost
            which.append(f"{promise.name} was accepted {names[promise.name]} times")
        for job_id in promise.parents:
            key = (promise.run_id, job_id)
            if ends[key] != 1:
                (faults.double if ends[key] else faults.stuck).append(
                    f"{key} ended {ends[key]} times"
                )
            if results[key] > 1:
                faults.double.append(f"{key} has {results[key]} results")
    faults.double += [f"attempt {key} was placed {n} times" for key, n in placed.items() if n > 1]
    faults.double += [f"attempt {key} ended {n} times" for key, n in attempts.items() if n > 1]
    faults.stuck += [f"attempt {key} never ended" for key in placed if not attempts[key]]
    return faults


def faults_of(cluster: Cluster, client: TitanClient, promise: Promise, marks: Path) -> list[str]:
    """Everything that is wrong with one run that should be over."""
    jobs = client.jobs(promise.run_id)
    found = check_views(promise, client.view(promise.run_id), jobs)
    found.add(check_marks(promise, jobs, read_marks(marks)))
    found.add(check_journal([promise], (event for _, event in events(cluster.data))))
    return found.all()
