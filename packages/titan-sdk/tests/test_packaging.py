"""Packing: the same bytes for the same content, without what nobody wants sent."""

from __future__ import annotations

import io
import os
import socket
import stat
import zipfile
from pathlib import Path

import pytest

from titan_sdk import PackagingError, ignores, packaging
from titan_sdk.packaging import largest, pack_folder, pack_script, select


def body(package):
    with package:
        return b"".join(package.chunks(0))


def names(folder, **wish):
    return [entry.name for entry in select(folder, **wish)]


def fill(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def test_a_script_alone_is_one_entry_that_may_be_executed(project):
    fill(project, "a.py", "other.py")
    with zipfile.ZipFile(io.BytesIO(body(pack_script(project / "a.py", "a.py")))) as archive:
        (info,) = archive.infolist()
        assert (info.filename, archive.read(info)) == ("a.py", b"a.py")
        assert stat.S_IMODE(info.external_attr >> 16) == 0o755
        assert info.date_time == (1980, 1, 1, 0, 0, 0)


def test_a_program_keeps_the_mode_that_its_owner_gave_it(project):
    """Only what a worker starts with a program of its own needs no execute bit."""
    fill(project, "tool", "step.sh", "data.txt")
    scripts = ("step.sh", "tool")
    modes = {entry.name: entry.executable for entry in select(project, scripts=scripts)}
    assert modes == {"data.txt": False, "step.sh": True, "tool": False}
    (project / "tool").chmod(0o755)
    (project / "data.txt").chmod(0o711)
    modes = {entry.name: entry.executable for entry in select(project, scripts=scripts)}
    assert modes == {"data.txt": True, "step.sh": True, "tool": True}
    with zipfile.ZipFile(io.BytesIO(body(pack_script(project / "tool", "tool")))) as archive:
        assert stat.S_IMODE(archive.getinfo("tool").external_attr >> 16) == 0o755


def test_the_same_content_is_the_same_digest(tmp_path):
    """Whatever the folder's name, the order of creation, times, modes and umask."""
    one, other = tmp_path / "one", tmp_path / "other"
    fill(one, "a.py", "b/c.txt", "b/d.txt")
    fill(other, "b/d.txt", "b/c.txt", "a.py")
    os.utime(other / "a.py", (1, 1))
    (other / "b" / "c.txt").chmod(0o600)
    with pack_folder(one) as first, pack_folder(other) as second:
        assert first.digest == second.digest
        assert first.ref == second.ref
    (other / "a.py").chmod(0o755)
    with pack_folder(one) as first, pack_folder(other) as second:
        assert first.digest != second.digest


def test_the_bytes_can_be_read_from_any_offset(project):
    fill(project, "a.py")
    with pack_folder(project) as package:
        whole = b"".join(package.chunks(0))
        assert len(whole) == package.size
        assert b"".join(package.chunks(10)) == whole[10:]


def test_what_nobody_wants_stays_at_home(project):
    fill(
        project,
        *(
            "keep.py",
            ".git/config",
            ".venv/x",
            "env/pyvenv.cfg",
            "env/lib/x.py",
            "a/__pycache__/x.pyc",
        ),
        *(".titan/token", "titan_workspace/jobs/x", "node_modules/x/y.js", "a/b/.hidden"),
    )
    assert names(project) == ["a/b/.hidden", "keep.py"]


def test_ignore_files_are_read_in_each_folder_and_titans_has_the_last_word(project):
    fill(
        project,
        "a.log",
        "b.csv",
        "sub/x.log",
        "sub/keep.log",
        "sub/deep/y.tmp",
        "data/big.bin",
        "data/small.bin",
    )
    (project / ".gitignore").write_text("# a comment\n*.log\n/data/*\n")
    (project / ".titanignore").write_text("!/data/small.bin\n")
    (project / "sub" / ".gitignore").write_text("!keep.log\ndeep/\n")
    found = [name for name in names(project) if "ignore" not in name]
    assert found == ["b.csv", "data/small.bin", "sub/keep.log"]


def test_a_script_that_is_ignored_is_packed_all_the_same(project):
    fill(project, "build/run.sh", "build/junk")
    (project / ".gitignore").write_text("build/\n")
    (entry,) = [e for e in select(project, scripts=("build/run.sh",)) if e.name != ".gitignore"]
    assert (entry.name, entry.executable) == ("build/run.sh", True)


def test_include_alone_says_what_is_packed_and_exclude_takes_away(project):
    fill(project, "scripts/a.py", "scripts/deep/b.py", "scripts/c.tmp", "data/x.csv", "notes.md")
    (project / ".gitignore").write_text("data/\n")
    wish = {"include": ("scripts/**", "data"), "exclude": ("*.tmp",)}
    assert names(project, **wish) == ["data/x.csv", "scripts/a.py", "scripts/deep/b.py"]


@pytest.mark.parametrize(
    ("pattern", "path", "is_folder", "expected"),
    [
        ("*.py", "a/b/c.py", False, True),
        ("/a.py", "b/a.py", False, False),
        ("a/b", "x/a/b", False, False),
        ("**/b", "x/y/b", False, True),
        ("a/**", "a/x/y", False, True),
        ("a/**/z", "a/z", False, True),
        ("dir/", "dir", False, False),
        ("dir/", "x/dir", True, True),
        ("?.py", "ab.py", False, False),
        ("[ab].py", "b.py", False, True),
        ("[!ab].py", "b.py", False, False),
        (r"\#x", "#x", False, True),
        ("a.b", "aXb", False, False),
        ("*", ".x", False, True),
    ],
)
def test_patterns_mean_what_they_mean_to_git(pattern, path, is_folder, expected):
    assert ignores.rule(pattern).matches(path, is_folder=is_folder) is expected


@pytest.mark.parametrize("name", ["back\\slash", b"\xff.txt"], ids=["backslash", "not UTF-8"])
def test_a_name_that_no_archive_can_hold_is_refused(project, name):
    (project / os.fsdecode(name)).write_text("")
    with pytest.raises(PackagingError, match="rename it"):
        pack_folder(project)


def test_links_and_sockets(project, tmp_path):
    fill(project, "real.txt", "folder/x")
    (project / "link.txt").symlink_to("real.txt")
    (project / "dangling").symlink_to("nowhere")
    (project / "loop").symlink_to(".")
    (project / "circle").symlink_to("circle")
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(project)  # a socket's path may only have some 100 characters
        try:
            one.bind("sock")
        finally:
            os.chdir(here)
        assert names(project) == ["folder/x", "link.txt", "real.txt"]


def test_too_much_is_refused_with_the_largest_named(project, monkeypatch):
    monkeypatch.setattr(packaging, "WORKSPACE_BYTES", 1000)
    fill(project, "a.py")
    (project / "data").mkdir()
    (project / "data" / "big.bin").write_bytes(b"x" * 5000)
    with pytest.raises(
        PackagingError, match=r"(?s)more than the .* data/\n.*data/big.bin.*titanignore"
    ):
        pack_folder(project)
    with pytest.raises(PackagingError, match=r"big\.bin"):
        pack_script(project / "data" / "big.bin", "big.bin")
    assert largest(select(project)).splitlines()[0].endswith("data/")


def test_too_many_files_are_refused(project, monkeypatch):
    monkeypatch.setattr(packaging, "ARCHIVE_ENTRIES", 3)
    fill(project, "a", "b", "c", "d")
    with pytest.raises(PackagingError, match="4 files, more than the 3"):
        pack_folder(project)
    monkeypatch.setattr(packaging, "_WALK_MAX", 2)
    with pytest.raises(PackagingError, match="hardly one pipeline's folder"):
        pack_folder(project)


def test_what_cannot_be_read_is_refused_by_name(project, monkeypatch):
    fill(project, "secret")
    # Whoever runs the tests may be root, who may read everything.
    monkeypatch.setattr(packaging.os, "access", lambda path, mode: False)
    with pytest.raises(PackagingError, match=r"secret cannot be read"):
        pack_folder(project)


def test_large_content_goes_through_a_file_that_has_no_name(project, monkeypatch, tmp_path):
    """65 MiB in one script: neither refused nor held in memory, and nothing stays behind."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(packaging.tempfile, "tempdir", str(temporary))
    script = project / "big.py"
    with script.open("wb") as file:
        file.truncate(65 * 1024 * 1024)
    with pack_script(script, "big.py") as package:
        assert not isinstance(package._body, io.BytesIO)
        assert list(temporary.iterdir()) == []
        assert package.size > 1024
