"""Who a node is: its certificate authority, its certificates, its fingerprint.

Each institution has a small authority of its own. Partners pin the authority, so that the node's
certificate can be renewed without asking anyone. ECDSA P-256, since gRPC's TLS takes no Ed25519.
"""

import base64
import hashlib
import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from compliance.canonical import canonical
from compliance.errors import MalformedNote
from compliance.note import COSIGNATURE, ED25519, VerifierKey
from compliance.succession import Kind
from parties.errors import HandshakeRefused
from protos.concordat.v1 import peer_pb2

# A node's name is a DNS label: it is the SAN of its certificates.
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
INVITATION = "invitation"

AUTHORITY_LIFETIME = timedelta(days=3653)
NODE_LIFETIME = timedelta(days=397)
INVITATION_LIFETIME = timedelta(hours=72)
_CLOCK_SKEW = timedelta(minutes=10)

# What cryptography raises for a certificate's bytes, at once or when a part of it is first read.
UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True)
class Identity:
    """What a partner pins: the fields of the message `Identity`."""

    name: str
    sector: str
    address: str
    authority_pem: str
    signing_key: bytes
    log_key: str
    witness_key: str

    @property
    def fingerprint(self) -> str:
        """128 bits of SHA-256 over every field, as 32 hex digits: short enough for the phone."""
        digest = hashlib.sha256(b"concordat identity\n" + canonical(self.to_json()))
        return digest.hexdigest()[:32]

    @property
    def public_keys(self) -> set[bytes]:
        """Everything this institution signs with (32 bytes each)."""
        notes = (VerifierKey.parse(self.log_key), VerifierKey.parse(self.witness_key))
        return {self.signing_key, *(key.public for key in notes)}

    def key(self, kind: Kind) -> bytes:
        """The public key of a kind, 32 bytes."""
        if kind == "signing":
            return self.signing_key
        return VerifierKey.parse(self.log_key if kind == "log" else self.witness_key).public

    def followed(self, kind: Kind, public: bytes) -> "Identity":
        """The identity with another key of a kind."""
        if kind == "signing":
            return replace(self, signing_key=public)
        if kind == "log":
            return replace(self, log_key=str(VerifierKey(log_name(self.name), public)))
        key = VerifierKey(witness_name(self.name), public, COSIGNATURE)
        return replace(self, witness_key=str(key))

    def to_message(self) -> peer_pb2.Identity:
        return peer_pb2.Identity(**asdict(self))

    @classmethod
    def from_message(cls, message: peer_pb2.Identity) -> "Identity":
        """Raises HandshakeRefused on a malformed identity."""
        fields = {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}
        return cls(**fields)._checked()

    def to_json(self) -> dict[str, str]:
        return asdict(self) | {"signing_key": base64.b64encode(self.signing_key).decode()}

    @classmethod
    def from_json(cls, fields: dict[str, str]) -> "Identity":
        """Raises HandshakeRefused on a malformed identity."""
        try:
            key = base64.b64decode(fields["signing_key"], validate=True)
            identity = cls(**(fields | {"signing_key": key}))  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError) as error:
            raise refused("its identity is malformed") from error
        return identity._checked()

    def _checked(self) -> "Identity":
        if any(len(value) > 4096 for value in asdict(self).values()):
            raise refused("its identity is too long")
        if not NAME.fullmatch(self.name) or self.name == INVITATION:
            raise refused("its name is not a DNS label")
        if len(self.signing_key) != 32:
            raise refused("its signing key is not an Ed25519 public key")
        for text, name, kind in (
            (self.log_key, log_name(self.name), ED25519),
            (self.witness_key, witness_name(self.name), COSIGNATURE),
        ):
            try:
                key = VerifierKey.parse(text)
            except MalformedNote as error:
                raise refused("its log's or its witness's key is malformed") from error
            if (key.name, key.kind) != (name, kind):
                raise refused("its log's or its witness's key bears another name")
        load_authority(self.authority_pem)
        return self


def log_name(node: str) -> str:
    """The origin of a node's log, and the name of its key."""
    return f"{node}.concordat/log"


def witness_name(node: str) -> str:
    return f"{node}.concordat/witness"


def refused(reason: str) -> HandshakeRefused:
    return HandshakeRefused(
        f"The other node was refused: {reason}.",
        "Check that both nodes run the same version of Concordat, and pair again.",
    )


class Authority:
    """An institution's own certificate authority."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.key = key

    @classmethod
    def create(cls, name: str, now: datetime) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _common_name(f"{name} authority")
        certificate = (
            _builder(subject, subject, key.public_key(), now, AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            # Confines even a hostile authority to its own name, whoever else trusts it.
            .add_extension(
                x509.NameConstraints([x509.DNSName(name), x509.DNSName(INVITATION)], None),
                critical=True,
            )
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    def issue(
        self, san: str, now: datetime, lifetime: timedelta
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """A certificate for one DNS name, for both ends of a connection."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(_common_name(san), self.certificate.subject, key.public_key(), now, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(san)]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return certificate, key


def load_authority(pem: str) -> x509.Certificate:
    """A pinned authority's certificate. Raises HandshakeRefused."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        key = certificate.public_key()
    except UNREADABLE as error:
        raise refused("its authority's certificate cannot be read") from error
    if not (constraints.ca and isinstance(key, ec.EllipticCurvePublicKey)):
        raise refused("its authority's certificate is not an authority's")
    # TLS is given all partners' authorities as one text: none may bring others or break the rest.
    if certificate_pem(certificate) != pem.encode():
        raise refused("its authority is not one certificate and nothing else")
    return certificate


def check_issued(leaf: x509.Certificate, authority_pem: str) -> None:
    """Raise HandshakeRefused unless the pinned authority signed the certificate.

    TLS alone accepts a certificate from any pinned authority; a partner must not be able to
    present a certificate in another partner's name.
    """
    try:
        leaf.verify_directly_issued_by(load_authority(authority_pem))
    except (*UNREADABLE, TypeError, InvalidSignature) as error:
        raise refused("its certificate is not from the authority pinned for its name") from error


def san_of(leaf: x509.Certificate) -> str:
    """The one DNS name a certificate speaks for. Raises HandshakeRefused."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except UNREADABLE as error:
        raise refused("its certificate names no one") from error
    dns = names.get_values_for_type(x509.DNSName)
    if len(dns) != 1 or len(names) != 1:
        raise refused("its certificate must have exactly one name")
    return dns[0]


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an elliptic-curve key")
    return key


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _CLOCK_SKEW)
        .not_valid_after(now.astimezone(UTC) + lifetime)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
