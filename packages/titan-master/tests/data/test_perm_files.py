"""Names and what they stood for: nothing is replaced in silence, nothing lost, nothing unbounded."""

from __future__ import annotations

import errno
import hashlib
import os
import signal

import pytest
from disks import endless, look

from titan_master.data import perm_files as module
from titan_master.data.blobs import BlobStore
from titan_master.data.perm_files import BadFile, PermFiles
from titan_proto.limits import FILE_VERSIONS
from titan_proto.messages import FileOrigin

OLD, NEW = b"print('old')", b"print('new, and longer')"


def digest(data):
    return hashlib.sha256(data).hexdigest()


class Folder:
    """perm_files of a test, and short words for what is done with them."""

    def __init__(self, root):
        self.root = root / "perm_files"
        self.space = endless()
        self.blobs = BlobStore(root / "artifacts", self.space, lambda: 0)
        self.again()

    def again(self):
        """As a master that was started anew."""
        self.files = PermFiles(self.root, self.blobs)

    def drop(self, name, data):
        place = self.root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)

    def put(self, name, data, *, key="k", origin=FileOrigin.STAGED, now_ms=1_000, **more):
        return self.files.put(
            name, lambda: iter([data[:3], data[3:]]), origin=origin, key=key, now_ms=now_ms, **more
        )

    def text(self, name):
        return (self.root / name).read_bytes()

    def kept(self, name):
        """Digest and origin of what is kept beside the current, each proven to be readable."""
        view = self.files.view(name)
        for one in view.versions:
            size = self.files.version_size(name, one.digest)
            assert size == one.size_bytes
            assert digest(self.files.read_version(name, one.digest, size, 0)) == one.digest
        return [(one.digest, one.origin) for one in view.versions]

    def drafts(self):
        return list(self.root.rglob(".new-*"))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_what_is_put_is_found_by_its_name(folder):
    """In a folder that was not there, with the mode it came with; a run can be pinned to it."""
    put = folder.put("tools/a.py", NEW, is_executable=True)
    assert put.notices == ()
    assert put.digest == digest(NEW)
    assert folder.text("tools/a.py") == NEW
    assert (folder.root / "tools/a.py").stat().st_mode & 0o777 == 0o755
    assert folder.files.find("tools/a.py").digest == digest(NEW)
    view = folder.files.view("tools/a.py")
    assert (view.current.origin, view.current.at_ms, view.versions) == (
        FileOrigin.STAGED,
        1_000,
        (),
    )
    assert folder.drafts() == []


def test_a_dropped_file_is_never_replaced_in_silence(folder):
    """It stays as a version, and whoever replaced it is told, as often as they ask."""
    folder.drop("a.py", OLD)
    (said,) = folder.put("a.py", NEW, key="k").notices
    assert digest(OLD)[:12] in said
    assert "a.py" in said
    assert folder.text("a.py") == NEW
    assert folder.kept("a.py") == [(digest(OLD), FileOrigin.DROPPED)]
    folder.again()
    assert folder.put("a.py", NEW, key="k").notices == (said,)
    assert folder.files.told("a.py", "k") == (said,)
    assert folder.put("a.py", NEW, key="another").notices == ()
    assert folder.files.told("a.py", "another") == ()


def test_an_uploaded_file_is_not_replaced_in_silence_either(folder):
    folder.put("a.py", OLD, origin=FileOrigin.UPLOADED)
    assert len(folder.put("a.py", NEW).notices) == 1
    assert folder.kept("a.py") == [(digest(OLD), FileOrigin.UPLOADED)]


def test_what_a_run_had_staged_is_replaced_without_a_word_and_stays_a_version(folder):
    """As whoever edits a script and runs it again expects."""
    folder.put("a.py", OLD)
    assert folder.put("a.py", NEW).notices == ()
    assert folder.kept("a.py") == [(digest(OLD), FileOrigin.STAGED)]
    assert folder.put("a.py", OLD).notices == ()
    assert folder.text("a.py") == OLD
    assert folder.kept("a.py") == [(digest(NEW), FileOrigin.STAGED)]


def test_a_dropped_file_of_the_same_content_stays_a_dropped_one(folder):
    folder.drop("a.py", NEW)
    assert folder.put("a.py", NEW).notices == ()
    assert folder.files.view("a.py").current.origin is FileOrigin.DROPPED
    assert not (folder.root / ".versions").exists()


def test_editing_a_staged_file_in_place_changes_no_version(folder):
    """What somebody wrote over it counts as dropped, and what the run had staged is still there."""
    folder.put("a.py", OLD)
    folder.drop("a.py", b"by hand")
    assert folder.files.view("a.py").current.origin is FileOrigin.DROPPED
    assert folder.kept("a.py") == [(digest(OLD), FileOrigin.STAGED)]
    assert len(folder.put("a.py", NEW).notices) == 1
    assert {one for one, _ in folder.kept("a.py")} == {digest(OLD), digest(b"by hand")}


def test_a_file_that_was_removed_leaves_its_versions(folder):
    folder.put("a.py", OLD)
    (folder.root / "a.py").unlink()
    view = folder.files.view("a.py")
    assert view.current is None
    assert folder.kept("a.py") == [(digest(OLD), FileOrigin.STAGED)]
    assert [one.name for one in folder.files.page("", 10).files] == ["a.py"]
    assert folder.files.view("b.py") is None


def test_versions_have_a_limit_and_what_a_person_put_there_goes_last(folder):
    """What runs staged makes room first; when a dropped one has to go, that is said."""
    folder.drop("a.py", OLD)
    for number in range(3 * FILE_VERSIONS):
        put = folder.put("a.py", b"%d" % number)
        assert (number == 0) == bool(put.notices)
    kept = folder.kept("a.py")
    assert len(kept) == FILE_VERSIONS - 1
    assert kept[-1] == (digest(OLD), FileOrigin.DROPPED)
    contents = [path for path in (folder.root / ".versions/a.py").iterdir() if path.suffix == ""]
    assert len(contents) == FILE_VERSIONS
    said = []
    for number in range(FILE_VERSIONS):
        folder.drop("a.py", b"by hand %d" % number)
        said += folder.put("a.py", b"staged %d" % number).notices
    assert any(digest(OLD)[:12] in one and "FILE_VERSIONS (10)" in one for one in said)


def test_versions_have_a_weight_too_but_the_one_before_is_kept(folder, monkeypatch):
    monkeypatch.setattr(module, "FILE_VERSIONS_BYTES", 10)
    for data in (b"x" * 4, b"y" * 4, b"z" * 4):
        folder.put("a.py", data)
    assert folder.kept("a.py") == [(digest(b"y" * 4), FileOrigin.STAGED)]
    folder.put("a.py", b"w" * 100)
    assert folder.kept("a.py") == [(digest(b"z" * 4), FileOrigin.STAGED)]


def test_names_have_a_limit(folder, monkeypatch):
    """A new one is refused; those that are there go on."""
    monkeypatch.setattr(module, "NAMED_FILES", 2)
    folder.put("a.py", OLD)
    folder.put("b.py", OLD)
    with pytest.raises(BadFile, match=r"NAMED_FILES \(2\)"):
        folder.put("c.py", OLD)
    assert not (folder.root / "c.py").exists()
    folder.put("b.py", NEW)
    folder.drop("d.py", OLD)
    page = folder.files.page("", 10)
    assert page.is_cut
    assert [one.name for one in page.files] == ["a.py", "b.py"]


@pytest.mark.parametrize(
    "name",
    [
        "../a.py", "/etc/a.py", "a/../../a.py", ".versions/a.py/x", ".hidden", "a/.b", "", "a//b", "a\\b",
        "C:a.py", "a\nb", "a.py.", "a ", "x" * 201, "a\0b", "link", "link/a.py", "folder", "a.py/b",
        "pipe", "\udc80.py",
    ],
)  # fmt: skip
def test_no_name_leads_out_or_replaces_what_is_no_file(folder, name):
    """Nothing is made, nothing is followed, nothing outside is touched."""
    outside = folder.root.parent / "outside"
    outside.mkdir()
    folder.drop("a.py", OLD)
    (folder.root / "link").symlink_to(outside)
    (folder.root / "folder").mkdir()
    os.mkfifo(folder.root / "pipe")
    before = sorted(folder.root.parent.rglob("*"))
    with pytest.raises(BadFile):
        folder.put(name, NEW)
    assert [
        p for p in sorted(folder.root.parent.rglob("*")) if ".versions" not in p.parts
    ] == before
    assert folder.text("a.py") == OLD


@pytest.mark.parametrize(
    ("there", "name"),
    [
        ("a.py", "A.py"), ("tools/a.py", "Tools/b.py"), ("straße.py", "STRASSE.py"),
        ("ö.py", "o\u0308.py"),
    ],
)  # fmt: skip
def test_names_that_differ_in_spelling_only_are_refused(folder, there, name):
    """On another system they would be one file; here one would pass for the other."""
    folder.drop(there, OLD)
    with pytest.raises(BadFile, match="differs from"):
        folder.put(name, NEW)
    folder.put(there, NEW)
    (folder.root / there).unlink()
    with pytest.raises(BadFile, match="differs from"):
        folder.put(name, NEW)


def test_versions_are_no_names(folder):
    """What is kept of names cannot be run or listed as one."""
    folder.put("a.py", OLD)
    assert folder.files.find(f".versions/a.py/{digest(OLD)}") is None
    assert folder.files.version_size("a.py", "../../a.py") is None
    assert folder.files.version_size("../perm_files/a.py", digest(OLD)) is None
    assert [one.name for one in folder.files.page("", 10).files] == ["a.py"]


def test_names_with_folders_and_odd_letters_have_versions_of_their_own(folder):
    """A name, one below it, and one that looks like the other's encoding."""
    for name in ("a/b%2Fc.py", "a/b/c.py", "a%2Fb.py", "größe.py"):
        folder.put(name, OLD)
        folder.put(name, name.encode())
        assert folder.kept(name) == [(digest(OLD), FileOrigin.STAGED)]
    for path in folder.root.rglob("*.py"):
        if path.is_file():
            path.unlink()
    names = [one.name for one in folder.files.page("", 10).files]
    assert names == sorted(["a/b%2Fc.py", "a/b/c.py", "a%2Fb.py", "größe.py"])


def test_a_list_comes_in_pages_and_does_not_read_too_much_at_once(folder, monkeypatch):
    for number in range(5):
        folder.drop(f"{number}.py", b"x" * 100)
    (folder.root / os.fsdecode(b"\xff.py")).write_bytes(b"no text")
    page = folder.files.page("", 2)
    assert ([one.name for one in page.files], page.cursor) == (["0.py", "1.py"], "1.py")
    monkeypatch.setattr(module, "_HASHED_PER_PAGE_BYTES", 150)
    page = folder.files.page(page.cursor, 10)
    assert [one.name for one in page.files] == ["2.py", "3.py"]
    page = folder.files.page(page.cursor, 10)
    assert ([one.name for one in page.files], page.cursor) == (["4.py"], "")
    assert page.files[0].current.digest == digest(b"x" * 100)


def test_a_full_disk_changes_nothing(folder):
    """The name stands for what it did; with room again the same works."""
    folder.drop("a.py", OLD)
    for room in (0, len(OLD), len(OLD) + len(NEW), len(NEW) - 1):
        folder.space.looked(look(room))
        with pytest.raises(OSError, match="No space") as caught:
            folder.put("a.py", NEW)
        assert caught.value.errno == errno.ENOSPC
        assert folder.text("a.py") == OLD
        assert folder.drafts() == []
    folder.space.looked(look(1 << 20))
    assert len(folder.put("a.py", NEW).notices) == 1
    assert folder.kept("a.py") == [(digest(OLD), FileOrigin.DROPPED)]


def test_a_file_that_changes_meanwhile_is_not_lost(folder, monkeypatch):
    """Somebody drops another one between the look and the rename: that one becomes a version too."""
    folder.drop("a.py", OLD)
    real = module._found_there

    def drops(parent, name):
        monkeypatch.setattr(module, "_found_there", real)
        folder.drop("a.py", b"dropped just now")
        return real(parent, name)

    monkeypatch.setattr(module, "_found_there", drops)
    (said,) = folder.put("a.py", NEW).notices
    assert digest(b"dropped just now")[:12] in said
    assert folder.text("a.py") == NEW
    assert {one for one, _ in folder.kept("a.py")} == {digest(OLD), digest(b"dropped just now")}


def test_a_list_that_cannot_be_read_loses_no_version(folder):
    """What lies there counts as put there on purpose, so that replacing it is said."""
    folder.put("a.py", OLD)
    (folder.root / ".versions/a.py/versions.json").write_text('[{"digest":')
    folder.again()
    assert len(folder.put("a.py", NEW).notices) == 1
    assert folder.kept("a.py") == [(digest(OLD), FileOrigin.DROPPED)]


def killed_after(steps, folder):
    """Put the new one in a child that is killed after so many changes of the disk; whether it was."""
    child = os.fork()
    if child == 0:
        left = steps

        def counted(real):
            def call(*args, **kwargs):
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return real(*args, **kwargs)

            return call

        try:
            for name in ("mkdir", "write", "rename", "unlink", "fsync"):
                setattr(os, name, counted(getattr(os, name)))
            os._exit(len(folder.put("tools/a.py", NEW).notices))
        finally:
            os._exit(100)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {1, -signal.SIGKILL}
    return code != 1


@pytest.mark.parametrize("staged_before", [False, True])
def test_killed_at_any_point_the_name_is_old_or_new_and_nothing_is_lost(tmp_path, staged_before):
    """Between any two changes of the disk; the same put afterwards ends the work, and says so."""
    steps, was_killed = 0, True
    while was_killed:
        folder = Folder(tmp_path / str(steps))
        if staged_before:
            folder.put("tools/a.py", b"staged before", key="before")
        folder.drop("tools/a.py", OLD)
        was_killed = killed_after(steps, folder)
        folder.again()
        assert folder.text("tools/a.py") in {OLD, NEW}
        if folder.text("tools/a.py") == NEW:
            assert digest(OLD) in {one for one, _ in folder.kept("tools/a.py")}
        (said,) = folder.put("tools/a.py", NEW).notices
        assert digest(OLD)[:12] in said
        assert folder.text("tools/a.py") == NEW
        expected = {digest(OLD)} | ({digest(b"staged before")} if staged_before else set())
        assert {one for one, _ in folder.kept("tools/a.py")} == expected
        steps += 1
    assert steps > 10
