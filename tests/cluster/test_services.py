"""Every gRPC service, reached by grpcio with the stubs of `strata.proto`: the protos work outside Rust."""

from __future__ import annotations

import collections
import functools
import itertools
import queue
import uuid
from collections.abc import Callable, Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from harness.node import Node
from strata.proto.strata.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    checkpoint_pb2,
    checkpoint_pb2_grpc,
    common_pb2,
    coordinator_pb2,
    coordinator_pb2_grpc,
    dataset_pb2,
    dataset_pb2_grpc,
)

WAIT = 30.0


@pytest.fixture
def channel(node: Node) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(node.endpoint()["grpc"].removeprefix("http://")) as channel:
        yield channel


class Direct:
    """A worker that speaks gRPC itself."""

    def __init__(self, channel: grpc.Channel, rank: int, world: int, job: str = "direct") -> None:
        self.stub = coordinator_pb2_grpc.CoordinatorStub(channel)
        self.rank, self.job = rank, job
        self.reply = self.stub.RegisterWorker(
            coordinator_pb2.RegisterWorkerRequest(
                job=job, rank=rank, world_size=world, host="h", ip="127.0.0.1", port=1, idempotency_key=uuid.uuid4().hex
            ),
            timeout=WAIT,
        )

    def caller(self, generation: int) -> common_pb2.Caller:
        return common_pb2.Caller(job=self.job, generation=generation, rank=self.rank)

    def wait(self) -> common_pb2.Generation:
        request = coordinator_pb2.WaitGenerationRequest(
            job=self.job, rank=self.rank, incarnation=self.reply.incarnation, timeout_ms=10_000
        )
        generation: common_pb2.Generation = self.stub.WaitGeneration(request, timeout=WAIT)
        return generation

    def beat(self, generation: int) -> coordinator_pb2.HeartbeatRequest:
        return coordinator_pb2.HeartbeatRequest(
            caller=self.caller(generation),
            incarnation=self.reply.incarnation,
            progress=common_pb2.Progress(rank=self.rank, step=3, phase=common_pb2.RANK_PHASE_TRAINING),
            metrics={"loss": 0.5},
        )


def test_workers_join_beat_meet_and_leave(channel: grpc.Channel) -> None:
    workers = [Direct(channel, rank, 2) for rank in range(2)]
    generations = [worker.wait() for worker in workers]
    assert generations[0] == generations[1]
    assert [member.rank for member in generations[0].members] == [0, 1]
    number = generations[0].generation

    reply = workers[0].stub.Heartbeat(workers[0].beat(number), timeout=WAIT)
    assert reply.generation == number and reply.lease_ms > 0
    streamed = workers[1].stub.StreamHeartbeat(iter([workers[1].beat(number)]), timeout=WAIT)
    assert next(iter(streamed)).generation == number
    config = workers[0].stub.GetWorkerConfig(coordinator_pb2.GetWorkerConfigRequest(job="direct"), timeout=WAIT)
    assert config.heartbeat_interval_ms > 0 and config.lease_ms > config.heartbeat_interval_ms

    calls = [
        worker.stub.Barrier.future(
            coordinator_pb2.BarrierRequest(caller=worker.caller(number), name="epoch", round=0, timeout_ms=10_000)
        )
        for worker in workers
    ]
    assert {call.result(WAIT).generation for call in calls} == {number}

    for worker in workers:
        request = coordinator_pb2.RemoveWorkerRequest(
            caller=worker.caller(number), incarnation=worker.reply.incarnation
        )
        worker.stub.RemoveWorker(request, timeout=WAIT)
        worker.stub.RemoveWorker(request, timeout=WAIT)  # idempotent


def commands(stream: Iterator[coordinator_pb2.HeartbeatReply], kind: str) -> coordinator_pb2.WorkerCommand:
    """The next command of this kind."""
    for reply in stream:
        for command in reply.commands:
            if command.WhichOneof("command") == kind:
                return command
    raise AssertionError(f"the stream ended without {kind}")


def test_workers_are_told_to_save_and_to_stop_on_their_heartbeat_stream(channel: grpc.Channel) -> None:
    workers = [Direct(channel, rank, 2, "told") for rank in range(2)]
    number = workers[0].wait().generation
    beats: queue.SimpleQueue[coordinator_pb2.HeartbeatRequest] = queue.SimpleQueue()
    beats.put(workers[0].beat(number))
    stream = workers[0].stub.StreamHeartbeat(iter(beats.get, None), timeout=WAIT)
    assert next(iter(stream)).generation == number
    admin = admin_pb2_grpc.AdminStub(channel)
    agreed = admin.AskSave(admin_pb2.AskSaveRequest(job="told"), timeout=WAIT)
    assert (agreed.generation, agreed.step) == (number, 4), "the step after the one that the heartbeat named"
    assert commands(stream, "checkpoint_now").checkpoint_now == 4
    # Without a stream it comes with the answer to the next heartbeat.
    beaten = workers[1].stub.Heartbeat(workers[1].beat(number), timeout=WAIT)
    told = {command.WhichOneof("command"): command for command in beaten.commands}
    assert told["checkpoint_now"].checkpoint_now == 4
    stopped = admin.AskSave(admin_pb2.AskSaveRequest(job="told", stop=True), timeout=WAIT)
    assert commands(stream, "preempt_at").preempt_at == stopped.step == 4
    stream.cancel()


def test_barrier_times_out_naming_the_missing_ranks(channel: grpc.Channel) -> None:
    workers = [Direct(channel, rank, 3) for rank in range(3)]
    number = workers[0].wait().generation
    request = coordinator_pb2.BarrierRequest(caller=workers[0].caller(number), name="b", round=0, timeout_ms=300)
    with pytest.raises(grpc.RpcError) as error:
        workers[0].stub.Barrier(request, timeout=WAIT)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "1" in error.value.details() and "2" in error.value.details()


def test_older_generation_is_fenced(channel: grpc.Channel) -> None:
    """P6."""
    worker = Direct(channel, 0, 1)
    number = worker.wait().generation
    worker.stub.RemoveWorker(
        coordinator_pb2.RemoveWorkerRequest(caller=worker.caller(number), incarnation=worker.reply.incarnation),
        timeout=WAIT,
    )
    newer = Direct(channel, 0, 1)
    assert newer.wait().generation > number
    with pytest.raises(grpc.RpcError) as error:
        worker.stub.Heartbeat(worker.beat(number), timeout=WAIT)
    assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION


def test_damaged_files_are_listed_with_the_hosts_that_go_on_without_them(channel: grpc.Channel) -> None:
    stub = dataset_pb2_grpc.DatasetStub(channel)
    spec = dataset_pb2.DatasetSpec(id="d", path="/data", format="parquet", total_samples=10, shard_size=5)
    stub.RegisterDataset(dataset_pb2.RegisterDatasetRequest(job="torn", spec=spec), timeout=WAIT)

    def report(dataset: str, host: str, *paths: str) -> None:
        files = [dataset_pb2.QuarantinedFile(path=path, reason="it ends early") for path in paths]
        request = dataset_pb2.ReportDamageRequest(job="torn", dataset=dataset, host=host, files=files)
        stub.ReportDamage(request, timeout=WAIT)

    for host, *paths in (("a", "/data/1", "/data/2"), ("b", "/data/1"), ("b", "/data/1")):
        report("d", host, *paths)
    damaged = stub.ListDatasets(dataset_pb2.ListDatasetsRequest(job="torn"), timeout=WAIT).damaged
    assert [(file.dataset, file.path, list(file.hosts)) for file in damaged] == [
        ("d", "/data/1", ["a", "b"]),
        ("d", "/data/2", ["a"]),
    ]
    with pytest.raises(grpc.RpcError) as error:
        report("e", "a", "/data/1")
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    report("d", "a", *(f"/data/{number}" for number in range(1000)))
    damaged = stub.ListDatasets(dataset_pb2.ListDatasetsRequest(job="torn"), timeout=WAIT).damaged
    assert len(damaged) == 256, "what is kept for people to read is bounded"


def test_datasets_are_registered_and_every_shard_is_held_once(channel: grpc.Channel) -> None:
    stub = dataset_pb2_grpc.DatasetStub(channel)
    spec = dataset_pb2.DatasetSpec(
        id="imagenet", path="/data/imagenet", format="parquet", total_samples=1_281_167, shard_size=10_000, shuffle=True
    )
    registered = stub.RegisterDataset(dataset_pb2.RegisterDatasetRequest(job="d", spec=spec), timeout=WAIT)
    assert registered.version
    assert stub.GetDataset(dataset_pb2.GetDatasetRequest(job="d", id="imagenet"), timeout=WAIT) == registered
    assert list(stub.ListDatasets(dataset_pb2.ListDatasetsRequest(job="d"), timeout=WAIT).datasets) == [registered]

    # The same mounted elsewhere has the same order.
    moved = dataset_pb2.DatasetSpec()
    moved.CopyFrom(spec)
    moved.path = "/mnt/imagenet"
    there = stub.RegisterDataset(dataset_pb2.RegisterDatasetRequest(job="elsewhere", spec=moved), timeout=WAIT)
    assert there.version == registered.version

    held: list[tuple[int, int]] = []
    for rank in range(8):
        request = dataset_pb2.GetShardsRequest(job="d", dataset="imagenet", rank=rank, epoch=3, world_size=8)
        shards = stub.GetShards(request, timeout=WAIT).shards
        assert list(shards) == list(stub.GetShards(request, timeout=WAIT).shards)
        assert 129 // 8 <= len(shards) <= 129 // 8 + 1
        held += [(shard.start, shard.stop) for shard in shards]
    held.sort()
    assert held[0][0] == 0 and held[-1][1] == 1_281_167
    assert all(left[1] == right[0] for left, right in itertools.pairwise(held))

    other = dataset_pb2.DatasetSpec()
    other.CopyFrom(spec)
    other.total_samples = 5
    with pytest.raises(grpc.RpcError) as error:
        stub.RegisterDataset(dataset_pb2.RegisterDatasetRequest(job="d", spec=other), timeout=WAIT)
    assert error.value.code() == grpc.StatusCode.ABORTED


def test_checkpoint_notice_and_look_up(channel: grpc.Channel) -> None:
    Direct(channel, 0, 1, "n").wait()
    stub = checkpoint_pb2_grpc.CheckpointStub(channel)
    assert not stub.LatestStep(checkpoint_pb2.LatestStepRequest(job="n"), timeout=WAIT).HasField("step")
    assert not stub.ListSteps(checkpoint_pb2.ListStepsRequest(job="n"), timeout=WAIT).steps
    stub.NotifyCheckpoint(
        checkpoint_pb2.NotifyCheckpointRequest(job="n", step=9, path="/elsewhere", kind=common_pb2.SAVE_KIND_FULL),
        timeout=WAIT,
    )
    for missing in (
        lambda: stub.GetStep(checkpoint_pb2.GetStepRequest(job="n", step=77), timeout=WAIT),
        lambda: stub.PinStep(checkpoint_pb2.PinStepRequest(job="n", step=77, pinned=True), timeout=WAIT),
        lambda: stub.DeleteStep(checkpoint_pb2.DeleteStepRequest(job="n", step=77), timeout=WAIT),
    ):
        with pytest.raises(grpc.RpcError) as error:
            missing()
        assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_recovery_information_names_the_missing_ranks(channel: grpc.Channel) -> None:
    worker = Direct(channel, 1, 3, "r")
    info = worker.stub.GetRecoveryInfo(coordinator_pb2.GetRecoveryInfoRequest(job="r"), timeout=WAIT)
    assert list(info.missing_ranks) == [0, 2] and not info.HasField("current")


def test_a_job_that_asks_without_end_is_told_to_wait_and_lives_on(make_node: Callable[..., Node]) -> None:
    node = make_node(extra={"STRATA_CALLS_PER_SECOND": "5"}).coordinator()
    with grpc.insecure_channel(node.endpoint()["grpc"].removeprefix("http://")) as channel:
        greedy, modest = (Direct(channel, 0, 1, job) for job in ("greedy", "modest"))
        generation = greedy.wait().generation
        stub = checkpoint_pb2_grpc.CheckpointStub(channel)
        asks = functools.partial(stub.LatestStep, checkpoint_pb2.LatestStepRequest(job="greedy"), timeout=WAIT)
        with pytest.raises(grpc.RpcError, match="more than 5 calls a second") as refused:
            collections.deque(iter(asks, None), maxlen=0)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert greedy.stub.Heartbeat(greedy.beat(generation), timeout=WAIT).generation == generation
        stub.LatestStep(checkpoint_pb2.LatestStepRequest(job=modest.job), timeout=WAIT)


def test_admin_health_and_reflection(channel: grpc.Channel) -> None:
    admin = admin_pb2_grpc.AdminStub(channel)
    assert admin.GetVersion(admin_pb2.GetVersionRequest(), timeout=WAIT).version
    assert admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=WAIT).role == "coordinator"
    health = health_pb2_grpc.HealthStub(channel)
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=WAIT).status == health_pb2.HealthCheckResponse.SERVING
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {
        "strata.v1.Coordinator",
        "strata.v1.Dataset",
        "strata.v1.Checkpoint",
        "strata.v1.Admin",
        "strata.v1.Rendezvous",
    } <= set(services)
