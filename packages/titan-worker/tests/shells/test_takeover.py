"""A run that repeats another finds what that one left in its shared folder on this machine."""

import os
import stat
import subprocess
import threading

import pytest

from titan_proto.states import ExitReason
from titan_worker import takeover
from titan_worker.takeover import TakeOverFailed, clear_unfinished, take_over

OLD = "o" * 16


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "shared" / "old"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def target(tmp_path):
    return tmp_path / "shared" / "new"


def names(folder):
    return [path.name for path in folder.iterdir()]


def beside(target):
    return [name for name in names(target.parent) if name.startswith(".")]


# -- the copy -----------------------------------------------------------------------------------------
def test_files_and_folders_are_copied_with_content_modes_and_times(source, target):
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "data").write_bytes(b"x" * 3_000_000)
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o4755)
    (source / "empty").mkdir(mode=0o700)
    os.utime(source / "run.sh", (1, 2))

    assert take_over(str(source), str(target))

    assert (target / "a" / "b" / "data").read_bytes() == b"x" * 3_000_000
    found = (target / "run.sh").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime) == (0o755, 2)
    assert stat.S_IMODE((target / "empty").stat().st_mode) == 0o700
    assert beside(target) == []


def test_what_the_new_run_changes_stays_its_own(source, target):
    (source / "data").write_text("old")
    os.link(source / "data", source / "same")

    take_over(str(source), str(target))
    with (target / "data").open("a") as file:
        file.write(" and new")

    assert (source / "data").read_text() == "old"
    assert (target / "same").read_text() == "old"
    assert (target / "data").stat().st_nlink == 1


def test_links_are_never_followed_and_kept_only_where_they_stay_inside(source, target, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (source / "below").mkdir()
    (source / "data").write_text("data")
    for name, to in {
        "below/up": "../data",
        "dangling": "not/there",
        "out": "../../secret",
        "winding": "below/../../../secret",
        "below/out": "../../../secret",
        "absolute": str(tmp_path / "secret"),
        "folder": str(tmp_path),
        "self": str(source),
    }.items():
        (source / name).symlink_to(to)

    take_over(str(source), str(target))

    assert (target / "below" / "up").read_text() == "data"
    kept = {str(path.relative_to(target)) for path in target.rglob("*")}
    assert kept == {"below", "below/up", "dangling", "data"}


def test_what_is_no_file_is_left_behind_and_blocks_nobody(source, target):
    os.mkfifo(source / "pipe")
    (source / "data").write_text("data")

    take_over(str(source), str(target))

    assert names(target) == ["data"]


def test_a_source_that_is_a_link_is_not_followed(source, target, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    source.rmdir()
    source.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="old"):
        take_over(str(source), str(target))
    assert not target.exists()


def test_it_happens_once(source, target):
    (source / "data").write_text("old")
    assert take_over(str(source), str(target))
    (target / "data").write_text("mine")

    assert not take_over(str(source), str(target))

    assert (target / "data").read_text() == "mine"


def test_without_a_source_nothing_is_made(source, target):
    source.rmdir()

    assert not take_over(str(source), str(target))

    assert not target.exists()


def test_one_that_another_worker_made_meanwhile_stays(source, target, monkeypatch):
    (source / "data").write_text("old")
    fill = takeover._Copy.fill

    def slow(self, *arguments):
        fill(self, *arguments)
        target.mkdir()
        (target / "theirs").write_text("theirs")

    monkeypatch.setattr(takeover._Copy, "fill", slow)

    assert not take_over(str(source), str(target))
    assert names(target) == ["theirs"]
    assert beside(target) == []


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        ("BYTES_MAX", 10, "10 bytes"),
        ("ENTRIES_MAX", 2, "2 entries"),
        ("DEPTH_MAX", 1, "than 1 fol"),
    ],
)
def test_limits_are_quoted_and_leave_nothing(source, target, monkeypatch, limit, value, words):
    (source / "a" / "b" / "c").mkdir(parents=True)
    (source / "a" / "one").write_text("123456")
    (source / "a" / "two").write_text("123456")
    monkeypatch.setattr(takeover, limit, value)

    with pytest.raises(TakeOverFailed, match=words):
        take_over(str(source), str(target))

    assert not target.exists()
    assert beside(target) == []


def test_what_a_dead_process_had_begun_goes_and_what_a_live_one_is_at_stays(source, target):
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead = target.parent / f".taking-{'a' * 16}.{gone.pid}"
    live = target.parent / f".taking-{'b' * 16}.{os.getpid()}"
    for folder in (dead, live):
        folder.mkdir()
        (folder / "data").write_text("half")

    clear_unfinished(str(target.parent))

    assert beside(target) == [live.name]
    assert source.exists()


# -- in a worker --------------------------------------------------------------------------------------
@pytest.fixture
def shared(nest):
    folder = nest.settings.workspace / "shared"
    (folder / OLD).mkdir(parents=True)
    (folder / OLD / "data").write_text("from before\n")
    return folder


async def test_every_job_of_the_new_run_finds_what_the_old_one_left(nest, peer, make_order, shared):
    await nest.start()
    line = 'cat "$TITAN_SHARED/data"; echo more >> "$TITAN_SHARED/data"'
    others = [make_order(f"j{n}", shell=line, takes_over=OLD) for n in range(1, 5)]

    peer.order("j0", *others, shell=line, takes_over=OLD)

    for number in range(5):
        assert (await peer.end_of(f"j{number}")).exit_code == 0
        log = await peer.log_of(f"j{number}", b"before\n")
        assert log.startswith(b"from before\n")
    # Copied once: what the first wrote was not overwritten for the next.
    new = next(path for path in shared.iterdir() if path.name != OLD)
    assert (new / "data").read_text() == "from before\n" + 5 * "more\n"
    assert (shared / OLD / "data").read_text() == "from before\n"


async def test_a_restarted_worker_does_not_take_over_again(nest, peer, shared):
    await nest.start()
    peer.order("first", shell='echo mine > "$TITAN_SHARED/data"', takes_over=OLD)
    await peer.end_of("first")
    await nest.leave()
    await nest.start()

    peer.order("second", shell='cat "$TITAN_SHARED/data"', takes_over=OLD)

    assert await peer.log_of("second", b"\n") == b"mine\n"


async def test_where_nothing_of_the_old_run_was_executed_the_one_before_it_stands_in(
    nest, peer, shared
):
    await nest.start()
    unknown, older = "x" * 16, "../" + OLD
    peer.order(
        "a",
        shell='cat "$TITAN_SHARED/data"',
        takes_over=unknown,
        ancestors=(older, unknown, OLD),
    )

    assert await peer.log_of("a", b"\n") == b"from before\n"


@pytest.mark.parametrize("name", ["x" * 16, "../" + OLD, "/etc", "..", "jobs"])
async def test_a_run_that_is_not_here_or_none_at_all_leaves_an_empty_folder(
    nest, peer, shared, name
):
    await nest.start()

    peer.order("a", shell='ls -A "$TITAN_SHARED"; echo end', takes_over=name)

    assert await peer.log_of("a", b"end\n") == b"end\n"


async def test_one_that_is_stopped_does_not_take_the_copy_from_the_others(
    nest, peer, make_order, shared, monkeypatch
):

    go = threading.Event()
    copy = takeover.take_over

    def slow(source, target):
        assert go.wait(10)
        return copy(source, target)

    monkeypatch.setattr("titan_worker.workspace.take_over", slow)
    await nest.start()
    peer.order(
        "stopped",
        make_order("stays", shell='cat "$TITAN_SHARED/data"', takes_over=OLD),
        shell="exit 0",
        takes_over=OLD,
    )
    peer.stop("stopped")
    assert (await peer.end_of("stopped")).reason is ExitReason.CANCELLED
    go.set()

    assert await peer.log_of("stays", b"\n") == b"from before\n"


async def test_what_cannot_be_taken_over_fails_the_job_in_words_and_not_the_worker(
    nest, peer, shared, monkeypatch
):
    monkeypatch.setattr(takeover, "BYTES_MAX", 3)
    await nest.start()
    peer.order("a", shell="exit 0", takes_over=OLD)

    end = await peer.end_of("a")

    assert end.reason is ExitReason.PREPARE_FAILED
    assert "3 bytes" in end.message
    monkeypatch.undo()
    peer.order("b", shell='cat "$TITAN_SHARED/data"', takes_over=OLD)
    assert await peer.log_of("b", b"\n") == b"from before\n"
