"""What a state needs of the artifacts: everything that a live run or a wanted service names."""

from __future__ import annotations

import typing

import msgspec
from core_world import World, job, run
from msgspec.structs import replace

from titan_master.core import state as states
from titan_master.core.pins import noted, pinned
from titan_proto.messages import RemoveSchedule
from titan_proto.messages.worker import Left
from titan_proto.specs import ArtifactRef, Launch, LaunchKind

KNOWN = {
    "Job.spec",  # its launch's artifact; of an instance it is its service's
    "Job.left",
    "Run.workspace",
    "Service.spec",
    "Service.workspace",
    "Service.layers",
    "Service.intake",
    "Schedule.run",
}
"""Fields that `pinned` looks at."""
NAMES_NONE = {
    "Attempt.resolved",
}
"""Fields whose type could hold one, and that hold none which is not there too."""


def ref(name):
    return ArtifactRef(digest=name * 64, size_bytes=1)


def may_name(kind, seen=()):
    """Whether a type is, or holds, what names artifacts; bytes may be anything."""
    if kind in (ArtifactRef, Left, bytes):
        return True
    if kind in seen:
        return False
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind.__module__ == states.__name__:
            return False  # looked at by itself
        hints = typing.get_type_hints(kind).values()
        return any(may_name(hint, (*seen, kind)) for hint in hints)
    return any(may_name(part, seen) for part in typing.get_args(kind))


def test_every_place_that_may_name_an_artifact_is_known():
    found = {
        f"{kind.__name__}.{name}"
        for kind in vars(states).values()
        if isinstance(kind, type)
        and issubclass(kind, msgspec.Struct)
        and kind.__module__ == states.__name__
        for name, hint in typing.get_type_hints(kind).items()
        if may_name(hint)
    }
    assert found - KNOWN - NAMES_NONE == set(), (
        "teach core/pins.py what these name, or say that they do not"
    )
    assert found >= KNOWN, "the test finds nothing"


def test_what_a_live_run_names_is_needed_and_not_longer():
    w = World({"w1": 1})
    launch = Launch(kind=LaunchKind.SCRIPT, script="a.py", artifact=ref("b"))
    spec = run("etl", replace(job("a"), launch=launch), job("b", "a"))
    w.submit(replace(spec, workspace=ref("a")), run_id="r")
    assert pinned(w.state).artifacts == {"a" * 64, "b" * 64}
    w.report("w1", w.ended_report("r/a", left=Left(digest="c" * 64, size_bytes=1, shared=1)))
    assert pinned(w.state).lists == {"c" * 64}
    w.ended("r/b")
    assert pinned(w.state) == (frozenset(), frozenset())


def test_what_a_service_names_is_needed_as_long_as_it_is_wanted():
    w = World({"w1": 2})
    before = job("a")
    api = replace(
        job("api", "a", service=True),
        launch=Launch(kind=LaunchKind.SCRIPT, script="s.py", artifact=ref("b")),
    )
    w.submit(replace(run("web", before, api), workspace=ref("a")), run_id="r")
    w.report("w1", w.ended_report("r/a", left=Left(digest="c" * 64, size_bytes=1, shared=1)))
    w.running("r/api", healthy=True, port=4000)
    assert not w.state.runs
    assert pinned(w.state).artifacts == {"a" * 64, "b" * 64}
    assert pinned(w.state).lists == {"c" * 64}


def test_what_a_schedule_names_is_needed_between_its_runs():
    w = World({"w1": 1})
    launch = Launch(kind=LaunchKind.SCRIPT, script="a.py", artifact=ref("b"))
    spec = replace(run("s", replace(job("a"), launch=launch)), workspace=ref("a"))
    w.schedule("s", "@every 5s", spec=spec)
    assert not w.state.runs
    assert pinned(w.state).artifacts == {"a" * 64, "b" * 64}
    w.ask(RemoveSchedule(schedule="s"))
    assert pinned(w.state).artifacts == frozenset()


def test_what_schedules_name_is_read_from_what_was_noted_and_not_before():
    """Noting is for the loop: a thousand schedules may have a gigabyte to decode."""
    w = World({"w1": 1})
    launch = Launch(kind=LaunchKind.SCRIPT, script="a.py", artifact=ref("b"))
    w.schedule("s", "@every 5s", spec=run("s", replace(job("a"), launch=launch)))
    found = noted(w.state)
    assert found.known.artifacts == frozenset()
    assert found.runs == (w.state.schedules["s"].run,)
    w.ask(RemoveSchedule(schedule="s"))
    assert found.pins().artifacts == {"b" * 64}
