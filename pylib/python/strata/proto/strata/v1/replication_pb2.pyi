from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PeerPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PEER_PHASE_UNSPECIFIED: _ClassVar[PeerPhase]
    PEER_PHASE_EMPTY: _ClassVar[PeerPhase]
    PEER_PHASE_FOUNDING: _ClassVar[PeerPhase]
    PEER_PHASE_FOUNDED: _ClassVar[PeerPhase]
    PEER_PHASE_JOINING: _ClassVar[PeerPhase]

class PeerCall(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PEER_CALL_UNSPECIFIED: _ClassVar[PeerCall]
    PEER_CALL_APPEND: _ClassVar[PeerCall]
    PEER_CALL_VOTE: _ClassVar[PeerCall]
    PEER_CALL_SNAPSHOT: _ClassVar[PeerCall]
PEER_PHASE_UNSPECIFIED: PeerPhase
PEER_PHASE_EMPTY: PeerPhase
PEER_PHASE_FOUNDING: PeerPhase
PEER_PHASE_FOUNDED: PeerPhase
PEER_PHASE_JOINING: PeerPhase
PEER_CALL_UNSPECIFIED: PeerCall
PEER_CALL_APPEND: PeerCall
PEER_CALL_VOTE: PeerCall
PEER_CALL_SNAPSHOT: PeerCall

class PeerGreeting(_message.Message):
    __slots__ = ("version", "set", "to")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    version: int
    set: str
    to: int
    def __init__(self, version: _Optional[int] = ..., set: _Optional[str] = ..., to: _Optional[int] = ..., **kwargs) -> None: ...

class PeerStanding(_message.Message):
    __slots__ = ("phase", "vote")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    VOTE_FIELD_NUMBER: _ClassVar[int]
    phase: PeerPhase
    vote: bytes
    def __init__(self, phase: _Optional[_Union[PeerPhase, str]] = ..., vote: _Optional[bytes] = ...) -> None: ...

class PeerMessage(_message.Message):
    __slots__ = ("peer", "call", "body", "chunk", "log_end")
    PEER_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    LOG_END_FIELD_NUMBER: _ClassVar[int]
    peer: PeerGreeting
    call: PeerCall
    body: bytes
    chunk: bytes
    log_end: int
    def __init__(self, peer: _Optional[_Union[PeerGreeting, _Mapping]] = ..., call: _Optional[_Union[PeerCall, str]] = ..., body: _Optional[bytes] = ..., chunk: _Optional[bytes] = ..., log_end: _Optional[int] = ...) -> None: ...

class PeerAnswer(_message.Message):
    __slots__ = ("body",)
    BODY_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    def __init__(self, body: _Optional[bytes] = ...) -> None: ...
