"""A bad way to an S3 server."""

from __future__ import annotations

import socket
import threading
from collections import Counter

from .process import wait_until

MOST = 65536  # bytes at once; requests without a large body are shorter


class Proxy:
    """Forwards TCP to the S3 server, badly: holds every byte back (`stall`), says that a refused create-only write
    was done, flips a bit of the next large body (`flip`, which it clears), or answers so many parts by "slow
    down" (`refuse`). It knows which objects were asked for how often (`bodies`), and stops a connection that
    has brought so many bytes (`hold_after`), the first one alone: then it sets `held`, and goes on with
    `let_go`.
    """

    def __init__(
        self,
        port: int,
        *,
        stall: threading.Event | None = None,
        flip: threading.Event | None = None,
        ignore_create_only: bool = False,
        refuse: int = 0,
        hold_after: int | None = None,
    ) -> None:
        self.target, self.stall, self.flip, self.ignore_create_only = port, stall, flip, ignore_create_only
        self.refuse, self.hold_after, self.lock = refuse, hold_after, threading.Lock()
        self.bodies, self.held, self.let_go = Counter[str](), threading.Event(), threading.Event()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self._pump, args=(client, upstream, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(upstream, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        brought = 0
        try:
            while data := source.recv(MOST):
                if self.stall is not None and self.stall.is_set():
                    wait_until(lambda: self.stall is not None and not self.stall.is_set(), "the stall to end", 300.0)
                if up:
                    self._count(data)
                else:
                    brought += len(data)
                    self._hold(brought)
                if up and self._refuses(data):
                    refuse(source, data)
                    continue
                if not up and self.ignore_create_only:
                    data = data.replace(b"HTTP/1.1 412 Precondition Failed\r\n", b'HTTP/1.1 200 OK\r\nETag: "0"\r\n')
                if up and self.flip is not None and self.flip.is_set() and len(data) == MOST and b"HTTP/" not in data:
                    self.flip.clear()
                    data = data[:-1] + bytes([data[-1] ^ 0x10])
                sink.sendall(data)
        except OSError:
            pass  # either side hung up: so does the other
        finally:
            source.close()
            sink.close()

    def _count(self, data: bytes) -> None:
        if data.startswith(b"GET ") and b"?" not in (target := data.split(b" ", 2)[1]):
            with self.lock:
                self.bodies[target.decode()] += 1

    def _hold(self, brought: int) -> None:
        with self.lock:
            if self.hold_after is None or brought < self.hold_after:
                return
            self.hold_after = None
        self.held.set()
        wait_until(self.let_go.is_set, "the connection to be let go", 300.0)

    def _refuses(self, data: bytes) -> bool:
        if not (data.startswith(b"PUT ") and b"partNumber=" in data.split(b"\r\n", 1)[0]):
            return False
        with self.lock:
            self.refuse -= 1
            return self.refuse >= 0

    def close(self) -> None:
        self.server.close()


def refuse(client: socket.socket, request: bytes) -> None:
    """Reads the request, of which `request` has the head, and answers as S3 does when it is asked too much."""
    head, _, body = request.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    left = int(fields[b"content-length"]) - len(body)
    while left > 0 and (data := client.recv(min(left, MOST))):
        left -= len(data)
    said = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    client.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
