"""A real S3 server: versitygw over a folder, on a free loopback port."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request
from pathlib import Path

from .process import Process

KEYS = {"AWS_ACCESS_KEY_ID": "strata-test", "AWS_SECRET_ACCESS_KEY": "strata-secret", "AWS_REGION": "us-east-1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class S3Server:
    """`bucket` exists already. Conditional puts are atomic only one at a time, hence `--concurrency 1`."""

    bucket = "checkpoints"

    def __init__(self, versitygw: Path, folder: Path) -> None:
        self.folder = folder / "objects"
        (self.folder / self.bucket).mkdir(parents=True)
        self.port = free_port()
        command = [versitygw, "--access", KEYS["AWS_ACCESS_KEY_ID"], "--secret", KEYS["AWS_SECRET_ACCESS_KEY"]]
        command += ["--port", f"127.0.0.1:{self.port}", "--region", KEYS["AWS_REGION"], "--health", "/health"]
        command += ["posix", "--concurrency", "1", self.folder]
        self.process = Process(command, {"PATH": os.environ["PATH"]}, folder / "versitygw.log")
        self.process.wait_until(self._healthy, "the S3 server to answer")

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1):
                return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    @property
    def env(self) -> dict[str, str]:
        return KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}", "AWS_ALLOW_HTTP": "true"}

    def url(self, prefix: str) -> str:
        return f"s3://{self.bucket}/{prefix}"

    def close(self) -> None:
        self.process.kill()
