"""Files of variables: what a line may be, which level wins, and that all of it is told at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from titan_proto.errors import InvalidSpec
from titan_proto.limits import ENV_BYTES
from titan_sdk import TitanJob
from titan_sdk.envfiles import ENV_FILE_BYTES_MAX, ENV_FILES_MAX, WRONG_LINES_MAX, parse
from titan_sdk.findings import PipelineError
from titan_sdk.pipeline import load
from titan_sdk.staging import read_env_files, read_variables, stage_jobs, stage_pipeline


def nothing_away(names):
    return {}


def pipeline(folder, body):
    (folder / "p.yaml").write_text("name: p\nproject: false\n" + body)
    return load(folder / "p.yaml")


def staged(folder, body):
    """The environment of each job, as it would be sent."""
    with stage_pipeline(pipeline(folder, body), nothing_away) as ready:
        return {job.id: job.launch.env for job in ready.spec.jobs}


def refused(folder, body):
    with pytest.raises(PipelineError) as raised:
        stage_pipeline(pipeline(folder, body), nothing_away)
    return raised.value


# -- lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=", ""),
        ("A=b", "b"),
        ("  A = b c  ", "b c"),
        ("export A=b", "b"),
        ("export\tA=b", "b"),
        ("A=b # why", "b"),
        ("A= # why", ""),
        ("A=#c", "#c"),
        ("A=b#c", "b#c"),
        ("A=b=c", "b=c"),
        ("A=$HOME", "$HOME"),
        ("A='b # c'", "b # c"),
        (r"A='a\n'  # why", r"a\n"),
        (r'A="a\n\t\"\\\$ # c"', 'a\n\t"\\$ # c'),
        ("A=it's", "it's"),
        ("A=b\r", "b"),
        ("A=ß", "ß"),
    ],
)
def test_a_line_sets_what_it_says(line, value):
    assert parse(line) == ({"A": value}, [])


def test_comments_and_empty_lines_are_skipped_and_names_may_be_odd():
    assert parse("# A=1\n\n \t \n  # B=2\n_a.b-C9=x\nexport=y") == (
        {"_a.b-C9": "x", "export": "y"},
        [],
    )


@pytest.mark.parametrize(
    ("line", "where", "said"),
    [
        ("A", "1:1", "no KEY=VALUE"),
        ("  export A", "1:10", "no KEY=VALUE"),
        ("=b", "1:1", "cannot name"),
        ("1A=b", "1:1", "cannot name"),
        ("A B=c", "1:2", "cannot name"),
        ("A=1\nA=2", "2:1", "A is set twice"),
        ("A='b", "1:3", "not closed"),
        ('A="b\\"', "1:3", "not closed"),
        ('A="b\\', "1:3", "not closed"),
        ('A="b"c', "1:6", "follows the closing quote"),
        ("A='b'#c", "1:6", "follows the closing quote"),
        (r'A="C:\data"', "1:6", "backslash"),
        ("A=b\0c", "1:4", "NUL"),
    ],
)
def test_a_bad_line_is_told_with_its_place(line, where, said):
    (wrong,) = parse(line)[1]
    assert (wrong.where, said in wrong.message) == (where, True)


def test_no_value_is_ever_shown():
    """They are secrets; the name and the place are enough to find them."""
    for line in ("hunter2", "KEY='hunter2", 'KEY="hunter2" x', "KEY=1\nKEY=hunter2", "K=hunter2\0"):
        (wrong,) = parse(line)[1]
        assert "hunter2" not in wrong.text + wrong.hint


def test_bad_lines_are_not_listed_without_end():
    wrong = parse("x\n" * (WRONG_LINES_MAX + 5))[1]
    assert len(wrong) == WRONG_LINES_MAX + 1
    assert wrong[-1].text == "and 5 more bad lines (WRONG_LINES_MAX: 20)"


# -- levels ---------------------------------------------------------------------------------------


def test_level_by_level_env_wins_over_env_file(tmp_path):
    """And what stands nearer to the job over what is for all of them."""
    (tmp_path / "all.env").write_text("A=all\nB=all\nC=all\nD=all\nE=all\nF=all\n")
    (tmp_path / "one.env").write_text("C=one\nD=one\nE=one\nF=one\n")
    (tmp_path / "two.env").write_text("E=two\nF=two\n")
    body = """
env_file: all.env
env: {B: env, C: env}
defaults: {env: {D: defaults}}
jobs:
  - {id: X, run: x, env_file: [one.env, two.env], env: {F: own}}
  - {id: Y, run: y}
"""
    found = staged(tmp_path, body)
    assert found["X"] == {"A": "all", "B": "env", "C": "one", "D": "one", "E": "two", "F": "own"}
    assert found["Y"] == found["X"] | {"C": "env", "D": "defaults", "E": "all", "F": "all"}


def test_what_the_command_line_adds_wins_over_every_file(tmp_path):
    (tmp_path / "a.env").write_text("A=file\nB=file\n")
    read = pipeline(tmp_path, "jobs: [{id: X, run: x, env_file: a.env}]\n")
    read.add_env({"A": "added"})
    with stage_pipeline(read, nothing_away) as ready:
        assert ready.spec.jobs[0].launch.env == {"A": "added", "B": "file"}


def test_a_gate_gets_nothing_of_the_pipelines_file(tmp_path):
    (tmp_path / "a.env").write_text("A=1\n")
    body = "env_file: a.env\njobs: [{id: X, run: x}, {id: G, type: APPROVAL}]\n"
    assert staged(tmp_path, body) == {"X": {"A": "1"}, "G": {}}


def test_a_file_is_read_anew_for_each_submission(tmp_path):
    (tmp_path / "a.env").write_text("A=1\n")
    read = pipeline(tmp_path, "env_file: a.env\njobs: [{id: X, run: x}]\n")
    with stage_pipeline(read, nothing_away):
        (tmp_path / "a.env").write_text("A=2\n")
    with stage_pipeline(read, nothing_away) as ready:
        assert ready.spec.jobs[0].launch.env == {"A": "2"}


def test_a_job_of_a_program_reads_its_files_in_the_working_folder(tmp_path):
    (tmp_path / "a.env").write_text("A=file\nB=file\n")
    job = TitanJob(id="X", run="x", env={"B": "own"}, env_file=Path("a.env"))
    assert job.env_file == ("a.env",)
    with stage_jobs(
        "n",
        [job.spec],
        folder=tmp_path,
        workspace=None,
        find=nothing_away,
        env_files={"X": job.env_file},
    ) as ready:
        assert ready.spec.jobs[0].launch.env == {"A": "file", "B": "own"}


# -- what is wrong --------------------------------------------------------------------------------


def test_everything_wrong_with_the_files_is_said_at_once_with_their_places(tmp_path):
    """Beside what else is wrong with the pipeline, and each file once, whoever names it."""
    (tmp_path / "bad.env").write_text("A=1\n  oops\nB='x\n")
    os.mkfifo(tmp_path / "fifo.env")
    body = """
env_file: [none.env, bad.env]
jobs:
  - {id: X, script: x.py, env_file: [bad.env, fifo.env]}
  - {id: Y, run: y, env_file: .}
"""
    error = refused(tmp_path, body)
    said = {(p.code, p.message) for p in error.problems}
    here = tmp_path
    assert {message for code, message in said if code == "Y113"} == {
        f"env_file: {here}/none.env: there is no such file",
        f"env_file: {here}/bad.env:2:3: this line is no KEY=VALUE",
        f"env_file: {here}/bad.env:3:3: this quote is not closed",
        f"env_file of job X: {here}/fifo.env: this is a FIFO, not a file",
    }
    assert {code for code, _ in said} == {"Y107", "Y110", "Y113"}
    assert f"{here}/p.yaml:4:11: error[Y113]" in str(error)


def test_a_program_hears_of_all_its_bad_files_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.env").write_text("oops\n")
    jobs = [TitanJob(id="X", run="x").spec, TitanJob(id="Y", script="y.py").spec]
    with pytest.raises(InvalidSpec) as raised:
        stage_jobs(
            "n",
            jobs,
            folder=tmp_path,
            workspace=None,
            find=nothing_away,
            env_files={"X": ("bad.env",), "Y": ("none.env",)},
        )
    assert [(p.where, p.code) for p in raised.value.problems] == [
        ("jobs[1].script", "Y110"),
        ("jobs[0].env_file", "Y113"),
        ("jobs[1].env_file", "Y113"),
    ]
    assert "env_file of job X: bad.env:1:1: this line is no KEY=VALUE" in str(raised.value)
    with pytest.raises(InvalidSpec, match=r"bad\.env:1:1: this line"):
        read_variables(["bad.env"])


def test_a_file_that_is_no_text_or_too_large_is_refused_with_the_limit(tmp_path):
    (tmp_path / "a.env").write_bytes(b"A=1\nB=\xff\n")
    (tmp_path / "b.env").write_bytes(b"#" * (ENV_FILE_BYTES_MAX + 1))
    body = "jobs: [{id: X, run: x, env_file: [a.env, b.env]}]\n"
    messages = [problem.message for problem in refused(tmp_path, body).problems]
    assert any("a.env:2:1: this line is not UTF-8 text" in one for one in messages)
    assert any("larger than ENV_FILE_BYTES_MAX (1048576)" in one for one in messages)


def test_a_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    (tmp_path / "a.env").write_text("A=1\n")
    read = pipeline(tmp_path, "jobs: [{id: X, run: x, env_file: a.env}]\n")

    def refuse(path, *args):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    (found,) = read_env_files(read)[1]
    assert found.message.endswith("a.env: cannot be read: Permission denied")


def test_too_many_files_or_too_much_in_them_is_refused_with_the_limit(tmp_path):
    """Before anything is sent, though each file alone is fine."""
    for name in "ab":
        (tmp_path / f"{name}.env").write_text(f"{name}={'x' * (ENV_BYTES // 2)}\n")
    many = ", ".join(["a.env"] * (ENV_FILES_MAX + 1))
    body = "jobs: [{id: X, run: x, env_file: [a.env, b.env]}, {id: Y, run: y, env_file: [%s]}]\n"
    found = {p.code: p.message for p in refused(tmp_path, body % many).problems}
    assert "env_file of job X: an environment of" in found["Y212"]
    assert "ENV_BYTES" in found["Y212"]
    assert found["Y113"] == "env_file of job Y: 21 files are more than ENV_FILES_MAX (20)"


def test_a_pipeline_without_such_files_is_sent_as_it_was(tmp_path):
    read = pipeline(tmp_path, "env: {A: '1'}\njobs: [{id: X, run: x}]\n")
    assert read_env_files(read) == ({}, [])
