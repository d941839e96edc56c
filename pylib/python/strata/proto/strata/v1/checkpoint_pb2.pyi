from strata.proto.strata.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RestoreSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESTORE_SOURCE_COMMITTED: _ClassVar[RestoreSource]
    RESTORE_SOURCE_STAGED: _ClassVar[RestoreSource]
RESTORE_SOURCE_COMMITTED: RestoreSource
RESTORE_SOURCE_STAGED: RestoreSource

class LatestStepRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class LatestStepReply(_message.Message):
    __slots__ = ("step",)
    STEP_FIELD_NUMBER: _ClassVar[int]
    step: int
    def __init__(self, step: _Optional[int] = ...) -> None: ...

class ListStepsRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class ListStepsReply(_message.Message):
    __slots__ = ("steps",)
    STEPS_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[_common_pb2.StepInfo]
    def __init__(self, steps: _Optional[_Iterable[_Union[_common_pb2.StepInfo, _Mapping]]] = ...) -> None: ...

class GetStepRequest(_message.Message):
    __slots__ = ("job", "step")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    job: str
    step: int
    def __init__(self, job: _Optional[str] = ..., step: _Optional[int] = ...) -> None: ...

class PinStepRequest(_message.Message):
    __slots__ = ("job", "step", "pinned", "holder")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    job: str
    step: int
    pinned: bool
    holder: str
    def __init__(self, job: _Optional[str] = ..., step: _Optional[int] = ..., pinned: _Optional[bool] = ..., holder: _Optional[str] = ...) -> None: ...

class DeleteStepRequest(_message.Message):
    __slots__ = ("job", "step", "force", "dry_run")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    job: str
    step: int
    force: bool
    dry_run: bool
    def __init__(self, job: _Optional[str] = ..., step: _Optional[int] = ..., force: _Optional[bool] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class DeleteStepReply(_message.Message):
    __slots__ = ("freed_bytes",)
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    freed_bytes: int
    def __init__(self, freed_bytes: _Optional[int] = ...) -> None: ...

class ResolveRestoreRequest(_message.Message):
    __slots__ = ("caller", "round", "step", "source", "damaged", "timeout_ms")
    CALLER_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    caller: _common_pb2.Caller
    round: int
    step: int
    source: RestoreSource
    damaged: _containers.RepeatedScalarFieldContainer[int]
    timeout_ms: int
    def __init__(self, caller: _Optional[_Union[_common_pb2.Caller, _Mapping]] = ..., round: _Optional[int] = ..., step: _Optional[int] = ..., source: _Optional[_Union[RestoreSource, str]] = ..., damaged: _Optional[_Iterable[int]] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class ResolveRestoreReply(_message.Message):
    __slots__ = ("step", "committed", "info", "generation", "notes")
    STEP_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    step: int
    committed: bool
    info: _common_pb2.StepInfo
    generation: int
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, step: _Optional[int] = ..., committed: _Optional[bool] = ..., info: _Optional[_Union[_common_pb2.StepInfo, _Mapping]] = ..., generation: _Optional[int] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class NotifyCheckpointRequest(_message.Message):
    __slots__ = ("job", "step", "path", "kind", "bytes", "rank")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    job: str
    step: int
    path: str
    kind: _common_pb2.SaveKind
    bytes: int
    rank: int
    def __init__(self, job: _Optional[str] = ..., step: _Optional[int] = ..., path: _Optional[str] = ..., kind: _Optional[_Union[_common_pb2.SaveKind, str]] = ..., bytes: _Optional[int] = ..., rank: _Optional[int] = ...) -> None: ...

class NotifyCheckpointReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
