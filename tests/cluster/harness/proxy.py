"""A bad way to an S3 server."""

from __future__ import annotations

import socket
import threading

from .process import wait_until


class Proxy:
    """Forwards TCP to the S3 server, badly: holds every byte back (`stall`), or says that a refused create-only write
    was done."""

    def __init__(self, port: int, *, stall: threading.Event | None = None, ignore_create_only: bool = False) -> None:
        self.target, self.stall, self.ignore_create_only = port, stall, ignore_create_only
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
            while data := source.recv(65536):
                if self.stall is not None and self.stall.is_set():
                    wait_until(lambda: self.stall is not None and not self.stall.is_set(), "the stall to end", 300.0)
                if not up and self.ignore_create_only:
                    data = data.replace(b"HTTP/1.1 412 Precondition Failed\r\n", b'HTTP/1.1 200 OK\r\nETag: "0"\r\n')
                sink.sendall(data)
        except OSError:
            pass  # either side hung up: so does the other
        finally:
            source.close()
            sink.close()

    def close(self) -> None:
        self.server.close()
