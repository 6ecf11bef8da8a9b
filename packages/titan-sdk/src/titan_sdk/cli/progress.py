"""How a run goes, on stderr: one block that is redrawn on a terminal, else one line per change.

Never both: what is piped or written to a file has no cursor to move.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from titan_proto.errors import TitanError
from titan_proto.messages import JobChange, JobView
from titan_proto.states import JOB_TERMINAL, ExitReason, JobState
from titan_sdk.cli.context import has_animation, has_color, is_unicode, say
from titan_sdk.cli.render import Look, asks, duration, first_line
from titan_sdk.cli.sanitize import clean
from titan_sdk.cli.stalls import explained
from titan_sdk.reasons import how_ended, never_started

if TYPE_CHECKING:
    from titan_sdk.client import TitanClient

_LINES_MAX: Final = 24
_LAST_WORDS_S: Final = 2.0
"""How long, once a run is over, its last changes may take to be shown."""
_WAITING: Final = frozenset({JobState.QUEUED, JobState.BLOCKED, JobState.SCHEDULED})
_WORTH_A_LINE: Final = JOB_TERMINAL | {JobState.RUNNING, JobState.WAITING}


@contextlib.contextmanager
def shown(client: TitanClient, run_id: str, *, color: str, as_tree: bool = False) -> Iterator[None]:
    """Show how a run goes, from a thread of its own, while this one waits for the run's end."""
    progress = Progress(client.jobs(run_id), color=color, as_tree=as_tree)
    progress.start()
    watcher = threading.Thread(target=_watch, args=(client, run_id, progress), daemon=True)
    watcher.start()
    with explained(client, run_id, progress.explain):
        yield
    watcher.join(_LAST_WORDS_S)


def _watch(client: TitanClient, run_id: str, progress: Progress) -> None:
    try:
        for change in client.watch(run_id):
            progress.take(change)
    except TitanError:
        return  # what is wrong is told by whoever waits


class Progress:
    """What is known of each job of one run."""

    def __init__(
        self, jobs: Iterable[JobView], *, color: str = "auto", as_tree: bool = False
    ) -> None:
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        self._look = Look(
            symbols=is_unicode(encoding), color=has_color(color, terminal=sys.stderr.isatty())
        )
        jobs = list(jobs)
        self._names = {job.job_id: job.job_id for job in jobs}
        if as_tree:
            self._names = tree_of(jobs, symbols=self._look.symbols)
            place = {name: number for number, name in enumerate(self._names)}
            jobs.sort(key=lambda job: place[job.job_id])
        self._alias = jobs[0].run_alias if jobs else ""
        self._states = {job.job_id: job.state for job in jobs}
        self._jobs: dict[str, JobChange | None] = dict.fromkeys(self._states)
        self._started: dict[str, int] = {}
        self._width = max(map(len, self._names.values()), default=0)
        self._drawn: list[str] = []
        self._why: dict[str, str] = {}
        self._lock = threading.Lock()  # what changes and why nothing does come from two threads
        self._animated = has_animation() and 0 < len(self._jobs) <= _LINES_MAX

    def take(self, change: JobChange) -> None:
        """Show what has changed."""
        if not change.job_id:
            return
        with self._lock:
            self._take(change)

    def explain(self, job: JobView, why: str) -> None:
        """Show what a job waits for, until it changes."""
        if job.job_id not in self._jobs:
            return
        with self._lock:
            self._why = {job.job_id: why}
            if self._animated:
                self._draw()
            else:
                state = self._look.state(job.state)
                say(
                    f"  {self._names[job.job_id]:<{self._width}}  {state}{_pad(state)}  {clean(why)}"
                )

    def _take(self, change: JobChange) -> None:
        before = self._jobs.get(change.job_id)
        if before is not None and _same(before, change):
            return  # a watch that was begun anew tells the present again
        self._jobs[change.job_id] = change
        self._why.pop(change.job_id, None)
        if change.state is JobState.RUNNING:
            self._started[change.job_id] = change.at_ms
        if self._animated:
            self._draw()
        elif change.state in _WORTH_A_LINE:
            say(self._line(change.job_id, change))

    def start(self) -> None:
        """Draw the jobs that nothing is known of yet."""
        if self._animated:
            self._draw()

    def _draw(self) -> None:
        columns = shutil.get_terminal_size().columns
        lines = [self._line(job, change) for job, change in self._jobs.items()]
        if lines == self._drawn:
            return
        up = f"\x1b[{len(self._drawn)}F" if self._drawn else ""
        cut = [
            line if len(click.unstyle(line)) < columns else click.unstyle(line)[: columns - 1]
            for line in lines
        ]
        sys.stderr.write(up + "".join(f"\x1b[2K{line}\n" for line in cut))
        sys.stderr.flush()
        self._drawn = lines

    def _line(self, job: str, change: JobChange | None) -> str:
        why = [clean(self._why[job])] if job in self._why else []
        name = self._names.get(job, job)
        if change is None:
            state = self._look.state(self._states[job])
            return f"  {name:<{self._width}}  {state}{_pad(state)}  {'  '.join(why)}".rstrip()
        waits = change.state in _WAITING
        notes = [change.worker] if change.worker and not waits else []
        if change.state is JobState.WAITING:
            notes.append(asks(self._alias, job, change.message))
        if change.state in JOB_TERMINAL and job in self._started:
            notes.append(duration(max(0, change.at_ms - self._started[job]) / 1000))
        if change.port:
            notes.append(f"port {change.port}")
        ended = change.state in JOB_TERMINAL and change.reason is not ExitReason.UNKNOWN
        if ended and (change.state is JobState.FAILED or change.reason is not ExitReason.EXITED):
            # What kept it from starting may be a long sentence, and is said at the run's end, as are
            # the last words of a service.
            notes.append(first_line(clean(how_ended(change, brief=never_started(change)))))
        if change.attempt > 1:
            notes.append(f"attempt {change.attempt}")
        state = self._look.state(change.state)
        return f"  {name:<{self._width}}  {state}{_pad(state)}  {'  '.join(notes + why)}".rstrip()


def tree_of(jobs: Sequence[JobView], *, symbols: bool) -> dict[str, str]:
    """Each job's name with the branch it stands on, by id and in the order of the tree's lines.

    A job stands once, under the one of its parents that is furthest from a beginning.
    """
    known = {job.job_id: job for job in jobs}
    depths: dict[str, int] = {}
    below: dict[str, list[str]] = {"": []}
    for job in _parents_first(known):
        parents = [name for name in job.dependencies if name in known]
        under = max(parents, key=lambda name: depths[name], default="")
        depths[job.job_id] = depths[under] + 1 if under else 0
        below.setdefault(under, []).append(job.job_id)
    end, middle, through = ("└─ ", "├─ ", "│  ") if symbols else ("`- ", "|- ", "|  ")
    names: dict[str, str] = {}
    todo = [(name, "", "") for name in reversed(below[""])]
    while todo:
        name, branch, lead = todo.pop()
        names[name] = branch + name
        children = below.get(name, ())
        for place, child in enumerate(reversed(children)):
            is_last = place == 0
            todo.append(
                (child, lead + (end if is_last else middle), lead + ("   " if is_last else through))
            )
    return names


def _parents_first(jobs: Mapping[str, JobView]) -> Iterator[JobView]:
    """Every job after all that it depends on, else in their own order."""
    left = {name: {one for one in job.dependencies if one in jobs} for name, job in jobs.items()}
    children: dict[str, list[str]] = {}
    for name, parents in left.items():
        for parent in parents:
            children.setdefault(parent, []).append(name)
    ready = deque(name for name, parents in left.items() if not parents)
    while ready:
        name = ready.popleft()
        yield jobs[name]
        for child in children.get(name, ()):
            left[child].discard(name)
            if not left[child]:
                ready.append(child)


def _pad(state: str) -> str:
    return " " * max(0, 11 - len(click.unstyle(state)))


def _same(one: JobChange, other: JobChange) -> bool:
    return (one.state, one.attempt, one.worker) == (other.state, other.attempt, other.worker)
