from strata.proto.strata.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DatasetSpec(_message.Message):
    __slots__ = ("id", "path", "format", "total_samples", "shard_size", "shuffle", "seed", "version", "sample_len", "dtype", "files", "columns", "shape", "schema", "quarantined")
    ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SHARD_SIZE_FIELD_NUMBER: _ClassVar[int]
    SHUFFLE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_LEN_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    id: str
    path: str
    format: str
    total_samples: int
    shard_size: int
    shuffle: bool
    seed: int
    version: int
    sample_len: int
    dtype: str
    files: _containers.RepeatedCompositeFieldContainer[DataFile]
    columns: _containers.RepeatedScalarFieldContainer[str]
    shape: _containers.RepeatedScalarFieldContainer[int]
    schema: str
    quarantined: _containers.RepeatedCompositeFieldContainer[QuarantinedFile]
    def __init__(self, id: _Optional[str] = ..., path: _Optional[str] = ..., format: _Optional[str] = ..., total_samples: _Optional[int] = ..., shard_size: _Optional[int] = ..., shuffle: _Optional[bool] = ..., seed: _Optional[int] = ..., version: _Optional[int] = ..., sample_len: _Optional[int] = ..., dtype: _Optional[str] = ..., files: _Optional[_Iterable[_Union[DataFile, _Mapping]]] = ..., columns: _Optional[_Iterable[str]] = ..., shape: _Optional[_Iterable[int]] = ..., schema: _Optional[str] = ..., quarantined: _Optional[_Iterable[_Union[QuarantinedFile, _Mapping]]] = ...) -> None: ...

class QuarantinedFile(_message.Message):
    __slots__ = ("path", "reason")
    PATH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    path: str
    reason: str
    def __init__(self, path: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class DataFile(_message.Message):
    __slots__ = ("path", "samples")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    path: str
    samples: int
    def __init__(self, path: _Optional[str] = ..., samples: _Optional[int] = ...) -> None: ...

class RegisterDatasetRequest(_message.Message):
    __slots__ = ("job", "spec", "token")
    JOB_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    job: str
    spec: DatasetSpec
    token: str
    def __init__(self, job: _Optional[str] = ..., spec: _Optional[_Union[DatasetSpec, _Mapping]] = ..., token: _Optional[str] = ...) -> None: ...

class GetDatasetRequest(_message.Message):
    __slots__ = ("job", "id")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    job: str
    id: str
    def __init__(self, job: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class ListDatasetsRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class ListDatasetsReply(_message.Message):
    __slots__ = ("datasets", "damaged")
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[DatasetSpec]
    damaged: _containers.RepeatedCompositeFieldContainer[DamagedFile]
    def __init__(self, datasets: _Optional[_Iterable[_Union[DatasetSpec, _Mapping]]] = ..., damaged: _Optional[_Iterable[_Union[DamagedFile, _Mapping]]] = ...) -> None: ...

class DamagedFile(_message.Message):
    __slots__ = ("dataset", "path", "reason", "hosts")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    path: str
    reason: str
    hosts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, dataset: _Optional[str] = ..., path: _Optional[str] = ..., reason: _Optional[str] = ..., hosts: _Optional[_Iterable[str]] = ...) -> None: ...

class ReportDamageRequest(_message.Message):
    __slots__ = ("job", "token", "dataset", "host", "files")
    JOB_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    job: str
    token: str
    dataset: str
    host: str
    files: _containers.RepeatedCompositeFieldContainer[QuarantinedFile]
    def __init__(self, job: _Optional[str] = ..., token: _Optional[str] = ..., dataset: _Optional[str] = ..., host: _Optional[str] = ..., files: _Optional[_Iterable[_Union[QuarantinedFile, _Mapping]]] = ...) -> None: ...

class ReportDamageReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetShardsRequest(_message.Message):
    __slots__ = ("job", "dataset", "rank", "epoch", "world_size", "timeout_ms", "generation")
    JOB_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    job: str
    dataset: str
    rank: int
    epoch: int
    world_size: int
    timeout_ms: int
    generation: int
    def __init__(self, job: _Optional[str] = ..., dataset: _Optional[str] = ..., rank: _Optional[int] = ..., epoch: _Optional[int] = ..., world_size: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., generation: _Optional[int] = ...) -> None: ...

class GetShardsReply(_message.Message):
    __slots__ = ("shards", "dataset_version", "world_size")
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    DATASET_VERSION_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    shards: _containers.RepeatedCompositeFieldContainer[Shard]
    dataset_version: int
    world_size: int
    def __init__(self, shards: _Optional[_Iterable[_Union[Shard, _Mapping]]] = ..., dataset_version: _Optional[int] = ..., world_size: _Optional[int] = ...) -> None: ...

class Shard(_message.Message):
    __slots__ = ("id", "start", "stop", "files")
    ID_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    id: int
    start: int
    stop: int
    files: _containers.RepeatedCompositeFieldContainer[ShardFile]
    def __init__(self, id: _Optional[int] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ..., files: _Optional[_Iterable[_Union[ShardFile, _Mapping]]] = ...) -> None: ...

class ShardFile(_message.Message):
    __slots__ = ("path", "row_start", "row_stop")
    PATH_FIELD_NUMBER: _ClassVar[int]
    ROW_START_FIELD_NUMBER: _ClassVar[int]
    ROW_STOP_FIELD_NUMBER: _ClassVar[int]
    path: str
    row_start: int
    row_stop: int
    def __init__(self, path: _Optional[str] = ..., row_start: _Optional[int] = ..., row_stop: _Optional[int] = ...) -> None: ...
