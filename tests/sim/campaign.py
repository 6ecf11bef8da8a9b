"""Many seeds on several processes, their counts added up."""

from __future__ import annotations

import datetime
import gc
import logging
import multiprocessing
import pathlib
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from tests.sim.coverage import Coverage
from tests.sim.simulation import Failure, simulate

CHUNK = 10
FAILURES_SHOWN = 10


class Report(Struct, frozen=True, kw_only=True):
    """What a campaign came to, for whoever writes reports."""

    date: str
    first: int
    """The first seed; the others follow it."""
    seeds: int
    failed: tuple[int, ...]
    failures: tuple[str, ...]
    """How the first of them failed."""
    missing: tuple[str, ...]
    """What was never exercised."""
    steps: int
    seconds: float
    coverage: dict[str, dict[str, int]]


class Outcome(Struct, frozen=True):
    """What some seeds came to. Plain data: it crosses processes."""

    seeds: int
    steps: int
    failed: tuple[int, ...]
    failures: tuple[str, ...]
    """How each of those failed."""
    counts: dict[str, Counter[str]]


def run_seeds(seeds: Iterable[int]) -> Outcome:
    """Run these, one after the other."""
    coverage = Coverage()
    failed = []
    failures = []
    count = steps = 0
    for seed in seeds:
        count += 1
        try:
            result = simulate(seed)
        except Failure as failure:
            failed.append(seed)
            failures.append(str(failure))
            continue
        steps += result.steps
        coverage.add(result.counts)
    return Outcome(count, steps, tuple(failed), tuple(failures), coverage.counts)


def gather(first: int, count: int, *, processes: int) -> tuple[Outcome, Coverage]:
    """Run `count` seeds from `first` on."""
    last = first + count
    chunks = [range(at, min(at + CHUNK, last)) for at in range(first, last, CHUNK)]
    coverage = Coverage()
    failed: list[int] = []
    failures: list[str] = []
    seeds = steps = 0
    for outcome in _outcomes(chunks, processes):
        seeds += outcome.seeds
        steps += outcome.steps
        failed += outcome.failed
        failures += outcome.failures
        coverage.add(outcome.counts)
    outcome = Outcome(seeds, steps, tuple(failed), tuple(failures), coverage.counts)
    return outcome, coverage


def _outcomes(chunks: list[range], processes: int) -> Iterable[Outcome]:
    if processes <= 1 or len(chunks) <= 1:
        quieten()
        yield from map(run_seeds, chunks)
        return
    # Spawned, not forked: the parent may have threads, and every seed must run from a clean start.
    with multiprocessing.get_context("spawn").Pool(processes, _prepare) as pool:
        yield from pool.imap_unordered(run_seeds, chunks)
        pool.close()
        pool.join()


def quieten() -> None:
    """What the daemons log about planted trouble is no news here."""
    logging.getLogger("titan").addHandler(logging.NullHandler())


def _prepare() -> None:
    quieten()
    # What is imported stays: no need to look through it again and again.
    gc.freeze()


def campaign(
    first: int, count: int, *, processes: int, report_to: pathlib.Path | None = None
) -> int:
    """Run seeds, print the counts, write them down where that is wanted; the exit status."""
    began = time.monotonic()
    outcome, coverage = gather(first, count, processes=processes)
    lasted_s = time.monotonic() - began
    print(coverage.report())
    missing = coverage.missing()
    for name in missing:
        print(f"never exercised: {name}")
    for failure in outcome.failures[:FAILURES_SHOWN]:
        print(failure)
    print(
        f"seeds {first} to {first + count - 1}: {outcome.seeds - len(outcome.failures)} green, "
        f"{len(outcome.failures)} failed, {len(missing)} never exercised; "
        f"{outcome.steps} steps in {lasted_s:.1f} s, {outcome.seeds / lasted_s:.1f} seeds a second"
    )
    if report_to is not None:
        report = Report(
            date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            first=first,
            seeds=outcome.seeds,
            failed=tuple(sorted(outcome.failed)),
            failures=outcome.failures[:FAILURES_SHOWN],
            missing=tuple(missing),
            steps=outcome.steps,
            seconds=round(lasted_s, 1),
            coverage={
                group: dict(sorted(counts.items())) for group, counts in outcome.counts.items()
            },
        )
        report_to.parent.mkdir(parents=True, exist_ok=True)
        report_to.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    return 1 if outcome.failures or missing else 0


def replay(seed: int, *, tracing: bool) -> int:
    """Run one seed, perhaps aloud; the exit status."""
    quieten()
    try:
        result = simulate(seed, tracing=tracing)
    except Failure as failure:
        traceback.print_exception(failure, file=sys.stdout)
        return 1
    print(f"seed {seed}: {result.drawn}")
    print(f"green after {result.steps} steps and {result.lasted_ms / 1000:.1f} s of virtual time")
    print(f"digest {result.digest}")
    return 0
