"""Scenarios: stories that a reviewer can read, one per `*.txt` beside this file.

A line that begins with `> ` is something that happens; the indented lines below it are what the
core made of it: events as they are, effects behind an arrow. `pytest ... --rewrite` writes what it
makes of it now into the file; the change is then reviewed like any other.
"""

from __future__ import annotations

import pathlib
import re
import shlex

import pytest
from core_world import World, effects, events, gate, job, run

from titan_proto.messages import (
    CancelRun,
    DecideGate,
    ListGates,
    PauseSchedule,
    RemoveSchedule,
    StopService,
    TriggerSchedule,
    WaitRun,
    WatchRun,
)
from titan_proto.specs import Catchup, GateExpiry, Overlap
from titan_proto.states import ExitReason

HERE = pathlib.Path(__file__).parent
STORIES = sorted(HERE.glob("*.txt"))


class Teller:
    """One story: a world, and the words for what may happen in it."""

    def __init__(self):
        self.world = World()

    def tell(self, line):
        """Do what a line says; returns the turn."""
        word, *rest = shlex.split(line)
        options = dict(part.split("=", 1) for part in rest if re.match(r"[a-z_]+=", part))
        names = [part for part in rest if not re.match(r"[a-z_]+=", part)]
        return getattr(self, f"do_{word}")(line, names, options)

    def do_master(self, line, names, options):
        """`master starts`: the first line of every story; `master restarts [after=s]`: killed meanwhile."""
        self.world.now_ms += int(options.get("after", 0)) * 1_000
        return self.world.restart() if names == ["restarts"] else self.world.started

    def do_worker(self, line, names, options):
        """`worker w1 [slots= skills= start= boot= port= holds=run/job.n:STATE,...]`"""
        held = [one.split(":") for one in options.get("holds", "").split(",") if one]
        return self.world.join(
            names[0],
            slots=int(options["slots"]) if "slots" in options else None,
            skills=options["skills"].split(",") if "skills" in options else None,
            incarnation=int(options["start"]) if "start" in options else None,
            boot=options.get("boot"),
            port=int(options["port"]) if "port" in options else None,
            held=held,
        )

    def do_submit(self, line, names, options):
        """`submit name [key=] [id=]: job [after a b] [with key=value ...]; job ...`"""
        head, _, body = line.partition(":")
        _, name, *rest = head.split()
        given = dict(part.split("=") for part in rest)
        jobs = [self.job(part.split()) for part in body.split(";")]
        return self.world.submit(
            run(name, *jobs), key=given.get("key", ""), run_id=given.get("id", "")
        )

    def job(self, words):
        """`[gate] name [after x y] [with priority=9 ...]`"""
        parts = {"": [], "after": [], "with": []}
        current = ""
        for word in words:
            if word in parts:
                current = word
            else:
                parts[current].append(word)
        if parts[""][0] == "gate":
            given = dict(part.split("=") for part in parts["with"])
            return gate(
                parts[""][1],
                *parts["after"],
                message=given.get("message", ""),
                timeout_ms=int(given.get("timeout_ms", 0)),
                on_timeout=GateExpiry(given.get("on_timeout", "REJECT")),
            )
        options = {}
        for part in parts["with"]:
            key, value = part.split("=")
            options[key] = value.split(",") if key == "skills" else int(value)
        for key in ("service", "affinity"):
            options[key] = bool(options.get(key))
        return job(parts[""][0], *parts["after"], **options)

    def do_running(self, line, names, options):
        """`running run/job [healthy] [port=]`"""
        return self.world.running(
            names[0], healthy="healthy" in names, port=int(options.get("port", 0))
        )

    def do_ended(self, line, names, options):
        """`ended run/job [code=] [reason=] [by=worker]`"""
        report = self.world.ended_report(
            names[0], int(options.get("code", 0)), ExitReason(options.get("reason", "EXITED"))
        )
        return self.world.report(options.get("by") or self.world.worker_of(names[0]), report)

    def do_after(self, line, names, options):
        """`after 30 s`"""
        return self.world.advance(int(names[0]) * 1_000)

    def do_heartbeat(self, line, names, options):
        return self.world.heartbeat(*names, leaving="leaving" in options)

    def do_cut(self, line, names, options):
        return self.world.cut(names[0])

    def do_leave(self, line, names, options):
        return self.world.leave(names[0])

    def do_cancel(self, line, names, options):
        return self.world.ask(CancelRun(run=names[0]))

    def do_approve(self, line, names, options):
        """`approve run/gate by=ann [comment=]`"""
        return self.decide(names[0], True, options)

    def do_reject(self, line, names, options):
        return self.decide(names[0], False, options)

    def decide(self, name, approve, options):
        request = DecideGate(gate=name, approve=approve, comment=options.get("comment", ""))
        return self.world.ask(request, who=options["by"])

    def do_gates(self, line, names, options):
        return self.world.ask(ListGates())

    def do_schedule(self, line, names, options):
        """`schedule name cron [overlap= catchup= ...]`: one job, `a`"""
        known = {
            "overlap": Overlap,
            "catchup": Catchup,
            "pause_on_failure": lambda text: text == "yes",
        }
        policy = {key: known[key](value) for key, value in options.items()}
        return self.world.schedule(names[0], names[1], **policy)

    def do_finish(self, line, names, options):
        """`finish name [code=]`: the run of that schedule that goes on ends"""
        (run_id,) = self.world.state.schedules[names[0]].live
        return self.do_ended(line, [f"{run_id}/a"], options)

    def do_pause(self, line, names, options):
        return self.world.ask(PauseSchedule(schedule=names[0], why=options.get("why", "")))

    def do_resume(self, line, names, options):
        return self.world.ask(PauseSchedule(schedule=names[0], resume=True))

    def do_trigger(self, line, names, options):
        return self.world.ask(TriggerSchedule(key="key-t", schedule=names[0]), who=options["by"])

    def do_remove(self, line, names, options):
        return self.world.ask(RemoveSchedule(schedule=names[0]))

    def do_stop(self, line, names, options):
        return self.world.ask(StopService(service=names[0]))

    def do_wait(self, line, names, options):
        return self.world.ask(WaitRun(run=names[0]), link_id=5)

    def do_watch(self, line, names, options):
        return self.world.ask(WatchRun(run=names[0]), link_id=6)


def told(story):
    """The story as it goes now."""
    teller = Teller()
    lines = []
    for line in story.splitlines():
        if line.startswith("> "):
            turn = teller.tell(line[2:])
            lines.append(line)
            lines += [f"    {event}" for event in events(turn)]
            lines += [f"      -> {effect}" for effect in effects(turn)]
        elif not line.startswith("    "):
            lines.append(line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_story_goes_as_it_is_written(path, rewrite):
    written = path.read_text(encoding="utf-8")
    now = told(written)
    if rewrite:
        path.write_text(now, encoding="utf-8")
    else:
        assert now == written, f"{path.name} goes otherwise now; --rewrite accepts it"


def test_there_are_stories():
    assert len(STORIES) >= 8
