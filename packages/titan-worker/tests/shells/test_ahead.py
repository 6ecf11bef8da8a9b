"""Folders made ahead: an attempt gets one as if it had been made for it, or makes its own."""

import asyncio
import shutil

import pytest

from titan_worker.ahead import FOLDERS_KEPT, FoldersAhead


@pytest.fixture
def jobs(tmp_path):
    folder = tmp_path / "jobs" / "run"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def ahead(tmp_path):
    return FoldersAhead(tmp_path / "ahead" / "8080")


def test_one_that_is_ready_becomes_the_attempts_folder(ahead, jobs):
    ahead.make()
    assert ahead.take(f"{jobs}/a.1")
    assert sorted(path.name for path in (jobs / "a.1").iterdir()) == [
        "stderr.log",
        "stdout.log",
        "work",
    ]
    assert not ahead.take(f"{jobs}/b.1")


def test_no_more_are_kept_than_its_limit(ahead, tmp_path):
    made = 0
    while ahead.is_short:
        ahead.make()
        made += 1
    assert made == FOLDERS_KEPT == len(list((tmp_path / "ahead" / "8080").iterdir()))


def test_what_stands_there_already_is_not_touched(ahead, jobs):
    (jobs / "a.1").mkdir()
    (jobs / "a.1" / "stdout.log").write_text("of another life")
    ahead.make()
    assert not ahead.take(f"{jobs}/a.1")
    assert (jobs / "a.1" / "stdout.log").read_text() == "of another life"


def test_one_that_cannot_be_moved_leaves_nothing_behind(ahead, jobs, tmp_path):
    ahead.make()
    assert not ahead.take(f"{jobs}/swept/a.1")
    assert list((tmp_path / "ahead" / "8080").iterdir()) == []


def test_a_folder_that_somebody_removed_is_not_given_out(ahead, jobs, tmp_path):
    ahead.make()
    shutil.rmtree(tmp_path / "ahead" / "8080" / "1")
    assert not ahead.take(f"{jobs}/a.1")
    assert not (jobs / "a.1").exists()


def test_where_none_can_be_made_it_tries_again_after_the_next_attempt(ahead, jobs, tmp_path):
    """An idle worker on a full disk must not try for ever."""
    shutil.rmtree(tmp_path / "ahead")
    ahead.make()
    assert not ahead.is_short
    assert not ahead.take(f"{jobs}/a.1")
    assert ahead.is_short


def test_what_an_earlier_life_left_is_gone_and_the_neighbours_is_not(ahead, tmp_path):
    ahead.make()
    neighbour = FoldersAhead(tmp_path / "ahead" / "8081")
    neighbour.make()
    FoldersAhead(tmp_path / "ahead" / "8080")
    assert list((tmp_path / "ahead" / "8080").iterdir()) == []
    assert len(list((tmp_path / "ahead" / "8081").iterdir())) == 1


async def test_a_worker_with_nothing_to_do_has_folders_ready_and_its_next_job_gets_one(nest, peer):
    await nest.start()
    root = nest.settings.workspace / "ahead" / "8080"
    peer.order("first", shell="true")
    await peer.end_of("first")
    async with asyncio.timeout(20):
        # The worker turns meanwhile, in this loop.
        while len(list(root.iterdir())) < FOLDERS_KEPT:  # noqa: ASYNC110
            await asyncio.sleep(0)
    inodes = {folder.stat().st_ino for folder in root.iterdir()}

    peer.order("next", shell="pwd; echo err >&2")
    end = await peer.end_of("next")
    assert (end.exit_code, end.stderr_bytes) == (0, 4)
    assert (nest.jobs / "next.1").stat().st_ino in inodes
    assert (nest.jobs / "next.1" / "stdout.log").read_text() == f"{nest.jobs}/next.1/work\n"
