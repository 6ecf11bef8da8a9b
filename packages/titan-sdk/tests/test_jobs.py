"""TitanJob: friendly values in, loud errors out."""

from __future__ import annotations

from pathlib import Path

import pytest

import titan_sdk
from titan_proto.specs import JobKind
from titan_sdk import InvalidSpec, TitanJob, TitanService


def test_the_manuals_job():
    job = TitanJob(id="TASK", filename="risky_script.py")
    assert (job.id, job.filename, job.script) == ("TASK", "risky_script.py", "risky_script.py")
    assert TitanJob("TASK", Path("risky_script.py")).spec == job.spec


def test_dependencies_may_be_jobs():
    first = TitanJob("A", run="a")
    assert TitanJob("B", run="b", dependencies=[first, "C"]).spec.dependencies == ("A", "C")


def test_a_service_is_a_job_of_that_type():
    service = TitanService("API", "server.py", port="auto", priority=9)
    assert (
        service.spec == TitanJob("API", "server.py", type="SERVICE", port="auto", priority=9).spec
    )
    assert service.spec.kind is JobKind.SERVICE


def test_all_bad_values_are_told_in_one_error():
    with pytest.raises(InvalidSpec) as raised:
        TitanJob(id="a/b", script="x", run="y", priority=99, port=1)
    assert {problem.where for problem in raised.value.problems} == {"id", "priority", "run", "port"}
    assert "job a/b" in str(raised.value)


def test_what_does_not_go_together_is_told_without_a_key_that_nobody_wrote():
    with pytest.raises(InvalidSpec, match=r"^job A: has nothing to execute \("):
        TitanJob(id="A")
    with pytest.raises(InvalidSpec, match=r"^job A: has run and command \(exactly one of them\)$"):
        TitanJob(id="A", run="x", command="y")


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"filename": "a", "script": "b"},
        {"run": ""},
        {"run": "a\0"},
        {"command": []},
        {"run": "a", "affinity": "true"},
        {"run": "a", "delay": -1},
        {"run": "a", "delay": float("nan")},
        {"run": "a", "env": {"A": None}},
        {"run": "a", "env": {"A=B": "c"}},
        {"run": "a", "dependencies": 7},
    ],
    ids=str,
)
def test_what_makes_no_job_is_refused(keys):
    with pytest.raises(InvalidSpec):
        TitanJob("A", **keys)


def test_the_public_names_are_there():
    for name in titan_sdk.__all__:
        assert getattr(titan_sdk, name) is not None
    assert set(titan_sdk.__all__) <= set(dir(titan_sdk))
    with pytest.raises(AttributeError):
        titan_sdk.TitanClinet  # noqa: B018


@pytest.mark.parametrize(
    "keys", [{"command": ["true"]}, {"filename": "a.py", "script": "a.py"}, {"run": "a", "port": 0}]
)
def test_no_id_stands_raw_in_an_error(keys):
    """Where an error goes, one line stays one line."""
    with pytest.raises(InvalidSpec) as refused:
        TitanJob(id="a\0b\nerror: all is well\x1b[2J", **keys)
    assert str(refused.value).isprintable()
    assert str(refused.value).startswith(r"job a\x00b\x0aerror: all is well\x1b[2J: ")
