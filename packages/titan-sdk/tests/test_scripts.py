"""Scripts as users name them: taken, or refused in words, whatever the name and whatever lies there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titan_proto.errors import InvalidSpec, TitanError
from titan_sdk import TitanJob
from titan_sdk.findings import PipelineError, errors
from titan_sdk.pipeline import loads
from titan_sdk.staging import file_findings, stage_jobs, stage_pipeline


def nothing_away(names):
    return {}


@pytest.fixture
def here(alone):
    """A folder with one of everything that a name may lead to."""
    (alone / "folder").mkdir()
    for name, mode in (("a.py", 0o644), ("plain", 0o644), ("tool", 0o755)):
        (alone / name).write_text("#!/bin/sh\necho hello\n")
        (alone / name).chmod(mode)
    os.mkfifo(alone / "fifo.py")
    (alone / "dangling.py").symlink_to("nowhere")
    (alone / "circle.py").symlink_to("circle.py")
    return alone


def by_job(script, folder, workspace=None):
    """What the SDK says of a script; empty if it takes it."""
    try:
        job = TitanJob(id="A", filename=script)
        with stage_jobs(
            "run", [job.spec], folder=folder, workspace=workspace, find=nothing_away, env_files={}
        ):
            return ""
    except TitanError as error:
        return str(error)


def by_file(script, folder, more=""):
    """What a pipeline file says of it, as `titan validate` and `titan run` do; both the same."""
    body = f"{more}name: p\njobs: [{{id: A, script: {json.dumps(script)}}}]\n"
    pipeline = loads(body, path=folder / "p.yaml")
    found = errors([*pipeline.findings, *file_findings(pipeline, {})])
    try:
        with stage_pipeline(pipeline, nothing_away):
            assert not found
            return ""
    except PipelineError as error:
        assert found
        return str(error)


@pytest.mark.parametrize("name", [".", "./", "..", "folder/..", "folder/.", "a.py/", "/"])
def test_a_name_that_no_file_can_have_is_refused_at_once(here, name):
    with pytest.raises(InvalidSpec, match=r"job A: script: .* names a folder"):
        TitanJob(id="A", filename=name)
    assert "p.yaml:2:24: error[Y107] script of job A: " in by_file(name, here)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fifo.py", "is a FIFO, not a file"),
        ("dangling.py", "is a link that leads nowhere (nowhere), not a file"),
        ("circle.py", "is a link that leads in a circle, not a file"),
        ("folder", "is a folder, not a file"),
        ("plain", "is not executable"),
    ],
)
def test_what_lies_there_and_cannot_run_is_called_what_it_is(here, name, words):
    assert f'script "{name}" of job A {words}' in by_job(name, here)
    assert f'script "{name}" of job A {words}' in by_file(name, here)


def test_who_may_not_be_executed_hears_how_it_may(here):
    assert f"chmod +x {here / 'plain'}" in by_job("plain", here)
    assert f"chmod +x {here / 'plain'}" in by_file("plain", here)
    assert "error[Y112]" in by_file("plain", here)
    for name in ("a.py", "tool"):
        assert by_job(name, here) == ""
        assert by_file(name, here, "workspace: {include: [a.py, tool]}\n") == ""
    (here / "plain").chmod(0o755)
    assert by_job("plain", here) == ""


def test_what_may_not_be_read_is_refused_with_what_helps(here, monkeypatch):
    """Asked of the system, whoever runs the tests: root may read everything."""
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK and may(path, mode))
    for said in (by_job("a.py", here), by_file("a.py", here)):
        assert 'script "a.py" of job A cannot be read: permission denied' in said
        assert f"chmod u+r {here / 'a.py'}" in said


def test_no_name_of_a_script_breaks_an_errors_line(here):
    said = by_job("a\nb\x1b[31m.py", here)
    assert r'script "a\x0ab\x1b[31m.py" of job A is neither in' in said
    assert "\n" not in said


PARTS = st.sampled_from(
    [
        "",
        ".",
        "..",
        "a.py",
        "folder",
        "fifo.py",
        "dangling.py",
        "circle.py",
        "~",
        " ",
        "\\",
        "plain",
    ]
)
NAMES = st.one_of(
    st.lists(PARTS, min_size=1, max_size=5).map("/".join),
    st.text(max_size=20),
    st.text(alphabet="x/", min_size=200, max_size=6000),
)


@settings(max_examples=300, deadline=None)
@given(name=NAMES)
def test_any_name_is_taken_or_refused_in_words(tmp_path_factory, name):
    """Never a bare exception of the file system or of a slip: the caller hears what and why."""
    folder = tmp_path_factory.getbasetemp() / "any-name"
    if not folder.exists():
        (folder / "folder").mkdir(parents=True)
        (folder / "a.py").write_text("")
        (folder / "plain").write_text("")
        os.mkfifo(folder / "fifo.py")
        (folder / "dangling.py").symlink_to("nowhere")
        (folder / "circle.py").symlink_to("circle.py")
    by_job(name, folder)
    by_job(name, folder, Path())
    by_file(name, folder)
    by_file(name, folder, "project: false\n")


def test_a_folder_with_a_link_in_a_circle_is_packed_without_it(here):
    assert by_job("a.py", here, Path()) == ""
