from protos.concordat.v1 import run_pb2 as _run_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Identity(_message.Message):
    __slots__ = ("name", "sector", "address", "authority_pem", "signing_key", "log_key", "witness_key")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SECTOR_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_PEM_FIELD_NUMBER: _ClassVar[int]
    SIGNING_KEY_FIELD_NUMBER: _ClassVar[int]
    LOG_KEY_FIELD_NUMBER: _ClassVar[int]
    WITNESS_KEY_FIELD_NUMBER: _ClassVar[int]
    name: str
    sector: str
    address: str
    authority_pem: str
    signing_key: bytes
    log_key: str
    witness_key: str
    def __init__(self, name: _Optional[str] = ..., sector: _Optional[str] = ..., address: _Optional[str] = ..., authority_pem: _Optional[str] = ..., signing_key: _Optional[bytes] = ..., log_key: _Optional[str] = ..., witness_key: _Optional[str] = ...) -> None: ...

class AgreementOffer(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: bytes
    def __init__(self, envelope: _Optional[bytes] = ...) -> None: ...

class AgreementReply(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: bytes
    def __init__(self, envelope: _Optional[bytes] = ...) -> None: ...

class WithdrawalNotice(_message.Message):
    __slots__ = ("envelope",)
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    envelope: bytes
    def __init__(self, envelope: _Optional[bytes] = ...) -> None: ...

class WithdrawalAcknowledgement(_message.Message):
    __slots__ = ("envelope", "entry", "proof")
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    envelope: bytes
    entry: bytes
    proof: bytes
    def __init__(self, envelope: _Optional[bytes] = ..., entry: _Optional[bytes] = ..., proof: _Optional[bytes] = ...) -> None: ...

class KeyAnnouncement(_message.Message):
    __slots__ = ("succession",)
    SUCCESSION_FIELD_NUMBER: _ClassVar[int]
    succession: bytes
    def __init__(self, succession: _Optional[bytes] = ...) -> None: ...

class KeyAcknowledgement(_message.Message):
    __slots__ = ("fingerprint",)
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    def __init__(self, fingerprint: _Optional[str] = ...) -> None: ...

class AddCheckpointRequest(_message.Message):
    __slots__ = ("body",)
    BODY_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    def __init__(self, body: _Optional[bytes] = ...) -> None: ...

class AddCheckpointReply(_message.Message):
    __slots__ = ("status", "body")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    status: int
    body: bytes
    def __init__(self, status: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...
