"""Run a recorded workflow's shape on a cluster, and compare it with an ideal schedule.

The trace is JSON: {"jobs": [{"id": ..., "runtime_s": ..., "parents": [...]}, ...]}. Each job becomes a
process that sleeps its recorded run time times a factor. Afterwards the program checks, from what the
cluster says, that each job ran once and after its parents, and compares the makespan with that of an
ideal greedy schedule: jobs in the order in which they become ready, on as many slots, no overhead.

    python replay.py trace.json --factor 0.01
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

from titan_sdk import Run, TitanClient, TitanError, TitanJob


class Task(NamedTuple):
    """A job of the trace, its run time already scaled."""

    id: str
    seconds: float
    parents: tuple[str, ...]


def read_trace(path: Path, factor: float) -> list[Task]:
    """The trace's jobs."""
    try:
        jobs = json.loads(path.read_text(encoding="utf-8"))["jobs"]
        return [Task(j["id"], j["runtime_s"] * factor, tuple(j["parents"])) for j in jobs]
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    except (ValueError, TypeError, KeyError) as error:
        sys.exit(f"{path} is no trace: {error!r}")


def ideal_makespan(tasks: list[Task], slots: int) -> float:
    """Seconds that a greedy schedule without any overhead needs on `slots` slots."""
    children: dict[str, list[Task]] = {}
    waiting = {task.id: len(task.parents) for task in tasks}
    for task in tasks:
        for parent in task.parents:
            children.setdefault(parent, []).append(task)
    ready = [(0.0, n, task) for n, task in enumerate(tasks) if not task.parents]
    heapq.heapify(ready)
    order = len(tasks)
    running: list[tuple[float, int, Task]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < slots:
            since, number, task = heapq.heappop(ready)
            heapq.heappush(running, (max(now, since) + task.seconds, number, task))
        now, _, done = heapq.heappop(running)
        for child in children.get(done.id, []):
            waiting[child.id] -= 1
            if waiting[child.id] == 0:
                order += 1
                heapq.heappush(ready, (now, order, child))
    return now


def bound(tasks: list[Task], slots: int) -> float:
    """What no schedule can beat: the critical path, or all work on all slots."""
    finish: dict[str, float] = {}
    by_id = {task.id: task for task in tasks}
    pending = list(by_id)
    while pending:
        task = by_id[pending[-1]]
        missing = [parent for parent in task.parents if parent not in finish]
        if missing:
            pending += missing
            continue
        pending.pop()
        finish[task.id] = task.seconds + max((finish[p] for p in task.parents), default=0.0)
    return max(*finish.values(), sum(task.seconds for task in tasks) / slots)


def submit(client: TitanClient, name: str, tasks: list[Task]) -> Run:
    """The trace as a run."""
    jobs = [
        TitanJob(id=t.id, command=["sleep", f"{t.seconds:.6f}"], dependencies=list(t.parents))
        for t in tasks
    ]
    return client.submit(name, jobs)


def faults(run: Run, tasks: list[Task]) -> list[str]:
    """Everything about the run that should not be: empty when each job ran once, in order."""
    views = {view.job_id: view for view in run.jobs()}
    found = []
    for task in tasks:
        view = views[task.id]
        if view.state != "SUCCEEDED":
            found.append(f"{task.id} is {view.state}")
        if view.attempt != 1:
            found.append(f"{task.id} needed {view.attempt} attempts")
        found += [
            f"{task.id} started before {parent} had ended"
            for parent in task.parents
            if view.started_at_ms < views[parent].ended_at_ms
        ]
    return found


def main() -> int:
    """Replay one trace on the cluster that is found as by `titan`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("trace", type=Path)
    parser.add_argument("--factor", type=float, default=0.01, help="of the recorded run times")
    parser.add_argument("--slots", type=int, help="of the ideal schedule; default: the cluster's")
    options = parser.parse_args()
    tasks = read_trace(options.trace, options.factor)
    client = TitanClient()
    up = sum(worker.slots for worker in client.stats().workers if worker.state == "ONLINE")
    if not up:
        sys.exit("no worker is up, so nothing would ever run")
    slots = options.slots or up
    begin = time.perf_counter()
    run = submit(client, options.trace.stem, tasks)
    state = run.wait()
    makespan = time.perf_counter() - begin
    wrong = faults(run, tasks)
    ideal = ideal_makespan(tasks, slots)
    print(f"run        {run.alias}: {state}, {len(tasks)} jobs on {slots} slots")
    print(f"makespan   {makespan:.3f} s")
    print(f"ideal      {ideal:.3f} s, {ideal / bound(tasks, slots):.2f} times the bound")
    print(f"ratio      {makespan / ideal:.3f}")
    for line in wrong:
        print(f"WRONG      {line}")
    return 0 if state == "SUCCEEDED" and not wrong else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TitanError as error:
        sys.exit(str(error))
