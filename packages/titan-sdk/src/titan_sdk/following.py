"""Several logs at once, line by line, for as long as a run lives.

Decides how the lines of jobs that run side by side are told apart. Reads over the client, one
thread per log that is followed, at most a few; holds no more than a few lines of each.
Called by `Run.logs` and by `titan run --follow` and `titan logs -f`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from titan_proto.errors import TitanError
from titan_proto.messages import JobView
from titan_proto.specs import JobKind
from titan_proto.states import JOB_TERMINAL, JobState
from titan_sdk.loglines import Line, Wanted, chosen, text_of, whole_lines

if TYPE_CHECKING:
    from titan_sdk.client import TitanClient

FOLLOWED_MAX: Final = 8
"""Logs of tasks followed at once; further ones are read when one of these has ended."""
_WAITING_PIECES: Final = 256
_LAST_WORDS_S: Final = 0.3
"""How long, once a run is over, more is taken of the logs of services that go on."""


class _Started(NamedTuple):
    """A job has a log now (again, if it runs under a new number)."""

    job: str
    attempt: int


class _Ended(NamedTuple):
    """A follower has nothing more to say."""

    started: _Started
    error: TitanError | None = None


class _RunOver(NamedTuple):
    error: TitanError | None = None


_Item = Line | _Ended | _Started | _RunOver


ALL: Final = Wanted()
"""Of a log, everything."""


def logs_so_far(client: TitanClient, run: str, job: str | None, wanted: Wanted = ALL) -> str:
    """The text of one job's log, or of all of them in the order of the submission."""
    many = job is None and client.view(run).jobs > 1
    if many:
        return "".join(
            f"{line.job} | {text_of(line.data)}\n"
            for line in lines_so_far(client, run, None, wanted)
        )
    lines = lines_so_far(client, run, job, wanted)
    return b"".join(line.data for line in lines).decode("utf-8", "replace")


def lines_so_far(
    client: TitanClient, run: str, job: str | None, wanted: Wanted = ALL
) -> Iterator[Line]:
    """The lines of one job's log, or of all of them in the order of the submission."""
    views = client.jobs(run) if job is None else [client.job(job, run=run)]
    for view in views:
        if view.attempt:
            yield from job_lines(client, view, wanted)


def job_lines(client: TitanClient, view: JobView, wanted: Wanted = ALL) -> Iterator[Line]:
    """The lines of a job that has run, as they are by now."""
    pieces = client.log_pieces(view, wanted)
    return chosen(whole_lines(view.job_id, pieces), wanted, live=False)


def follow_lines(
    client: TitanClient, run: str, job: str | None, wanted: Wanted = ALL
) -> Iterator[Line]:
    """Lines as they come, to the end of the job or the run."""
    if job is not None:
        return follow_job(client, run, job, wanted)
    return follow_run(client, run, wanted)


def follow_job(client: TitanClient, run: str, job: str, wanted: Wanted = ALL) -> Iterator[Line]:
    """One job's lines as they come, to the end of its attempt."""
    pieces = client.read_log(
        run,
        job,
        attempt=wanted.attempt,
        stream=wanted.stream,
        follow=True,
        tail_lines=wanted.lines,
        since_ms=wanted.since_ms,
    )
    return chosen(whole_lines(job, pieces), wanted, live=True)


def follow_run(
    client: TitanClient,
    run: str,
    wanted: Wanted = ALL,
    *,
    stay: bool = False,
    on_gate: Callable[[str, str], None] | None = None,
) -> Iterator[Line]:
    """The lines of every job, as they come, until the run is over and all has been said.

    A service that is up when the run is over goes on, and so does its log: it is left then, or,
    with `stay`, followed to the service's own end. `on_gate` is told of each gate that opens (its
    job's id, its question), from another thread: a run that waits for a person prints nothing.
    """
    services = {view.job_id for view in client.jobs(run) if view.kind is JobKind.SERVICE}
    items: queue.Queue[_Item] = queue.Queue(_WAITING_PIECES)
    stopped = threading.Event()
    crew = _Crew(client, run, wanted, items, stopped, on_gate)
    crew.start(crew.watch)
    waiting: deque[_Started] = deque()
    followed: set[_Started] = set()
    tasks = 0
    over = False
    try:
        while not (over and not waiting and not (followed if stay else tasks)):
            # A service does not end, and must not keep the tasks behind it from being read.
            while waiting and (tasks < FOLLOWED_MAX or waiting[0].job in services):
                started = waiting.popleft()
                followed.add(started)
                tasks += started.job not in services
                crew.follow(started)
            item = items.get()
            if isinstance(item, Line):
                yield item
            elif isinstance(item, _Started):
                waiting.append(item)
            elif isinstance(item, _Ended):
                followed.discard(item.started)
                tasks -= item.started.job not in services
                _raise(item.error)
            elif isinstance(item, _RunOver):
                over = True
                _raise(item.error)
        if followed:
            yield from _last_words(items)
    finally:
        stopped.set()


def _last_words(items: queue.Queue[_Item]) -> Iterator[Line]:
    """What services said before the run was over and is still on its way."""
    deadline = time.monotonic() + _LAST_WORDS_S
    while (left := deadline - time.monotonic()) > 0:
        try:
            item = items.get(timeout=left)
        except queue.Empty:
            return
        if isinstance(item, Line):
            yield item


class _Crew:
    """The threads behind `follow_run`. They end with the process if nobody listens any more."""

    def __init__(
        self,
        client: TitanClient,
        run: str,
        wanted: Wanted,
        items: queue.Queue[_Item],
        stopped: threading.Event,
        on_gate: Callable[[str, str], None] | None,
    ) -> None:
        self._client = client
        self._run = run
        self._wanted = wanted
        self._items = items
        self._stopped = stopped
        self._on_gate = on_gate

    def start(self, work: object, *given: object) -> None:
        """Run `work` in a thread that keeps nobody from leaving."""
        threading.Thread(target=work, args=given, daemon=True).start()  # type: ignore[arg-type]

    def follow(self, started: _Started) -> None:
        self.start(self._follow, started)

    def watch(self) -> None:
        """Say which jobs get a log, and when the run is over."""
        seen: set[_Started] = set()
        opened: set[str] = set()
        try:
            for change in self._client.watch(self._run):
                if change.state is JobState.WAITING and change.job_id not in opened:
                    opened.add(change.job_id)
                    if self._on_gate is not None:
                        self._on_gate(change.job_id, change.message)
                has_log = change.state is JobState.RUNNING or change.state in JOB_TERMINAL
                started = _Started(change.job_id, change.attempt)
                if change.job_id and has_log and change.attempt and started not in seen:
                    seen.add(started)
                    if not self._put(started):
                        return
            self._put(_RunOver())
        except TitanError as error:
            self._put(_RunOver(error))

    def _follow(self, started: _Started) -> None:
        try:
            wanted = replace(self._wanted, attempt=started.attempt)
            lines = follow_job(self._client, self._run, started.job, wanted)
            for line in lines:
                if not self._put(line):
                    return
            self._put(_Ended(started))
        except TitanError as error:
            self._put(_Ended(started, error))

    def _put(self, item: _Item) -> bool:
        """Hand it over; False once nobody listens."""
        while not self._stopped.is_set():
            try:
                self._items.put(item, timeout=0.5)
            except queue.Full:
                continue
            return True
        return False


def _raise(error: TitanError | None) -> None:
    if error is not None:
        raise error
