"""How orders become processes, where a whole worker would be too much to ask."""

import socket
import subprocess
import sys

import pytest

from titan_proto.specs import JobKind, Launch, LaunchKind, ServiceSection
from titan_worker.host.base import SpawnError
from titan_worker.host.orphans import MARK
from titan_worker.launching import Launcher, Ports
from titan_worker.workspace import Folders


@pytest.fixture
def folders(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    return Folders(str(tmp_path), str(work), "out", "err", "/shared", f"{tmp_path}/outputs")


@pytest.fixture
def plan(folders, make_order):
    def make(launch, port=0, **environ):
        launcher = Launcher(environ=environ, worker="vm:1", home="/place/of/it")
        return launcher.plan(make_order("a", launch=launch), folders, port)

    return make


def handler(name, *args):
    return Launch(kind=LaunchKind.HANDLER, handler=name, args=args)


def test_a_handler_is_run_with_the_data_as_its_argument(folders, make_order, tmp_path):
    program = tmp_path / "convert.sh"
    program.write_text("")
    handlers = {"pdf": str(program)}
    launcher = Launcher(environ={}, worker="vm:1", home="/home", handlers=handlers)

    made = launcher.plan(make_order("a", launch=handler("pdf", "a b.pdf")), folders, 0)

    assert made.argv[1:] == (str(program), "a b.pdf")
    assert made.argv[0].endswith("sh")


def test_a_handler_that_this_worker_has_not_is_named(plan):
    with pytest.raises(SpawnError, match="no handler 'pdf'; start it with --handler pdf=PATH"):
        plan(handler("pdf"))


def test_a_handler_whose_program_is_gone_says_so(folders, make_order):
    launcher = Launcher(environ={}, worker="vm:1", home="/home", handlers={"pdf": "/gone.sh"})

    with pytest.raises(SpawnError, match=r"handler 'pdf' of this worker is gone: /gone\.sh"):
        launcher.plan(make_order("a", launch=handler("pdf")), folders, 0)


def script(name, **fields):
    return Launch(kind=LaunchKind.SCRIPT, script=name, **fields)


def test_a_jar_without_java_says_so(plan, tmp_path):
    (tmp_path / "work" / "a.jar").write_bytes(b"")

    with pytest.raises(SpawnError, match="needs java"):
        plan(script("a.jar"), PATH=str(tmp_path))


def test_a_jar_is_given_to_java(plan, tmp_path):
    (tmp_path / "work" / "a.jar").write_bytes(b"")
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\n")
    java.chmod(0o755)

    made = plan(script("a.jar", args=("-x",)), PATH=str(tmp_path))

    assert made.argv == (str(java), "-jar", f"{tmp_path}/work/a.jar", "-x")


def test_a_shell_script_without_bash_is_given_to_sh(plan, tmp_path):
    (tmp_path / "work" / "a.sh").write_text("")

    assert plan(script("a.sh"), PATH=str(tmp_path)).argv[0] == "/bin/sh"


def test_python_is_the_workers_own(plan, tmp_path):
    (tmp_path / "work" / "a.py").write_text("")

    assert plan(script("a.py")).program == sys.executable


def test_a_python_script_imports_from_the_root_of_its_project_and_then_where_it_says(
    plan, tmp_path
):
    work = tmp_path / "work"
    (work / "jobs").mkdir()
    (work / "jobs" / "main.py").write_text("from helper import SAID; print(SAID)")
    (work / "helper.py").write_text("SAID = 'from the root'")
    made = plan(script("jobs/main.py"))
    assert made.env["PYTHONPATH"] == str(work)
    said = subprocess.run(
        made.argv,
        env=made.env,
        cwd=made.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert said.stdout == "from the root\n"
    more = plan(script("jobs/main.py", env={"PYTHONPATH": "/more"}))
    assert more.env["PYTHONPATH"] == f"{work}:/more"


def program(path):
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_a_version_of_python_is_looked_for_by_its_name_on_the_path(plan, tmp_path):
    (tmp_path / "work" / "a.py").write_text("")
    python = program(tmp_path / "python3.99")

    made = plan(script("a.py", args=("-x",), python="3.99"), PATH=str(tmp_path))

    assert (made.program, made.argv) == (python, (python, f"{tmp_path}/work/a.py", "-x"))


def test_a_path_of_a_python_is_taken_as_it_stands(plan, tmp_path):
    (tmp_path / "work" / "a.py").write_text("")
    python = program(tmp_path / "mine")

    assert plan(script("a.py", python=python), PATH="/nowhere").argv[0] == python


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("3.99", r"script 'a.py' needs python3.99, which was not found .*PATH is {here}\)"),
        ("{here}/none", "script 'a.py' needs {here}/none, which is not on this worker"),
        ("{here}", "script 'a.py' needs {here}, which is not on this worker"),
        ("{here}/work/a.py", "script 'a.py' needs {here}/work/a.py, which is not executable"),
    ],
)
def test_a_python_that_is_not_there_is_named(plan, tmp_path, python, said):
    """Never the worker's own instead: the job would run, with what its author ruled out."""
    (tmp_path / "work" / "a.py").write_text("")
    (tmp_path / "work" / "a.py").chmod(0o644)
    here = str(tmp_path)

    with pytest.raises(SpawnError, match=said.format(here=here)):
        plan(script("a.py", python=python.format(here=here)), PATH=here)


def test_a_script_that_is_a_folder_or_nowhere_says_so(plan, tmp_path):
    (tmp_path / "work" / "a.py").mkdir()

    with pytest.raises(SpawnError, match=r"'a\.py' is a folder"):
        plan(script("a.py"))
    with pytest.raises(SpawnError, match=r"'b\.py' is not in the workspace, which holds a\.py"):
        plan(script("b.py"))


def test_a_script_that_may_not_be_read_says_so(plan, tmp_path, monkeypatch):
    (tmp_path / "work" / "a.py").write_text("")
    monkeypatch.setattr("os.access", lambda path, mode: False)

    with pytest.raises(SpawnError, match="not readable"):
        plan(script("a.py"))


def test_a_shell_line_gets_its_arguments(plan):
    made = plan(Launch(kind=LaunchKind.SHELL, shell='echo "$1"', args=("one two",)))

    assert made.argv == ("/bin/sh", "-c", 'echo "$1"', "sh", "one two")


def test_a_command_is_looked_for_on_the_jobs_own_path(plan, tmp_path):
    tool = tmp_path / "mine"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    launch = Launch(kind=LaunchKind.COMMAND, command=("mine",), env={"PATH": str(tmp_path)})

    assert plan(launch, PATH="/usr/bin").program == str(tool)


def test_a_launch_of_a_newer_master_is_refused(plan):
    with pytest.raises(SpawnError, match="too old"):
        plan(Launch(kind=LaunchKind.UNKNOWN))
    with pytest.raises(SpawnError, match="too old"):
        plan(Launch(kind=LaunchKind.COMMAND))


def test_a_job_cannot_take_off_the_mark_of_its_worker(plan):
    launch = Launch(kind=LaunchKind.COMMAND, command=("/bin/true",), env={MARK: "", "PORT": "1"})

    made = plan(launch, port=0)

    assert made.env[MARK] == "/place/of/it"
    assert made.env["PORT"] == "1"  # its own: it has no service port


@pytest.fixture
def service(make_order):
    def order(name, **section):
        return make_order(name, shell="", kind=JobKind.SERVICE, service=ServiceSection(**section))

    return order


def test_the_service_port_is_told_and_free(plan, make_order, service):
    port = Ports().take(service("a", port_auto=True))

    with socket.create_server(("127.0.0.1", port)):
        pass
    assert plan(Launch(kind=LaunchKind.SHELL, shell=""), port=port).env["PORT"] == str(port)
    assert Ports().take(make_order("a", shell="")) == 0


def test_a_port_is_promised_to_one_attempt_at_a_time(service, make_ref):
    """As long as it lives: a port that nobody listens on yet looks free."""
    ports = Ports()
    port = ports.take(service("a", port_auto=True))

    with pytest.raises(SpawnError, match=f"port {port} is that of .*/a.1"):
        ports.take(service("b", port=port))
    ports.give_back(make_ref("b"))
    with pytest.raises(SpawnError, match="`port: auto`"):
        ports.take(service("b", port=port))
    ports.give_back(make_ref("a"))

    assert ports.take(service("b", port=port)) == port


def test_a_free_port_is_never_one_that_was_promised(service, monkeypatch):
    """The system may name the same one twice while nobody has bound it."""
    named = iter([5000, 5000, 5000, 5001])
    monkeypatch.setattr("titan_worker.launching._bindable", lambda wanted: next(named))
    ports = Ports()

    assert [ports.take(service(name, port_auto=True)) for name in "ab"] == [5000, 5001]
