"""A web server on this machine that serves one file, and misbehaves on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeWeb:
    """Serves `content` under any path.

    faults: what the first answers do, in order: "break" sends half of what is left and closes, "stall" sends a few
        bytes and then nothing, "corrupt" sends other bytes, 404, 503, ... answer with that status. Then all is well.
    requests: (path, Range header) of every request.
    """

    def __init__(self, content: bytes, *, ranges: bool = True):
        self.content, self.ranges = content, ranges
        self.faults: list[str | int] = []
        self.requests: list[tuple[str, str | None]] = []
        self.url = ""


@contextmanager
def serving(content: bytes, *, ranges: bool = True) -> Iterator[FakeWeb]:
    """Run a server for the time of the block."""
    web = FakeWeb(content, ranges=ranges)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            web.requests.append((self.path, wanted))
            fault = web.faults.pop(0) if web.faults else None
            if isinstance(fault, int):
                self.send_error(fault)
                return
            begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and web.ranges else 0
            if begin and begin >= len(web.content):
                self.send_error(416)
                return
            body = web.content[begin:]
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if fault == "corrupt":
                body = bytes(255 - value for value in body)
            if fault in ("break", "stall"):
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                if fault == "stall":
                    time.sleep(1.0)
                self.close_connection = True
                return
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
