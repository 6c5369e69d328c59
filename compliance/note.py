"""C2SP signed notes, checkpoints and cosignatures, so that other people's tools read ours.

c2sp.org/signed-note, c2sp.org/tlog-checkpoint and c2sp.org/tlog-cosignature, with Ed25519: the
types 0x01 (a log signs its checkpoint) and 0x04 (a witness cosigns it at a time).
"""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Self

from compliance import signing
from compliance.canonical import from_base64, to_base64
from compliance.errors import InvalidSignature, MalformedNote, UnverifiedNote
from compliance.merkle import HASH_BYTES
from compliance.signing import PUBLIC_KEY_BYTES, SigningKey

ED25519 = 0x01
COSIGNATURE = 0x04

# The specification asks for at least 16 signatures, which may be post-quantum ones of 5 kB.
MAX_NOTE = 256 * 1024
MAX_SIGNATURES = 100

_KEY_ID_BYTES = 4
_TIME_BYTES = 8
_NAME = re.compile(r"[^\s+\x00-\x1f]{1,256}")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True)
class VerifierKey:
    """A public key with the name it signs as and the type of signature it makes."""

    name: str
    public: bytes
    kind: int = ED25519

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise _malformed("a key's name is empty, too long, or holds a space or a plus")
        if len(self.public) != PUBLIC_KEY_BYTES or self.kind not in {ED25519, COSIGNATURE}:
            raise _malformed("a verifier key is neither a log's nor a witness's Ed25519 key")

    @property
    def key_id(self) -> bytes:
        """The 4 bytes that name the key on a signature line."""
        material = self.name.encode() + b"\n" + bytes([self.kind]) + self.public
        return sha256(material).digest()[:_KEY_ID_BYTES]

    def __str__(self) -> str:
        """The "vkey": name, key id in hex, and type with public key in base64, joined by plus."""
        key = to_base64(bytes([self.kind]) + self.public)
        return f"{self.name}+{self.key_id.hex()}+{key}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises MalformedNote, also when the key id is not the key's."""
        try:
            name, _, key = text.split("+", 2)
            kind, *public = from_base64(key)
        except ValueError as error:
            raise _malformed("a verifier key is not name+id+key") from error
        verifier = cls(name, bytes(public), kind)
        if str(verifier) != text:
            raise _malformed("a verifier key's id does not belong to its name and key")
        return verifier

    def verify(self, text: str, signature: bytes) -> None:
        """Raise InvalidSignature unless this key made the signature (without key id) of a text."""
        message = text.encode()
        if self.kind == COSIGNATURE:
            time = int.from_bytes(signature[:_TIME_BYTES])
            if time >= 1 << 63:
                raise InvalidSignature(
                    "A cosignature's time is out of range.", "Ask the witness for a new one."
                )
            message, signature = _cosigned(time, message), signature[_TIME_BYTES:]
        signing.verify(self.public, signature, message)


@dataclass(frozen=True)
class Signature:
    """A signature line of a note, without its newline; `value` is what follows the key id."""

    name: str
    key_id: bytes
    value: bytes

    def __str__(self) -> str:
        return f"— {self.name} {to_base64(self.key_id + self.value)}"

    @classmethod
    def parse(cls, line: str) -> Self:
        """Raises MalformedNote."""
        try:
            dash, name, encoded = line.split(" ")
            blob = from_base64(encoded)
        except ValueError as error:
            raise _malformed("a signature line is not a dash, a name and base64") from error
        signature = cls(name, blob[:_KEY_ID_BYTES], blob[_KEY_ID_BYTES:])
        if dash != "—" or not _NAME.fullmatch(name) or not signature.value:
            raise _malformed("a signature line is not a dash, a name and base64")
        return signature

    def by(self, key: VerifierKey) -> bool:
        """Whether the line claims to be this key's."""
        return (self.name, self.key_id) == (key.name, key.key_id)


def sign(text: str, name: str, key: SigningKey) -> Signature:
    """A log's signature line for a text."""
    verifier = VerifierKey(name, key.public)
    return Signature(name, verifier.key_id, key.sign(text.encode()))


def cosign(text: str, name: str, key: SigningKey, now: datetime) -> Signature:
    """A witness's cosignature/v1 line for a checkpoint's text."""
    verifier = VerifierKey(name, key.public, COSIGNATURE)
    time = int(now.timestamp())
    value = time.to_bytes(_TIME_BYTES) + key.sign(_cosigned(time, text.encode()))
    return Signature(name, verifier.key_id, value)


@dataclass(frozen=True)
class Note:
    """A text that ends in a newline, and the signatures below it."""

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        return "\n".join((self.text, *map(str, self.signatures), "")).encode()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises MalformedNote. Nothing is verified yet."""
        if len(data) > MAX_NOTE:
            raise _malformed(f"it is larger than {MAX_NOTE} bytes")
        try:
            note = data.decode()
        except UnicodeDecodeError as error:
            raise _malformed("it is not UTF-8") from error
        text, separator, lines = note.rpartition("\n\n")
        if not separator or not lines.endswith("\n") or _CONTROL.search(note):
            raise _malformed("it is not a text, an empty line and signature lines")
        if lines.count("\n") > MAX_SIGNATURES:
            raise _malformed(f"it has more than {MAX_SIGNATURES} signatures")
        signatures = map(Signature.parse, lines.removesuffix("\n").split("\n"))
        return cls(text + "\n", tuple(signatures))

    def verify(self, key: VerifierKey, *others: VerifierKey) -> None:
        """Raise UnverifiedNote unless each of these keys has signed, and only valid signatures.

        Lines of other keys are ignored, as the specification demands.
        """
        for verifier in (key, *others):
            values = [line.value for line in self.signatures if line.by(verifier)]
            if not values:
                raise _unverified("a signature that is needed is missing")
            try:
                for value in values:
                    verifier.verify(self.text, value)
            except InvalidSignature as error:
                raise _unverified("a signature does not verify") from error


@dataclass(frozen=True)
class Checkpoint:
    """A log's signed tree head: who, how many leaves, which root (32 bytes)."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()
    signatures: tuple[Signature, ...] = ()

    @property
    def text(self) -> str:
        """What the log and its witnesses sign."""
        lines = (self.origin, str(self.size), to_base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @property
    def note(self) -> Note:
        return Note(self.text, self.signatures)

    def encode(self) -> bytes:
        return self.note.encode()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises MalformedNote. Nothing is verified yet."""
        note = Note.parse(data)
        try:
            origin, size, root, *extensions = note.text.removesuffix("\n").split("\n")
            checkpoint = cls(
                origin, from_decimal(size), from_base64(root), tuple(extensions), note.signatures
            )
        except ValueError as error:
            raise _malformed("it is not an origin, a size and a root") from error
        if len(checkpoint.root) != HASH_BYTES or not all((origin, *extensions)):
            raise _malformed("it is not an origin, a size and a root")
        return checkpoint

    def signed(self, *signatures: Signature) -> Self:
        """The checkpoint with these signatures added."""
        return replace(self, signatures=self.signatures + signatures)

    def signed_by(self, key: VerifierKey) -> bool:
        """Whether a line claims to be this key's."""
        return any(line.by(key) for line in self.signatures)

    def verify(self, log: VerifierKey, *witnesses: VerifierKey) -> None:
        """Raise UnverifiedNote unless it is this log's, signed by it and all these witnesses."""
        if self.origin != log.name:
            raise _unverified("it is another log's")
        self.note.verify(log, *witnesses)


def from_decimal(text: str) -> int:
    """An ASCII decimal below 2^63 without leading zeroes. Raises ValueError."""
    if not _DECIMAL.fullmatch(text) or int(text) >= 1 << 63:
        raise ValueError("not a decimal number")
    return int(text)


def _cosigned(time: int, text: bytes) -> bytes:
    return b"cosignature/v1\ntime %d\n%b" % (time, text)


def _malformed(problem: str) -> MalformedNote:
    return MalformedNote(
        f"A signed note or one of its keys is malformed: {problem}.",
        "Ask its sender for the original; do not edit it.",
    )


def _unverified(problem: str) -> UnverifiedNote:
    return UnverifiedNote(
        f"A signed note cannot be relied on: {problem}.",
        "Check that the log's and the witnesses' keys are those exchanged at pairing.",
    )
