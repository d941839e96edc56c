from strata.proto.strata.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetVersionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class DrainJobRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class DrainJobReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetGoodputRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class GetStacksRequest(_message.Message):
    __slots__ = ("job", "ranks")
    JOB_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    job: str
    ranks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, job: _Optional[str] = ..., ranks: _Optional[_Iterable[int]] = ...) -> None: ...

class GetStacksReply(_message.Message):
    __slots__ = ("stacks", "not_asked")
    STACKS_FIELD_NUMBER: _ClassVar[int]
    NOT_ASKED_FIELD_NUMBER: _ClassVar[int]
    stacks: _containers.RepeatedCompositeFieldContainer[_common_pb2.RankStack]
    not_asked: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, stacks: _Optional[_Iterable[_Union[_common_pb2.RankStack, _Mapping]]] = ..., not_asked: _Optional[_Iterable[int]] = ...) -> None: ...

class AskSaveRequest(_message.Message):
    __slots__ = ("job", "stop", "timeout_ms")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    job: str
    stop: bool
    timeout_ms: int
    def __init__(self, job: _Optional[str] = ..., stop: _Optional[bool] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class AskSaveReply(_message.Message):
    __slots__ = ("generation", "step")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    generation: int
    step: int
    def __init__(self, generation: _Optional[int] = ..., step: _Optional[int] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("version", "role", "cluster", "uptime_ms", "nodes", "jobs", "coordinators")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    UPTIME_MS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    COORDINATORS_FIELD_NUMBER: _ClassVar[int]
    version: _common_pb2.Version
    role: str
    cluster: str
    uptime_ms: int
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStatus]
    jobs: _containers.RepeatedCompositeFieldContainer[JobStatus]
    coordinators: _containers.RepeatedCompositeFieldContainer[CoordinatorStatus]
    def __init__(self, version: _Optional[_Union[_common_pb2.Version, _Mapping]] = ..., role: _Optional[str] = ..., cluster: _Optional[str] = ..., uptime_ms: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[NodeStatus, _Mapping]]] = ..., jobs: _Optional[_Iterable[_Union[JobStatus, _Mapping]]] = ..., coordinators: _Optional[_Iterable[_Union[CoordinatorStatus, _Mapping]]] = ...) -> None: ...

class CoordinatorStatus(_message.Message):
    __slots__ = ("url", "state", "behind")
    URL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BEHIND_FIELD_NUMBER: _ClassVar[int]
    url: str
    state: str
    behind: int
    def __init__(self, url: _Optional[str] = ..., state: _Optional[str] = ..., behind: _Optional[int] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("node", "host", "attached", "silent_ms", "version", "problem")
    NODE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    SILENT_MS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    node: str
    host: str
    attached: bool
    silent_ms: int
    version: str
    problem: str
    def __init__(self, node: _Optional[str] = ..., host: _Optional[str] = ..., attached: _Optional[bool] = ..., silent_ms: _Optional[int] = ..., version: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class JobStatus(_message.Message):
    __slots__ = ("job", "job_uuid", "store", "generation", "world_size", "ranks", "missing_ranks", "pending", "latest_step", "committed_steps", "last_warning", "targets")
    JOB_FIELD_NUMBER: _ClassVar[int]
    JOB_UUID_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    MISSING_RANKS_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    LATEST_STEP_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_STEPS_FIELD_NUMBER: _ClassVar[int]
    LAST_WARNING_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    job: str
    job_uuid: str
    store: str
    generation: int
    world_size: int
    ranks: _containers.RepeatedCompositeFieldContainer[RankStatus]
    missing_ranks: _containers.RepeatedScalarFieldContainer[int]
    pending: _containers.RepeatedCompositeFieldContainer[PendingStep]
    latest_step: int
    committed_steps: int
    last_warning: str
    targets: _containers.RepeatedCompositeFieldContainer[TargetStatus]
    def __init__(self, job: _Optional[str] = ..., job_uuid: _Optional[str] = ..., store: _Optional[str] = ..., generation: _Optional[int] = ..., world_size: _Optional[int] = ..., ranks: _Optional[_Iterable[_Union[RankStatus, _Mapping]]] = ..., missing_ranks: _Optional[_Iterable[int]] = ..., pending: _Optional[_Iterable[_Union[PendingStep, _Mapping]]] = ..., latest_step: _Optional[int] = ..., committed_steps: _Optional[int] = ..., last_warning: _Optional[str] = ..., targets: _Optional[_Iterable[_Union[TargetStatus, _Mapping]]] = ...) -> None: ...

class TargetStatus(_message.Message):
    __slots__ = ("name", "url", "steps", "behind", "latest_step", "copying", "known", "problem")
    NAME_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    BEHIND_FIELD_NUMBER: _ClassVar[int]
    LATEST_STEP_FIELD_NUMBER: _ClassVar[int]
    COPYING_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    name: str
    url: str
    steps: int
    behind: int
    latest_step: int
    copying: int
    known: bool
    problem: str
    def __init__(self, name: _Optional[str] = ..., url: _Optional[str] = ..., steps: _Optional[int] = ..., behind: _Optional[int] = ..., latest_step: _Optional[int] = ..., copying: _Optional[int] = ..., known: _Optional[bool] = ..., problem: _Optional[str] = ...) -> None: ...

class RankStatus(_message.Message):
    __slots__ = ("rank", "host", "node", "state", "progress", "stack")
    RANK_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    rank: int
    host: str
    node: str
    state: str
    progress: _common_pb2.Progress
    stack: _common_pb2.RankStack
    def __init__(self, rank: _Optional[int] = ..., host: _Optional[str] = ..., node: _Optional[str] = ..., state: _Optional[str] = ..., progress: _Optional[_Union[_common_pb2.Progress, _Mapping]] = ..., stack: _Optional[_Union[_common_pb2.RankStack, _Mapping]] = ...) -> None: ...

class PendingStep(_message.Message):
    __slots__ = ("step", "generation", "sealed", "durable", "missing")
    STEP_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    step: int
    generation: int
    sealed: _containers.RepeatedScalarFieldContainer[int]
    durable: _containers.RepeatedScalarFieldContainer[int]
    missing: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, step: _Optional[int] = ..., generation: _Optional[int] = ..., sealed: _Optional[_Iterable[int]] = ..., durable: _Optional[_Iterable[int]] = ..., missing: _Optional[_Iterable[int]] = ...) -> None: ...

class Goodput(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[JobGoodput]
    def __init__(self, jobs: _Optional[_Iterable[_Union[JobGoodput, _Mapping]]] = ...) -> None: ...

class JobGoodput(_message.Message):
    __slots__ = ("job", "since_unix_ms", "spent", "losses", "saves", "save_interval_ms")
    JOB_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    SAVES_FIELD_NUMBER: _ClassVar[int]
    SAVE_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    job: str
    since_unix_ms: int
    spent: _containers.RepeatedCompositeFieldContainer[TimeSpent]
    losses: int
    saves: int
    save_interval_ms: int
    def __init__(self, job: _Optional[str] = ..., since_unix_ms: _Optional[int] = ..., spent: _Optional[_Iterable[_Union[TimeSpent, _Mapping]]] = ..., losses: _Optional[int] = ..., saves: _Optional[int] = ..., save_interval_ms: _Optional[int] = ...) -> None: ...

class TimeSpent(_message.Message):
    __slots__ = ("use", "ms")
    USE_FIELD_NUMBER: _ClassVar[int]
    MS_FIELD_NUMBER: _ClassVar[int]
    use: str
    ms: int
    def __init__(self, use: _Optional[str] = ..., ms: _Optional[int] = ...) -> None: ...
