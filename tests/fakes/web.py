"""A web server on this machine that serves one file, and misbehaves on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATIENCE = 5.0
"""Seconds after which a server that drips gives up."""


class FakeWeb:
    """Serves `content` under any path.

    faults: what the first answers do, in order: "break" sends half of what is left and closes, "stall" sends a few
        bytes and then nothing, "drip" sends a byte now and then, "drip headers" already before the content, "endless"
        sends on and on without saying how much, "huge" announces a terabyte, "elsewhere" goes on from the wrong byte,
        404, 503, ... answer with that status, an address redirects to it. Then all is well. No fault lasts longer than
        a few seconds.
    requests: (path, Range header) of every request; authorizations: their Authorization headers.
    """

    def __init__(self, content: bytes, *, ranges: bool = True):
        self.content, self.ranges = content, ranges
        self.faults: list[str | int] = []
        self.requests: list[tuple[str, str | None]] = []
        self.authorizations: list[str | None] = []
        self.url = ""


@contextmanager
def serving(content: bytes, *, ranges: bool = True) -> Iterator[FakeWeb]:
    """Run a server for the time of the block."""
    web = FakeWeb(content, ranges=ranges)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            web.requests.append((self.path, wanted))
            web.authorizations.append(self.headers.get("Authorization"))
            fault = web.faults.pop(0) if web.faults else None
            if isinstance(fault, str) and ":" in fault:
                self.send_response(302)
                self.send_header("Location", fault)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "drip headers":
                self._drip(b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 1000)
                return
            if isinstance(fault, int):
                self.send_error(fault)
                return
            begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and web.ranges else 0
            if begin and begin >= len(web.content):
                self.send_error(416)
                return
            body = web.content[begin:]
            self.send_response(206 if begin else 200)
            if begin:
                first = begin + 1 if fault == "elsewhere" else begin
                self.send_header("Content-Range", f"bytes {first}-{len(web.content) - 1}/{len(web.content)}")
            if fault != "endless":
                self.send_header("Content-Length", str(1 << 40 if fault == "huge" else len(body)))
            self.end_headers()
            if fault == "drip":
                self._drip(body)
                return
            if fault == "endless":
                self._send_on_and_on()
                return
            if fault == "corrupt":
                body = bytes(255 - value for value in body)
            if fault in ("break", "stall"):
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                if fault == "stall":
                    time.sleep(1.0)
                self.close_connection = True
                return
            with suppress(OSError):  # cut off, where the file is not wanted
                self.wfile.write(body)

        def _drip(self, content: bytes) -> None:
            self.close_connection = True
            end = time.monotonic() + PATIENCE
            with suppress(OSError):  # cut off, as it should be
                for value in content:
                    self.wfile.write(bytes([value]))
                    time.sleep(0.02)
                    if time.monotonic() > end:
                        break

        def _send_on_and_on(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                for _ in range(1000):
                    self.wfile.write(bytes(10_000))

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
