"""Certificates from a peer: whatever is in them, they are good or refused."""

import ssl
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import make
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from parties.errors import HandshakeRefused
from parties.identity import NODE_LIFETIME, Authority, Identity, certificate_pem, load_authority
from parties.node import Node
from parties.peers import authenticate

NOW = datetime.now(UTC)
AUTHORITY = Authority.create("shop", NOW)
LEAF = AUTHORITY.issue("shop", NOW, NODE_LIFETIME)[0]

VERSION = (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09")
NO_KEY = (b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01", b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x05")
NO_CURVE = (b"\x2a\x86\x48\xce\x3d\x03\x01\x07", b"\x2a\x86\x48\xce\x3d\x03\x01\x7f")
NO_POINT = (b"\x03\x42\x00\x04", b"\x03\x42\x00\x05")
NO_SIGNATURE = (b"\x2a\x86\x48\xce\x3d\x04\x03\x02", b"\x2a\x86\x48\xce\x3d\x04\x03\x7f")
X400_NAME = (b"\x82\x04shop", b"\x83\x04shop")
NO_EXTENSION = (b"\x06\x03\x55\x1d\x13", b"\x06\x03\x55\x1d\x11")


def spoilt(certificate: x509.Certificate, old: bytes, new: bytes) -> str:
    der = certificate.public_bytes(Encoding.DER)
    assert old in der
    return ssl.DER_cert_to_PEM_cert(der.replace(old, new))


@pytest.mark.parametrize("change", [VERSION, NO_KEY, NO_CURVE, NO_POINT, NO_EXTENSION])
def test_an_authority_that_cannot_be_read_is_refused(change: tuple[bytes, bytes]) -> None:
    with pytest.raises(HandshakeRefused):
        load_authority(spoilt(AUTHORITY.certificate, *change))


@pytest.mark.parametrize("change", [VERSION, NO_SIGNATURE, X400_NAME, NO_EXTENSION])
def test_a_caller_whose_certificate_cannot_be_read_is_refused(
    paired: tuple[Node, Node], change: tuple[bytes, bytes]
) -> None:
    bank, shop = paired
    pem = spoilt(shop.certificate(), *change).encode()
    with bank.reading() as conn, pytest.raises(HandshakeRefused):
        authenticate(conn, pem, bank.identity.authority_pem)


@pytest.mark.parametrize(
    "more",
    [
        certificate_pem(LEAF).decode(),
        "-----BEGIN CERTIFICATE-----\ngarbage\n-----END CERTIFICATE-----\n",
        "\n",
        "a comment",
    ],
)
def test_an_authority_is_one_certificate_and_nothing_else(tmp_path: Path, more: str) -> None:
    """All partners' authorities are joined for TLS: none may bring others, or break the rest."""
    pem = certificate_pem(AUTHORITY.certificate).decode()
    load_authority(pem)
    identity = make(tmp_path, "shop").identity
    for text in (pem + more, more + pem):
        with pytest.raises(HandshakeRefused):
            Identity.from_message(replace(identity, authority_pem=text).to_message())
