"""Messages about files that have names: the master's ``perm_files/``, with what lay there before.

Bytes do not travel here: whoever brings a file uploads it as an artifact and gives it a name then,
and whoever wants one asks for its digest.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from titan_proto.messages.base import Message, Request
from titan_proto.opcodes import OpCode
from titan_proto.states import OpenEnum


class FileOrigin(OpenEnum):
    """How a file came to its name."""

    DROPPED = "DROPPED"
    """Put into the folder by hand."""
    UPLOADED = "UPLOADED"
    STAGED = "STAGED"
    """A submission brought it."""
    UNKNOWN = "UNKNOWN"


class FileVersion(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One content of a name."""

    digest: str
    size_bytes: int
    at_ms: int
    """When it came; of one that was dropped, when it was last changed."""
    origin: FileOrigin = FileOrigin.UNKNOWN


class FileView(Message, frozen=True, kw_only=True):
    """A name: what it stands for now, and what else is kept of it."""

    OPCODE: ClassVar[OpCode] = OpCode.FILE_VIEW
    name: str
    current: FileVersion | None = None
    """None: there is no file of this name any more, only versions."""
    versions: tuple[FileVersion, ...] = ()
    """What can be fetched beside it, newest first."""
    notices: tuple[str, ...] = ()
    """What whoever has just given the name should know."""


class FileList(Message, frozen=True, kw_only=True):
    """One page of names, in their order."""

    OPCODE: ClassVar[OpCode] = OpCode.FILE_LIST
    files: tuple[FileView, ...]
    cursor: str = ""
    is_cut: bool = False
    """There are more files than a list shows."""


class ListFiles(Request[FileList], frozen=True, kw_only=True):
    """Which names are there? With `name`, that one alone."""

    OPCODE: ClassVar[OpCode] = OpCode.LIST_FILES
    name: str = ""
    cursor: str = ""
    limit: int = 100


class NameFile(Request[FileView], frozen=True, kw_only=True):
    """Let an artifact that is stored be the file of this name; what was it before stays a version."""

    OPCODE: ClassVar[OpCode] = OpCode.NAME_FILE
    name: str
    digest: str
    key: str = ""
    """Made before the first try, as a submission's: who tries again hears the same notices."""
