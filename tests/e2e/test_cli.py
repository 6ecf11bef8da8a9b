"""`titan` as a person at a terminal and a program in a pipe meet it, on a real cluster."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Titan
from tests.harness.cluster import Cluster, Daemon
from tests.harness.processes import processes_of
from tests.harness.waiting import wait_until

SERVICE = """\
name: Web
jobs:
  - {id: prep, run: echo prepared}
  - id: web
    type: SERVICE
    port: auto
    run: echo listening; exec python3 -m http.server $PORT > /dev/null 2>&1
    dependencies: [prep]
"""


class Terminal:
    """A command on a terminal of its own: stdin, stdout and stderr are the same pty."""

    def __init__(self, *words: str, cwd: Path, env: dict[str, str], columns: int = 100) -> None:
        ours, theirs = pty.openpty()
        self._ours = ours
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "titan_sdk", *words],
            cwd=cwd,
            env={**env, "TERM": "xterm", "COLUMNS": str(columns)},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def read_until(self, pattern: str) -> str:
        """Read on until the text has it; fails when the command ends first."""
        while not re.search(pattern, self.text):
            more = self._read()
            assert more, f"ended without {pattern!r}: {self.text!r}"
        return self.text

    def end(self) -> int:
        """Read to the end; the exit code."""
        while self._read():
            pass
        os.close(self._ours)
        return self.process.wait(20)

    def _read(self) -> str:
        try:
            more = os.read(self._ours, 65536).decode("utf-8", "replace")
        except OSError:  # on Linux: nobody has the other side open any more
            return ""
        self.text += more
        return more


class Project:
    """A folder in which `titan up` is used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("TITAN_")}
        self.env |= {"XDG_STATE_HOME": str(folder.parent / "state"), "HOME": str(folder.parent)}

    def titan(self, *words: str, code: int = 0, at: str = ".") -> subprocess.CompletedProcess[str]:
        """Run `titan` in the folder, or in one below it."""
        done = subprocess.run(
            [sys.executable, "-m", "titan_sdk", *words],
            cwd=self.folder / at,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done
        return done

    def pid(self, role: str) -> int:
        """Of the first process of this role."""
        members = json.loads((self.folder / ".titan" / "up.json").read_text())["members"]
        return int(next(member["pid"] for member in members if member["role"] == role))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """An empty folder; whatever is up in it afterwards is taken down."""
    folder = tmp_path / "project"
    (folder / "below" / "here").mkdir(parents=True)
    made = Project(folder)
    try:
        yield made
    finally:
        made.titan("down")
    assert processes_of(folder) == []


# -- titan up ---------------------------------------------------------------------------------------


def test_up_twice_and_from_below_is_the_same_cluster(project: Project) -> None:
    """The second time says what is up, where, and starts nothing, from any folder below too."""
    up = ("up", "-d", "--port", "0", "--no-dashboard")
    project.titan(*up)
    assert (project.folder / ".titan").stat().st_mode & 0o077 == 0  # as a master makes it
    first = project.pid("master")
    for at in (".", "below/here"):
        said = project.titan(*up, at=at).stderr
        assert re.search(
            rf"^Already up: master 127\.0\.0\.1:\d+, worker \[8080\], data in {project.folder}/\.titan$",
            said,
            re.MULTILINE,
        )
        assert project.pid("master") == first
    assert list((project.folder / "below" / "here").iterdir()) == []
    assert "Stopped worker-8080, master." in project.titan("down", at="below/here").stderr
    assert "Nothing is up" in project.titan("down").stderr


def test_a_master_that_was_killed_comes_back_to_its_workers(project: Project) -> None:
    """`titan up` again: the worker that was not killed goes on under it, whatever --port is now."""
    project.titan("up", "-d", "--port", "0", "--no-dashboard")
    worker = project.pid("worker")
    address = (project.folder / ".titan" / "address").read_text()
    os.kill(project.pid("master"), signal.SIGKILL)
    project.titan("up", "-d", "--no-dashboard")
    assert (project.folder / ".titan" / "address").read_text() == address
    assert project.pid("worker") == worker
    (project.folder / "hello.py").write_text("print('hello')\n")
    project.titan("run", "hello.py", "--wait", "--timeout", "20s")


def test_up_beside_a_master_of_the_folder_says_that_it_is_up(project: Project) -> None:
    """Started by hand, whatever its port: exit 7, and how to see it and stop it; both work."""
    master = Daemon(
        [sys.executable, "-m", "titan_master", "start", "--listen", "127.0.0.1:0"],
        ready=re.compile(r"ready on (\S+)"),
        log=project.folder / "log",
        env=project.env,
        cwd=project.folder,
    )
    try:
        master.wait_ready()
        said = project.titan("up", "-d", "--no-dashboard", code=7).stderr
        assert "it is up already" in said
        assert "--port" not in said
        see = re.search(r"titan (--master \S+ stats) ", said)
        assert see is not None
        assert "Active Workers:" in project.titan(*see[1].split()).stdout
        assert f"kill {master.process.pid}\n" in said
    finally:
        assert master.stop() == 0
    assert not (project.folder / ".titan" / "up.json").exists()


def test_what_up_advises_works_from_where_it_was_typed(project: Project) -> None:
    """A second cluster beside the folder's own: its hints name it, and reach it."""
    project.titan("up", "-d", "--port", "0", "--no-dashboard")
    own = project.titan("up", "-d", "--no-dashboard").stderr
    assert "Try:  titan stats     Stop it:  titan down\n" in own
    second = ("up", "-d", "--data", "c2", "--port", "0", "--no-dashboard", "--workers", "0")
    hint = re.search(r"Try:  titan (.*?)     Stop it:  titan (.*)\n", project.titan(*second).stderr)
    assert hint is not None
    assert "Active Workers:    0" in project.titan(*hint[1].split()).stdout
    assert "Active Workers:    1" in project.titan("stats").stdout
    assert "Stopped master." in project.titan(*hint[2].split()).stderr
    assert "Active Workers:    1" in project.titan("stats").stdout


def test_up_says_what_it_was_asked_in_vain(project: Project) -> None:
    """What is up stays as it is; who wants it otherwise hears it."""
    project.titan("up", "-d", "--port", "0", "--no-dashboard", "--slots", "3")
    said = project.titan("up", "-d", "--port", "9", "--slots", "2", "--skill", "GPU").stderr
    assert "up already: --port 9, --slots 2, --skill GPU. " in said
    again = project.titan("up", "-d", "--slots", "3", "--skill", "GENERAL", "--workers", "2").stderr
    assert "apply" not in again
    assert "worker [8080], [8081]" in again


def test_up_and_down_tell_programs_what_they_did(project: Project) -> None:
    """The row of each kind, field for field; TITAN_FORMAT does it too."""
    up = ("up", "-d", "--port", "0", "--no-dashboard", "--workers", "2", "-o", "json")
    first, second = (json.loads(project.titan(*up).stdout) for _ in range(2))
    address = (project.folder / ".titan" / "address").read_text().strip()
    assert first == {
        "apiVersion": "titan/v1",
        "kind": "Cluster",
        "address": address,
        "data": str(project.folder / ".titan"),
        "workers": ["8080", "8081"],
        "dashboard": None,
        "alreadyUp": False,
    }
    assert second == {**first, "alreadyUp": True}
    assert fields_of("Cluster") <= first.keys()
    project.env["TITAN_FORMAT"] = "json"
    down = json.loads(project.titan("down", "--purge", "--yes").stdout)
    assert down == {
        "apiVersion": "titan/v1",
        "kind": "ClusterStopped",
        "data": str(project.folder / ".titan"),
        "stopped": ["worker-8080", "worker-8081", "master"],
        "purged": True,
    }
    assert fields_of("ClusterStopped") <= down.keys()


def test_a_service_has_its_name_again_after_all_workers_went_down(project: Project) -> None:
    """No other instance is begun on a worker that goes a moment later."""
    up = ("up", "-d", "--port", "0", "--no-dashboard", "--workers", "3")
    project.titan(*up)
    (project.folder / "web.yaml").write_text(SERVICE, encoding="utf-8")
    project.titan("run", "web.yaml", "--wait")
    project.titan("down")
    project.titan(*up)

    def ids() -> list[tuple[str, str]]:
        items = json.loads(project.titan("service", "ls", "-o", "json").stdout)["items"]
        return [(one["job"], one["state"]) for one in items]

    wait_until(lambda: ids() == [("web", "HEALTHY")], within_s=45, what="it is up again")


def fields_of(kind: str) -> set[str]:
    """What the reference lists for a kind that has no table of its own."""
    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{kind}` \| (.*) \|$", text, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row))


def test_the_daemons_commands_stand_under_titan(tmp_path: Path) -> None:
    """`titan master start` and `titan worker start` are those of the packages, where installed."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("TITAN_")}
    env["XDG_STATE_HOME"] = str(tmp_path / "state")

    def start(ready: str, *words: str) -> Daemon:
        return Daemon(
            [sys.executable, "-m", "titan_sdk", *words],
            ready=re.compile(ready),
            log=tmp_path / f"{words[0]}.log",
            env=env,
            cwd=tmp_path,
        )

    master = start(r"titan-master ready on \S+:(\d+)", "master", "start", "--listen", "127.0.0.1:0")
    try:
        port = master.wait_ready().group(1)
        worker = start("titan-worker ready", "worker", "start", "8099", "127.0.0.1", port)
        try:
            worker.wait_ready()
        finally:
            assert worker.stop() == 0
    finally:
        assert master.stop() == 0


# -- what people see --------------------------------------------------------------------------------


def test_follow_ends_with_the_run_and_logs_f_with_the_service(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """A service goes on after its run: `run --follow` leaves it, `logs -f` stays with it."""
    cluster.start_worker()
    (tmp_path / "here" / "web.yaml").write_text(SERVICE)
    done = titan("run", "web.yaml", "--follow")
    assert sorted(done.stdout.splitlines()) == ["prep | prepared", "web | listening"]
    alias = done.stderr.splitlines()[0]
    assert f"Run {alias} SUCCEEDED" in done.stderr
    with cluster.client() as client:
        assert list(client.run(alias).logs(follow=True)) != []
    following = Terminal("logs", "-f", alias, cwd=tmp_path, env=cluster.client_env())
    following.read_until("web | listening")
    assert "Service:" in titan("show", f"{alias}/web").stdout
    assert titan("show", "Web/web").stdout.startswith("SERVICE")
    one = json.loads(titan("logs", alias, "-o", "json").stdout)
    assert [(item["job"], item["text"]) for item in one["items"]] == [
        ("prep", "prepared\n"),
        ("web", "listening\n"),
    ]
    titan("stop", "Web/web")
    assert following.end() == 0


def test_ctrl_c_detaches_and_the_run_goes_on(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """On a terminal, waiting or following: code 130, how to go on, and nothing is cancelled."""
    cluster.start_worker()
    (tmp_path / "slow.sh").write_text("echo begun\nexec sleep 60\n")
    for option in ("--wait", "--follow"):
        at = Terminal("run", "slow.sh", option, cwd=tmp_path, env=cluster.client_env())
        at.read_until("RUNNING" if option == "--wait" else "begun")
        os.killpg(at.process.pid, signal.SIGINT)
        assert at.end() == 130
        found = re.search(r"Detached\. Run (\S+) goes on\.", at.text)
        assert found, at.text
        assert "Traceback" not in at.text
        assert json.loads(titan("show", found.group(1), "-o", "json").stdout)["state"] == "ACTIVE"
        titan("cancel", found.group(1))


def test_what_a_job_prints_cannot_drive_the_terminal(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """Clean on a terminal, byte for byte in a pipe."""
    cluster.start_worker()
    (tmp_path / "here" / "ansi.py").write_text(
        r"print('\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b[2Jend')"
    )
    titan("run", "ansi.py", "--wait")
    assert titan("logs", "ansi").stdout == "\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b[2Jend\n"
    at = Terminal("logs", "ansi", cwd=tmp_path, env=cluster.client_env())
    assert at.end() == 0
    assert "\x1b" not in at.text
    assert "red end" in at.text


def test_colours_are_for_terminals_that_want_them(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """On a terminal, but not with NO_COLOR; narrow ones lose columns and are told which."""
    cluster.start_worker()
    (tmp_path / "here" / "hello.sh").write_text("echo hello\n")
    titan("run", "hello.sh", "--wait")
    assert "\x1b[" not in titan("ps", "-a").stdout
    env = cluster.client_env()
    for more, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        at = Terminal("ps", "-a", cwd=tmp_path, env={**env, **more})
        assert at.end() == 0
        assert ("\x1b[32m" in at.text) is coloured
    narrow = Terminal("ps", "-a", cwd=tmp_path, env=env, columns=30)
    assert narrow.end() == 0
    assert "(not shown for lack of width: SUBMITTED, NAME" in narrow.text


def test_a_pipe_that_closes_early_is_no_error(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """`titan … | head -1`, with more to print than a pipe holds."""
    cluster.start_worker()
    jobs = "".join(f"  - {{id: job-{n}, run: 'seq 3000'}}\n" for n in range(20))
    (tmp_path / "here" / "many.yaml").write_text(f"name: many\njobs:\n{jobs}")
    titan("run", "many.yaml", "--wait")
    for words in (
        "logs many-1",
        "logs -f many-1",
        "logs many-1/job-0",
        "logs many-1 -o json",
        "logs -f many-1 -o json",
        "show many-1",
        "ps many-1 -o json",
        "run many.yaml --follow",
    ):
        done = subprocess.run(
            ["bash", "-c", f"{sys.executable} -m titan_sdk {words} | head -c 10; exit $PIPESTATUS"],
            cwd=tmp_path / "here",
            env=cluster.client_env(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (words, done)
        assert len(done.stdout) == 10, (words, done)
        assert "Error" not in done.stderr, (words, done)
        assert "rror:" not in done.stderr, (words, done)


# -- what programs see ------------------------------------------------------------------------------


def test_json_is_one_value_that_says_what_it_is(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """Every command that prints data; what follows prints one value a line."""
    cluster.start_worker()
    here = tmp_path / "here"
    (here / "web.yaml").write_text(SERVICE)
    (here / "bad.yaml").write_text("name: bad\njobs: []\n")
    assert json.loads(titan("run", "web.yaml", "--wait", "-o", "json").stdout)["kind"] == "Run"
    for words, kind, code in (
        ("run web.yaml", "Run", 0),
        ("validate web.yaml", "ValidationList", 0),
        ("validate bad.yaml nothing.yaml", "ValidationList", 2),
        ("ps", "ProcessList", 0),
        ("ps -a", "ProcessList", 0),
        ("ps web-1", "JobList", 0),
        ("show web-1", "Run", 0),
        ("show web-1/prep", "Job", 0),
        ("show Web/web", "Service", 0),
        ("show 8080", "Worker", 0),
        ("stats", "Stats", 0),
        ("logs web-1", "LogList", 0),
        ("logs web-1/prep", "Log", 0),
        ("stop web-1/web", "Service", 0),
    ):
        value = json.loads(titan(*words.split(), "-o", "json", code=code).stdout)
        assert (value["kind"], value["apiVersion"]) == (kind, "titan/v1"), words
    for line in titan("logs", "-f", "web-1", "-o", "json").stdout.splitlines():
        assert json.loads(line)["kind"] == "LogLine"
    for words, code in (("show nothing", 3), ("cancel web-1", 7), ("nothing", 2)):
        done = titan(*words.split(), "-o", "json", code=code)
        assert done.stdout == ""
        assert json.loads(done.stderr)["error"]["exitCode"] == code


def test_exit_codes(cluster: Cluster, titan: Titan, tmp_path: Path) -> None:
    """The table of the documents, row by row, as a script sees it."""
    cluster.start_worker()
    here = tmp_path / "here"
    (here / "good.sh").write_text("true\n")
    (here / "bad.sh").write_text("exit 9\n")
    (here / "slow.sh").write_text("exec sleep 60\n")
    titan("run", "good.sh", "--wait", code=0)
    titan("run", "bad.sh", "--wait", code=1)
    titan("run", "bad.sh", "--follow", code=1)
    titan("run", "nothing.sh", code=2)
    titan("show", "nothing", code=3)
    wrong = {**cluster.client_env(), "TITAN_TOKEN": "titan_local_x_" + "0" * 64}
    refused = subprocess.run(
        [sys.executable, "-m", "titan_sdk", "stats"],
        env=wrong,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 4
    titan("--master", "127.0.0.1:1", "stats", code=5)
    alias = titan("run", "slow.sh").stdout.strip()
    titan("run", "slow.sh", "--wait", "--timeout", "200ms", code=6)
    waiting = Terminal("run", "slow.sh", "--wait", cwd=here, env=cluster.client_env())
    waiting.read_until("RUNNING")
    titan("cancel", "@last")
    assert waiting.end() == 8
    titan("cancel", "good-1", code=7)
    titan("cancel", alias)


def test_arguments_and_variables_reach_a_script(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """As they were typed, spaces and dashes and letters of any alphabet included."""
    cluster.start_worker()
    (tmp_path / "here" / "mein Skript ü.py").write_text(
        "import json, os, sys\nprint(json.dumps([sys.argv[1:], os.environ['STAGE']]))\n"
    )
    titan(
        *("run", "mein Skript ü.py", "--wait", "--env", "STAGE=a=b c"),
        *("one", "--", "-x", "--two", "drei ü", ""),
    )
    said = json.loads(titan("logs", "@last").stdout)
    assert said == [["one", "-x", "--two", "drei ü", ""], "a=b c"]
