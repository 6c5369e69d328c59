"""Ed25519 keys, and DSSE envelopes that several parties can sign.

The envelope is our own few lines over `cryptography` because securesystemslib's verify passes over
bad signatures and its parser sets no bounds; a test has securesystemslib verify ours.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature as Ed25519Failure
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from compliance.canonical import canonical, from_base64, parse, to_base64
from compliance.errors import InvalidSignature, KeyFileError, MalformedEnvelope
from protos.errors import ConcordatError

PUBLIC_KEY_BYTES = 32
MAX_SIGNATURES = 16
MAX_NAME = 256  # characters of a key id or a payload type
MIN_PASSPHRASE = 12  # the format's PBKDF2 has 2048 rounds only

# The y of the points of small order ("Taming the many EdDSAs", Chalkias et al., 2020). Whoever
# publishes one as a key has signatures that fit any message, and could deny what they signed.
_PRIME = 2**255 - 19
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = {0, 1, _PRIME - 1, _ORDER_8, _PRIME - _ORDER_8}


class SigningKey:
    """A private Ed25519 key (RFC 8032)."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw()
        """The 32 bytes of the public key."""

    @classmethod
    def generate(cls) -> Self:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path, passphrase: str | None = None) -> Self:
        """Read what `save` wrote. Raises KeyFileError, also when others may read the file."""
        try:
            if path.stat().st_mode & 0o077:
                raise _key_file("is open to other users", "Restrict it with chmod 600.")
            pem = path.read_bytes()
        except OSError as error:
            raise _key_file("cannot be read", "Restore it from a backup.") from error
        return cls.from_pem(pem, passphrase)

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: str | None = None) -> Self:
        """Read what `to_pem` made. Raises KeyFileError."""
        protected = b"ENCRYPTED" in pem
        if protected and passphrase is None:
            raise _key_file("is protected by a passphrase", "Give the passphrase.")
        try:
            password = passphrase.encode() if protected and passphrase is not None else None
            key = serialization.load_pem_private_key(pem, password)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            if protected:
                raise _key_file("does not open with this passphrase", "Try again.") from error
            raise _key_file("holds no usable key", "Restore it from a backup.") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise _key_file("holds another kind of key", "Ed25519 is needed.")
        return cls(key)

    def to_pem(self, passphrase: str | None = None) -> bytes:
        """PKCS #8 in PEM, encrypted if there is a passphrase. Raises KeyFileError."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            if len(passphrase) < MIN_PASSPHRASE:
                raise _key_file(
                    f"needs a passphrase of at least {MIN_PASSPHRASE} characters",
                    "Choose a longer one, such as a few words.",
                )
            encryption = serialization.BestAvailableEncryption(passphrase.encode())
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            encryption,
        )

    def save(self, path: Path, passphrase: str | None = None) -> None:
        """Write `to_pem` to a file with mode 0600.

        Raises KeyFileError; a file already there is never overwritten.
        """
        pem = self.to_pem(passphrase)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError as error:
            raise _key_file("exists already", "Move it away first if it is to go.") from error
        except OSError as error:
            raise _key_file("cannot be written", "Check the folder's permissions.") from error

    @property
    def keyid(self) -> str:
        return keyid(self.public)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def keyid(public: bytes) -> str:
    """The name of a public key in an envelope: its SHA-256 in hex."""
    return hashlib.sha256(public).hexdigest()


def verify(public: bytes, signature: bytes, message: bytes) -> None:
    """Raise InvalidSignature unless the key signed the message, and could not have signed all."""
    if _fits_any_message(public):
        raise _invalid_signature("was made with a key that fits any message")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (Ed25519Failure, ValueError) as error:
        raise _invalid_signature("does not verify") from error


def _fits_any_message(public: bytes) -> bool:
    return (int.from_bytes(public, "little") & (2**255 - 1)) % _PRIME in _SMALL_ORDER


def load_public(path: Path) -> bytes:
    """The 32 bytes of a public key in a PEM file (RFC 8410). Raises KeyFileError."""
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise _key_file("cannot be read", "Check the file's name.") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _key_file(
            "holds no public key in PEM",
            "Make one with `openssl pkey -in PRIVATE.pem -pubout -out PUBLIC.pem`.",
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _key_file("holds another kind of key", "Ed25519 is needed.")
    public = key.public_bytes_raw()
    if _fits_any_message(public):
        raise _key_file("holds a key that fits any message", "Make a new one.")
    return public


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed of a payload."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True)
class Envelope:
    """A DSSE envelope, version 1.0.0: a payload and Ed25519 signatures over it, by key id."""

    payload_type: str
    payload: bytes
    signatures: Mapping[str, bytes] = field(default_factory=dict)

    def sign(self, key: SigningKey) -> Self:
        """The envelope with this key's signature added."""
        signature = key.sign(self._signed_bytes())
        return replace(self, signatures={**self.signatures, key.keyid: signature})

    def verify(self, keys: Mapping[str, bytes]) -> None:
        """Raise InvalidSignature unless every key (public bytes by key id) has signed.

        Signatures by other keys are ignored, as the protocol demands.
        """
        if not keys:
            raise ValueError("no key to verify with")
        for name, public in keys.items():
            if name not in self.signatures:
                raise _invalid_signature("is missing")
            verify(public, self.signatures[name], self._signed_bytes())

    def to_json(self) -> bytes:
        """Canonical JSON, signatures in the order of their key ids."""
        signatures = [
            {"keyid": name, "sig": to_base64(self.signatures[name])}
            for name in sorted(self.signatures)
        ]
        return canonical(
            {
                "payload": to_base64(self.payload),
                "payloadType": self.payload_type,
                "signatures": signatures,
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read exactly what `to_json` writes. Raises MalformedEnvelope."""
        try:
            value = parse(data)
            signatures = {item["keyid"]: from_base64(item["sig"]) for item in value["signatures"]}
            envelope = cls(value["payloadType"], from_base64(value["payload"]), signatures)
            if envelope._well_formed() and envelope.to_json() == data:
                return envelope
        except (ConcordatError, KeyError, TypeError, ValueError):
            pass
        raise MalformedEnvelope(
            "A signed envelope is malformed.", "Ask its sender for the original file."
        )

    def _well_formed(self) -> bool:
        return len(self.signatures) <= MAX_SIGNATURES and all(
            isinstance(name, str) and 0 < len(name) <= MAX_NAME
            for name in (self.payload_type, *self.signatures)
        )

    def _signed_bytes(self) -> bytes:
        return pae(self.payload_type, self.payload)


def _key_file(problem: str, next_step: str) -> KeyFileError:
    return KeyFileError(f"A signing key's file {problem}.", next_step)


def _invalid_signature(problem: str) -> InvalidSignature:
    return InvalidSignature(
        f"A signature {problem}.",
        "Do not rely on the document; ask its signer for it again.",
    )
