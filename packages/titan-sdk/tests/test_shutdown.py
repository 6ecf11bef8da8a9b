"""`titan shutdown` and `client.shutdown`: what is asked, what is waited for, what is said."""

from __future__ import annotations

import json

import pytest

from titan_proto.errors import Conflict, ErrorCode, InvalidSpec, LimitExceeded, NotFound, Timeout
from titan_proto.limits import DRAIN_TIMEOUT_MS
from titan_proto.messages import (
    Error,
    GetStats,
    Role,
    ShutdownOrdered,
    ShutDownWorker,
    Stats,
    WorkerView,
)
from titan_proto.states import WorkerState
from titan_sdk import client as client_module
from titan_sdk.cli import main, render


@pytest.fixture
def run(capfdbinary):
    """Run a command in this process: (exit code, stdout, stderr)."""

    def call(*args):
        with pytest.raises(SystemExit) as left:
            main(list(args))
        out, err = capfdbinary.readouterr()
        return left.value.code, out.decode(), err.decode()

    return call


def worker(port=8080, host="vm", **changes):
    given = {"slots": 4, "used": 0, "skills": ("GENERAL",), "state": WorkerState.ONLINE, **changes}
    given = {"incarnation": 1, **given}
    return WorkerView(worker_id=f"w{port}{host}", host=host, port=port, **given)


def stats(*workers):
    counts = dict.fromkeys(
        ("runs_active", "queued", "blocked", "delayed", "running", "services"), 0
    )
    return Stats(
        cluster_id="c",
        cluster_name="titan",
        term=1,
        at_ms=1,
        started_at_ms=1,
        workers=workers,
        **counts,
    )


def told(master, *views):
    """Answer orders; to each look the next of `views`, and the last one for ever."""
    looks = list(views)
    master.answers[ShutDownWorker] = ShutdownOrdered(worker=worker(used=3, services=("r/api",)))
    master.answers[GetStats] = lambda _: looks.pop(0) if len(looks) > 1 else looks[0]


@pytest.mark.parametrize(
    ("options", "drain_ms"),
    [
        ((), None),
        (("--now",), 0),
        (("--drain-timeout", "10m"), 600_000),
        (("--drain-timeout", "1.5"), 1_500),
    ],
)
def test_a_worker_is_told_for_how_long(run, master, options, drain_ms):
    told(master, stats())
    code, out, err = run("shutdown", "8080", *options)
    assert (code, out, err) == (0, "", "Worker vm:8080 leaves; on it: 2 tasks, 1 service.\n")
    assert master.of(ShutDownWorker) == [ShutDownWorker(worker="8080", drain_ms=drain_ms)]
    assert master.of(GetStats) == []


def test_it_asks_to_be_an_administrator_and_only_then(master, client):
    told(master, stats())
    client.stats()
    client.shutdown("8080")
    assert master.roles == [Role.CLIENT, Role.ADMIN]


def test_it_waits_until_the_worker_is_gone(run, master):
    draining = stats(worker(state=WorkerState.DRAINING), worker(8081))
    told(master, draining, draining, stats(worker(8081)))
    code, out, _ = run("shutdown", "vm:8080", "--wait", "-o", "json")
    body = json.loads(out)
    assert (code, body["kind"], body["port"], body["hasLeft"]) == (0, "Worker", 8080, True)
    assert len(master.of(GetStats)) == 3
    assert len(master.of(ShutDownWorker)) == 1


def test_its_next_process_is_not_waited_for(client, master):
    told(master, stats(worker(incarnation=2)))
    assert client.shutdown("8080", wait=True).port == 8080


def test_an_order_that_shows_no_effect_is_given_again(client, master, monkeypatch):
    monkeypatch.setattr(client_module, "_ORDER_AGAIN_S", 0.0)
    told(master, stats(worker()), stats(worker()), stats())
    client.shutdown("8080", drain_timeout="5s", wait=True)
    again = ShutDownWorker(worker="w8080vm", drain_ms=5_000)
    assert master.of(ShutDownWorker)[1:] == [again, again]


def test_a_wait_may_have_an_end_and_a_loss_is_no_goodbye(client, master, run):
    told(master, stats(worker(state=WorkerState.DRAINING)))
    with pytest.raises(Timeout, match="DRAINING"):
        client.shutdown("8080", wait=True, timeout=0.1)
    code, _, err = run("shutdown", "8080", "--wait", "--timeout", "0.1")
    assert code == 6
    assert "has not left in time" in err
    told(master, stats(worker(state=WorkerState.LOST)))
    with pytest.raises(Conflict, match="lost before"):
        client.shutdown("8080", wait=True)


def test_an_ambiguous_port_is_7_with_both_names(run, master):
    names = "a:8080, b:8080"
    master.answers[ShutDownWorker] = Error(
        code=ErrorCode.CONFLICT,
        message=f"'8080' may be any of {names}: name one of them",
        details={"candidates": names},
    )
    code, _, err = run("shutdown", "8080")
    assert code == 7
    assert names in err
    assert "try:  titan shutdown a:8080" in err


def test_an_unknown_one_is_3_with_the_nearest(run, master, client):
    master.answers[ShutDownWorker] = Error(
        code=ErrorCode.NOT_FOUND, message="no worker is called '8088'; there are vm:8080"
    )
    master.answers[GetStats] = stats(worker())
    code, _, err = run("shutdown", "8088")
    assert code == 3
    assert "there are vm:8080; did you mean 8080?" in err
    with pytest.raises(NotFound):
        client.shutdown("8088")


def test_one_that_cannot_be_told_is_7_with_the_masters_words(run, master):
    master.answers[ShutDownWorker] = Error(code=ErrorCode.CONFLICT, message="it has no link")
    code, _, err = run("shutdown", "8080")
    assert code == 7
    assert "it has no link" in err


def test_options_that_contradict_each_other_are_refused(run, master):
    assert run("shutdown", "8080", "--now", "--drain-timeout", "5s")[0] == 2
    assert run("shutdown", "8080", "--timeout", "5s")[0] == 2
    assert master.requests == []


def test_a_drain_that_cannot_be_is_refused_before_anything_is_sent(client, master):
    with pytest.raises(InvalidSpec, match="drain_timeout"):
        client.shutdown("8080", drain_timeout="soon")
    with pytest.raises(LimitExceeded, match="DRAIN_TIMEOUT_MS"):
        client.shutdown("8080", drain_timeout=DRAIN_TIMEOUT_MS / 1000 + 1)
    assert master.requests == []


def test_stats_say_what_is_left_on_a_worker_that_drains():
    view = worker(state=WorkerState.DRAINING, used=2, services=("r/api",))
    assert render.worker_state(view) == "DRAINING, 1 task, 1 service left"
    assert render.worker_state(worker(state=WorkerState.DRAINING)) == "DRAINING"


def test_who_waits_for_a_master_that_is_stopped_is_told_once_and_goes_on(master, client, caplog):
    """Its last words are shown; what was asked is asked again when it is back."""
    goodbyes = iter([True, True])
    answer = stats()
    master.answers[GetStats] = lambda _: "goodbye" if next(goodbyes, False) else answer
    assert client.stats() == answer
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        (
            "the master said goodbye (SHUTTING_DOWN: it is being stopped); "
            "it is looked for again, for up to 5 s"
        )
    ]
