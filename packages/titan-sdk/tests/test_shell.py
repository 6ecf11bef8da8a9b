"""The `titan>` prompt without a terminal: lines, what becomes of them, what is suggested."""

import subprocess
import sys
from pathlib import Path

import pytest

from titan_proto.messages import (
    GetStats,
    ListRuns,
    RunList,
    RunView,
    Stats,
)
from titan_proto.states import RunState
from titan_sdk.cli import COMMANDS
from titan_sdk.cli.context import Settings
from titan_sdk.cli.shell import (
    COMMANDS_LINE,
    RULE,
    TITLE,
    Suggestions,
    banner,
    converse,
    run_words,
    words_of,
)


@pytest.fixture
def settings(master):
    master.answers[GetStats] = Stats(
        cluster_id="c",
        cluster_name="titan",
        term=1,
        at_ms=1,
        started_at_ms=1,
        workers=(),
        queued=0,
        blocked=0,
        delayed=0,
        running=0,
        services=0,
        runs_active=0,
    )
    return Settings(master=None, debug=False, color="auto")


def test_the_banner_is_the_documents(settings):
    lines = banner(settings).splitlines()

    assert lines[0] == lines[2] == RULE == "=" * 42
    assert lines[1] == TITLE == "    [INFO] TITAN DISTRIBUTED ORCHESTRATOR    "
    assert lines[3].startswith("Connected to: localhost:")
    assert lines[4] == COMMANDS_LINE
    assert COMMANDS_LINE == "Commands: stats, json, submit <skill> <data>, dag <raw_dag>, exit"


def test_without_a_master_the_banner_says_how_to_start_one(monkeypatch):
    monkeypatch.setenv("TITAN_MASTER", "127.0.0.1:1")

    text = banner(Settings(master=None, debug=False, color="auto"))

    assert "Not connected: No Titan master at 127.0.0.1:1. Start one here:  titan up" in text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("stats", ["stats"]),
        ("titan stats -o json", ["stats", "-o", "json"]),
        ("run 'my script.py' -- --fast", ["run", "my script.py", "--", "--fast"]),
        (r"dag A|RUN_PAYLOAD|a b\;c|5|0|[] ; B", ["dag", r"A|RUN_PAYLOAD|a b\;c|5|0|[] ; B"]),
        ("dag 'A|B' --wait", ["dag", "A|B", "--wait"]),
        ("dag --wait X", ["dag", "--wait", "X"]),
        ("dag", ["dag"]),
    ],
)
def test_a_line_is_split_as_a_shell_does_but_for_a_dag_string(line, words):
    assert words_of(line) == words


def test_nothing_that_a_line_does_ends_the_prompt(settings, capfd):
    converse(
        settings, iter(["foo", 'run "x', "", "# a note", "ps --nonsense", "stats", "exit", "stats"])
    )

    out, err = capfd.readouterr()
    assert "No such command 'foo'" in err
    assert "no closing quotation" in err
    assert "No such option '--nonsense'" in err
    assert out.count("TITAN SYSTEM MONITOR") == 1  # nothing after `exit`


def test_a_command_for_this_machine(settings, capfd):
    converse(settings, iter(["!echo from $((40 + 2))"]))

    assert capfd.readouterr().out == "from 42\n"


def test_a_commands_code_is_that_of_the_program(settings):
    assert run_words(settings, ["ps", "--nonsense"]) == 2
    assert run_words(settings, ["help", "service"]) == 0


def test_what_stood_before_shell_stands_before_each_command(capfd):
    away = Settings(master="127.0.0.1:1", debug=False, color="never")

    assert run_words(away, ["stats"]) == 5
    assert "No Titan master at 127.0.0.1:1" in capfd.readouterr().err


# -- suggestions ----------------------------------------------------------------------------------


@pytest.fixture
def suggest(settings, master, monkeypatch, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.chdir(folder)
    run = {"state": RunState.ACTIVE, "submitted_at_ms": 1, "jobs": 1}
    master.answers[ListRuns] = RunList(
        runs=(RunView(run_id="01J", alias="nightly-1", name="nightly", **run),)
    )
    return Suggestions(settings).of


def test_commands_and_those_below_them(suggest):
    assert suggest("") == [*COMMANDS]
    assert suggest("sta") == ["stats"]
    assert suggest("service ") == ["ls", "restart", "scale"]
    assert suggest("service re") == ["restart"]
    assert suggest("nonsense x") == []
    assert suggest('run "unfinished') == []


def test_files_of_this_folder(suggest):
    Path("scripts").mkdir()
    for name in ("scripts/load.py", "server.py", ".hidden"):
        Path(name).touch()

    assert suggest("run s") == ["scripts/", "server.py"]
    assert suggest("run scripts/") == ["scripts/load.py"]
    assert suggest("run ") == ["scripts/", "server.py"]
    assert suggest("run .h") == [".hidden"]


def test_ids_of_the_cluster(suggest):
    assert suggest("cancel n") == ["nightly-1"]
    assert suggest("cancel nightly-1 ") == []
    assert suggest("ps @") == ["@last"]


def test_options_of_a_command(suggest):
    assert "--follow" in suggest("run --f")
    assert suggest("cancel --o") == ["--output"]


def test_a_master_that_does_not_answer_holds_up_nothing(monkeypatch):
    monkeypatch.setenv("TITAN_MASTER", "127.0.0.1:1")
    suggest = Suggestions(Settings(master=None, debug=False, color="auto")).of

    assert suggest("cancel n") == []


def test_names_are_asked_for_once_in_a_while(suggest, master):
    suggest("cancel n")
    before = len(master.of(ListRuns))
    suggest("cancel ni")

    assert len(master.of(ListRuns)) == before


def test_lines_from_a_pipe_are_run_without_a_banner(master):
    done = subprocess.run(
        [sys.executable, "-m", "titan_sdk", "shell"],
        input="help exit\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0
    assert done.stdout.startswith("Usage: titan exit")


def test_leaving_elsewhere_than_in_the_prompt_is_said():
    done = subprocess.run(
        [sys.executable, "-m", "titan_sdk", "exit"], capture_output=True, text=True, check=True
    )

    assert "no prompt to leave" in done.stderr
