from strata.proto.strata.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RegisterWorkerRequest(_message.Message):
    __slots__ = ("job", "rank", "world_size", "host", "ip", "port", "node", "session", "store", "token", "idempotency_key", "worker_id", "findings", "version", "uid")
    JOB_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    job: str
    rank: int
    world_size: int
    host: str
    ip: str
    port: int
    node: str
    session: int
    store: str
    token: str
    idempotency_key: str
    worker_id: str
    findings: StoreFindings
    version: _common_pb2.Version
    uid: int
    def __init__(self, job: _Optional[str] = ..., rank: _Optional[int] = ..., world_size: _Optional[int] = ..., host: _Optional[str] = ..., ip: _Optional[str] = ..., port: _Optional[int] = ..., node: _Optional[str] = ..., session: _Optional[int] = ..., store: _Optional[str] = ..., token: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., worker_id: _Optional[str] = ..., findings: _Optional[_Union[StoreFindings, _Mapping]] = ..., version: _Optional[_Union[_common_pb2.Version, _Mapping]] = ..., uid: _Optional[int] = ...) -> None: ...

class StoreFindings(_message.Message):
    __slots__ = ("job_uuid", "highest_generation", "steps")
    JOB_UUID_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_GENERATION_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    job_uuid: str
    highest_generation: int
    steps: _containers.RepeatedCompositeFieldContainer[_common_pb2.StepInfo]
    def __init__(self, job_uuid: _Optional[str] = ..., highest_generation: _Optional[int] = ..., steps: _Optional[_Iterable[_Union[_common_pb2.StepInfo, _Mapping]]] = ...) -> None: ...

class RegisterWorkerReply(_message.Message):
    __slots__ = ("job_uuid", "joining", "config", "incarnation")
    JOB_UUID_FIELD_NUMBER: _ClassVar[int]
    JOINING_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    job_uuid: str
    joining: int
    config: WorkerConfig
    incarnation: str
    def __init__(self, job_uuid: _Optional[str] = ..., joining: _Optional[int] = ..., config: _Optional[_Union[WorkerConfig, _Mapping]] = ..., incarnation: _Optional[str] = ...) -> None: ...

class RegisterWorkersRequest(_message.Message):
    __slots__ = ("registrations",)
    REGISTRATIONS_FIELD_NUMBER: _ClassVar[int]
    registrations: _containers.RepeatedCompositeFieldContainer[RegisterWorkerRequest]
    def __init__(self, registrations: _Optional[_Iterable[_Union[RegisterWorkerRequest, _Mapping]]] = ...) -> None: ...

class RegisterWorkersReply(_message.Message):
    __slots__ = ("outcomes",)
    class Outcome(_message.Message):
        __slots__ = ("registered",)
        REGISTERED_FIELD_NUMBER: _ClassVar[int]
        registered: RegisterWorkerReply
        def __init__(self, registered: _Optional[_Union[RegisterWorkerReply, _Mapping]] = ...) -> None: ...
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[RegisterWorkersReply.Outcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[RegisterWorkersReply.Outcome, _Mapping]]] = ...) -> None: ...

class RemoveWorkerRequest(_message.Message):
    __slots__ = ("caller", "incarnation")
    CALLER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    caller: _common_pb2.Caller
    incarnation: str
    def __init__(self, caller: _Optional[_Union[_common_pb2.Caller, _Mapping]] = ..., incarnation: _Optional[str] = ...) -> None: ...

class RemoveWorkerReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WaitGenerationRequest(_message.Message):
    __slots__ = ("job", "rank", "incarnation", "timeout_ms", "place")
    JOB_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    job: str
    rank: int
    incarnation: str
    timeout_ms: int
    place: bool
    def __init__(self, job: _Optional[str] = ..., rank: _Optional[int] = ..., incarnation: _Optional[str] = ..., timeout_ms: _Optional[int] = ..., place: _Optional[bool] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("caller", "incarnation", "progress", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    CALLER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    caller: _common_pb2.Caller
    incarnation: str
    progress: _common_pb2.Progress
    metrics: _containers.ScalarMap[str, float]
    def __init__(self, caller: _Optional[_Union[_common_pb2.Caller, _Mapping]] = ..., incarnation: _Optional[str] = ..., progress: _Optional[_Union[_common_pb2.Progress, _Mapping]] = ..., metrics: _Optional[_Mapping[str, float]] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("commands", "lease_ms", "generation")
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    commands: _containers.RepeatedCompositeFieldContainer[WorkerCommand]
    lease_ms: int
    generation: int
    def __init__(self, commands: _Optional[_Iterable[_Union[WorkerCommand, _Mapping]]] = ..., lease_ms: _Optional[int] = ..., generation: _Optional[int] = ...) -> None: ...

class WorkerCommand(_message.Message):
    __slots__ = ("checkpoint_now", "preempt_at", "generation_opened", "generation_ended", "config")
    CHECKPOINT_NOW_FIELD_NUMBER: _ClassVar[int]
    PREEMPT_AT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_OPENED_FIELD_NUMBER: _ClassVar[int]
    GENERATION_ENDED_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    checkpoint_now: int
    preempt_at: int
    generation_opened: _common_pb2.Generation
    generation_ended: GenerationEnded
    config: WorkerConfig
    def __init__(self, checkpoint_now: _Optional[int] = ..., preempt_at: _Optional[int] = ..., generation_opened: _Optional[_Union[_common_pb2.Generation, _Mapping]] = ..., generation_ended: _Optional[_Union[GenerationEnded, _Mapping]] = ..., config: _Optional[_Union[WorkerConfig, _Mapping]] = ...) -> None: ...

class GetWorkerConfigRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class WorkerConfig(_message.Message):
    __slots__ = ("heartbeat_interval_ms", "lease_ms", "save_wait_ms", "commit_timeout_ms", "timeout_ms", "checkpoint_interval_steps", "store", "keep_last", "checkpoint_interval_auto")
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    SAVE_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    COMMIT_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_INTERVAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    KEEP_LAST_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_INTERVAL_AUTO_FIELD_NUMBER: _ClassVar[int]
    heartbeat_interval_ms: int
    lease_ms: int
    save_wait_ms: int
    commit_timeout_ms: int
    timeout_ms: int
    checkpoint_interval_steps: int
    store: str
    keep_last: int
    checkpoint_interval_auto: bool
    def __init__(self, heartbeat_interval_ms: _Optional[int] = ..., lease_ms: _Optional[int] = ..., save_wait_ms: _Optional[int] = ..., commit_timeout_ms: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., checkpoint_interval_steps: _Optional[int] = ..., store: _Optional[str] = ..., keep_last: _Optional[int] = ..., checkpoint_interval_auto: _Optional[bool] = ...) -> None: ...

class BarrierRequest(_message.Message):
    __slots__ = ("caller", "name", "round", "timeout_ms")
    CALLER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    caller: _common_pb2.Caller
    name: str
    round: int
    timeout_ms: int
    def __init__(self, caller: _Optional[_Union[_common_pb2.Caller, _Mapping]] = ..., name: _Optional[str] = ..., round: _Optional[int] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class BarrierReply(_message.Message):
    __slots__ = ("generation", "round")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    generation: int
    round: int
    def __init__(self, generation: _Optional[int] = ..., round: _Optional[int] = ...) -> None: ...

class GetPlaceRequest(_message.Message):
    __slots__ = ("job", "generation", "node", "ranks")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    job: str
    generation: int
    node: str
    ranks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, job: _Optional[str] = ..., generation: _Optional[int] = ..., node: _Optional[str] = ..., ranks: _Optional[_Iterable[int]] = ...) -> None: ...

class GetRecoveryInfoRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class RecoveryInfo(_message.Message):
    __slots__ = ("current", "latest_step", "adopted_steps", "last_ended", "missing_ranks")
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    LATEST_STEP_FIELD_NUMBER: _ClassVar[int]
    ADOPTED_STEPS_FIELD_NUMBER: _ClassVar[int]
    LAST_ENDED_FIELD_NUMBER: _ClassVar[int]
    MISSING_RANKS_FIELD_NUMBER: _ClassVar[int]
    current: _common_pb2.Generation
    latest_step: int
    adopted_steps: _containers.RepeatedScalarFieldContainer[int]
    last_ended: GenerationEnded
    missing_ranks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, current: _Optional[_Union[_common_pb2.Generation, _Mapping]] = ..., latest_step: _Optional[int] = ..., adopted_steps: _Optional[_Iterable[int]] = ..., last_ended: _Optional[_Union[GenerationEnded, _Mapping]] = ..., missing_ranks: _Optional[_Iterable[int]] = ...) -> None: ...

class GenerationEnded(_message.Message):
    __slots__ = ("job", "generation", "lost", "reason", "lost_count")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LOST_COUNT_FIELD_NUMBER: _ClassVar[int]
    job: str
    generation: int
    lost: _containers.RepeatedCompositeFieldContainer[_common_pb2.Member]
    reason: str
    lost_count: int
    def __init__(self, job: _Optional[str] = ..., generation: _Optional[int] = ..., lost: _Optional[_Iterable[_Union[_common_pb2.Member, _Mapping]]] = ..., reason: _Optional[str] = ..., lost_count: _Optional[int] = ...) -> None: ...

class NodeReport(_message.Message):
    __slots__ = ("hello", "frame", "slots", "begun", "sealed", "durable", "failed", "commit", "died", "suspect", "arrival", "preempt", "step_vote", "removal", "draining", "left", "target", "stack")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    BEGUN_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    DIED_FIELD_NUMBER: _ClassVar[int]
    SUSPECT_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_FIELD_NUMBER: _ClassVar[int]
    PREEMPT_FIELD_NUMBER: _ClassVar[int]
    STEP_VOTE_FIELD_NUMBER: _ClassVar[int]
    REMOVAL_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    hello: NodeHello
    frame: Frame
    slots: SlotsAnnounced
    begun: SaveBegun
    sealed: SealedReport
    durable: DurableReport
    failed: SaveFailed
    commit: CommitOutcome
    died: RankDied
    suspect: RankSuspect
    arrival: BarrierArrival
    preempt: PreemptNotice
    step_vote: StepVote
    removal: RemovalDone
    draining: Draining
    left: RankLeft
    target: TargetReport
    stack: StackTaken
    def __init__(self, hello: _Optional[_Union[NodeHello, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ..., slots: _Optional[_Union[SlotsAnnounced, _Mapping]] = ..., begun: _Optional[_Union[SaveBegun, _Mapping]] = ..., sealed: _Optional[_Union[SealedReport, _Mapping]] = ..., durable: _Optional[_Union[DurableReport, _Mapping]] = ..., failed: _Optional[_Union[SaveFailed, _Mapping]] = ..., commit: _Optional[_Union[CommitOutcome, _Mapping]] = ..., died: _Optional[_Union[RankDied, _Mapping]] = ..., suspect: _Optional[_Union[RankSuspect, _Mapping]] = ..., arrival: _Optional[_Union[BarrierArrival, _Mapping]] = ..., preempt: _Optional[_Union[PreemptNotice, _Mapping]] = ..., step_vote: _Optional[_Union[StepVote, _Mapping]] = ..., removal: _Optional[_Union[RemovalDone, _Mapping]] = ..., draining: _Optional[_Union[Draining, _Mapping]] = ..., left: _Optional[_Union[RankLeft, _Mapping]] = ..., target: _Optional[_Union[TargetReport, _Mapping]] = ..., stack: _Optional[_Union[StackTaken, _Mapping]] = ...) -> None: ...

class NodeHello(_message.Message):
    __slots__ = ("node", "incarnation", "host", "version", "sessions", "targets")
    NODE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    node: str
    incarnation: str
    host: str
    version: _common_pb2.Version
    sessions: _containers.RepeatedCompositeFieldContainer[LiveSession]
    targets: _containers.RepeatedCompositeFieldContainer[_common_pb2.Target]
    def __init__(self, node: _Optional[str] = ..., incarnation: _Optional[str] = ..., host: _Optional[str] = ..., version: _Optional[_Union[_common_pb2.Version, _Mapping]] = ..., sessions: _Optional[_Iterable[_Union[LiveSession, _Mapping]]] = ..., targets: _Optional[_Iterable[_Union[_common_pb2.Target, _Mapping]]] = ...) -> None: ...

class LiveSession(_message.Message):
    __slots__ = ("job", "rank", "session", "generation", "incarnation")
    JOB_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    job: str
    rank: int
    session: int
    generation: int
    incarnation: str
    def __init__(self, job: _Optional[str] = ..., rank: _Optional[int] = ..., session: _Optional[int] = ..., generation: _Optional[int] = ..., incarnation: _Optional[str] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("sequence", "jobs")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    jobs: _containers.RepeatedCompositeFieldContainer[JobFrame]
    def __init__(self, sequence: _Optional[int] = ..., jobs: _Optional[_Iterable[_Union[JobFrame, _Mapping]]] = ...) -> None: ...

class JobFrame(_message.Message):
    __slots__ = ("job", "generation", "ranks", "ending_ranks")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    ENDING_RANKS_FIELD_NUMBER: _ClassVar[int]
    job: str
    generation: int
    ranks: _containers.RepeatedCompositeFieldContainer[_common_pb2.Progress]
    ending_ranks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, job: _Optional[str] = ..., generation: _Optional[int] = ..., ranks: _Optional[_Iterable[_Union[_common_pb2.Progress, _Mapping]]] = ..., ending_ranks: _Optional[_Iterable[int]] = ...) -> None: ...

class SlotsAnnounced(_message.Message):
    __slots__ = ("sealed", "durable")
    SEALED_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    sealed: _containers.RepeatedCompositeFieldContainer[SealedReport]
    durable: _containers.RepeatedCompositeFieldContainer[DurableReport]
    def __init__(self, sealed: _Optional[_Iterable[_Union[SealedReport, _Mapping]]] = ..., durable: _Optional[_Iterable[_Union[DurableReport, _Mapping]]] = ...) -> None: ...

class SaveBegun(_message.Message):
    __slots__ = ("caller", "step", "kind", "ranks", "data", "metrics_json", "meta_json", "base_steps")
    CALLER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    METRICS_JSON_FIELD_NUMBER: _ClassVar[int]
    META_JSON_FIELD_NUMBER: _ClassVar[int]
    BASE_STEPS_FIELD_NUMBER: _ClassVar[int]
    caller: _common_pb2.Caller
    step: int
    kind: _common_pb2.SaveKind
    ranks: _containers.RepeatedScalarFieldContainer[int]
    data: _containers.RepeatedCompositeFieldContainer[_common_pb2.DataPosition]
    metrics_json: str
    meta_json: str
    base_steps: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, caller: _Optional[_Union[_common_pb2.Caller, _Mapping]] = ..., step: _Optional[int] = ..., kind: _Optional[_Union[_common_pb2.SaveKind, str]] = ..., ranks: _Optional[_Iterable[int]] = ..., data: _Optional[_Iterable[_Union[_common_pb2.DataPosition, _Mapping]]] = ..., metrics_json: _Optional[str] = ..., meta_json: _Optional[str] = ..., base_steps: _Optional[_Iterable[int]] = ...) -> None: ...

class SealedReport(_message.Message):
    __slots__ = ("caller", "step", "bytes", "begun")
    CALLER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    BEGUN_FIELD_NUMBER: _ClassVar[int]
    caller: _common_pb2.Caller
    step: int
    bytes: int
    begun: SaveBegun
    def __init__(self, caller: _Optional[_Union[_common_pb2.Caller, _Mapping]] = ..., step: _Optional[int] = ..., bytes: _Optional[int] = ..., begun: _Optional[_Union[SaveBegun, _Mapping]] = ...) -> None: ...

class DurableReport(_message.Message):
    __slots__ = ("caller", "step", "manifest_path", "manifest_blake3", "manifest_bytes", "state_bytes", "stored_bytes", "begun")
    CALLER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_PATH_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_BLAKE3_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    BEGUN_FIELD_NUMBER: _ClassVar[int]
    caller: _common_pb2.Caller
    step: int
    manifest_path: str
    manifest_blake3: str
    manifest_bytes: int
    state_bytes: int
    stored_bytes: int
    begun: SaveBegun
    def __init__(self, caller: _Optional[_Union[_common_pb2.Caller, _Mapping]] = ..., step: _Optional[int] = ..., manifest_path: _Optional[str] = ..., manifest_blake3: _Optional[str] = ..., manifest_bytes: _Optional[int] = ..., state_bytes: _Optional[int] = ..., stored_bytes: _Optional[int] = ..., begun: _Optional[_Union[SaveBegun, _Mapping]] = ...) -> None: ...

class SaveFailed(_message.Message):
    __slots__ = ("caller", "step", "skipped", "kind", "reason")
    CALLER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    caller: _common_pb2.Caller
    step: int
    skipped: bool
    kind: str
    reason: str
    def __init__(self, caller: _Optional[_Union[_common_pb2.Caller, _Mapping]] = ..., step: _Optional[int] = ..., skipped: _Optional[bool] = ..., kind: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CommitOutcome(_message.Message):
    __slots__ = ("job", "step", "generation", "committed", "kind", "reason")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job: str
    step: int
    generation: int
    committed: bool
    kind: str
    reason: str
    def __init__(self, job: _Optional[str] = ..., step: _Optional[int] = ..., generation: _Optional[int] = ..., committed: _Optional[bool] = ..., kind: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RankDied(_message.Message):
    __slots__ = ("caller", "session", "evidence", "incarnation")
    CALLER_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    caller: _common_pb2.Caller
    session: int
    evidence: str
    incarnation: str
    def __init__(self, caller: _Optional[_Union[_common_pb2.Caller, _Mapping]] = ..., session: _Optional[int] = ..., evidence: _Optional[str] = ..., incarnation: _Optional[str] = ...) -> None: ...

class RankLeft(_message.Message):
    __slots__ = ("caller",)
    CALLER_FIELD_NUMBER: _ClassVar[int]
    caller: _common_pb2.Caller
    def __init__(self, caller: _Optional[_Union[_common_pb2.Caller, _Mapping]] = ...) -> None: ...

class RankSuspect(_message.Message):
    __slots__ = ("caller", "session")
    CALLER_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    caller: _common_pb2.Caller
    session: int
    def __init__(self, caller: _Optional[_Union[_common_pb2.Caller, _Mapping]] = ..., session: _Optional[int] = ...) -> None: ...

class BarrierArrival(_message.Message):
    __slots__ = ("job", "generation", "name", "round", "ranks", "released")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    job: str
    generation: int
    name: str
    round: int
    ranks: _containers.RepeatedScalarFieldContainer[int]
    released: bool
    def __init__(self, job: _Optional[str] = ..., generation: _Optional[int] = ..., name: _Optional[str] = ..., round: _Optional[int] = ..., ranks: _Optional[_Iterable[int]] = ..., released: _Optional[bool] = ...) -> None: ...

class PreemptNotice(_message.Message):
    __slots__ = ("job", "generation", "rank")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    job: str
    generation: int
    rank: int
    def __init__(self, job: _Optional[str] = ..., generation: _Optional[int] = ..., rank: _Optional[int] = ...) -> None: ...

class StepVote(_message.Message):
    __slots__ = ("job", "generation", "rank", "last_step", "purpose", "vote")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    VOTE_FIELD_NUMBER: _ClassVar[int]
    job: str
    generation: int
    rank: int
    last_step: int
    purpose: _common_pb2.StepPurpose
    vote: int
    def __init__(self, job: _Optional[str] = ..., generation: _Optional[int] = ..., rank: _Optional[int] = ..., last_step: _Optional[int] = ..., purpose: _Optional[_Union[_common_pb2.StepPurpose, str]] = ..., vote: _Optional[int] = ...) -> None: ...

class RemovalDone(_message.Message):
    __slots__ = ("job", "step", "freed_bytes", "kind", "reason", "target", "generation", "committed")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    job: str
    step: int
    freed_bytes: int
    kind: str
    reason: str
    target: str
    generation: int
    committed: bool
    def __init__(self, job: _Optional[str] = ..., step: _Optional[int] = ..., freed_bytes: _Optional[int] = ..., kind: _Optional[str] = ..., reason: _Optional[str] = ..., target: _Optional[str] = ..., generation: _Optional[int] = ..., committed: _Optional[bool] = ...) -> None: ...

class TargetReport(_message.Message):
    __slots__ = ("job", "target", "copied", "steps", "leftovers", "copied_bytes", "kind", "reason", "page", "more")
    JOB_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    COPIED_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LEFTOVERS_FIELD_NUMBER: _ClassVar[int]
    COPIED_BYTES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    job: str
    target: str
    copied: int
    steps: _containers.RepeatedCompositeFieldContainer[_common_pb2.StepInfo]
    leftovers: _containers.RepeatedCompositeFieldContainer[Attempt]
    copied_bytes: int
    kind: str
    reason: str
    page: int
    more: bool
    def __init__(self, job: _Optional[str] = ..., target: _Optional[str] = ..., copied: _Optional[int] = ..., steps: _Optional[_Iterable[_Union[_common_pb2.StepInfo, _Mapping]]] = ..., leftovers: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ..., copied_bytes: _Optional[int] = ..., kind: _Optional[str] = ..., reason: _Optional[str] = ..., page: _Optional[int] = ..., more: _Optional[bool] = ...) -> None: ...

class StackTaken(_message.Message):
    __slots__ = ("request", "stack")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    request: int
    stack: _common_pb2.RankStack
    def __init__(self, request: _Optional[int] = ..., stack: _Optional[_Union[_common_pb2.RankStack, _Mapping]] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("step", "generation")
    STEP_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    step: int
    generation: int
    def __init__(self, step: _Optional[int] = ..., generation: _Optional[int] = ...) -> None: ...

class Draining(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NodeCommand(_message.Message):
    __slots__ = ("welcome", "generation_opened", "generation_ended", "write_commit", "step", "barrier", "step_query", "step_agreed", "remove_step", "config", "refused", "target", "stack")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_OPENED_FIELD_NUMBER: _ClassVar[int]
    GENERATION_ENDED_FIELD_NUMBER: _ClassVar[int]
    WRITE_COMMIT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    BARRIER_FIELD_NUMBER: _ClassVar[int]
    STEP_QUERY_FIELD_NUMBER: _ClassVar[int]
    STEP_AGREED_FIELD_NUMBER: _ClassVar[int]
    REMOVE_STEP_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    welcome: NodeWelcome
    generation_opened: _common_pb2.Generation
    generation_ended: GenerationEnded
    write_commit: WriteCommit
    step: StepOutcome
    barrier: BarrierReleased
    step_query: StepQuery
    step_agreed: StepAgreed
    remove_step: RemoveStep
    config: WorkerConfigChanged
    refused: NodeRefused
    target: TargetOrder
    stack: TakeStack
    def __init__(self, welcome: _Optional[_Union[NodeWelcome, _Mapping]] = ..., generation_opened: _Optional[_Union[_common_pb2.Generation, _Mapping]] = ..., generation_ended: _Optional[_Union[GenerationEnded, _Mapping]] = ..., write_commit: _Optional[_Union[WriteCommit, _Mapping]] = ..., step: _Optional[_Union[StepOutcome, _Mapping]] = ..., barrier: _Optional[_Union[BarrierReleased, _Mapping]] = ..., step_query: _Optional[_Union[StepQuery, _Mapping]] = ..., step_agreed: _Optional[_Union[StepAgreed, _Mapping]] = ..., remove_step: _Optional[_Union[RemoveStep, _Mapping]] = ..., config: _Optional[_Union[WorkerConfigChanged, _Mapping]] = ..., refused: _Optional[_Union[NodeRefused, _Mapping]] = ..., target: _Optional[_Union[TargetOrder, _Mapping]] = ..., stack: _Optional[_Union[TakeStack, _Mapping]] = ...) -> None: ...

class NodeWelcome(_message.Message):
    __slots__ = ("cluster", "version")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    version: _common_pb2.Version
    def __init__(self, cluster: _Optional[str] = ..., version: _Optional[_Union[_common_pb2.Version, _Mapping]] = ...) -> None: ...

class NodeRefused(_message.Message):
    __slots__ = ("kind", "reason", "hint")
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    reason: str
    hint: str
    def __init__(self, kind: _Optional[str] = ..., reason: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class WriteCommit(_message.Message):
    __slots__ = ("job", "step", "generation", "path", "content")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    job: str
    step: int
    generation: int
    path: str
    content: bytes
    def __init__(self, job: _Optional[str] = ..., step: _Optional[int] = ..., generation: _Optional[int] = ..., path: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class StepOutcome(_message.Message):
    __slots__ = ("job", "step", "generation", "state", "info", "kind", "reason", "missing_ranks")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[StepOutcome.State]
        STATE_COMMITTED: _ClassVar[StepOutcome.State]
        STATE_ABANDONED: _ClassVar[StepOutcome.State]
        STATE_ADOPTED: _ClassVar[StepOutcome.State]
        STATE_LATE: _ClassVar[StepOutcome.State]
    STATE_UNSPECIFIED: StepOutcome.State
    STATE_COMMITTED: StepOutcome.State
    STATE_ABANDONED: StepOutcome.State
    STATE_ADOPTED: StepOutcome.State
    STATE_LATE: StepOutcome.State
    JOB_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MISSING_RANKS_FIELD_NUMBER: _ClassVar[int]
    job: str
    step: int
    generation: int
    state: StepOutcome.State
    info: _common_pb2.StepInfo
    kind: str
    reason: str
    missing_ranks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, job: _Optional[str] = ..., step: _Optional[int] = ..., generation: _Optional[int] = ..., state: _Optional[_Union[StepOutcome.State, str]] = ..., info: _Optional[_Union[_common_pb2.StepInfo, _Mapping]] = ..., kind: _Optional[str] = ..., reason: _Optional[str] = ..., missing_ranks: _Optional[_Iterable[int]] = ...) -> None: ...

class BarrierReleased(_message.Message):
    __slots__ = ("job", "generation", "name", "round")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    job: str
    generation: int
    name: str
    round: int
    def __init__(self, job: _Optional[str] = ..., generation: _Optional[int] = ..., name: _Optional[str] = ..., round: _Optional[int] = ...) -> None: ...

class StepQuery(_message.Message):
    __slots__ = ("job", "generation", "purpose", "vote")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    VOTE_FIELD_NUMBER: _ClassVar[int]
    job: str
    generation: int
    purpose: _common_pb2.StepPurpose
    vote: int
    def __init__(self, job: _Optional[str] = ..., generation: _Optional[int] = ..., purpose: _Optional[_Union[_common_pb2.StepPurpose, str]] = ..., vote: _Optional[int] = ...) -> None: ...

class StepAgreed(_message.Message):
    __slots__ = ("job", "generation", "step", "purpose", "vote")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    VOTE_FIELD_NUMBER: _ClassVar[int]
    job: str
    generation: int
    step: int
    purpose: _common_pb2.StepPurpose
    vote: int
    def __init__(self, job: _Optional[str] = ..., generation: _Optional[int] = ..., step: _Optional[int] = ..., purpose: _Optional[_Union[_common_pb2.StepPurpose, str]] = ..., vote: _Optional[int] = ...) -> None: ...

class RemoveStep(_message.Message):
    __slots__ = ("job", "step", "generation", "committed", "remaining", "store", "job_uuid", "target")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    JOB_UUID_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    job: str
    step: int
    generation: int
    committed: bool
    remaining: _containers.RepeatedScalarFieldContainer[int]
    store: str
    job_uuid: str
    target: str
    def __init__(self, job: _Optional[str] = ..., step: _Optional[int] = ..., generation: _Optional[int] = ..., committed: _Optional[bool] = ..., remaining: _Optional[_Iterable[int]] = ..., store: _Optional[str] = ..., job_uuid: _Optional[str] = ..., target: _Optional[str] = ...) -> None: ...

class TargetOrder(_message.Message):
    __slots__ = ("job", "target", "copy", "commit_blake3", "store", "job_uuid", "taken")
    JOB_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    COPY_FIELD_NUMBER: _ClassVar[int]
    COMMIT_BLAKE3_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    JOB_UUID_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    job: str
    target: str
    copy: int
    commit_blake3: str
    store: str
    job_uuid: str
    taken: bool
    def __init__(self, job: _Optional[str] = ..., target: _Optional[str] = ..., copy: _Optional[int] = ..., commit_blake3: _Optional[str] = ..., store: _Optional[str] = ..., job_uuid: _Optional[str] = ..., taken: _Optional[bool] = ...) -> None: ...

class TakeStack(_message.Message):
    __slots__ = ("job", "rank", "request")
    JOB_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    job: str
    rank: int
    request: int
    def __init__(self, job: _Optional[str] = ..., rank: _Optional[int] = ..., request: _Optional[int] = ...) -> None: ...

class WorkerConfigChanged(_message.Message):
    __slots__ = ("job", "config")
    JOB_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    job: str
    config: WorkerConfig
    def __init__(self, job: _Optional[str] = ..., config: _Optional[_Union[WorkerConfig, _Mapping]] = ...) -> None: ...
