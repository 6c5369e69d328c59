import base64
import json
import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib import dsse
from securesystemslib.signer import SSlibKey

from compliance.errors import InvalidSignature, KeyFileError, MalformedEnvelope
from compliance.signing import Envelope, SigningKey, keyid, verify

# RFC 8032, section 7.1, tests 1 and 2: secret key, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701c"
        "f9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0"
        "f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]

BANK, PARTNER, STRANGER = (SigningKey.generate() for _ in range(3))
KEYS = {key.keyid: key.public for key in (BANK, PARTNER)}
UNSIGNED = Envelope("http://example.com/HelloWorld", b"hello world")
SIGNED = UNSIGNED.sign(BANK).sign(PARTNER)


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_ed25519_vectors(secret, public, message, signature):
    key = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)))
    assert key.public.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    verify(key.public, bytes.fromhex(signature), bytes.fromhex(message))


def test_a_signature_binds_key_and_message():
    signature = BANK.sign(b"message")
    verify(BANK.public, signature, b"message")
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    for public, candidate, message in [
        (BANK.public, signature, b"other"),
        (PARTNER.public, signature, b"message"),
        (BANK.public, flipped, b"message"),
        (BANK.public, b"", b"message"),
        (BANK.public, signature + b"\0", b"message"),
        (BANK.public[:31], signature, b"message"),
        (b"", signature, b"message"),
    ]:
        with pytest.raises(InvalidSignature):
            verify(public, candidate, message)


# Every encoding of a point of small order: y as listed in "Taming the many EdDSAs"
# (Chalkias, Garillot, Nikolaenko, 2020), with both signs.
SMALL_ORDER = [
    y[:62] + f"{int(y[62:], 16) | sign:02x}"
    for sign in (0, 0x80)
    for y in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
]


@pytest.mark.parametrize("public", SMALL_ORDER)
def test_keys_that_fit_any_message_are_refused(public):
    with pytest.raises(InvalidSignature, match="any message"):
        verify(bytes.fromhex(public), bytes(64), b"message")


def test_without_the_check_a_denier_could_publish_the_neutral_element():
    neutral = bytes([1]) + bytes(31)
    signature = neutral + bytes(32)
    for message in (b"one", b"another"):
        Ed25519PublicKey.from_public_bytes(neutral).verify(signature, message)
        with pytest.raises(InvalidSignature):
            verify(neutral, signature, message)


def test_a_key_is_saved_for_its_owner_only(tmp_path):
    path = tmp_path / "signing.pem"
    BANK.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.load(path).public == BANK.public
    with pytest.raises(KeyFileError, match="exists"):
        PARTNER.save(path)
    assert SigningKey.load(path).public == BANK.public


def test_unusable_key_files_are_refused(tmp_path):
    path = tmp_path / "signing.pem"
    with pytest.raises(KeyFileError, match="cannot be read"):
        SigningKey.load(path)
    with pytest.raises(KeyFileError, match="cannot be written"):
        BANK.save(tmp_path / "missing" / "signing.pem")
    BANK.save(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="other users"):
        SigningKey.load(path)
    path.chmod(0o600)
    path.write_bytes(b"not a key")
    with pytest.raises(KeyFileError, match="no usable key"):
        SigningKey.load(path)
    path.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    with pytest.raises(KeyFileError, match="another kind"):
        SigningKey.load(path)


def test_what_is_signed_is_the_encoding_of_the_dsse_protocol():
    # The example of DSSE's protocol.md, section "Test Vectors".
    encoded = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    verify(BANK.public, SIGNED.signatures[BANK.keyid], encoded)


def test_both_parties_sign():
    SIGNED.verify(KEYS)
    SIGNED.verify({BANK.keyid: BANK.public})
    with pytest.raises(InvalidSignature, match="missing"):
        UNSIGNED.sign(BANK).verify(KEYS)
    with pytest.raises(InvalidSignature, match="missing"):
        SIGNED.verify({**KEYS, STRANGER.keyid: STRANGER.public})
    SIGNED.sign(STRANGER).verify(KEYS)
    assert UNSIGNED.signatures == {}


def test_no_keys_verify_nothing():
    with pytest.raises(ValueError, match="no key"):
        SIGNED.verify({})


def test_a_changed_envelope_does_not_verify():
    flipped = {**SIGNED.signatures, PARTNER.keyid: SIGNED.signatures[BANK.keyid]}
    for changed in (
        Envelope(SIGNED.payload_type, b"hello worle", SIGNED.signatures),
        Envelope("http://example.com/HelloWorle", SIGNED.payload, SIGNED.signatures),
        Envelope(SIGNED.payload_type, SIGNED.payload, flipped),
    ):
        with pytest.raises(InvalidSignature, match="does not verify"):
            changed.verify(KEYS)


def test_securesystemslib_verifies_our_envelope():
    theirs = dsse.Envelope.from_dict(json.loads(SIGNED.to_json()))
    keys = [
        SSlibKey(name, "ed25519", "ed25519", {"public": public.hex()})
        for name, public in KEYS.items()
    ]
    assert theirs.verify(keys, 2).keys() == KEYS.keys()


@given(st.text(min_size=1, max_size=50), st.binary(max_size=200))
def test_an_envelope_is_read_back_from_json(payload_type, payload):
    envelope = Envelope(payload_type, payload).sign(PARTNER).sign(BANK)
    parsed = Envelope.from_json(envelope.to_json())
    assert parsed == envelope
    parsed.verify(KEYS)


def json_with(**members):
    value = {"payload": "", "payloadType": "t", "signatures": []} | members
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


SIG = {"keyid": "a", "sig": base64.b64encode(bytes(64)).decode()}


def test_the_smallest_envelope():
    assert Envelope.from_json(json_with()) == Envelope("t", b"")
    assert Envelope.from_json(json_with(signatures=[SIG])).signatures == {"a": bytes(64)}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        json_with() + b"\n",
        json_with(extra=1),
        json_with(payload="QR=="),
        json_with(payload="Q-8="),
        json_with(payload=None),
        json_with(payloadType=""),
        json_with(payloadType=1),
        json_with(payloadType="t" * 257),
        json_with(signatures={}),
        json_with(signatures=[1]),
        json_with(signatures=[{"sig": SIG["sig"]}]),
        json_with(signatures=[SIG | {"keyid": ""}]),
        json_with(signatures=[SIG | {"keyid": 1}]),
        json_with(signatures=[SIG | {"extra": 1}]),
        json_with(signatures=[SIG, SIG]),
        json_with(signatures=[SIG | {"keyid": "b"}, SIG]),
        json_with(signatures=[SIG | {"keyid": f"{n:02}"} for n in range(17)]),
    ],
)
def test_malformed_envelopes_are_refused(data):
    with pytest.raises(MalformedEnvelope):
        Envelope.from_json(data)


@given(st.binary())
def test_garbage_is_no_envelope(data):
    with pytest.raises(MalformedEnvelope):
        Envelope.from_json(data)


def test_a_key_id_is_the_digest_of_the_key():
    # SHA-256 of the public key of RFC 8032's first test, by sha256sum(1).
    public = bytes.fromhex(RFC_8032[0][1])
    assert keyid(public) == "21fe31dfa154a261626bf854046fd2271b7bed4b6abe45aa58877ef47f9721b9"
