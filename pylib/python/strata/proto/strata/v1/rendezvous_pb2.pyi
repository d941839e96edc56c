from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetRecordsRequest(_message.Message):
    __slots__ = ("rendezvous", "keys", "wait_ms", "token")
    RENDEZVOUS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    rendezvous: str
    keys: _containers.RepeatedScalarFieldContainer[str]
    wait_ms: int
    token: str
    def __init__(self, rendezvous: _Optional[str] = ..., keys: _Optional[_Iterable[str]] = ..., wait_ms: _Optional[int] = ..., token: _Optional[str] = ...) -> None: ...

class GetRecordsReply(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[Record]
    def __init__(self, records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("key", "version", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    version: int
    value: bytes
    def __init__(self, key: _Optional[str] = ..., version: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...

class WriteRecordRequest(_message.Message):
    __slots__ = ("rendezvous", "key", "set", "add", "write", "token")
    RENDEZVOUS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    ADD_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    rendezvous: str
    key: str
    set: SetValue
    add: int
    write: int
    token: str
    def __init__(self, rendezvous: _Optional[str] = ..., key: _Optional[str] = ..., set: _Optional[_Union[SetValue, _Mapping]] = ..., add: _Optional[int] = ..., write: _Optional[int] = ..., token: _Optional[str] = ...) -> None: ...

class SetValue(_message.Message):
    __slots__ = ("value", "version")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    version: int
    def __init__(self, value: _Optional[bytes] = ..., version: _Optional[int] = ...) -> None: ...

class WriteRecordReply(_message.Message):
    __slots__ = ("written", "record")
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    written: bool
    record: Record
    def __init__(self, written: _Optional[bool] = ..., record: _Optional[_Union[Record, _Mapping]] = ...) -> None: ...
