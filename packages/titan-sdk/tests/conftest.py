"""A scripted master on a real socket, and a place where no other master or token can be found."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import socket
import threading

import pytest

from titan_proto.connection import Closed, Connection, Received
from titan_proto.errors import ErrorCode
from titan_proto.handshake import format_token, key_of
from titan_proto.io.entropy import nonce
from titan_proto.messages import (
    ArtifactChunk,
    ArtifactStored,
    ArtifactWanted,
    Done,
    Error,
    FilesFound,
    FindFiles,
    OfferArtifact,
    Refused,
    RunReceipt,
    SubmitRun,
    Welcome,
)
from titan_sdk import client as client_module


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No test finds the master, the token or the settings of whoever runs it."""
    for name in ("TITAN_MASTER", "TITAN_TOKEN", "TITAN_TOKEN_FILE", "TITAN_FORMAT", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


class ScriptedMaster:
    """Speaks the protocol; what it answers is in `answers`, by the kind of request."""

    def __init__(self):
        secret = secrets.token_hex(32)
        self.token = format_token("local", "t1", secret)
        self._key = key_of(secret)
        self.answers = {
            SubmitRun: self._take_run,
            FindFiles: lambda request: FilesFound(files=()),
        }
        self.requests = []
        self.artifacts = {}
        self.cut_before_answer = 0
        """So many requests are taken and then the link is cut instead of answered."""
        self.links = 0
        self.roles = []
        """What those who came asked to be."""
        self._runs = {}
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._open = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def of(self, kind):
        return [request for request in self.requests if isinstance(request, kind)]

    def close(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _take_run(self, request):
        known = request.key in self._runs
        number = self._runs.setdefault(request.key, len(self._runs) + 1)
        return RunReceipt(run_id=f"run000000000000{number}", alias=f"run-{number}", known=known)

    def _accept(self):
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            self.links += 1
            self._open.add(peer)
            thread = threading.Thread(target=self._serve, args=(peer,))
            self._threads.append(thread)
            thread.start()

    def _authenticate(self, hello):
        if hello.token_id == "t1":
            self.roles.append(hello.role)
            return self._key
        return Refused(code=ErrorCode.UNAUTHENTICATED, reason="no such token")

    def _serve(self, peer):
        connection = Connection.listener(
            server_nonce=nonce(),
            authenticate=self._authenticate,
            welcome=lambda hello: Welcome(
                version=1, cluster_id="c1", software="scripted", term=1, link_id=self.links
            ),
        )
        uploads = {}
        with peer, contextlib.suppress(OSError):
            self._talk(peer, connection, uploads)
        self._open.discard(peer)

    def _talk(self, peer, connection, uploads):
        while data := peer.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, Received) and not self._received(connection, event, uploads):
                    peer.sendall(connection.data_to_send())
                    return
                if isinstance(event, Closed):
                    break
            while out := connection.data_to_send():
                peer.sendall(out)
            if connection.is_closed:
                return

    def _received(self, connection, event, uploads):
        """False: cut the link."""
        message, correlation = event.message, event.correlation
        if isinstance(message, ArtifactChunk):
            uploads[correlation] += message.data
            if event.end:
                self._store(connection, correlation, bytes(uploads.pop(correlation)))
            return True
        self.requests.append(message)
        if self.cut_before_answer:
            # The request has arrived, as far as anybody here knows it may have been done.
            self.cut_before_answer -= 1
            if isinstance(message, SubmitRun):
                self.answers[SubmitRun](message)
            return False
        if isinstance(message, OfferArtifact):
            if message.digest in self.artifacts:
                connection.send(ArtifactStored(digest=message.digest), correlation, end=True)
            else:
                uploads[correlation] = bytearray()
                connection.send(ArtifactWanted(), correlation)
            return True
        answer = self.answers.get(type(message))
        if answer is None:
            answer = Error(code=ErrorCode.UNSUPPORTED, message=f"no answer to {message}")
        if callable(answer):
            answer = answer(message)
        if answer == "goodbye":
            connection.close(ErrorCode.SHUTTING_DOWN, "it is being stopped")
            return True
        if answer is None:
            return True  # it keeps the asker waiting
        if isinstance(answer, list):
            for part in answer:
                if part == "cut":
                    return False
                if part == "wait":
                    return True  # there may be more, some day
                connection.send(part, correlation)
            answer = Done()
        connection.send(answer, correlation, end=True)
        return True

    def _store(self, connection, correlation, body):
        digest = hashlib.sha256(body).hexdigest()
        self.artifacts[digest] = body
        connection.send(ArtifactStored(digest=digest), correlation, end=True)


@pytest.fixture
def master(monkeypatch):
    scripted = ScriptedMaster()
    monkeypatch.setenv("TITAN_MASTER", scripted.address)
    monkeypatch.setenv("TITAN_TOKEN", scripted.token)
    yield scripted
    scripted.close()


@pytest.fixture
def client(master):
    with client_module.TitanClient(timeout=5) as one:
        yield one
