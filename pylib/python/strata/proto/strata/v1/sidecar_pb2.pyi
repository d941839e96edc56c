from strata.proto.strata.v1 import common_pb2 as _common_pb2
from strata.proto.strata.v1 import checkpoint_pb2 as _checkpoint_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionRequest(_message.Message):
    __slots__ = ("hello", "goodbye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    goodbye: Goodbye
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("version", "job", "rank", "world_size", "store", "token", "coordinator", "pid", "host", "resume", "timeout_ms")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    version: _common_pb2.Version
    job: str
    rank: int
    world_size: int
    store: str
    token: str
    coordinator: str
    pid: int
    host: str
    resume: int
    timeout_ms: int
    def __init__(self, version: _Optional[_Union[_common_pb2.Version, _Mapping]] = ..., job: _Optional[str] = ..., rank: _Optional[int] = ..., world_size: _Optional[int] = ..., store: _Optional[str] = ..., token: _Optional[str] = ..., coordinator: _Optional[str] = ..., pid: _Optional[int] = ..., host: _Optional[str] = ..., resume: _Optional[int] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SessionEvent(_message.Message):
    __slots__ = ("welcome", "generation_opened", "fenced", "step", "step_query", "step_agreed", "warning", "take_stack")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_OPENED_FIELD_NUMBER: _ClassVar[int]
    FENCED_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEP_QUERY_FIELD_NUMBER: _ClassVar[int]
    STEP_AGREED_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    TAKE_STACK_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    generation_opened: _common_pb2.Generation
    fenced: Fenced
    step: StepEvent
    step_query: StepQueryEvent
    step_agreed: StepAgreedEvent
    warning: Warning
    take_stack: TakeStackEvent
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., generation_opened: _Optional[_Union[_common_pb2.Generation, _Mapping]] = ..., fenced: _Optional[_Union[Fenced, _Mapping]] = ..., step: _Optional[_Union[StepEvent, _Mapping]] = ..., step_query: _Optional[_Union[StepQueryEvent, _Mapping]] = ..., step_agreed: _Optional[_Union[StepAgreedEvent, _Mapping]] = ..., warning: _Optional[_Union[Warning, _Mapping]] = ..., take_stack: _Optional[_Union[TakeStackEvent, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("session", "version", "job_uuid", "arena", "store", "save_wait_ms", "commit_timeout_ms", "timeout_ms", "generation", "resumed", "life")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    JOB_UUID_FIELD_NUMBER: _ClassVar[int]
    ARENA_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    SAVE_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    COMMIT_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    session: int
    version: _common_pb2.Version
    job_uuid: str
    arena: str
    store: str
    save_wait_ms: int
    commit_timeout_ms: int
    timeout_ms: int
    generation: int
    resumed: bool
    life: str
    def __init__(self, session: _Optional[int] = ..., version: _Optional[_Union[_common_pb2.Version, _Mapping]] = ..., job_uuid: _Optional[str] = ..., arena: _Optional[str] = ..., store: _Optional[str] = ..., save_wait_ms: _Optional[int] = ..., commit_timeout_ms: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., generation: _Optional[int] = ..., resumed: _Optional[bool] = ..., life: _Optional[str] = ...) -> None: ...

class Fenced(_message.Message):
    __slots__ = ("generation", "lost", "reason", "lost_count")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LOST_COUNT_FIELD_NUMBER: _ClassVar[int]
    generation: int
    lost: _containers.RepeatedCompositeFieldContainer[_common_pb2.Member]
    reason: str
    lost_count: int
    def __init__(self, generation: _Optional[int] = ..., lost: _Optional[_Iterable[_Union[_common_pb2.Member, _Mapping]]] = ..., reason: _Optional[str] = ..., lost_count: _Optional[int] = ...) -> None: ...

class StepEvent(_message.Message):
    __slots__ = ("step", "state", "info", "kind", "reason")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    step: int
    state: str
    info: _common_pb2.StepInfo
    kind: str
    reason: str
    def __init__(self, step: _Optional[int] = ..., state: _Optional[str] = ..., info: _Optional[_Union[_common_pb2.StepInfo, _Mapping]] = ..., kind: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class StepQueryEvent(_message.Message):
    __slots__ = ("purpose", "vote")
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    VOTE_FIELD_NUMBER: _ClassVar[int]
    purpose: _common_pb2.StepPurpose
    vote: int
    def __init__(self, purpose: _Optional[_Union[_common_pb2.StepPurpose, str]] = ..., vote: _Optional[int] = ...) -> None: ...

class StepAgreedEvent(_message.Message):
    __slots__ = ("step", "purpose", "vote")
    STEP_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    VOTE_FIELD_NUMBER: _ClassVar[int]
    step: int
    purpose: _common_pb2.StepPurpose
    vote: int
    def __init__(self, step: _Optional[int] = ..., purpose: _Optional[_Union[_common_pb2.StepPurpose, str]] = ..., vote: _Optional[int] = ...) -> None: ...

class TakeStackEvent(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: int
    def __init__(self, request: _Optional[int] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...

class WaitWorldRequest(_message.Message):
    __slots__ = ("session", "timeout_ms")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    session: int
    timeout_ms: int
    def __init__(self, session: _Optional[int] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class PrepareRequest(_message.Message):
    __slots__ = ("session", "slot_bytes", "slots")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SLOT_BYTES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    session: int
    slot_bytes: int
    slots: int
    def __init__(self, session: _Optional[int] = ..., slot_bytes: _Optional[int] = ..., slots: _Optional[int] = ...) -> None: ...

class PrepareReply(_message.Message):
    __slots__ = ("arena",)
    ARENA_FIELD_NUMBER: _ClassVar[int]
    arena: str
    def __init__(self, arena: _Optional[str] = ...) -> None: ...

class BeginSaveRequest(_message.Message):
    __slots__ = ("session", "step", "kind", "slot_bytes", "slot_bytes_private", "has_replicated", "ranks", "data", "metrics_json", "meta_json")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SLOT_BYTES_FIELD_NUMBER: _ClassVar[int]
    SLOT_BYTES_PRIVATE_FIELD_NUMBER: _ClassVar[int]
    HAS_REPLICATED_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    METRICS_JSON_FIELD_NUMBER: _ClassVar[int]
    META_JSON_FIELD_NUMBER: _ClassVar[int]
    session: int
    step: int
    kind: _common_pb2.SaveKind
    slot_bytes: int
    slot_bytes_private: int
    has_replicated: bool
    ranks: _containers.RepeatedScalarFieldContainer[int]
    data: _containers.RepeatedCompositeFieldContainer[_common_pb2.DataPosition]
    metrics_json: str
    meta_json: str
    def __init__(self, session: _Optional[int] = ..., step: _Optional[int] = ..., kind: _Optional[_Union[_common_pb2.SaveKind, str]] = ..., slot_bytes: _Optional[int] = ..., slot_bytes_private: _Optional[int] = ..., has_replicated: _Optional[bool] = ..., ranks: _Optional[_Iterable[int]] = ..., data: _Optional[_Iterable[_Union[_common_pb2.DataPosition, _Mapping]]] = ..., metrics_json: _Optional[str] = ..., meta_json: _Optional[str] = ...) -> None: ...

class BeginSaveReply(_message.Message):
    __slots__ = ("stage", "stage_replicated", "arena", "slot", "fill", "waited_ms", "begun", "fresh_arena")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STAGE_REPLICATED_FIELD_NUMBER: _ClassVar[int]
    ARENA_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    FILL_FIELD_NUMBER: _ClassVar[int]
    WAITED_MS_FIELD_NUMBER: _ClassVar[int]
    BEGUN_FIELD_NUMBER: _ClassVar[int]
    FRESH_ARENA_FIELD_NUMBER: _ClassVar[int]
    stage: bool
    stage_replicated: bool
    arena: str
    slot: int
    fill: int
    waited_ms: int
    begun: bytes
    fresh_arena: bool
    def __init__(self, stage: _Optional[bool] = ..., stage_replicated: _Optional[bool] = ..., arena: _Optional[str] = ..., slot: _Optional[int] = ..., fill: _Optional[int] = ..., waited_ms: _Optional[int] = ..., begun: _Optional[bytes] = ..., fresh_arena: _Optional[bool] = ...) -> None: ...

class SealSaveRequest(_message.Message):
    __slots__ = ("session", "step", "slot", "fill")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    FILL_FIELD_NUMBER: _ClassVar[int]
    session: int
    step: int
    slot: int
    fill: int
    def __init__(self, session: _Optional[int] = ..., step: _Optional[int] = ..., slot: _Optional[int] = ..., fill: _Optional[int] = ...) -> None: ...

class SealSaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AbandonSaveRequest(_message.Message):
    __slots__ = ("session", "step", "reason")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    session: int
    step: int
    reason: str
    def __init__(self, session: _Optional[int] = ..., step: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class AbandonSaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WaitCommittedRequest(_message.Message):
    __slots__ = ("session", "step", "timeout_ms")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    session: int
    step: int
    timeout_ms: int
    def __init__(self, session: _Optional[int] = ..., step: _Optional[int] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class RestoreRequest(_message.Message):
    __slots__ = ("session", "round", "step", "source", "fall_back", "only", "timeout_ms")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    FALL_BACK_FIELD_NUMBER: _ClassVar[int]
    ONLY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    session: int
    round: int
    step: int
    source: _checkpoint_pb2.RestoreSource
    fall_back: bool
    only: str
    timeout_ms: int
    def __init__(self, session: _Optional[int] = ..., round: _Optional[int] = ..., step: _Optional[int] = ..., source: _Optional[_Union[_checkpoint_pb2.RestoreSource, str]] = ..., fall_back: _Optional[bool] = ..., only: _Optional[str] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class RestoreReply(_message.Message):
    __slots__ = ("step", "committed", "source", "arena", "slot", "lease", "info", "damaged", "notes")
    STEP_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ARENA_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    step: int
    committed: bool
    source: str
    arena: str
    slot: int
    lease: int
    info: _common_pb2.StepInfo
    damaged: _containers.RepeatedScalarFieldContainer[str]
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, step: _Optional[int] = ..., committed: _Optional[bool] = ..., source: _Optional[str] = ..., arena: _Optional[str] = ..., slot: _Optional[int] = ..., lease: _Optional[int] = ..., info: _Optional[_Union[_common_pb2.StepInfo, _Mapping]] = ..., damaged: _Optional[_Iterable[str]] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class ReleaseLeaseRequest(_message.Message):
    __slots__ = ("session", "lease")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    session: int
    lease: int
    def __init__(self, session: _Optional[int] = ..., lease: _Optional[int] = ...) -> None: ...

class ReleaseLeaseReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SidecarBarrierRequest(_message.Message):
    __slots__ = ("session", "name", "round", "timeout_ms")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    session: int
    name: str
    round: int
    timeout_ms: int
    def __init__(self, session: _Optional[int] = ..., name: _Optional[str] = ..., round: _Optional[int] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class SidecarBarrierReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PreemptRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: int
    def __init__(self, session: _Optional[int] = ...) -> None: ...

class PreemptReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VoteStepRequest(_message.Message):
    __slots__ = ("session", "last_step", "purpose", "vote")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    VOTE_FIELD_NUMBER: _ClassVar[int]
    session: int
    last_step: int
    purpose: _common_pb2.StepPurpose
    vote: int
    def __init__(self, session: _Optional[int] = ..., last_step: _Optional[int] = ..., purpose: _Optional[_Union[_common_pb2.StepPurpose, str]] = ..., vote: _Optional[int] = ...) -> None: ...

class AnswerStackRequest(_message.Message):
    __slots__ = ("session", "request", "stack", "missing")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    session: int
    request: int
    stack: str
    missing: str
    def __init__(self, session: _Optional[int] = ..., request: _Optional[int] = ..., stack: _Optional[str] = ..., missing: _Optional[str] = ...) -> None: ...

class AnswerStackReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VoteStepReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
