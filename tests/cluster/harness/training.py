"""Training scripts that save: what they begin with, and how a test runs one."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from .process import PATIENCE, Process

Start = Callable[..., str]

PRELUDE = """
import copy, os, signal, sys, threading, time, warnings
import numpy as np, torch, strata, strata.torch

torch.manual_seed(1)
WIDE = 1024  # a weight of 4 MiB: large enough to be copied late

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(WIDE, WIDE) for _ in range(3)])
        self.norm = torch.nn.BatchNorm1d(WIDE)

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.norm(x)

def equal(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b

def train_step(net, optimizer, scaler=None):
    optimizer.zero_grad()
    loss = net(torch.randn(8, WIDE)).square().mean()
    loss.backward()
    optimizer.step()

def late():
    '''What is put off is copied once somebody waits for it, or late.'''
    from strata import handle
    from strata._staging import taking
    begin = taking.Taking.in_background
    def put_off(self, work):
        self.asked = threading.Event()
        if self.mode == "fork":
            self.asked.set()
        begin(self, lambda: (self.asked.wait(2), work()))
    def ask(owner, name, of):
        wait = getattr(owner, name)
        def asks(self, *arguments, **named):
            if (asked := getattr(of(self), "asked", None)) is not None:
                asked.set()
            return wait(self, *arguments, **named)
        setattr(owner, name, asks)
    taking.Taking.in_background = put_off
    for owner, name in ((taking.Taking, "wait"), (taking.LazyTaking, "let_write")):
        ask(owner, name, lambda self: self)
    for name in ("wait_staged", "wait_committed"):
        ask(handle.SaveHandle, name, lambda self: self._taking)
"""


@pytest.fixture
def script(python: Path, site: Path, tmp_path: Path) -> Start:
    """Runs Python code as rank 0 of job `t` to its end; its log."""
    pytest.importorskip("torch")

    def start(code: str, env: dict[str, str], ends: int = 0) -> str:
        place = {"PYTHONPATH": str(site), "STRATA_JOB": "t", "RANK": "0", "WORLD_SIZE": "1"}
        command = [python, "-u", "-W", "error::DeprecationWarning", "-c", PRELUDE + textwrap.dedent(code)]
        process = Process(command, env | place, tmp_path / "script.log")
        assert process.popen.wait(PATIENCE) == ends, process.text()
        return process.text()

    return start
