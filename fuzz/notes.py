"""C2SP texts: notes, checkpoints, cosignatures, verifier keys, proofs, add-checkpoint requests."""

from datetime import UTC, datetime
from pathlib import Path

from compliance import merkle
from compliance.note import Checkpoint, Note, Signature, VerifierKey, cosign, sign
from compliance.proof import Proof
from compliance.signing import SigningKey
from compliance.witness import Request
from fuzz.target import Setup, Target

_NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
_LOG, _WITNESS = SigningKey.generate(), SigningKey.generate()
_LEAVES = [b"entry %d" % number for number in range(5)]
_HASHES = [merkle.leaf_hash(leaf) for leaf in _LEAVES]

_HEAD = Checkpoint("bank.concordat/log", len(_LEAVES), merkle.root(_LEAVES))
_LINES = (
    sign(_HEAD.text, _HEAD.origin, _LOG),
    cosign(_HEAD.text, "shop.concordat/witness", _WITNESS, _NOW),
)
_SIGNED = _HEAD.signed(*_LINES)
_KEYS = (
    VerifierKey(_HEAD.origin, _LOG.public),
    VerifierKey("shop.concordat/witness", _WITNESS.public, 4),
)


def _node(level: int, index: int) -> bytes:
    return merkle.root(_LEAVES[index << level : (index + 1) << level])


def _note(_: Path) -> Target:
    def parse(data: bytes) -> None:
        note = Note.parse(data)
        assert note.encode() == data
        note.verify(*_KEYS)

    return Target(parse, [_SIGNED.encode()])


def _checkpoint(_: Path) -> Target:
    def parse(data: bytes) -> None:
        checkpoint = Checkpoint.parse(data)
        assert checkpoint.encode() == data
        checkpoint.verify(*_KEYS)

    extended = Checkpoint(_HEAD.origin, 0, merkle.EMPTY_ROOT, ("more",))
    lines = (
        sign(extended.text, _HEAD.origin, _LOG),
        cosign(extended.text, "shop.concordat/witness", _WITNESS, _NOW),
    )
    return Target(parse, [_SIGNED.encode(), extended.signed(*lines).encode()])


def _cosignature(_: Path) -> Target:
    """A witness's answer, as it is put below the checkpoint that was sent."""

    def parse(data: bytes) -> None:
        note = Note.parse(_HEAD.text.encode() + b"\n" + data)
        note.verify(_KEYS[1])
        assert any(line.by(_KEYS[1]) for line in note.signatures)

    return Target(parse, [f"{_LINES[1]}\n".encode()])


def _signature_line(_: Path) -> Target:
    def parse(data: bytes) -> None:
        text = data.decode()
        assert str(Signature.parse(text)) == text

    return Target(parse, [str(line).encode() for line in _LINES], _TEXT)


def _verifier_key(_: Path) -> Target:
    def parse(data: bytes) -> None:
        text = data.decode()
        assert str(VerifierKey.parse(text)) == text

    return Target(parse, [str(key).encode() for key in _KEYS], _TEXT)


def _proof(_: Path) -> Target:
    def proof(index: int, extra: bytes | None) -> bytes:
        path = merkle.inclusion_proof(index, len(_LEAVES), _node)
        return Proof(index, tuple(path), _SIGNED, extra).encode()

    def parse(data: bytes) -> None:
        found = Proof.parse(data)
        found.verify(_LEAVES[found.index % len(_LEAVES)], *_KEYS)

    return Target(parse, [proof(2, None), proof(4, b"more")])


def _add_checkpoint(_: Path) -> Target:
    def request(old: int) -> bytes:
        path = merkle.consistency_proof(old, len(_LEAVES), _node)
        return Request(old, tuple(path), _SIGNED).encode()

    def parse(data: bytes) -> None:
        found = Request.parse(data)
        assert found.encode() == data
        head = found.checkpoint
        head.verify(_KEYS[0])
        old = merkle.root(_LEAVES[: found.old])
        merkle.verify_consistency(found.old, old, head.size, head.root, found.proof)

    return Target(parse, [request(0), request(3), request(4)])


_TEXT = (*Target.refusals, UnicodeDecodeError)

TARGETS: dict[str, Setup] = {
    "note": _note,
    "checkpoint": _checkpoint,
    "cosignature": _cosignature,
    "signature-line": _signature_line,
    "verifier-key": _verifier_key,
    "proof": _proof,
    "add-checkpoint": _add_checkpoint,
}
