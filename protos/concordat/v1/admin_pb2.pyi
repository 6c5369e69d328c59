from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("name", "address", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    version: str
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class JobRequest(_message.Message):
    __slots__ = ("job_yaml", "asked_entry", "language")
    JOB_YAML_FIELD_NUMBER: _ClassVar[int]
    ASKED_ENTRY_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    job_yaml: str
    asked_entry: int
    language: str
    def __init__(self, job_yaml: _Optional[str] = ..., asked_entry: _Optional[int] = ..., language: _Optional[str] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class CancelReply(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class UnderWayRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnderWayReply(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[UnderWay]
    def __init__(self, runs: _Optional[_Iterable[_Union[UnderWay, _Mapping]]] = ...) -> None: ...

class UnderWay(_message.Message):
    __slots__ = ("run", "stage", "done", "total", "seconds", "bytes_sent", "bytes_received")
    RUN_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    BYTES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    run: str
    stage: str
    done: int
    total: int
    seconds: float
    bytes_sent: int
    bytes_received: int
    def __init__(self, run: _Optional[str] = ..., stage: _Optional[str] = ..., done: _Optional[int] = ..., total: _Optional[int] = ..., seconds: _Optional[float] = ..., bytes_sent: _Optional[int] = ..., bytes_received: _Optional[int] = ...) -> None: ...

class ConsentRequest(_message.Message):
    __slots__ = ("identifier_kind", "identifier", "purpose", "recipient", "categories", "kind", "granted_at", "expires_at", "at", "reason", "by", "until", "notice")
    IDENTIFIER_KIND_FIELD_NUMBER: _ClassVar[int]
    IDENTIFIER_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    GRANTED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    identifier_kind: str
    identifier: str
    purpose: str
    recipient: str
    categories: str
    kind: str
    granted_at: str
    expires_at: str
    at: str
    reason: str
    by: str
    until: str
    notice: str
    def __init__(self, identifier_kind: _Optional[str] = ..., identifier: _Optional[str] = ..., purpose: _Optional[str] = ..., recipient: _Optional[str] = ..., categories: _Optional[str] = ..., kind: _Optional[str] = ..., granted_at: _Optional[str] = ..., expires_at: _Optional[str] = ..., at: _Optional[str] = ..., reason: _Optional[str] = ..., by: _Optional[str] = ..., until: _Optional[str] = ..., notice: _Optional[str] = ...) -> None: ...

class SignedConsentRequest(_message.Message):
    __slots__ = ("call", "signature")
    CALL_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    call: SignedCall
    signature: bytes
    def __init__(self, call: _Optional[_Union[SignedCall, _Mapping]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SignedCall(_message.Message):
    __slots__ = ("user", "call", "request")
    USER_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    user: str
    call: str
    request: ConsentRequest
    def __init__(self, user: _Optional[str] = ..., call: _Optional[str] = ..., request: _Optional[_Union[ConsentRequest, _Mapping]] = ...) -> None: ...

class SignedConsentReply(_message.Message):
    __slots__ = ("to_sign", "reply")
    TO_SIGN_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    to_sign: bytes
    reply: ConsentReply
    def __init__(self, to_sign: _Optional[bytes] = ..., reply: _Optional[_Union[ConsentReply, _Mapping]] = ...) -> None: ...

class ConsentReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class JobPreview(_message.Message):
    __slots__ = ("job", "agreement", "purpose", "peer", "disclosures", "budget", "figures")
    JOB_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    DISCLOSURES_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    job: str
    agreement: str
    purpose: str
    peer: str
    disclosures: _containers.RepeatedCompositeFieldContainer[Disclosure]
    budget: str
    figures: str
    def __init__(self, job: _Optional[str] = ..., agreement: _Optional[str] = ..., purpose: _Optional[str] = ..., peer: _Optional[str] = ..., disclosures: _Optional[_Iterable[_Union[Disclosure, _Mapping]]] = ..., budget: _Optional[str] = ..., figures: _Optional[str] = ...) -> None: ...

class Disclosure(_message.Message):
    __slots__ = ("party", "learns")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    LEARNS_FIELD_NUMBER: _ClassVar[int]
    party: str
    learns: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, party: _Optional[str] = ..., learns: _Optional[_Iterable[str]] = ...) -> None: ...

class JobEvent(_message.Message):
    __slots__ = ("progress", "report_json", "failure")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    REPORT_JSON_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    report_json: str
    failure: Failure
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., report_json: _Optional[str] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("run", "stage", "done", "total")
    RUN_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    run: str
    stage: str
    done: int
    total: int
    def __init__(self, run: _Optional[str] = ..., stage: _Optional[str] = ..., done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "message", "next_step", "run")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    NEXT_STEP_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    next_step: str
    run: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., next_step: _Optional[str] = ..., run: _Optional[str] = ...) -> None: ...
