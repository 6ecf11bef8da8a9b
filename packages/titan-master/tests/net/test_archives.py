"""Whatever bytes a client calls a workspace, the answer is names or a refusal."""

import io
import random
import zipfile

from titan_master.net.submission import Refusal, _zip_names


def test_a_damaged_archive_is_refused_and_nothing_else(tmp_path):
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name in ("run.py", "data/t\N{SNOWMAN}.csv", "deep/er/file"):
            archive.writestr(zipfile.ZipInfo(name), b"x" * 40)
    dice = random.Random(7)
    path = tmp_path / "workspace"
    outcomes = {"read": 0, "refused": 0}
    for _ in range(2_000):
        damaged = bytearray(whole.getvalue())
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        path.write_bytes(damaged[: dice.choice((len(damaged), dice.randrange(len(damaged))))])
        try:
            _zip_names(path)
            outcomes["read"] += 1
        except Refusal:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 100


def test_extra_fields_cut_short_are_refused(tmp_path):
    """A 64-bit size that is announced in the extra field and not there."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        entry = zipfile.ZipInfo("run.py")
        entry.extra = b"\x01\x00\x04\x00abcd"
        archive.writestr(entry, b"x")
    data = bytearray(whole.getvalue())
    at = data.index(b"PK\x01\x02")
    data[at + 20 : at + 28] = b"\xff" * 8
    path = tmp_path / "workspace"
    path.write_bytes(data)
    try:
        names = _zip_names(path)
    except Refusal:
        return
    raise AssertionError(names)
