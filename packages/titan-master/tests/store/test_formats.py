"""Journals of every released format open, in this version and in every later one.

``golden/journal-N.sqlite`` was written by a master of format N and is never changed. What it must come
to is beside it, in words (never changed either) and as the state's digest: that one changes when a
field is added to the digest, and is then accepted with ``--rewrite``, after a look at the words.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import sqlite3

import msgspec
import pytest
import stories

from titan_master.care.replay import replayed, summary
from titan_master.core.check import check
from titan_master.core.events import MasterStarted, WorkerJoined
from titan_master.core.state import digest
from titan_master.store import codec
from titan_master.store.base import JournalDamaged, JournalTooNew
from titan_master.store.sqlite import SqliteStore
from titan_master.store.sqlite_reading import read_formats

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FORMATS = sorted(int(path.stem.partition("-")[2]) for path in GOLDEN.glob("journal-*.sqlite"))
DIGESTS = GOLDEN / "digests.json"


@pytest.fixture(params=FORMATS)
def golden(request, tmp_path):
    """A copy of a golden journal: its format, and a folder that a master could be started on."""
    data = tmp_path / "data"
    data.mkdir()
    for beside in ("", ".mark"):
        source = GOLDEN / f"journal-{request.param}.sqlite{beside}"
        shutil.copy(source, data / f"titan.sqlite{beside}")
    return request.param, data


def in_words(state):
    """What a journal comes to, as people would say it; fields that come later do not change this."""
    lines = [
        f"cluster {state.cluster_name}, term {state.term}, {state.runs_accepted} runs accepted"
    ]
    for one in state.runs.values():
        lines.append(f"run {one.alias} {one.run_id}{' cancelled' if one.cancelled else ''}")
        for job in one.order:
            attempt = job.attempt
            tried = (
                f" attempt {attempt.number} {attempt.state} on {attempt.worker}" if attempt else ""
            )
            ended = f" {job.reason} {job.message!r}" if job.is_terminal else ""
            lines.append(f"  {job.spec.id} {job.state} lost {job.lost}{tried}{ended}")
    for worker in state.workers.values():
        held = " ".join(f"{run_id}/{job_id}.{n}" for (run_id, job_id), n in worker.held.items())
        lines.append(f"worker {worker.name} {worker.state} {held}".rstrip())
    lines += [f"service {one.name} {one.state}" for one in state.services.values()]
    lines += [f"key {key} {record.alias}" for key, record in state.keys.items()]
    lines += [f"slug {slug} {number}" for slug, number in sorted(state.slugs.items())]
    return "\n".join(lines) + "\n"


def test_every_format_has_a_golden_journal():
    """A format that was released without one could be broken by the next version."""
    assert list(range(1, codec.JOURNAL_FORMAT + 1)) == FORMATS


def test_a_golden_journal_comes_to_what_it_came_to(golden, rewrite):
    """In words, and by its digest."""
    number, data = golden
    with contextlib.closing(SqliteStore(data / "titan.sqlite")) as store:
        state = store.open().state
    check(state)
    words = GOLDEN / f"journal-{number}.txt"
    if rewrite and not words.exists():
        words.write_text(in_words(state), encoding="utf-8")
    assert in_words(state) == words.read_text(encoding="utf-8")
    digests = json.loads(DIGESTS.read_text(encoding="utf-8")) if DIGESTS.exists() else {}
    if rewrite:
        digests[str(number)] = digest(state)
        DIGESTS.write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")
    assert digests[str(number)] == digest(state)


def test_an_older_database_becomes_this_versions(golden):
    """With a checkpoint at once, and again it opens as the same; its records are left as they are."""
    _, data = golden
    database = data / "titan.sqlite"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        before = connection.execute("SELECT seq, body FROM journal").fetchall()
        (term,) = connection.execute("SELECT value FROM meta WHERE key = 'term'").fetchone()
    store = SqliteStore(database)
    found = store.open()
    assert found.term == term + 1
    runs = store.runs("", 99).runs
    views = [store.jobs(view.run_id, "", 999) for view in runs]
    assert len(runs) >= 1
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT seq, body FROM journal").fetchall() == before
        rows = dict(connection.execute("SELECT kind, seq FROM checkpoint").fetchall())
        (written,) = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    assert rows["head"] <= found.last_seq
    assert written == codec.JOURNAL_FORMAT
    event = MasterStarted(at_ms=found.last_at_ms, term=found.term, lost_after_ms=30_000)
    store.commit((event,), found.term)
    store.close()
    again = store.open()
    assert again.last_seq == found.last_seq + 1
    assert store.runs("", 99).runs == runs
    assert [store.jobs(view.run_id, "", 999) for view in runs] == views
    store.close()
    whole = replayed(data, again.last_seq)  # from its first record, over the change of format
    assert summary(whole)["stateDigest"] == digest(again.state)


def test_a_newer_journal_is_refused_and_left_as_it_is(golden):
    """With the remedy."""
    _, data = golden
    with contextlib.closing(sqlite3.connect(data / "titan.sqlite")) as connection:
        connection.execute("UPDATE meta SET value = 99 WHERE key = 'format'")
        connection.commit()
    before = (data / "titan.sqlite").read_bytes()
    with pytest.raises(JournalTooNew, match="install the version that wrote it"):
        SqliteStore(data / "titan.sqlite").open()
    assert (data / "titan.sqlite").read_bytes() == before


# -- a made-up older format ---------------------------------------------------------------------------


def with_name(value):
    """From format 0, where a worker's host and port were one text and its slots had another name."""
    if value["type"] == "WorkerJoined":
        host, _, port = value.pop("address").partition(":")
        value |= {"host": host, "port": int(port), "slots": value.pop("places")}
    return value


JOINED = WorkerJoined(
    at_ms=5, worker_id="w", host="h", port=8080, incarnation=1, boot_id="b", slots=3, skills=("A",)
)


def as_format_0(event):
    """An event as a master of that format would have written it."""
    value = msgspec.msgpack.decode(msgspec.msgpack.encode(event))
    if value["type"] == "WorkerJoined":
        value["address"] = f"{value.pop('host')}:{value.pop('port')}"
        value["places"] = value.pop("slots")
    return msgspec.msgpack.encode(value)


def test_an_event_of_an_older_format_is_raised_step_by_step(monkeypatch):
    """Through every format since."""
    body = as_format_0(JOINED)
    with pytest.raises(msgspec.DecodeError):
        codec.decode(body)
    monkeypatch.setitem(codec.UPCASTERS, 0, with_name)
    assert codec.decode(body, 0) == JOINED
    seen = []
    monkeypatch.setitem(codec.UPCASTERS, 1, lambda value: seen.append(value["type"]) or value)
    assert codec.decode(body, 0) == JOINED
    assert seen == ["WorkerJoined"]


def test_a_journal_of_an_older_format_is_raised_on_its_way_in(tmp_path, monkeypatch):
    """Its seals are those of the bytes as they lie there; new records follow in the present format."""
    world = stories.a_day()
    events = stories.events(world)
    database = tmp_path / "titan.sqlite"
    store = SqliteStore(database)
    store.open()
    store.close()
    with contextlib.closing(sqlite3.connect(database)) as connection:
        chain = codec.GENESIS
        for seq, event in enumerate(events, 1):
            monkeypatch.setattr(codec, "_ENCODER", _Encoder())
            record = codec.seal(chain, seq, 1, event)
            monkeypatch.undo()
            connection.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?)", _row(record))
            chain = record.chain
        crc = codec.format_crc(1, 0)
        connection.execute("UPDATE journal_format SET format = 0, crc = ? WHERE seq = 1", (crc,))
        connection.execute("UPDATE meta SET value = 0 WHERE key = 'format'")
        connection.commit()
    (tmp_path / "titan.sqlite.mark").unlink(missing_ok=True)
    monkeypatch.setitem(codec.UPCASTERS, 0, with_name)
    found = store.open()
    assert digest(found.state) == digest(world.state)
    assert store.spec("run1") is not None
    store.commit((JOINED,), found.term)
    store.close()
    again = store.open()
    assert again.state.workers["w"].slots == 3
    store.close()
    assert summary(replayed(tmp_path, again.last_seq))["stateDigest"] == digest(again.state)


class _Encoder:
    def encode(self, event):
        return as_format_0(event)


def _row(record):
    return record.seq, record.term, record.crc, record.chain, record.body


@pytest.mark.parametrize("row", [(1, None, 5), (1, "1", 5), (1, 1, None)])
def test_an_entry_of_the_formats_that_is_no_number_any_more_is_damage(row):
    """A flipped bit in the head of its row is enough for that."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE journal_format (seq, format, crc)")  # not STRICT, as damage is
    connection.execute("INSERT INTO journal_format VALUES (?, ?, ?)", row)
    with contextlib.closing(connection), pytest.raises(JournalDamaged, match="checksum"):
        read_formats(connection)
