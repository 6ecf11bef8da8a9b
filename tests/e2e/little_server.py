"""The web server that tests deploy as a service, and what it says when it is asked."""

from __future__ import annotations

import urllib.request

SERVER = """
import http.server, os, signal, sys

RELEASE = " ".join(sys.argv[1:]) or "-"

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        job, worker = os.environ["TITAN_JOB_ID"], os.environ["TITAN_WORKER"]
        self.wfile.write(f"{job} {RELEASE} {os.getpid()} {worker}".encode())

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server.serve_forever()
"""
"""Says which job it is, its arguments (`-` for none), its process and its worker."""


def said(port: object) -> str:
    """What answers there; empty if nothing does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""
