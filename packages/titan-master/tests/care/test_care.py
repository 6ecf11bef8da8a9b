"""Backup, restore, doctor and replay: with real files, as a person would use them."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
import subprocess
import sys

import pytest
import stories

from titan_master.care import copies
from titan_master.care.copies import CopyFailed, back_up, restore
from titan_master.care.doctor import Level, examine
from titan_master.core.state import digest
from titan_master.store.sqlite import SqliteStore
from titan_proto.handshake import format_token

NOW_MS = 2_000_000_000_000
BLOB = b"print('hello')\n"


@pytest.fixture
def data(tmp_path):
    """A data folder as a master leaves it."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    store = SqliteStore(folder / "titan.sqlite")
    store.commit(stories.events(stories.a_day()), store.open().term)
    store.checkpoint()
    store.close()
    name = copies.hashlib.sha256(BLOB).hexdigest()
    (folder / "artifacts" / name[:2]).mkdir(parents=True)
    (folder / "artifacts" / name[:2] / name).write_bytes(BLOB)
    (folder / "artifacts" / "parts").mkdir()
    (folder / "artifacts" / "parts" / name).write_bytes(BLOB[:3])
    (folder / "logs" / "run1").mkdir(parents=True)
    (folder / "logs" / "run1" / "PULL.1").write_text("a line\n")
    (folder / "perm_files").mkdir()
    (folder / "perm_files" / "hello.py").write_bytes(BLOB)
    token = folder / "token"
    token.write_text(format_token("local", "test", "ab" * 32) + "\n")
    token.chmod(0o600)
    return folder


def kept(data, target, **flags):
    flags = {"with_logs": False, "with_token": False, **flags}
    return back_up(data, target, software="test", now_ms=NOW_MS, **flags)


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def titan_master(*words, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "titan_master", *map(str, words)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1"},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    return done


# -- backup and restore ------------------------------------------------------------------------------


def test_a_backup_has_everything_but_logs_and_the_secret(data, tmp_path):
    """And leaves the data folder as it was."""
    before = {name: (data / name).read_bytes() for name in names(data)}
    note = kept(data, tmp_path / "b")
    blob = next(
        name for name in names(data) if name.startswith("artifacts/") and "parts" not in name
    )
    assert names(tmp_path / "b") == {
        "backup.json", "titan.sqlite", "titan.sqlite.mark", blob, "perm_files/hello.py",
    }  # fmt: skip
    assert (note.artifacts, note.cluster_name) == (1, "test")
    assert note.state_digest == digest(stories.a_day().state)
    assert {name: (data / name).read_bytes() for name in before} == before
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o700


def test_logs_and_the_secret_come_along_when_they_are_asked_for(data, tmp_path):
    """The secret for its owner alone."""
    kept(data, tmp_path / "b", with_logs=True, with_token=True)
    assert {"logs/run1/PULL.1", "token"} <= names(tmp_path / "b")
    assert stat.S_IMODE((tmp_path / "b" / "token").stat().st_mode) == 0o600
    restore(tmp_path / "b", tmp_path / "n")
    assert {"logs/run1/PULL.1", "token"} <= names(tmp_path / "n")
    assert stat.S_IMODE((tmp_path / "n" / "token").stat().st_mode) == 0o600


def test_a_restored_folder_is_what_was_backed_up_and_goes_on_from_afar(data, tmp_path):
    """State, history, artifacts; with a term that no worker has heard yet."""
    kept(data, tmp_path / "b")
    restore(tmp_path / "b", tmp_path / "n")
    assert names(tmp_path / "n") == names(tmp_path / "b") - {"backup.json"}
    store = SqliteStore(tmp_path / "n" / "titan.sqlite")
    found = store.open()
    assert digest(found.state) == digest(stories.a_day().state)
    assert (found.is_behind, found.term > 1_000_000) == (True, True)
    assert [view.alias for view in store.runs("", 9).runs] == ["nightly-1", "etl-2", "etl-1"]
    store.close()


@pytest.mark.parametrize("act", [kept, restore])
def test_nothing_is_ever_written_over(data, tmp_path, act):
    """A target that has something in it is refused, and left alone."""
    source = data
    if act is restore:
        kept(data, source := tmp_path / "b")
    target = tmp_path / "t"
    target.mkdir()
    (target / "mine").write_text("x")
    with pytest.raises(CopyFailed, match="not empty") as caught:
        act(source, target)
    assert caught.value.code == os.EX_CANTCREAT
    assert names(target) == {"mine"}
    assert not list(tmp_path.glob("*.partial"))


def test_an_empty_folder_may_be_the_target(data, tmp_path):
    """Made by somebody with the right disk under it."""
    (tmp_path / "b").mkdir()
    kept(data, tmp_path / "b")
    (tmp_path / "n").mkdir()
    restore(tmp_path / "b", tmp_path / "n")
    assert "titan.sqlite" in names(tmp_path / "n")


def spoiled_note(backup):
    (backup / "backup.json").unlink()


def spoiled_database(backup):
    raw = bytearray((backup / "titan.sqlite").read_bytes())
    raw[len(raw) // 2] ^= 1
    (backup / "titan.sqlite").write_bytes(raw)


def spoiled_artifact(backup):
    (path,) = (path for path in (backup / "artifacts").rglob("*") if path.is_file())
    path.write_bytes(b"something else")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoiled_note, "no finished backup"),
        (spoiled_database, "not the file that was backed up"),
        (spoiled_artifact, "damaged"),
    ],
)
def test_a_backup_that_is_not_what_was_made_is_not_restored(data, tmp_path, spoil, said):
    """And no half of a data folder is left behind."""
    kept(data, tmp_path / "b")
    spoil(tmp_path / "b")
    with pytest.raises(CopyFailed, match=said):
        restore(tmp_path / "b", tmp_path / "n")
    assert not (tmp_path / "n").exists()
    assert not list(tmp_path.glob("*.partial"))


def test_a_damaged_journal_is_not_passed_off_as_a_backup(data, tmp_path):
    """65, as the master would end."""
    with contextlib.closing(sqlite3.connect(data / "titan.sqlite")) as connection:
        connection.execute("UPDATE checkpoint SET seal = zeroblob(32) WHERE kind = 'run'")
        connection.execute("UPDATE journal SET body = x'00' WHERE seq = 3")
        connection.commit()
    with pytest.raises(CopyFailed) as caught:
        kept(data, tmp_path / "b")
    assert caught.value.code == os.EX_DATAERR
    assert not (tmp_path / "b").exists()


# -- doctor ------------------------------------------------------------------------------------------


def levels(data):
    return {one.check: one.level for one in examine(data, NOW_MS)}


def test_a_folder_that_is_well(data):
    """Every check is made, none fails, nothing is changed."""
    before = {name: (data / name).read_bytes() for name in names(data)}
    found = levels(data)
    assert set(found) == {
        "folder", "lock", "token", "disk", "sqlite", "format", "checkpoint", "journal",
        "old records", "replay", "mark", "state", "history", "artifacts", "clock",
    }  # fmt: skip
    assert Level.FAIL not in found.values()
    assert {check for check, level in found.items() if level is Level.WARN} <= {"sqlite", "disk"}
    assert {name: (data / name).read_bytes() for name in before} == before


def sql(statement):
    def ill(data):
        with contextlib.closing(sqlite3.connect(data / "titan.sqlite")) as connection:
            assert connection.execute(statement).rowcount >= 1
            connection.commit()

    return ill


ILLNESSES = [
    (lambda data: data.chmod(0o755), "folder", Level.WARN),
    (lambda data: (data / "token").chmod(0o644), "token", Level.FAIL),
    (lambda data: (data / "token").write_text("nonsense"), "token", Level.FAIL),
    (lambda data: (data / "token").unlink(), "token", Level.WARN),
    (lambda data: (data / "titan.sqlite").unlink(), "journal", Level.FAIL),
    (lambda data: (data / "titan.sqlite.mark").unlink(), "mark", Level.WARN),
    (sql("UPDATE meta SET value = 99 WHERE key = 'format'"), "journal", Level.FAIL),
    (sql("UPDATE checkpoint SET seal = zeroblob(32) WHERE kind = 'run'"), "checkpoint", Level.WARN),
    (sql("UPDATE journal SET body = x'00' WHERE seq = 3"), "old records", Level.WARN),
    (sql("DELETE FROM journal WHERE seq > 20"), "journal", Level.FAIL),
    (sql("UPDATE history_job SET exit_code = 9 WHERE exit_code = 3"), "history", Level.FAIL),
    (sql("DELETE FROM history_job WHERE exit_code = 3"), "history", Level.FAIL),
]  # fmt: skip


@pytest.mark.parametrize(("make_ill", "check", "level"), ILLNESSES, ids=range(len(ILLNESSES)))
def test_an_illness_is_found_and_the_remedy_said(data, make_ill, check, level):
    """By the check that is there for it."""
    make_ill(data)
    found = [one for one in examine(data, NOW_MS) if one.check == check]
    assert [one.level for one in found] == [level]
    assert len(found[0].fix) > 5


def test_a_journal_that_ends_before_its_mark(data):
    """Nothing else would notice: what is left is sound."""
    with contextlib.closing(sqlite3.connect(data / "titan.sqlite")) as connection:
        connection.execute("DELETE FROM checkpoint")
        (last,) = connection.execute("SELECT max(seq) FROM journal").fetchone()
        connection.execute("DELETE FROM journal WHERE seq = ?", (last,))
        connection.execute("UPDATE meta SET value = ? WHERE key = 'history'", (last - 1,))
        connection.commit()
    found = {one.check: one for one in examine(data, NOW_MS)}
    assert found["mark"].level is Level.FAIL
    assert f"--accept-loss {last - 1}" in found["mark"].fix


def test_a_folder_that_is_not_there(tmp_path):
    """One finding, which says so."""
    (found,) = examine(tmp_path / "no", NOW_MS)
    assert found.level is Level.FAIL


def test_a_clock_behind_the_journal(data):
    """Times go on from the journal's."""
    found = {one.check: one.level for one in examine(data, 0)}
    assert found["clock"] is Level.WARN


# -- the commands --------------------------------------------------------------------------------------


def test_the_commands_from_backup_to_replay(data, tmp_path):
    """What they print is for people, and with -o json for programs."""
    said = json.loads(titan_master("backup", tmp_path / "b", "--data", data, "-o", "json").stdout)
    assert (said["kind"], said["artifacts"], said["withToken"]) == ("Backup", 1, False)
    assert "Not copied" in titan_master("backup", tmp_path / "b2", "--data", data).stdout
    titan_master("backup", tmp_path / "b", "--data", data, code=os.EX_CANTCREAT)
    titan_master("backup", tmp_path / "b3", "--data", tmp_path / "no", code=os.EX_NOINPUT)
    whole = json.loads(titan_master("replay", "--data", tmp_path / "b", "-o", "json").stdout)
    assert whole["stateDigest"] == said["stateDigest"]
    assert whole["lastSeq"] == said["lastSeq"]
    early = titan_master("replay", "--data", tmp_path / "b", "--until", 7, "--events").stdout
    assert [json.loads(line)["seq"] for line in early.splitlines()[:7]] == list(range(1, 8))
    assert "lastSeq        7" in early
    titan_master("replay", "--data", tmp_path / "b", "--until", 9_999, code=os.EX_NOINPUT)
    titan_master("replay", "--data", tmp_path, code=os.EX_NOINPUT)
    out = titan_master("restore", tmp_path / "b", "--data", tmp_path / "n").stdout
    assert f"titan-master start --data {tmp_path / 'n'}" in out
    titan_master("restore", tmp_path / "b", "--data", tmp_path / "n", code=os.EX_CANTCREAT)
    well = json.loads(titan_master("doctor", "--data", tmp_path / "n", "-o", "json").stdout)
    assert {item["level"] for item in well["items"]} <= {"ok", "warn"}
    (data / "token").chmod(0o644)
    ill = titan_master("doctor", "--data", data, code=1).stdout
    assert "fail token" in ill
    assert f"chmod 600 {data / 'token'}" in ill


@pytest.mark.parametrize("command", ["start", "backup", "restore", "doctor", "replay"])
def test_every_command_shows_an_example(command):
    """In its help."""
    assert f"Example: titan-master {command} " in titan_master(command, "--help").stdout


def test_a_copy_of_a_log_with_a_hole_takes_no_more_room_than_it(tmp_path):
    """And is the same, byte for byte, with a hole at its end as well."""
    log, backup = tmp_path / "stdout.log", tmp_path / "copy" / "stdout.log"
    with log.open("wb") as file:
        file.write(b"begin\n")
        file.seek(64 << 20)
        file.write(b"end\n")
        file.truncate(72 << 20)
    copies._Copier().file(log, backup)
    assert backup.read_bytes() == log.read_bytes()
    assert backup.stat().st_blocks * 512 < 8 << 20
