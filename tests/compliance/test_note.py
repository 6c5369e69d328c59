import base64
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from compliance.errors import MalformedNote, UnverifiedNote
from compliance.note import (
    COSIGNATURE,
    MAX_NOTE,
    Checkpoint,
    Note,
    Signature,
    VerifierKey,
    cosign,
    from_decimal,
    sign,
)
from compliance.signing import SigningKey, verify

# golang.org/x/mod/sumdb/note, note_test.go: the reference implementation's key and note.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SEED = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_NOTE = (
    GO_TEXT + "\n— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

# The example of c2sp.org/signed-note, section "Verifier keys".
C2SP_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"

# The examples of c2sp.org/signed-note and c2sp.org/tlog-cosignature (no keys are published).
C2SP_NOTE = """\
Ognuno sta solo sul cuor della terra
trafitto da un raggio di sole:

ed è subito sera.

— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=
"""  # noqa: E501
C2SP_CHECKPOINT = """\
example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""  # noqa: E501
C2SP_COSIGNED = b"""\
cosignature/v1
time 1679315147
example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
"""

NOW = datetime.fromtimestamp(1679315147, UTC)
LOG, WITNESS, STRANGER = (SigningKey.generate() for _ in range(3))
LOG_KEY = VerifierKey("bank.example/log", LOG.public)
WITNESS_KEY = VerifierKey("partner.example/witness", WITNESS.public, COSIGNATURE)
UNSIGNED = Checkpoint("bank.example/log", 5, bytes(range(32)))
CHECKPOINT = UNSIGNED.signed(
    sign(UNSIGNED.text, LOG_KEY.name, LOG), cosign(UNSIGNED.text, WITNESS_KEY.name, WITNESS, NOW)
)


def test_the_reference_implementations_note_verifies():
    key = VerifierKey.parse(GO_VKEY)
    assert (key.name, key.key_id.hex()) == ("PeterNeumann", "c74f20a3")
    note = Note.parse(GO_NOTE.encode())
    assert note.text == GO_TEXT
    note.verify(key)


def test_we_sign_as_the_reference_implementation_does():
    seed = base64.b64decode(GO_SEED)[1:]
    key = SigningKey(Ed25519PrivateKey.from_private_bytes(seed))
    assert str(VerifierKey("PeterNeumann", key.public)) == GO_VKEY
    note = Note(GO_TEXT, (sign(GO_TEXT, "PeterNeumann", key),))
    assert note.encode() == GO_NOTE.encode()


def test_examples_of_the_specifications():
    assert str(VerifierKey.parse(C2SP_VKEY)) == C2SP_VKEY

    note = Note.parse(C2SP_NOTE.encode())
    assert note.text.endswith("\n\ned è subito sera.\n")
    assert note.signatures[0].name == "quasimodo.example/salvatore"
    assert note.encode() == C2SP_NOTE.encode()

    checkpoint = Checkpoint.parse(C2SP_CHECKPOINT.encode())
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.root.hex().startswith("0ac5186a")
    log, witness = checkpoint.signatures
    assert (log.key_id.hex(), len(log.value)) == ("033de0ae", 64)
    assert (witness.name, witness.key_id.hex()) == ("witness.example.com/w1", "8d66cf3f")
    assert (int.from_bytes(witness.value[:8]), len(witness.value)) == (1679315147, 72)
    assert checkpoint.encode() == C2SP_CHECKPOINT.encode()


def test_a_cosignature_signs_the_message_of_the_specification():
    checkpoint = Checkpoint.parse(C2SP_CHECKPOINT.encode())
    line = cosign(checkpoint.text, "witness.example.com/w1", WITNESS, NOW)
    assert line.value[:8] == checkpoint.signatures[1].value[:8]
    verify(WITNESS.public, line.value[8:], C2SP_COSIGNED)


def test_a_verifier_key_is_read_only_whole():
    for start in range(len(GO_VKEY) + 1):
        for stop in range(start + 1, len(GO_VKEY) + 1):
            if (start, stop) != (0, len(GO_VKEY)):
                with pytest.raises(MalformedNote):
                    VerifierKey.parse(GO_VKEY[start:stop])
    for position, character in enumerate(GO_VKEY):
        other = chr(ord(character) + 1)
        with pytest.raises(MalformedNote):
            VerifierKey.parse(GO_VKEY[:position] + other + GO_VKEY[position + 1 :])


def test_other_kinds_of_keys_are_refused():
    for kind in (0, 2, 5, 6, 255):
        with pytest.raises(MalformedNote):
            VerifierKey("name", LOG.public, kind)
    with pytest.raises(MalformedNote):
        VerifierKey("name", LOG.public + b"\0")


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\u2028b", "a\nb", "a\x01b"])
def test_key_names_hold_no_spaces_or_plus(name):
    with pytest.raises(MalformedNote):
        VerifierKey(name, LOG.public)


@pytest.mark.parametrize("key", [LOG_KEY, WITNESS_KEY])
def test_verifier_keys_are_read_back(key):
    assert VerifierKey.parse(str(key)) == key


def test_a_checkpoint_is_read_back_and_verifies():
    parsed = Checkpoint.parse(CHECKPOINT.encode())
    assert parsed == CHECKPOINT
    parsed.verify(LOG_KEY)
    parsed.verify(LOG_KEY, WITNESS_KEY)


def test_signatures_of_others_are_ignored_but_never_suffice():
    stranger = sign(UNSIGNED.text, LOG_KEY.name, STRANGER)
    CHECKPOINT.signed(stranger).verify(LOG_KEY, WITNESS_KEY)
    for note in (UNSIGNED.signed(stranger), UNSIGNED.signed(CHECKPOINT.signatures[1])):
        with pytest.raises(UnverifiedNote, match="missing"):
            note.verify(LOG_KEY)


def test_one_bad_signature_of_a_known_key_condemns_the_note():
    good = CHECKPOINT.signatures[0]
    forged = Signature(good.name, good.key_id, bytes(64))
    for note in (UNSIGNED.signed(forged), CHECKPOINT.signed(forged)):
        with pytest.raises(UnverifiedNote, match="does not verify"):
            note.verify(LOG_KEY)


def test_a_checkpoint_is_its_own_logs():
    other = Checkpoint("other.example/log", 5, bytes(32))
    other = other.signed(sign(other.text, LOG_KEY.name, LOG))
    with pytest.raises(UnverifiedNote, match="another log"):
        other.verify(LOG_KEY)


def test_a_log_signature_is_no_cosignature():
    both = VerifierKey(LOG_KEY.name, LOG.public, COSIGNATURE)
    with pytest.raises(UnverifiedNote):
        CHECKPOINT.note.verify(both)
    pretended = Signature(both.name, both.key_id, CHECKPOINT.signatures[0].value)
    with pytest.raises(UnverifiedNote):
        UNSIGNED.signed(pretended).note.verify(both)


def test_a_cosignature_binds_its_time():
    line = CHECKPOINT.signatures[1]
    for value in ((1679315148).to_bytes(8), (1 << 63).to_bytes(8), b""):
        moved = Signature(line.name, line.key_id, value + line.value[8:])
        with pytest.raises(UnverifiedNote):
            UNSIGNED.signed(moved).note.verify(WITNESS_KEY)


def test_no_bit_of_a_signed_checkpoint_may_change():
    for bit in range(len(CHECKPOINT.encode()) * 8):
        data = bytearray(CHECKPOINT.encode())
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises((MalformedNote, UnverifiedNote)):
            Checkpoint.parse(bytes(data)).verify(LOG_KEY, WITNESS_KEY)


SIG = "— name AAAAAAA="


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        "text\n",
        "text\n\n",
        f"text\n{SIG}\n",
        f"text\n\n{SIG}",
        f"text\n\n{SIG}\n\n",
        f"text\n\n{SIG}\nother\n",
        f"te\rxt\n\n{SIG}\n",
        f"te\txt\n\n{SIG}\n",
        f"te\0xt\n\n{SIG}\n",
        "text\n\n- name AAAAAAA=\n",
        "text\n\n—name AAAAAAA=\n",
        "text\n\n— name AAAAAAA\n",
        "text\n\n— name AAAAAA==\n",
        "text\n\n— name AAAAAAB=\n",
        "text\n\n— name  AAAAAAA=\n",
        "text\n\n— name AAAAAAA= \n",
        "text\n\n— na+me AAAAAAA=\n",
        "text\n\n—  AAAAAAA=\n",
        "text\n\n— na\u2028me AAAAAAA=\n",
        "text\n\n" + f"{SIG}\n" * 101,
        "text\n" * MAX_NOTE + f"\n{SIG}\n",
    ],
)
def test_malformed_notes_are_refused(note):
    with pytest.raises(MalformedNote):
        Note.parse(note.encode())
    with pytest.raises(MalformedNote):
        Note.parse(b"\xff" + note.encode())


def test_as_many_signatures_as_the_specification_asks_for():
    large = Signature("name", b"\0\0\0\0", bytes(5000))
    note = Note("text\n", (large,) * 16)
    assert Note.parse(note.encode()) == note


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "origin\n5\n",
        f"\n5\n{ROOT}\n",
        f"origin\n05\n{ROOT}\n",
        f"origin\n-5\n{ROOT}\n",
        f"origin\n+5\n{ROOT}\n",
        f"origin\n5 \n{ROOT}\n",
        f"origin\n٥\n{ROOT}\n",
        f"origin\n\n{ROOT}\n",
        f"origin\n{2**63}\n{ROOT}\n",
        f"origin\n{'9' * 5000}\n{ROOT}\n",
        "origin\n5\n\n",
        "origin\n5\nAAAA\n",
        f"origin\n5\n{ROOT[:-1]}\n",
        f"origin\n5\n{ROOT}\n\nextension\n",
        f"origin\n5\n{ROOT}\nextension\n\n",
    ],
)
def test_malformed_checkpoints_are_refused(text):
    with pytest.raises(MalformedNote):
        Checkpoint.parse(f"{text}\n{SIG}\n".encode())


def test_extension_lines_are_kept_and_signed():
    extended = Checkpoint(LOG_KEY.name, 0, bytes(32), ("one", "two"))
    signed = extended.signed(sign(extended.text, LOG_KEY.name, LOG))
    parsed = Checkpoint.parse(signed.encode())
    assert parsed.extensions == ("one", "two")
    parsed.verify(LOG_KEY)


def test_decimals_have_one_form():
    for number in (0, 7, 10, 2**63 - 1):
        assert from_decimal(str(number)) == number


LINE = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]))


@given(st.lists(LINE, min_size=1).map(lambda lines: "".join(f"{line}\n" for line in lines)))
def test_any_text_can_be_signed(text):
    note = Note(text, (sign(text, LOG_KEY.name, LOG),))
    parsed = Note.parse(note.encode())
    assert parsed == note
    parsed.verify(LOG_KEY)


@given(st.binary() | st.text("text\n— +A=1").map(str.encode))
def test_garbage_is_refused_or_read_back(data):
    for parse in (Note.parse, Checkpoint.parse):
        try:
            parsed = parse(data)
        except MalformedNote:
            continue
        assert parsed.encode() == data


@given(st.text() | st.text("+A=1na"))
def test_garbage_is_no_verifier_key(text):
    with pytest.raises(MalformedNote):
        VerifierKey.parse(text)
