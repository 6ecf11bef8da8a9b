"""DEPLOY_API: serve the months as JSON on 127.0.0.1, port PORT, until told to stop.

/               every month, oldest first
/months/2012-01 one month
/health         {"status": "ok"}
"""

import http.server
import json
import os
import pathlib
import signal
import socketserver
import sys
import threading
import urllib.parse

HOST = "127.0.0.1"


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port, months):
        self.months = months
        super().__init__((HOST, port), Handler)

    def server_bind(self):
        # The library's own asks DNS for this host's full name, which may take seconds and is not used.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


class Handler(http.server.BaseHTTPRequestHandler):
    server_version = "daily-etl"
    timeout = 10  # a client that connects and says nothing must not keep a thread for ever

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        months = self.server.months
        if path == "/":
            self.answer(200, {"months": list(months.values())})
        elif path == "/health":
            self.answer(200, {"status": "ok", "months": len(months)})
        elif path.startswith("/months/") and path.removeprefix("/months/") in months:
            self.answer(200, months[path.removeprefix("/months/")])
        else:
            self.answer(404, {"error": f"nothing at {path}; try /, /months/2012-01 or /health"})

    def answer(self, status, value):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def port_wanted():
    text = os.environ.get("PORT", "")
    if not text:
        sys.exit("server.py: PORT is not set; give the job a `port:`")
    if not text.isdecimal() or not 0 < int(text) < 65536:
        sys.exit(f"server.py: PORT is {text!r}, expected a number from 1 to 65535")
    return int(text)


def main():
    port = port_wanted()
    shared = os.environ.get("TITAN_SHARED")
    if not shared:
        sys.exit("server.py: TITAN_SHARED is not set; it names the folder with monthly.json")
    try:
        months = json.loads((pathlib.Path(shared) / "monthly.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        sys.exit(f"server.py: no monthly.json in {shared}; has TRANSFORM run?")
    try:
        server = Server(port, months)
    except OSError as error:
        sys.exit(f"server.py: cannot listen on {HOST}:{port}: {error.strerror or error}")

    def stop(_number, _frame):
        # From a thread: shutdown() waits for the loop, and the loop is what this handler interrupted.
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"serving {len(months)} months on http://{HOST}:{port}/", flush=True)
    with server:
        server.serve_forever(poll_interval=0.1)
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
