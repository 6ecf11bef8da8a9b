"""Processes of a local cluster: known by more than their pid, stopped and nothing else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from titan_sdk import local
from titan_sdk.identity import ProcessIdentity, children, identify, is_alive, send
from titan_sdk.local import LocalCluster, LocalError, Member, holder_of

SLEEPER = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]


@pytest.fixture
def process():
    with subprocess.Popen(SLEEPER, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdout.readline() == b"up\n"
        yield one
        one.kill()


def test_a_process_is_its_pid_and_its_start(process):
    who = identify(process.pid)
    assert is_alive(who)
    assert who in children(identify(os.getpid()))
    # The same pid at another time is another process, and is left alone.
    other = ProcessIdentity(who.pid, "another boot/1")
    assert not is_alive(other)
    assert not send(other, signal.SIGKILL)
    assert process.poll() is None
    assert send(who, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert identify(process.pid) is None  # it has ended, though nobody has read how


def test_down_stops_what_up_started_and_nothing_else(tmp_path, process):
    cluster = LocalCluster(tmp_path)
    stranger = Member("worker", "worker-1", ProcessIdentity(os.getpid(), "another boot/1"))
    cluster.members = [Member("master", "master", identify(process.pid)), stranger]
    cluster._write()
    again = LocalCluster(tmp_path)
    assert [member.name for member in again.alive()] == ["master"]
    again._popen[process.pid] = process  # so that its end is read
    assert [member.name for member in again.stop()] == ["master"]
    assert process.poll() == -signal.SIGTERM
    assert LocalCluster(tmp_path).alive() == []


def test_nothing_to_stop_is_no_error(tmp_path):
    assert LocalCluster(tmp_path / "none").stop() == []
    assert not (tmp_path / "none").exists()


def test_two_at_once_are_refused(tmp_path):
    cluster = LocalCluster(tmp_path)
    with cluster._locked(), pytest.raises(LocalError, match="another titan up") as raised:
        LocalCluster(tmp_path).stop()
    assert raised.value.conflict


def test_a_port_that_is_held_names_its_holder(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        assert f"process {os.getpid()}" in holder_of(port)
        link = tmp_path / "state" / "titan" / f"127.0.0.1-{port}.token"
        link.parent.mkdir(parents=True)
        link.symlink_to(tmp_path / "elsewhere" / ".titan" / "token")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        assert holder_of(port) == f"the master of {tmp_path / 'elsewhere' / '.titan'}"
        with pytest.raises(LocalError, match=f"port {port} is taken by the master of") as raised:
            LocalCluster(tmp_path / "here")._refuse_taken_port(port)
    assert raised.value.conflict
    assert raised.value.hint == f"titan up --port {port + 1}"


def test_purge_deletes_only_a_data_folder(tmp_path):
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "thesis.tex").write_text("")
    with pytest.raises(LocalError, match="not a data folder"):
        LocalCluster(folder).purge()
    (folder / "token").write_text("")
    LocalCluster(folder).purge()
    assert not folder.exists()


def test_without_the_daemons_up_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(local.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LocalError, match="titan-master and titan-worker not installed"):
        LocalCluster(tmp_path).start(local.Plan())


def test_a_refused_port_leaves_no_folder_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_require_installed", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as held:
        plan = local.Plan(port=held.getsockname()[1])
        with pytest.raises(LocalError, match="is taken by"):
            LocalCluster(tmp_path / ".titan").start(plan)
    assert not (tmp_path / ".titan").exists()


def test_a_master_comes_back_where_its_workers_look_for_it(tmp_path, monkeypatch, process):
    cluster = LocalCluster(tmp_path)
    (tmp_path / "address").write_text("127.0.0.1:19999")
    started = []
    monkeypatch.setattr(cluster, "_spawn", lambda *given: started.append(given[-1]))
    monkeypatch.setattr(cluster, "_refuse_taken_port", lambda port: None)
    cluster._start_master(local.Plan(port=9090))
    (tmp_path / "address").write_text("127.0.0.1:19999")
    cluster.members = [Member("worker", "worker-8080", identify(process.pid))]
    cluster._start_master(local.Plan(port=9090))
    places = [arguments[arguments.index("--listen") + 1] for arguments in started]
    assert places == ["127.0.0.1:9090", "127.0.0.1:19999"]


def test_a_file_where_the_folder_should_be_is_nothing_that_is_up(tmp_path):
    (tmp_path / ".titan").write_text("")
    assert LocalCluster(tmp_path / ".titan").stop() == []


def test_a_damaged_memory_is_told(tmp_path):
    (tmp_path / "up.json").write_text("{")
    with pytest.raises(LocalError, match=r"up\.json cannot be read"):
        LocalCluster(tmp_path)
