"""A bad way to an S3 server."""

from __future__ import annotations

import socket
import threading

from .process import wait_until

MOST = 65536  # bytes at once; requests without a large body are shorter


class Proxy:
    """Forwards TCP to the S3 server, badly: holds every byte back (`stall`), says that a refused create-only write was
    done, or flips a bit of the next large body (`flip`, which it clears)."""

    def __init__(
        self,
        port: int,
        *,
        stall: threading.Event | None = None,
        flip: threading.Event | None = None,
        ignore_create_only: bool = False,
    ) -> None:
        self.target, self.stall, self.flip, self.ignore_create_only = port, stall, flip, ignore_create_only
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
        try:
            while data := source.recv(MOST):
                if self.stall is not None and self.stall.is_set():
                    wait_until(lambda: self.stall is not None and not self.stall.is_set(), "the stall to end", 300.0)
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

    def close(self) -> None:
        self.server.close()
