"""The keys over which agents place their ranks: a `torch.distributed.Store` over the coordinator's records."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from torch.distributed import DistStoreError, Store

from .. import _core
from ..errors import StrataTimeoutError, UnavailableError

PREFIX = "store/"
NOW = timedelta(seconds=2)  # for a question that waits for nobody


class RecordStore(Store):  # type: ignore[misc]
    """What torch's elastic agent asks of a store. Keep this object for as long as a PrefixStore around it is used.

    Each call takes the store's time-out at most, within which it is made again while the coordinator is away;
    DistStoreError when it has passed."""

    def __init__(self, records: _core.Records) -> None:
        super().__init__()
        self._records = records

    def set(self, key: str, value: str | bytes) -> None:
        content = value.encode() if isinstance(value, str) else bytes(value)
        self._call("set", PREFIX + key, content, version=None, timeout=self._seconds())

    def get(self, key: str) -> bytes:
        found: bytes = self._wait([key], self.timeout)[0]
        return found

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return self._wait(keys, self.timeout)

    def add(self, key: str, amount: int) -> int:
        total: int = self._call("add", PREFIX + key, amount, self._seconds())
        return total

    def check(self, keys: list[str]) -> bool:
        found = self._call("get", [PREFIX + key for key in keys], wait=False, timeout=self._seconds())
        return len(found) == len(set(keys))

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        self._wait(keys, self.timeout if timeout is None else timeout)

    def _wait(self, keys: list[str], timeout: timedelta) -> list[bytes]:
        names = [PREFIX + key for key in keys]
        found = self._call("get", sorted(set(names)), wait=True, timeout=timeout.total_seconds())
        missing = [key for key, name in zip(keys, names, strict=True) if name not in found]
        if missing:
            raise DistStoreError(f"waiting for {', '.join(missing)}: not set within {timeout.total_seconds():g} s")
        return [found[name][0] for name in names]

    def _seconds(self) -> float:
        seconds: float = max(self.timeout, NOW).total_seconds()
        return seconds

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._records, name)(*arguments, **options)
        except (UnavailableError, StrataTimeoutError) as error:
            raise DistStoreError(str(error)) from error
