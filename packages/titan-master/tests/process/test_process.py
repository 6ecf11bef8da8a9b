"""The master as a process: how it starts, what it leaves where, how it ends, with which code."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys

import pytest

from titan_proto.io.address import find_master, find_token, parse_address
from titan_proto.io.blocking import BlockingLink
from titan_proto.messages import GetStats, Role

READY = re.compile(r"titan-master ready on (\S+)\n")


class Process:
    """``python -m titan_master``, and what it says."""

    def __init__(self, folder, *arguments):
        self.state = folder / "state"
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("TITAN_")},
            "PYTHONPATH": os.pathsep.join(sys.path),
            "XDG_STATE_HOME": str(self.state),
        }
        words = arguments or ("start", "--listen", "127.0.0.1:0")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "titan_master", *words],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said = ""

    def until_ready(self):
        """Its address, once it listens."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            found = READY.match(line)
            if found:
                return parse_address(found.group(1))
        pytest.fail(f"the master did not come up: {self.said}")

    def end(self, number=signal.SIGTERM):
        """Its exit code, after a signal (0: it ends by itself)."""
        if number:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        self.said += err
        assert out == "", "nothing belongs on the standard output of a daemon"
        return self.process.returncode


@pytest.fixture
def start(tmp_path):
    made = []

    def make(*arguments):
        made.append(Process(tmp_path, *arguments))
        return made[-1]

    yield make
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def test_it_starts_is_found_and_ends_without_a_trace(start, tmp_path):
    """Clients of this account find address and token; after SIGTERM both ways are gone."""
    master = start()
    address = master.until_ready()
    first = master.said.splitlines()[0]
    assert f"data {tmp_path}/.titan" in first
    assert f"perm_files {tmp_path}/.titan/perm_files" in first
    assert "listen 127.0.0.1:0" in first

    token_file = tmp_path / ".titan" / "token"
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / ".titan").stat().st_mode) == 0o700
    assert find_master(None, {}, tmp_path) == address
    environment = {"XDG_STATE_HOME": str(master.state), "HOME": str(tmp_path)}
    token = find_token(address, environment, pathlib.Path("/"))
    assert token == token_file.read_text().strip()
    with BlockingLink.connect(address, token, role=Role.CLIENT, software="t", timeout_s=10) as link:
        assert link.call(GetStats(), timeout_s=10).term == 1

    assert master.end() == 0
    assert sorted(path.name for path in (tmp_path / ".titan").iterdir()) == [
        "artifacts", "reserve", "titan.sqlite", "titan.sqlite.mark", "token",
    ]  # fmt: skip
    assert list((master.state / "titan").iterdir()) == []


def test_the_token_stays_and_the_term_grows_over_restarts(start, tmp_path):
    """However it ended."""
    tokens = set()
    for term, number in enumerate((signal.SIGINT, signal.SIGKILL, signal.SIGTERM), 1):
        master = start()
        address = master.until_ready()
        tokens.add(token := (tmp_path / ".titan" / "token").read_text())
        with BlockingLink.connect(
            address, token, role=Role.VIEWER, software="t", timeout_s=10
        ) as link:
            assert link.welcome.term == term
        assert master.end(number) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert len(tokens) == 1


def test_a_second_master_on_the_same_data_ends_at_once(start):
    """75, and who has it; the first one goes on."""
    first = start()
    first.until_ready()
    second = start()
    assert second.end(0) == os.EX_TEMPFAIL
    assert str(first.process.pid) in second.said
    assert first.process.poll() is None


def test_a_port_that_is_taken_is_said(start, tmp_path):
    """75, with what to do; and nothing has been written: no folder, no token, no new term."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        master = start("--listen", f"127.0.0.1:{port}")
        assert master.end(0) == os.EX_TEMPFAIL
    assert "--listen" in master.said
    assert not (tmp_path / ".titan").exists()


def test_a_taken_port_costs_a_master_that_was_here_before_nothing(start, tmp_path):
    """Its journal has no start that never was."""
    first = start()
    first.until_ready()
    first.end()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert start("--listen", f"127.0.0.1:{port}").end(0) == os.EX_TEMPFAIL
    again = start()
    address = again.until_ready()
    token = (tmp_path / ".titan" / "token").read_text()
    with BlockingLink.connect(address, token, role=Role.VIEWER, software="t", timeout_s=10) as link:
        assert link.welcome.term == 2


def test_a_second_master_on_the_same_port_and_data_is_told_who_has_them(start):
    """What a person does who has forgotten that it runs."""
    first = start()
    port = first.until_ready().port
    second = start("--listen", f"127.0.0.1:{port}")
    assert second.end(0) == os.EX_TEMPFAIL
    assert str(first.process.pid) in second.said


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:9090", "example.org:9090"])
def test_an_address_that_others_can_reach_must_be_spelled_out(start, tmp_path, listen):
    """78, with the two commands that help; nothing is made before."""
    master = start("start", "--listen", listen)
    assert master.end(0) == os.EX_CONFIG
    assert "titan-master start --listen 127.0.0.1:" in master.said
    assert "--insecure" in master.said
    assert not (tmp_path / ".titan").exists()


def test_with_insecure_it_listens_everywhere(start, tmp_path):
    """And tells clients of this machine the loopback address."""
    master = start("--listen", "0.0.0.0:0", "--insecure")
    port = master.until_ready().port
    assert (tmp_path / ".titan" / "address").read_text() == f"127.0.0.1:{port}\n"
    assert master.end() == 0


def test_without_a_token_link_nothing_is_written_outside(start, tmp_path):
    """The data folder is all there is."""
    master = start("--no-token-link", "--listen", "127.0.0.1:0", "--data", "elsewhere")
    master.until_ready()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere"]
    assert master.end() == 0


def test_perm_files_are_those_beside_where_it_is_started(start, tmp_path):
    """Else those in the data folder."""
    (tmp_path / "perm_files").mkdir()
    master = start()
    master.until_ready()
    assert f"perm_files {tmp_path}/perm_files," in master.said
    assert master.end() == 0


def test_a_damaged_journal_ends_it_with_the_last_good_record(start, tmp_path):
    """65, and the file is left as it is."""
    master = start()
    master.until_ready()
    master.end()
    place = tmp_path / ".titan" / "titan.sqlite"
    with contextlib.closing(sqlite3.connect(place)) as connection:
        connection.execute("UPDATE journal SET body = x'00' WHERE seq = 2")
        connection.commit()
    before = place.read_bytes()
    master = start()
    assert master.end(0) == os.EX_DATAERR
    assert "last good record is 1" in master.said
    assert place.read_bytes() == before


def test_a_loss_is_accepted_by_a_person_who_names_the_record(start, tmp_path):
    """The refusal says how; another number is refused; then it starts, and says what is lost."""
    for _ in range(2):
        master = start()
        master.until_ready()
        master.end()
    place = tmp_path / ".titan" / "titan.sqlite"
    with contextlib.closing(sqlite3.connect(place)) as connection:
        connection.execute("UPDATE journal SET body = x'00' WHERE seq = 3")
        connection.commit()
    before = place.read_bytes()
    master = start()
    assert master.end(0) == os.EX_DATAERR
    assert "--accept-loss 2" in master.said
    master = start("start", "--listen", "127.0.0.1:0", "--accept-loss", "1")
    assert master.end(0) == os.EX_DATAERR
    assert "the last good record is 2, not 1" in master.said
    assert place.read_bytes() == before
    master = start("start", "--listen", "127.0.0.1:0", "--accept-loss", "2")
    master.until_ready()
    (aside,) = (tmp_path / ".titan").glob("damaged-*")
    assert "went back to record 2: 1 records are lost" in master.said
    assert str(aside) in master.said
    assert (aside / "titan.sqlite").read_bytes() == before
    assert master.end() == 0
    master = start("start", "--listen", "127.0.0.1:0", "--accept-loss", "2")
    assert master.end(0) == os.EX_DATAERR
    assert "sound" in master.said


@pytest.mark.parametrize("name", ["lock", "artifacts", "address"])
def test_what_cannot_be_written_is_said(start, tmp_path, name):
    """74, with the path, and no traceback."""
    place = tmp_path / ".titan" / name
    place.parent.mkdir()
    if name == "artifacts":
        place.write_text("in the way")
    else:
        (place / "in the way").mkdir(parents=True)
    master = start()
    assert master.end(0) == os.EX_IOERR
    assert name in master.said
    assert "Traceback" not in master.said


def test_a_token_that_others_may_read_is_refused(start, tmp_path):
    """78, and the command that mends it."""
    (tmp_path / ".titan").mkdir()
    token = tmp_path / ".titan" / "token"
    token.write_text("titan_local_x_" + "0" * 64)
    token.chmod(0o644)
    master = start()
    assert master.end(0) == os.EX_CONFIG
    assert f"chmod 600 {token}" in master.said


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("start", "--no-such-flag"), os.EX_USAGE),
        (("start", "--lost-after", "soon"), os.EX_CONFIG),
        (("start", "--lost-after", "0s"), os.EX_CONFIG),
        (("start", "--listen", "127.0.0.1:x"), os.EX_CONFIG),
        (("start", "--keep-journal", "10000h"), os.EX_CONFIG),
        (("start", "--accept-loss", "-1"), os.EX_USAGE),
    ],
)
def test_flags_that_make_no_sense(start, arguments, code):
    """With a line that says what was expected, and no traceback."""
    master = start(*arguments)
    assert master.end(0) == code
    assert "Traceback" not in master.said
    assert len(master.said) > 20
