"""A steady load of small runs, handed in as users do: by the SDK, which draws a key for each.

Each job writes a line when it begins and one when it ends into one file that all share, so the file
tells who ran, how often and in what order. Nothing here knows what is killed meanwhile; what was
acknowledged is remembered for ``audit``.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from titan_proto.io.entropy import new_key
from titan_proto.messages import RunReceipt, SubmitRun
from titan_proto.specs import RunSpec
from titan_sdk import Run, TitanClient, TitanJob

ANSWER_S = 120.0
"""Nobody waits longer for anything: what takes longer is stuck."""
OUTSTANDING = 4
"""Runs of one submitter that are under way at a time."""

SHAPES: tuple[dict[str, tuple[str, ...]], ...] = (
    {"a": ()},
    {"a": (), "b": ("a",)},
    {"a": (), "b": (), "c": ("a", "b")},
    {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")},
)
"""Jobs and their parents."""


class Promise(NamedTuple):
    """A run that was acknowledged."""

    name: str
    run_id: str
    parents: dict[str, tuple[str, ...]]
    request: SubmitRun | None
    """What it was submitted with, where the key is known: to ask again."""


def job_line(marks: Path, seconds: float, *, helper: bool = False) -> str:
    """A shell line that leaves its two marks; with `helper` a child of it does the waiting."""
    who = '"$TITAN_RUN_ID $TITAN_JOB_ID $TITAN_ATTEMPT'
    wait = f"sleep {seconds:.2f} & wait" if helper else f"sleep {seconds:.2f}"
    return f'echo {who} begin" >> "{marks}"; {wait}; echo {who} end" >> "{marks}"'


class Load:
    """Some threads that submit, each with a client of its own."""

    def __init__(
        self, client: Callable[[], TitanClient], marks: Path, *, seed: int, submitters: int = 3
    ) -> None:
        self.marks = marks
        self._client = client
        self._news = threading.Condition()
        self._is_open = True
        self._is_over = False
        self._busy = submitters
        self._promises: list[Promise] = []
        self.failure: BaseException | None = None
        self._threads = [
            threading.Thread(
                target=self._work, args=(number, random.Random(f"{seed}/{number}")), daemon=True
            )
            for number in range(submitters)
        ]

    def start(self) -> None:
        """Begin to submit."""
        for thread in self._threads:
            thread.start()

    def go_on(self, seconds: float) -> None:
        """Let it work for a while; fails at once when a submitter has failed."""
        with self._news:
            self._news.wait_for(lambda: self.failure is not None, seconds)
        self._raise()

    def drain(self) -> list[Promise]:
        """Submit nothing more; what was acknowledged since the last time, all of it ended."""
        with self._news:
            self._is_open = False
            done = self._news.wait_for(
                lambda: self._busy == 0 or self.failure is not None, 2 * ANSWER_S
            )
            self._raise()
            assert done, "stuck: runs that were acknowledged do not end"
            found, self._promises = self._promises, []
        return found

    def resume(self) -> None:
        """Go on after `drain`."""
        with self._news:
            self._is_open = True
            self._busy = len(self._threads)
            self._news.notify_all()

    def finish(self) -> None:
        """End the threads, after `drain`."""
        with self._news:
            self._is_over = True
            self._news.notify_all()
        for thread in self._threads:
            thread.join(ANSWER_S)

    def _raise(self) -> None:
        if self.failure is not None:
            raise AssertionError("a client of the load failed") from self.failure

    def _work(self, number: int, dice: random.Random) -> None:
        try:
            with self._client() as client:
                serial = 0
                while self._wait_open():
                    serial = self._burst(client, f"load-{number}", serial, dice)
                    with self._news:
                        self._busy -= 1
                        self._news.notify_all()
        except Exception as error:  # outermost  # noqa: BLE001 - kept for whoever waits
            with self._news:
                self.failure = error
                self._news.notify_all()

    def _wait_open(self) -> bool:
        with self._news:
            self._news.wait_for(lambda: self._is_open or self._is_over)
            return not self._is_over

    def _burst(self, client: TitanClient, name: str, serial: int, dice: random.Random) -> int:
        """Submit until it is closed, then wait for everything."""
        under_way: deque[Run] = deque()
        while self._is_open:
            serial += 1
            under_way.append(self._submit(client, f"{name}-{serial}", dice))
            if len(under_way) >= OUTSTANDING:
                under_way.popleft().wait(timeout=ANSWER_S)
        for run in under_way:
            run.wait(timeout=ANSWER_S)
        return serial

    def _submit(self, client: TitanClient, name: str, dice: random.Random) -> Run:
        shape = dice.choice(SHAPES)
        jobs = [
            TitanJob(
                id=job,
                run=job_line(self.marks, dice.uniform(0, 0.3), helper=dice.random() < 0.2),
                dependencies=list(parents),
            )
            for job, parents in shape.items()
        ]
        if dice.random() < 0.7:
            run = client.submit(name, jobs)
            promise = Promise(name, run.id, shape, None)
        else:
            # As the client does it, but with a key that is known here.
            spec = RunSpec(name=name, jobs=tuple(job.spec for job in jobs))
            request = SubmitRun(key=new_key(), spec=spec)
            receipt = self._ask_twice(client, request)
            run = Run(client, receipt.run_id, receipt.alias)
            promise = Promise(name, run.id, shape, request)
        with self._news:
            self._promises.append(promise)
        return run

    @staticmethod
    def _ask_twice(client: TitanClient, request: SubmitRun) -> RunReceipt:
        first = client.ask(request)
        again = client.ask(request)
        if (again.run_id, again.known) != (first.run_id, True):
            raise AssertionError(f"one key, two runs: {first} and {again}")
        return first
