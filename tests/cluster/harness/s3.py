"""A real S3 server: versitygw over a folder, on a free loopback port."""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import urllib.error
import urllib.request
from datetime import UTC, datetime
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

    def put(self, name: str, content: bytes) -> None:
        """An object of the bucket, as any client writes it (AWS Signature Version 4)."""
        host, path = f"127.0.0.1:{self.port}", f"/{self.bucket}/{name}"
        sum_, now = hashlib.sha256(content).hexdigest(), datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": host, "x-amz-content-sha256": sum_, "x-amz-date": now}
        signed, lines = ";".join(headers), "".join(f"{key}:{value}\n" for key, value in headers.items())
        asked = hashlib.sha256(f"PUT\n{path}\n\n{lines}\n{signed}\n{sum_}".encode()).hexdigest()
        scope = [now[:8], KEYS["AWS_REGION"], "s3", "aws4_request"]
        key = b"AWS4" + KEYS["AWS_SECRET_ACCESS_KEY"].encode()
        for part in [*scope, f"AWS4-HMAC-SHA256\n{now}\n{'/'.join(scope)}\n{asked}"]:
            key = hmac.digest(key, part.encode(), "sha256")
        by = f"Credential={KEYS['AWS_ACCESS_KEY_ID']}/{'/'.join(scope)}"
        headers["authorization"] = f"AWS4-HMAC-SHA256 {by}, SignedHeaders={signed}, Signature={key.hex()}"
        request = urllib.request.Request(f"http://{host}{path}", content, headers, method="PUT")
        with urllib.request.urlopen(request, timeout=60):
            pass

    def close(self) -> None:
        self.process.kill()
