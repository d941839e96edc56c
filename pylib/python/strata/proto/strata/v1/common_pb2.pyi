from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SaveKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAVE_KIND_FULL: _ClassVar[SaveKind]
    SAVE_KIND_INCREMENTAL: _ClassVar[SaveKind]
    SAVE_KIND_MODEL_ONLY: _ClassVar[SaveKind]
    SAVE_KIND_OPTIMIZER_ONLY: _ClassVar[SaveKind]

class RankPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RANK_PHASE_UNSPECIFIED: _ClassVar[RankPhase]
    RANK_PHASE_IDLE: _ClassVar[RankPhase]
    RANK_PHASE_LOADING: _ClassVar[RankPhase]
    RANK_PHASE_TRAINING: _ClassVar[RankPhase]
    RANK_PHASE_CHECKPOINTING: _ClassVar[RankPhase]
    RANK_PHASE_RESTORING: _ClassVar[RankPhase]
    RANK_PHASE_FAILED: _ClassVar[RankPhase]
    RANK_PHASE_WAITING: _ClassVar[RankPhase]

class StepPurpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STEP_PURPOSE_STOP: _ClassVar[StepPurpose]
    STEP_PURPOSE_SAVE: _ClassVar[StepPurpose]
SAVE_KIND_FULL: SaveKind
SAVE_KIND_INCREMENTAL: SaveKind
SAVE_KIND_MODEL_ONLY: SaveKind
SAVE_KIND_OPTIMIZER_ONLY: SaveKind
RANK_PHASE_UNSPECIFIED: RankPhase
RANK_PHASE_IDLE: RankPhase
RANK_PHASE_LOADING: RankPhase
RANK_PHASE_TRAINING: RankPhase
RANK_PHASE_CHECKPOINTING: RankPhase
RANK_PHASE_RESTORING: RankPhase
RANK_PHASE_FAILED: RankPhase
RANK_PHASE_WAITING: RankPhase
STEP_PURPOSE_STOP: StepPurpose
STEP_PURPOSE_SAVE: StepPurpose

class Caller(_message.Message):
    __slots__ = ("job", "generation", "rank", "token")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    job: str
    generation: int
    rank: int
    token: str
    def __init__(self, job: _Optional[str] = ..., generation: _Optional[int] = ..., rank: _Optional[int] = ..., token: _Optional[str] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("version", "protocol", "features")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    version: str
    protocol: int
    features: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[str] = ..., protocol: _Optional[int] = ..., features: _Optional[_Iterable[str]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("rank", "step", "phase", "age_ms", "saving_ms", "restoring_ms")
    RANK_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    SAVING_MS_FIELD_NUMBER: _ClassVar[int]
    RESTORING_MS_FIELD_NUMBER: _ClassVar[int]
    rank: int
    step: int
    phase: RankPhase
    age_ms: int
    saving_ms: int
    restoring_ms: int
    def __init__(self, rank: _Optional[int] = ..., step: _Optional[int] = ..., phase: _Optional[_Union[RankPhase, str]] = ..., age_ms: _Optional[int] = ..., saving_ms: _Optional[int] = ..., restoring_ms: _Optional[int] = ...) -> None: ...

class RankStack(_message.Message):
    __slots__ = ("rank", "host", "process", "waits_in", "stack", "missing")
    RANK_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    WAITS_IN_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    rank: int
    host: str
    process: str
    waits_in: str
    stack: str
    missing: str
    def __init__(self, rank: _Optional[int] = ..., host: _Optional[str] = ..., process: _Optional[str] = ..., waits_in: _Optional[str] = ..., stack: _Optional[str] = ..., missing: _Optional[str] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("rank", "node", "host")
    RANK_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    rank: int
    node: str
    host: str
    def __init__(self, rank: _Optional[int] = ..., node: _Optional[str] = ..., host: _Optional[str] = ...) -> None: ...

class Generation(_message.Message):
    __slots__ = ("job", "job_uuid", "generation", "world_size", "members", "interval_steps", "place")
    JOB_FIELD_NUMBER: _ClassVar[int]
    JOB_UUID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    job: str
    job_uuid: str
    generation: int
    world_size: int
    members: _containers.RepeatedCompositeFieldContainer[Member]
    interval_steps: int
    place: Place
    def __init__(self, job: _Optional[str] = ..., job_uuid: _Optional[str] = ..., generation: _Optional[int] = ..., world_size: _Optional[int] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., interval_steps: _Optional[int] = ..., place: _Optional[_Union[Place, _Mapping]] = ...) -> None: ...

class Place(_message.Message):
    __slots__ = ("number", "nodes", "neighbours")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    number: int
    nodes: int
    neighbours: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, number: _Optional[int] = ..., nodes: _Optional[int] = ..., neighbours: _Optional[_Iterable[str]] = ...) -> None: ...

class DataPosition(_message.Message):
    __slots__ = ("dataset", "epoch", "step", "batch_size", "start", "version")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    epoch: int
    step: int
    batch_size: int
    start: int
    version: int
    def __init__(self, dataset: _Optional[str] = ..., epoch: _Optional[int] = ..., step: _Optional[int] = ..., batch_size: _Optional[int] = ..., start: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class StepInfo(_message.Message):
    __slots__ = ("step", "generation", "kind", "world_size", "bytes", "stored_bytes", "committed_unix_ms", "pinned", "base_steps", "commit_blake3", "metrics_json", "meta_json", "data", "targets", "elsewhere")
    STEP_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    BASE_STEPS_FIELD_NUMBER: _ClassVar[int]
    COMMIT_BLAKE3_FIELD_NUMBER: _ClassVar[int]
    METRICS_JSON_FIELD_NUMBER: _ClassVar[int]
    META_JSON_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    ELSEWHERE_FIELD_NUMBER: _ClassVar[int]
    step: int
    generation: int
    kind: SaveKind
    world_size: int
    bytes: int
    stored_bytes: int
    committed_unix_ms: int
    pinned: bool
    base_steps: _containers.RepeatedScalarFieldContainer[int]
    commit_blake3: str
    metrics_json: str
    meta_json: str
    data: _containers.RepeatedCompositeFieldContainer[DataPosition]
    targets: _containers.RepeatedScalarFieldContainer[str]
    elsewhere: bool
    def __init__(self, step: _Optional[int] = ..., generation: _Optional[int] = ..., kind: _Optional[_Union[SaveKind, str]] = ..., world_size: _Optional[int] = ..., bytes: _Optional[int] = ..., stored_bytes: _Optional[int] = ..., committed_unix_ms: _Optional[int] = ..., pinned: _Optional[bool] = ..., base_steps: _Optional[_Iterable[int]] = ..., commit_blake3: _Optional[str] = ..., metrics_json: _Optional[str] = ..., meta_json: _Optional[str] = ..., data: _Optional[_Iterable[_Union[DataPosition, _Mapping]]] = ..., targets: _Optional[_Iterable[str]] = ..., elsewhere: _Optional[bool] = ...) -> None: ...

class KeepRules(_message.Message):
    __slots__ = ("last", "every_steps", "every_ms", "best", "metric", "highest")
    LAST_FIELD_NUMBER: _ClassVar[int]
    EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    EVERY_MS_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_FIELD_NUMBER: _ClassVar[int]
    last: int
    every_steps: int
    every_ms: int
    best: int
    metric: str
    highest: bool
    def __init__(self, last: _Optional[int] = ..., every_steps: _Optional[int] = ..., every_ms: _Optional[int] = ..., best: _Optional[int] = ..., metric: _Optional[str] = ..., highest: _Optional[bool] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("name", "url", "keep", "hold")
    NAME_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    name: str
    url: str
    keep: KeepRules
    hold: int
    def __init__(self, name: _Optional[str] = ..., url: _Optional[str] = ..., keep: _Optional[_Union[KeepRules, _Mapping]] = ..., hold: _Optional[int] = ...) -> None: ...
