"""torch's TCPStore with the connections of a large world; started by the bench `ranks`.

    tcpstore_world.py CONNECTIONS RANKS LOADS BYTES

One server in a process of its own, and LOADS processes with their share of the connections. Through each of these its
ranks join at once, one connection after another: their addresses are set, and a count is added to; whoever completes
that sets the generation, of so many bytes, which all connections get. Prints a line, `told` and
JSON: seconds from the first that joins to the last that holds the generation, and the server's resident memory in KiB,
before, with all connections, and at the end; or `stopped`, and why.

torch asks for the name of every client that connects. Where it may, this runs in a network of its own, in which there
is no name server: otherwise that one's patience with thousands of questions is what would be measured.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from tcpstore import FORK, LIMIT, serve
from torch.distributed import DistError, TCPStore

CLONE_NEWNET = 0x40000000  # unshare(2)
PATIENCE = 120.0
"""Seconds for a phase: connecting, joining."""

Answer = tuple[str, float, float]
"""What stopped it, or nothing, and when it began and ended, as all processes of a machine count."""


def main() -> None:
    connections, ranks, loads, nbytes = (int(word) for word in sys.argv[1:])
    leave_the_network()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    mine, its = FORK.Pipe()
    server = FORK.Process(target=serve, args=(its, mine, 1))
    server.start()
    its.close()
    port = mine.recv()
    before = memory(server.pid)
    pipes = [start(port, load, loads, connections, ranks, nbytes) for load in range(loads)]
    connected = [answer_of(pipe) for pipe in pipes]
    bare = memory(server.pid)
    stopped = next((why for why, _, _ in connected if why), None)
    joined = connected
    if stopped is None:
        for pipe in pipes:
            pipe.send("join")
        joined = [answer_of(pipe) for pipe in pipes]
        stopped = next((why for why, _, _ in joined if why), None)
    told = {
        "version": f"torch {torch.__version__}",
        "connections": connections,
        "seconds": max(end for _, _, end in joined) - min(begin for _, begin, _ in joined),
        "before": before,
        "bare": bare,
        "memory": memory(server.pid),
        "stopped": stopped,
    }
    print("told", json.dumps(told), flush=True)
    for pipe in pipes:
        pipe.close()
    for load in multiprocessing.active_children():
        if load is not server:
            load.join()
    mine.close()
    server.join()


def leave_the_network() -> None:
    """For one that has the loopback alone; says so where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        print(f"TCPStore stays in this network: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        return
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def start(port: int, load: int, loads: int, connections: int, ranks: int, nbytes: int) -> Connection:
    """A load process, and the pipe to it."""
    mine, its = FORK.Pipe()
    first, end = (connections * number // loads for number in (load, load + 1))
    share = [range(ranks * line // connections, ranks * (line + 1) // connections) for line in range(first, end)]
    process = FORK.Process(target=work, args=(its, mine, port, share, ranks, nbytes))
    process.start()
    its.close()
    return mine


def answer_of(pipe: Connection) -> Answer:
    if not pipe.poll(PATIENCE):
        return f"nothing after {PATIENCE:.0f} s", 0.0, 0.0
    answer: Answer = pipe.recv()
    return answer


def work(pipe: Connection, other: Connection, port: int, share: list[range], world: int, nbytes: int) -> None:
    other.close()
    lines: list[TCPStore] = []
    began = time.perf_counter()
    try:
        for _ in share:
            lines.append(TCPStore("127.0.0.1", port, is_master=False, timeout=LIMIT))
    except DistError as error:
        pipe.send((f"{len(lines)} of {len(share)} connections of a process: {error}", began, time.perf_counter()))
        return
    pipe.send(("", began, time.perf_counter()))
    try:
        pipe.recv()
    except EOFError:
        return
    began = time.perf_counter()
    try:
        join(lines, share, world, "x" * nbytes)
    except DistError as error:
        pipe.send((f"joining: {error}", began, time.perf_counter()))
        return
    pipe.send(("", began, time.perf_counter()))
    pipe.poll(None)


def join(lines: list[TCPStore], share: list[range], world: int, generation: str) -> None:
    """Nobody but the last of all has to wait for an answer that is not there yet."""
    for store, ranks in zip(lines, share, strict=True):
        store.multi_set([f"rank-{rank}" for rank in ranks], [f"host-{rank // 8}:29500" for rank in ranks])
        if store.add("joined", len(ranks)) == world:
            store.set("generation", generation)
    for store in lines:
        assert store.get("generation") == generation.encode(), "it waits until there is one"


def memory(pid: int | None) -> float:
    """Resident, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return float(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])


if __name__ == "__main__":
    main()
