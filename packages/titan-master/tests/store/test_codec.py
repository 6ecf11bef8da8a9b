"""The seal on the journal: any damage to a record is seen, and the last good one is named."""

from __future__ import annotations

import typing

import msgspec
import pytest

from titan_master.core import events
from titan_master.store import codec
from titan_master.store.base import JournalDamaged, JournalTooNew
from titan_proto.states import ExitReason

EVENTS = (
    events.ClusterFounded(at_ms=1, cluster_id="c", name="n"),
    events.MasterStarted(at_ms=2, term=1),
    events.RunCancelRequested(at_ms=3, run_id="r"),
    events.AttemptEnded(
        at_ms=4,
        run_id="r",
        job_id="j",
        number=1,
        worker_id="w",
        worker="h:1",
        reason=ExitReason.EXITED,
        exit_code=3,
    ),
)


def sealed(items=EVENTS, term=7):
    records, chain = [], codec.GENESIS
    for seq, event in enumerate(items, 1):
        records.append(codec.seal(chain, seq, term, event))
        chain = records[-1].chain
    return records


def unsealed(records):
    found, chain = [], codec.GENESIS
    for seq, record in enumerate(records, 1):
        found.append(codec.unseal(chain, seq, record))
        chain = record.chain
    return found


def test_what_was_sealed_comes_back():
    assert tuple(unsealed(sealed())) == EVENTS


@pytest.mark.parametrize(
    ("column", "value"),
    [("term", None), ("term", -1), ("term", "7"), ("crc", None), ("chain", "x"), ("body", 7)],
)
def test_a_column_that_has_become_something_else_is_damage(column, value):
    """A flipped bit in the head of a row makes a number a text, or nothing."""
    records = sealed()
    records[2] = records[2]._replace(**{column: value})
    with pytest.raises(JournalDamaged) as caught:
        unsealed(records)
    assert caught.value.last_good_seq == 2


def test_every_event_is_told_by_its_name():
    """The tag is the class's name: renaming a class breaks old journals."""
    for kind in typing.get_args(events.AnyEvent):
        assert kind.__struct_config__.tag == kind.__name__


@pytest.mark.parametrize("place", range(len(EVENTS)))
def test_any_flipped_bit_of_a_body_is_seen(place):
    good = sealed()
    for byte in range(len(good[place].body)):
        body = bytearray(good[place].body)
        body[byte] ^= 1 << (byte % 8)
        records = [*good]
        records[place] = good[place]._replace(body=bytes(body))
        with pytest.raises(JournalDamaged) as damage:
            unsealed(records)
        assert damage.value.last_good_seq == place


@pytest.mark.parametrize(
    "spoil",
    [
        lambda records: [records[0], *records[2:]],
        lambda records: [records[1], records[0], *records[2:]],
        lambda records: [records[0], records[1]._replace(term=8), *records[2:]],
        lambda records: [records[0], records[1]._replace(crc=records[1].crc ^ 1), *records[2:]],
        lambda records: [records[0], records[1]._replace(chain=bytes(32)), *records[2:]],
        lambda records: [records[0], sealed(EVENTS, 8)[1], *records[2:]],
        lambda records: [records[0], codec.seal(bytes(32), 2, 7, EVENTS[1]), *records[2:]],
    ],
    ids=["missing", "swapped", "term", "crc", "chain", "another journal's", "rewritten"],
)
def test_a_record_that_does_not_belong_is_seen(spoil):
    with pytest.raises(JournalDamaged) as damage:
        unsealed(spoil(sealed()))
    assert damage.value.last_good_seq in {0, 1}


def test_a_sound_record_that_is_no_event_is_damage():
    """Whoever wrote it, this master cannot fold it."""

    class Other(events.Event, frozen=True, kw_only=True):
        pass

    record = codec.seal(codec.GENESIS, 1, 1, typing.cast("events.AnyEvent", Other(at_ms=1)))
    with pytest.raises(JournalDamaged, match="is no event"):
        codec.unseal(codec.GENESIS, 1, record)


def test_a_newer_journal_is_refused_and_says_what_to_do():
    codec.check_format(codec.JOURNAL_FORMAT)
    with pytest.raises(JournalTooNew, match="install the version that wrote it"):
        codec.check_format(codec.JOURNAL_FORMAT + 1)


def test_a_field_that_this_version_does_not_know_is_ignored():
    body = msgspec.msgpack.encode(
        {"type": "MasterStarted", "at_ms": 2, "term": 1, "since": "a later version"}
    )
    assert codec.decode(body) == EVENTS[1]
