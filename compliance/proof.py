"""C2SP tlog-proof: a file that proves offline that an entry is in a log its witnesses have seen.

c2sp.org/tlog-proof, version 1.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from compliance import merkle
from compliance.canonical import from_base64, to_base64
from compliance.errors import MalformedProof
from compliance.merkle import HASH_BYTES
from compliance.note import MAX_NOTE, Checkpoint, VerifierKey, from_decimal

MAX_HASHES = 63
MAX_PROOF = 2 * MAX_NOTE

_HEADER = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True)
class Proof:
    """Entry `index` is in the checkpoint's tree; `extra` is unauthenticated."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: Checkpoint
    extra: bytes | None = None

    def encode(self) -> bytes:
        extra = [] if self.extra is None else [f"extra {to_base64(self.extra)}"]
        lines = [_HEADER, *extra, f"index {self.index}", *map(to_base64, self.hashes), "", ""]
        return "\n".join(lines).encode() + self.checkpoint.encode()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises MalformedProof or MalformedNote. Nothing is verified yet."""
        if len(data) > MAX_PROOF:
            raise _malformed()
        head, _, checkpoint = data.partition(b"\n\n")
        try:
            header, *lines = head.decode().split("\n")
            extra = None
            if lines[0].startswith("extra "):
                extra = from_base64(lines.pop(0).removeprefix("extra "))
            label, number = lines.pop(0).split(" ")
            index = from_decimal(number)
            hashes = parse_hashes(lines)
        except (IndexError, ValueError) as error:
            raise _malformed() from error
        if header != _HEADER or label != "index":
            raise _malformed()
        return cls(index, hashes, Checkpoint.parse(checkpoint), extra)

    def verify(self, leaf: bytes, log: VerifierKey, *witnesses: VerifierKey) -> None:
        """Raise unless the entry's bytes are in this log, signed by it and all these witnesses.

        Raises UnverifiedNote or InvalidProof.
        """
        self.checkpoint.verify(log, *witnesses)
        merkle.verify_inclusion(
            merkle.leaf_hash(leaf),
            self.index,
            self.checkpoint.size,
            self.hashes,
            self.checkpoint.root,
        )


def parse_hashes(lines: Iterable[str]) -> tuple[bytes, ...]:
    """Hashes, one a line in base64. Raises ValueError."""
    hashes = tuple(map(from_base64, lines))
    if len(hashes) > MAX_HASHES or any(len(item) != HASH_BYTES for item in hashes):
        raise ValueError("not the hashes of a proof")
    return hashes


def _malformed() -> MalformedProof:
    return MalformedProof("A proof is malformed.", "Ask its sender for the original file.")
