from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("hello", "inputs", "signature", "ready", "points", "group_sizes", "encrypted_rows", "masked_sums", "released_sums", "matches", "bin_edges", "table_head", "table_rows", "removed_rows", "encrypted_points", "commitment", "abort")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZES_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTED_ROWS_FIELD_NUMBER: _ClassVar[int]
    MASKED_SUMS_FIELD_NUMBER: _ClassVar[int]
    RELEASED_SUMS_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    BIN_EDGES_FIELD_NUMBER: _ClassVar[int]
    TABLE_HEAD_FIELD_NUMBER: _ClassVar[int]
    TABLE_ROWS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_ROWS_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTED_POINTS_FIELD_NUMBER: _ClassVar[int]
    COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    ABORT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    inputs: Inputs
    signature: Signature
    ready: Ready
    points: Points
    group_sizes: GroupSizes
    encrypted_rows: EncryptedRows
    masked_sums: MaskedSums
    released_sums: ReleasedSums
    matches: Matches
    bin_edges: BinEdges
    table_head: TableHead
    table_rows: TableRows
    removed_rows: RemovedRows
    encrypted_points: EncryptedPoints
    commitment: Commitment
    abort: Abort
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., inputs: _Optional[_Union[Inputs, _Mapping]] = ..., signature: _Optional[_Union[Signature, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., points: _Optional[_Union[Points, _Mapping]] = ..., group_sizes: _Optional[_Union[GroupSizes, _Mapping]] = ..., encrypted_rows: _Optional[_Union[EncryptedRows, _Mapping]] = ..., masked_sums: _Optional[_Union[MaskedSums, _Mapping]] = ..., released_sums: _Optional[_Union[ReleasedSums, _Mapping]] = ..., matches: _Optional[_Union[Matches, _Mapping]] = ..., bin_edges: _Optional[_Union[BinEdges, _Mapping]] = ..., table_head: _Optional[_Union[TableHead, _Mapping]] = ..., table_rows: _Optional[_Union[TableRows, _Mapping]] = ..., removed_rows: _Optional[_Union[RemovedRows, _Mapping]] = ..., encrypted_points: _Optional[_Union[EncryptedPoints, _Mapping]] = ..., commitment: _Optional[_Union[Commitment, _Mapping]] = ..., abort: _Optional[_Union[Abort, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "run", "agreement_digest", "suite", "role", "party", "job", "signing_key", "paillier_modulus", "code_version", "time", "table_epoch", "table_version", "paillier_proof")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SUITE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    SIGNING_KEY_FIELD_NUMBER: _ClassVar[int]
    PAILLIER_MODULUS_FIELD_NUMBER: _ClassVar[int]
    CODE_VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TABLE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    TABLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PAILLIER_PROOF_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    run: str
    agreement_digest: bytes
    suite: str
    role: str
    party: str
    job: bytes
    signing_key: bytes
    paillier_modulus: bytes
    code_version: str
    time: str
    table_epoch: bytes
    table_version: int
    paillier_proof: bytes
    def __init__(self, protocol_version: _Optional[int] = ..., run: _Optional[str] = ..., agreement_digest: _Optional[bytes] = ..., suite: _Optional[str] = ..., role: _Optional[str] = ..., party: _Optional[str] = ..., job: _Optional[bytes] = ..., signing_key: _Optional[bytes] = ..., paillier_modulus: _Optional[bytes] = ..., code_version: _Optional[str] = ..., time: _Optional[str] = ..., table_epoch: _Optional[bytes] = ..., table_version: _Optional[int] = ..., paillier_proof: _Optional[bytes] = ...) -> None: ...

class Inputs(_message.Message):
    __slots__ = ("root", "size", "log_origin", "log_size", "log_root", "log_checkpoint", "segmentation")
    ROOT_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    LOG_ORIGIN_FIELD_NUMBER: _ClassVar[int]
    LOG_SIZE_FIELD_NUMBER: _ClassVar[int]
    LOG_ROOT_FIELD_NUMBER: _ClassVar[int]
    LOG_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    SEGMENTATION_FIELD_NUMBER: _ClassVar[int]
    root: bytes
    size: int
    log_origin: str
    log_size: int
    log_root: bytes
    log_checkpoint: str
    segmentation: bytes
    def __init__(self, root: _Optional[bytes] = ..., size: _Optional[int] = ..., log_origin: _Optional[str] = ..., log_size: _Optional[int] = ..., log_root: _Optional[bytes] = ..., log_checkpoint: _Optional[str] = ..., segmentation: _Optional[bytes] = ...) -> None: ...

class Signature(_message.Message):
    __slots__ = ("statement", "signature")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    statement: str
    signature: bytes
    def __init__(self, statement: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ("statement", "log_index", "checkpoint")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    statement: str
    log_index: int
    checkpoint: bytes
    def __init__(self, statement: _Optional[str] = ..., log_index: _Optional[int] = ..., checkpoint: _Optional[bytes] = ...) -> None: ...

class Points(_message.Message):
    __slots__ = ("points", "last")
    POINTS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    points: bytes
    last: bool
    def __init__(self, points: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class GroupSizes(_message.Message):
    __slots__ = ("sizes",)
    SIZES_FIELD_NUMBER: _ClassVar[int]
    sizes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, sizes: _Optional[_Iterable[int]] = ...) -> None: ...

class EncryptedRows(_message.Message):
    __slots__ = ("points", "ciphertexts", "last")
    POINTS_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXTS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    points: bytes
    ciphertexts: bytes
    last: bool
    def __init__(self, points: _Optional[bytes] = ..., ciphertexts: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class MaskedSums(_message.Message):
    __slots__ = ("ciphertexts", "last")
    CIPHERTEXTS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    ciphertexts: bytes
    last: bool
    def __init__(self, ciphertexts: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class ReleasedSums(_message.Message):
    __slots__ = ("groups", "last")
    class Block(_message.Message):
        __slots__ = ("count", "sums")
        COUNT_FIELD_NUMBER: _ClassVar[int]
        SUMS_FIELD_NUMBER: _ClassVar[int]
        count: int
        sums: bytes
        def __init__(self, count: _Optional[int] = ..., sums: _Optional[bytes] = ...) -> None: ...
    class Group(_message.Message):
        __slots__ = ("count", "blocks", "held_back")
        COUNT_FIELD_NUMBER: _ClassVar[int]
        BLOCKS_FIELD_NUMBER: _ClassVar[int]
        HELD_BACK_FIELD_NUMBER: _ClassVar[int]
        count: int
        blocks: _containers.RepeatedCompositeFieldContainer[ReleasedSums.Block]
        held_back: bool
        def __init__(self, count: _Optional[int] = ..., blocks: _Optional[_Iterable[_Union[ReleasedSums.Block, _Mapping]]] = ..., held_back: _Optional[bool] = ...) -> None: ...
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[ReleasedSums.Group]
    last: bool
    def __init__(self, groups: _Optional[_Iterable[_Union[ReleasedSums.Group, _Mapping]]] = ..., last: _Optional[bool] = ...) -> None: ...

class BinEdges(_message.Message):
    __slots__ = ("features", "last")
    class Feature(_message.Message):
        __slots__ = ("inner", "missing")
        INNER_FIELD_NUMBER: _ClassVar[int]
        MISSING_FIELD_NUMBER: _ClassVar[int]
        inner: _containers.RepeatedScalarFieldContainer[float]
        missing: bool
        def __init__(self, inner: _Optional[_Iterable[float]] = ..., missing: _Optional[bool] = ...) -> None: ...
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    features: _containers.RepeatedCompositeFieldContainer[BinEdges.Feature]
    last: bool
    def __init__(self, features: _Optional[_Iterable[_Union[BinEdges.Feature, _Mapping]]] = ..., last: _Optional[bool] = ...) -> None: ...

class Matches(_message.Message):
    __slots__ = ("positions", "last")
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    positions: bytes
    last: bool
    def __init__(self, positions: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class TableHead(_message.Message):
    __slots__ = ("epoch", "version", "rows", "digest", "signature")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    epoch: bytes
    version: int
    rows: int
    digest: bytes
    signature: bytes
    def __init__(self, epoch: _Optional[bytes] = ..., version: _Optional[int] = ..., rows: _Optional[int] = ..., digest: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class TableRows(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: bytes
    def __init__(self, rows: _Optional[bytes] = ...) -> None: ...

class RemovedRows(_message.Message):
    __slots__ = ("keys", "last")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    keys: bytes
    last: bool
    def __init__(self, keys: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class EncryptedPoints(_message.Message):
    __slots__ = ("ciphertexts", "last")
    CIPHERTEXTS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    ciphertexts: bytes
    last: bool
    def __init__(self, ciphertexts: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class Commitment(_message.Message):
    __slots__ = ("transcript", "result", "time")
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    transcript: bytes
    result: bytes
    time: str
    def __init__(self, transcript: _Optional[bytes] = ..., result: _Optional[bytes] = ..., time: _Optional[str] = ...) -> None: ...

class Abort(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...
