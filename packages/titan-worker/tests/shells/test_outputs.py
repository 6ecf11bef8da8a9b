"""What a job leaves in its output file: what counts, what is refused, and that nothing else is read."""

from __future__ import annotations

import os

import pytest

from titan_proto.limits import OUTPUT_FILE_BYTES, OUTPUT_VALUE_BYTES, OUTPUTS_PER_JOB
from titan_proto.states import ExitReason
from titan_worker.outputs import NOTHING, collect, parse


def test_lines_of_key_and_value_the_last_one_of_a_key_counts():
    raw = "# made by x\n\nrows=1\nday=måndag = 2\r\n  \nempty=\nrows=2".encode()
    assert parse(raw).outputs == {"rows": "2", "day": "måndag = 2", "empty": ""}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"ok=1\nrows", "line 2 of its $TITAN_OUTPUT: 'rows' is not of the form key=value"),
        (b"ro ws=1", "line 1 of its $TITAN_OUTPUT: 'ro ws' cannot be a key"),
        (b"=1", "cannot be a key"),
        (b"9=1", "cannot be a key"),
        (b"a=1\nb=\xff", "line 2 of its $TITAN_OUTPUT is not UTF-8 text"),
        (b"a=\0", "NUL"),
        (b"a=" + b"x" * (OUTPUT_VALUE_BYTES + 1), "OUTPUT_VALUE_BYTES (8192)"),
        (b"".join(b"k%d=%s\n" % (n, b"x" * 8000) for n in range(5)), "OUTPUTS_BYTES (32768)"),
        (b"".join(b"k%d=\n" % n for n in range(OUTPUTS_PER_JOB + 1)), "OUTPUTS_PER_JOB (64)"),
        (b"a" * 65 + b"=1", "OUTPUT_KEY_CHARS"),
    ],
)
def test_a_file_with_anything_wrong_in_it_gives_nothing_and_one_reason(raw, words):
    found = parse(raw)
    assert found.outputs == {}
    assert words in found.problem


def test_a_job_that_wrote_nothing_has_none(tmp_path):
    assert collect(str(tmp_path)) is NOTHING
    (tmp_path / "outputs").touch()
    assert collect(str(tmp_path)) == NOTHING


def test_more_than_is_read_is_refused(tmp_path):
    (tmp_path / "outputs").write_bytes(b"#" * OUTPUT_FILE_BYTES)
    assert collect(str(tmp_path)) == NOTHING
    (tmp_path / "outputs").write_bytes(b"#" * (OUTPUT_FILE_BYTES + 1))
    assert "OUTPUT_FILE_BYTES (262144)" in collect(str(tmp_path)).problem


def test_no_link_is_followed_neither_the_file_nor_its_folder(tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "outputs").write_text("key=value")
    attempt = tmp_path / "attempt"
    attempt.mkdir()
    (attempt / "outputs").symlink_to(secret / "outputs")
    assert collect(str(attempt)) == ({}, "its $TITAN_OUTPUT cannot be read: it is a link")
    (tmp_path / "moved").symlink_to(secret)
    assert collect(str(tmp_path / "moved")).outputs == {}


def test_a_pipe_or_a_folder_in_its_place_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "outputs")
    assert collect(str(tmp_path)).problem == "its $TITAN_OUTPUT is no ordinary file"
    (tmp_path / "outputs").unlink()
    (tmp_path / "outputs").mkdir()
    assert collect(str(tmp_path)).problem == "its $TITAN_OUTPUT is no ordinary file"


# -- with a worker round it -----------------------------------------------------------------------


async def test_what_a_job_writes_is_in_the_report_of_its_success_alone(nest, peer):
    await nest.start()
    line = 'echo rows=12 >> "$TITAN_OUTPUT"'

    peer.order("good", shell=line)
    peer.order("failed", shell=f"{line}; exit 3")
    peer.order("none", shell='test ! -e "$TITAN_OUTPUT" && test -d "$(dirname "$TITAN_OUTPUT")"')

    assert (await peer.end_of("good")).outputs == {"rows": "12"}
    assert (await peer.end_of("failed")).outputs == {}
    none = await peer.end_of("none")
    assert (none.reason, none.exit_code, none.outputs) == (ExitReason.EXITED, 0, {})


async def test_a_job_whose_outputs_cannot_be_read_has_not_done_what_it_should(nest, peer):
    await nest.start()

    peer.order("bad", shell='echo rows >> "$TITAN_OUTPUT"')

    end = await peer.end_of("bad")
    assert (end.reason, end.exit_code, end.outputs) == (ExitReason.BAD_OUTPUT, 0, {})
    assert end.message == "line 1 of its $TITAN_OUTPUT: 'rows' is not of the form key=value"
