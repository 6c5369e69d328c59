"""Checkpoints and proofs by a second implementation, written from the texts of the standards.

It shares nothing with the one it checks: trees are rfc6962.py's, recursive and word for word from
the RFC; notes are put together here from c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature
and tlog-proof; Ed25519 is cryptography's. Run as a program, this writes vectors/tlog.json.
"""

import base64
import hashlib
import json
from pathlib import Path

import rfc6962
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FILE = Path(__file__).with_name("vectors") / "tlog.json"
ORIGIN, WITNESS, TIME = "bank.concordat/log", "shop.concordat/witness", 1_790_000_000
SIZES = (1, 2, 3, 7, 8, 13)


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Key:
    """An Ed25519 key and how signed-note names it."""

    def __init__(self, seed: bytes, name: str, kind: int) -> None:
        self.seed, self.name = seed, name
        self.private = Ed25519PrivateKey.from_private_bytes(seed)
        self.typed = bytes([kind]) + self.private.public_key().public_bytes_raw()
        self.id = hashlib.sha256(name.encode() + b"\n" + self.typed).digest()[:4]

    @property
    def verifier(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64_of(self.typed)}"

    def line(self, value: bytes) -> str:
        return f"\N{EM DASH} {self.name} {base64_of(self.id + value)}\n"


LOG = Key(bytes(range(32)), ORIGIN, 0x01)
COSIGNER = Key(bytes(range(32, 64)), WITNESS, 0x04)


def leaves() -> list[bytes]:
    return [json.dumps({"n": n, "type": "test"}, separators=(",", ":")).encode() for n in range(13)]


def checkpoint(size: int) -> str:
    root = base64_of(rfc6962.mth(leaves()[:size]))
    text = f"{ORIGIN}\n{size}\n{root}\n"
    signature = LOG.private.sign(text.encode())
    message = f"cosignature/v1\ntime {TIME}\n{text}".encode()
    cosignature = TIME.to_bytes(8, "big") + COSIGNER.private.sign(message)
    return f"{text}\n{LOG.line(signature)}{COSIGNER.line(cosignature)}"


def proof(index: int, size: int) -> str:
    hashes = "".join(f"{base64_of(one)}\n" for one in rfc6962.path(index, leaves()[:size]))
    return f"c2sp.org/tlog-proof@v1\nindex {index}\n{hashes}\n{checkpoint(size)}"


def vectors() -> dict[str, object]:
    return {
        "log": {"seed": LOG.seed.hex(), "verifier": LOG.verifier},
        "witness": {"seed": COSIGNER.seed.hex(), "verifier": COSIGNER.verifier, "time": TIME},
        "leaves": [leaf.decode() for leaf in leaves()],
        "checkpoints": {str(size): checkpoint(size) for size in SIZES},
        "proofs": [
            {"index": index, "size": size, "proof": proof(index, size)}
            for size in SIZES
            for index in sorted({0, size // 2, size - 1})
        ],
        "consistency": [
            {
                "old": old,
                "new": new,
                "hashes": [base64_of(one) for one in rfc6962.proof(old, leaves()[:new])],
            }
            for new in SIZES
            for old in SIZES
            if old <= new
        ],
    }


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n", "utf-8")
