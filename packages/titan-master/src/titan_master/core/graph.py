"""The graph of a run: what a job's end opens, closes or cancels further down.

Pure questions about a run, answered without recursion; ``lifecycle`` turns the answers into events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from operator import itemgetter
from typing import Final, NamedTuple

from titan_master.core.state import Job, Run
from titan_proto import conditions
from titan_proto.specs import Trigger
from titan_proto.states import ExitReason, JobState

_VALUES_SHOWN: Final = 4
_VALUE_CHARS: Final = 80
WITHOUT_END: Final = 1 << 62
"""More characters than there are."""
_WORDS_CHARS: Final = 600
"""Of what is said of one job; there may be thousands with one condition."""
CONDITION_CHARS_LEAST: Final = 200
"""A condition counts as so many characters at least: reading what it names takes its time, too."""


class End(NamedTuple):
    """How a job ended, as far as those after it are concerned."""

    state: JobState
    reason: ExitReason

    @property
    def is_failure(self) -> bool:
        """Failed itself, or was skipped for a failure above it."""
        skipped_for_it = (JobState.SKIPPED, ExitReason.PARENT_FAILED)
        return self.state is JobState.FAILED or self == skipped_for_it


_PARENT_FAILED: Final = End(JobState.SKIPPED, ExitReason.PARENT_FAILED)
_PARENT_SKIPPED: Final = End(JobState.SKIPPED, ExitReason.PARENT_SKIPPED)
_TRIGGER_UNMET: Final = End(JobState.SKIPPED, ExitReason.TRIGGER_UNMET)
_WHEN_FALSE: Final = End(JobState.SKIPPED, ExitReason.WHEN_FALSE)
_BAD_WHEN: Final = End(JobState.FAILED, ExitReason.BAD_WHEN)
ENDED_LOOKED_THROUGH: Final = 100
"""So many jobs are looked through for what one below them waits for; further up, those are named themselves."""

CANCELLED: Final = End(JobState.CANCELLED, ExitReason.CANCELLED)


class Outcome(NamedTuple):
    """What follows from the end of some jobs."""

    opened: list[Job]
    """These begin; in submission order."""
    dropped: list[tuple[End, list[Job]]]
    """These end without an attempt; what is dropped for another's sake is not before that. In each group
    in submission order."""
    words: dict[int, str]
    """What there is to say of some of these, by index."""
    left: tuple[Job, ...] = ()
    """Nothing is in the way of these but their own conditions, which this had no room to decide: see
    `undecided`. In submission order."""
    chars: int = 0
    """Of the conditions that this decided."""


def unmet(run: Run, job: Job) -> Iterator[Job]:
    """What it waits for: its dependencies, and of those that ended early what still runs above them."""
    seen: set[str] = set()
    todo = [job]
    while todo:
        for name in todo.pop().spec.dependencies:
            parent = run.jobs[name]
            if parent.is_over or name in seen:
                continue
            seen.add(name)
            if parent.is_terminal and len(seen) < ENDED_LOOKED_THROUGH:
                todo.append(parent)
            else:
                yield parent


def decided_by(
    run: Run, ended: Iterable[Job], dropping: Iterable[Job] = (), *, chars: int = WITHOUT_END
) -> Outcome:
    """What is decided of the jobs further down, now that `ended` have ended; each is looked at once or
    twice for each of its dependencies that is over by this.

    Whatever needs the success of one that failed is dropped at once, though others of its dependencies run
    still. What comes after it goes on waiting for those: a job begins, and is decided about by what it may
    read, only once everything above it has ended.

    Args:
        run: theirs.
        ended: they are terminal.
        dropping: they are not yet: they are cancelled by this, and named among the dropped.
        chars: of conditions that are decided; others are left.
    """
    deciding = _Deciding(run, dict.fromkeys(_places(dropping), CANCELLED), chars)
    return deciding.follow(_places(ended))


def undecided(run: Run, jobs: Iterable[Job], *, chars: int = WITHOUT_END) -> Outcome:
    """What is decided of those of these jobs that wait for nothing: their own conditions stand in their
    way, for nobody has looked at them yet.

    Args:
        run: theirs.
        jobs: in submission order.
        chars: of conditions that are decided; others are left.
    """
    deciding = _Deciding(run, {}, chars)
    for job in jobs:
        if is_undecided(job):
            deciding.decide(job)
    return deciding.follow([])


def is_undecided(job: Job) -> bool:
    """Whether nothing is in its way but a condition of its own, which nobody has looked at yet."""
    return job.state is JobState.BLOCKED and not job.waiting


def _places(jobs: Iterable[Job]) -> list[int]:
    return [job.index for job in jobs]


class _Deciding:
    """One decision in the making: what follows from some ends, within a measure of conditions."""

    def __init__(self, run: Run, ends: dict[int, End], chars: int) -> None:
        self._run = run
        self._ends = ends
        """Of those that are dropped by this; found from the top down."""
        self._most_chars = chars
        self._chars = 0
        self._opened: dict[int, Job] = {}
        self._left: dict[int, Job] = {}
        self._words: dict[int, str] = {}
        self._known = list(ends)
        """Nobody has looked yet at what depends on these, whose ends are known."""

    def decide(self, job: Job) -> None:
        """Nothing is in its way but its trigger and its condition."""
        when = "" if job.shape is None else job.shape.when
        if when and self._chars >= self._most_chars:
            self._left[job.index] = job
            return
        self._chars += max(CONDITION_CHARS_LEAST, len(when)) if when else 0
        fate = verdict(self._run, job, self._ends, self._words)
        if fate is None:
            self._opened[job.index] = job
        else:
            self._ends[job.index] = fate
            self._known.append(job.index)

    def follow(self, ended: list[int]) -> Outcome:
        """Everything that follows, further down, too.

        Args:
            ended: jobs whose states say already how they have ended.
        """
        run, ends = self._run, self._ends
        less: dict[int, int] = {}
        """How many of a job's dependencies are over by this, and the state does not say it yet."""
        over: set[int] = set()
        """These are by now, and had ended before or are dropped by this."""
        known, closing = self._known, list[int]()
        known += ended
        # Whoever is dropped for one end alone is found before anything is over: what becomes of a job
        # must not hang on the order of the ends.
        while known or closing:
            if known:
                here = known.pop()
                self._drop_early(here)
                if run.order[here].waiting == less.get(here, 0) and here not in over:
                    over.add(here)
                    closing.append(here)
                continue
            here = closing.pop()
            is_applied = here not in ends and not run.order[here].waiting
            for index in run.children.get(here, ()):
                child = run.order[index]
                if not is_applied:
                    less[index] = less.get(index, 0) + 1
                if child.waiting > less.get(index, 0):
                    continue
                if index in ends or child.is_terminal:
                    if index not in over and child.reason is not ExitReason.TAKEN_OVER:
                        over.add(index)
                        closing.append(index)
                elif (
                    child.state is JobState.BLOCKED
                    and index not in self._opened
                    and index not in self._left
                ):
                    self.decide(child)
        dropped = [
            (end, [run.order[index] for index in sorted(index for index, _ in group)])
            for end, group in groupby(ends.items(), key=itemgetter(1))
        ]
        opened = [self._opened[index] for index in sorted(self._opened)]
        left = tuple(self._left[index] for index in sorted(self._left))
        return Outcome(opened, dropped, self._words, left, self._chars)

    def _drop_early(self, here: int) -> None:
        """Those after it that need its success, if it has none."""
        by = self._ends.get(here) or _end_of(self._run.order[here])
        if by.state is JobState.SUCCEEDED:
            return
        for index in self._run.children.get(here, ()):
            fate = _dropped_early(self._run.order[index], by)
            if fate is not None and index not in self._ends:
                self._ends[index] = fate
                self._known.append(index)


def _end_of(job: Job) -> End:
    return End(job.state, job.reason)


def _dropped_early(child: Job, by: End) -> End | None:
    """How it ends because of one dependency alone, which has not succeeded, whatever becomes of the others;
    None if it may begin.
    """
    if child.state is not JobState.BLOCKED or child.trigger not in (
        Trigger.ALL_SUCCEEDED,
        Trigger.NONE_FAILED,
    ):
        return None
    if by.state is JobState.CANCELLED:
        return CANCELLED
    # For one that was skipped though nothing failed it waits: another may fail yet, and which of the two
    # it ends for must not hang on which came first.
    return _PARENT_FAILED if by.is_failure else None


def verdict(run: Run, job: Job, ends: Mapping[int, End], words: dict[int, str]) -> End | None:
    """How it ends without an attempt, now that all its dependencies are over; None if it begins.

    Args:
        run: its run.
        job: it waits for nothing any more.
        ends: of dependencies of which the state does not say it yet, by index.
        words: where there is something to say of it, that is put there, by its index.
    """
    fate = _by_trigger(run, job, ends)
    if fate is None and job.shape is not None and job.shape.when:
        return _by_condition(run, job, job.shape.when, ends, words)
    return fate


def _by_condition(
    run: Run, job: Job, when: str, ends: Mapping[int, End], words: dict[int, str]
) -> End | None:
    seen: dict[str, str] = {}

    def read(name: conditions.Name) -> str:
        seen[str(name)] = value = _value(run, job, name, ends)
        return value

    try:
        if conditions.holds(conditions.parse(when), read):
            return None
    except conditions.Undecidable as error:
        words[job.index] = f"its when cannot be decided: {error}"[:_WORDS_CHARS]
        return _BAD_WHEN
    values = ", ".join(
        f"{name} is {value[:_VALUE_CHARS]!r}" for name, value in islice(seen.items(), _VALUES_SHOWN)
    )
    words[job.index] = f"{when}{f'; {values}' if values else ''}"[:_WORDS_CHARS]
    return _WHEN_FALSE


def _value(run: Run, job: Job, name: conditions.Name, ends: Mapping[int, End]) -> str:
    """What a name of a condition stands for. Raises Undecidable."""
    if name.source == "cell":
        return "" if job.shape is None else job.shape.cell[name.key]
    if name.source == "param":
        return run.params[name.key]
    source = run.jobs[name.job]
    end = ends.get(source.index) or _end_of(source)
    if name.source == "state":
        return end.state.value
    written = source.outputs or {}
    if name.key in written:
        return written[name.key]
    if end.state is not JobState.SUCCEEDED:
        raise conditions.Undecidable(f"{name} is not there, for {name.job} is {end.state}")
    raise conditions.Undecidable(f"{name} is not there: {name.job} did not write it")


def _by_trigger(run: Run, job: Job, ends: Mapping[int, End]) -> End | None:
    trigger = job.trigger
    if trigger in (Trigger.NONE_FAILED, Trigger.ALL_DONE):
        return None  # what could have been in the way has dropped it before
    if trigger is Trigger.ALL_SUCCEEDED and not ends and not run.counts.get(JobState.SKIPPED):
        return (
            None  # likewise, and nothing was skipped: the usual case, in which nobody is looked at
        )
    parents = [run.jobs[name] for name in job.spec.dependencies]
    known = [ends.get(parent.index) or _end_of(parent) for parent in parents]
    if trigger is Trigger.ANY_FAILED:
        return None if any(end.is_failure for end in known) else _TRIGGER_UNMET
    if trigger is Trigger.ALL_SUCCEEDED:
        is_skipped = any(end.state is JobState.SKIPPED for end in known)
        return _PARENT_SKIPPED if is_skipped else None
    if any(end.state is JobState.SUCCEEDED for end in known):
        return None
    if any(end.is_failure for end in known):
        return _PARENT_FAILED
    is_cancelled = any(end.state is JobState.CANCELLED for end in known)
    return CANCELLED if is_cancelled else _PARENT_SKIPPED
