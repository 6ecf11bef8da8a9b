"""Messages that move artifacts: immutable bytes named by their SHA-256.

Upload is one exchange: OfferArtifact → ArtifactWanted → ArtifactChunk… (the last with END) →
ArtifactStored. If the bytes are known already, ArtifactStored comes at once.
"""

from __future__ import annotations

from typing import ClassVar

from titan_proto.messages.base import HotMessage, Message, Request
from titan_proto.opcodes import OpCode
from titan_proto.specs import ArtifactRef


class ArtifactStored(Message, frozen=True, kw_only=True):
    """The master has the bytes, and they have that digest."""

    OPCODE: ClassVar[OpCode] = OpCode.ARTIFACT_STORED
    digest: str


class OfferArtifact(Request[ArtifactStored], frozen=True, kw_only=True):
    """I have these bytes; do you want them?"""

    OPCODE: ClassVar[OpCode] = OpCode.OFFER_ARTIFACT
    digest: str
    size_bytes: int


class ArtifactWanted(Message, frozen=True, kw_only=True):
    """Yes: send them from `offset` on."""

    OPCODE: ClassVar[OpCode] = OpCode.ARTIFACT_WANTED
    offset: int = 0


class ArtifactChunk(HotMessage, frozen=True):
    """A piece of an artifact, in order."""

    OPCODE: ClassVar[OpCode] = OpCode.ARTIFACT_CHUNK
    offset: int
    data: bytes


class FetchArtifact(Request[ArtifactChunk], frozen=True, kw_only=True):
    """A stream of ArtifactChunk, the last with END."""

    OPCODE: ClassVar[OpCode] = OpCode.FETCH_ARTIFACT
    digest: str
    offset: int = 0
    name: str = ""
    """Look for it among the versions of this file too."""


class FilesFound(Message, frozen=True, kw_only=True):
    """Those of the names asked for that exist, in the order asked; missing ones are left out."""

    OPCODE: ClassVar[OpCode] = OpCode.FILES_FOUND
    files: tuple[ArtifactRef, ...]


class FindFiles(Request[FilesFound], frozen=True, kw_only=True):
    """Which of these names are files under the master's ``perm_files/``?"""

    OPCODE: ClassVar[OpCode] = OpCode.FIND_FILES
    names: tuple[str, ...]
