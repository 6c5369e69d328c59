"""What we sign and prove reads the same for other people's tools, and what is mutated does not.

Other people are a second implementation in this repository, whose vectors are committed, and
aics-tlog in an environment of its own, where there is a Python that it runs on.
"""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tlog_vectors
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from compliance import merkle
from compliance.canonical import to_base64
from compliance.errors import InvalidProof, MalformedNote, MalformedProof, UnverifiedNote
from compliance.log import Log
from compliance.note import COSIGNATURE, Checkpoint, VerifierKey, cosign, sign
from compliance.proof import Proof
from compliance.signing import SigningKey
from compliance.store import open_store, write

VECTORS = json.loads(tlog_vectors.FILE.read_text("utf-8"))
KEYS = [VECTORS["log"]["verifier"], VECTORS["witness"]["verifier"]]
LEAVES = [leaf.encode() for leaf in VECTORS["leaves"]]
REFUSED = (InvalidProof, MalformedNote, MalformedProof, UnverifiedNote)

ENVIRONMENT = Path(__file__).with_name(".aics")
AICS = "aics-tlog==0.2.1"


def key(name: str) -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS[name]["seed"])))


def mutated(text: str) -> list[str]:
    """The text with a line left out or repeated, or every seventh character another.

    A signature may be repeated: it is the same signature.
    """
    lines = text.split("\n")
    found = ["\n".join(lines[:at] + lines[at + 1 :]) for at in range(len(lines))]
    for at, line in enumerate(lines):
        if not line.startswith("\N{EM DASH}"):
            found.append("\n".join([*lines[:at], line, *lines[at:]]))
    for at in range(0, len(text), 7):
        found.append(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])
    return [one for one in found if one != text]


def test_the_vectors_are_what_the_second_implementation_writes():
    assert tlog_vectors.vectors() == VECTORS


def test_our_checkpoints_are_the_second_implementations_to_the_byte():
    time = datetime.fromtimestamp(VECTORS["witness"]["time"], UTC)
    log, witness = VerifierKey.parse(KEYS[0]), VerifierKey.parse(KEYS[1])
    for size, expected in VECTORS["checkpoints"].items():
        ours = Checkpoint(log.name, int(size), merkle.root(LEAVES[: int(size)]))
        ours = ours.signed(
            sign(ours.text, log.name, key("log")),
            cosign(ours.text, witness.name, key("witness"), time),
        )
        assert ours.encode().decode() == expected
        Checkpoint.parse(expected.encode()).verify(log, witness)


def test_our_proofs_are_the_second_implementations_to_the_byte():
    keys = [VerifierKey.parse(text) for text in KEYS]
    for case in VECTORS["proofs"]:
        index, size, theirs = case["index"], case["size"], case["proof"]
        Proof.parse(theirs.encode()).verify(LEAVES[index], *keys)
        frontier, nodes = merkle.Frontier(), {}
        for n, leaf in enumerate(LEAVES[:size]):
            nodes[0, n] = merkle.leaf_hash(leaf)
            nodes |= {(level, i): node for level, i, node in frontier.append(nodes[0, n])}
        hashes = merkle.inclusion_proof(index, size, lambda level, i, at=nodes: at[level, i])
        checkpoint = Checkpoint.parse(VECTORS["checkpoints"][str(size)].encode())
        assert Proof(index, tuple(hashes), checkpoint).encode().decode() == theirs


def test_we_refuse_mutated_vectors():
    keys = [VerifierKey.parse(text) for text in KEYS]
    case = VECTORS["proofs"][-2]
    for text in mutated(case["proof"]):
        with pytest.raises(REFUSED):
            Proof.parse(text.encode()).verify(LEAVES[case["index"]], *keys)
    with pytest.raises(InvalidProof):
        Proof.parse(case["proof"].encode()).verify(LEAVES[case["index"] - 1], *keys)


@pytest.fixture(scope="module")
def aics():
    """Asks aics-tlog about cases; it needs a newer Python than ours, and PyPI the first time."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "installed").exists():
        kept = sorted(map(str, Path.home().glob(".pyenv/versions/3.1[2-9]*/bin/python")))
        for name in ("python3.14", "python3.13", "python3.12", *kept):
            try:
                make = [name, "-m", "venv", "--clear", str(ENVIRONMENT)]
                subprocess.run(make, check=True, capture_output=True, timeout=120)
                install = [str(python), "-m", "pip", "install", "--quiet", AICS]
                subprocess.run(install, check=True, capture_output=True, timeout=300)
                (ENVIRONMENT / "installed").touch()
                break
            except (OSError, subprocess.SubprocessError):
                continue
        else:
            pytest.skip(f"no Python from 3.12 on with {AICS} can be had here")
    program = Path(__file__).with_name("aics.py")

    def ask(cases):
        done = subprocess.run(
            [str(python), str(program)],
            input=json.dumps(cases),
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return json.loads(done.stdout)

    return ask


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A log of ours over several tiles, cosigned: entries, checkpoints by size, proofs, keys."""
    folder = tmp_path_factory.mktemp("log")
    now = datetime(2026, 11, 24, tzinfo=UTC)
    ours, witness = Log("bank.concordat/log", SigningKey.generate()), SigningKey.generate()
    name = "shop.concordat/witness"
    keys = [str(ours.verifier), str(VerifierKey(name, witness.public, COSIGNATURE))]
    checkpoints, cases = {}, []
    engine = open_store(f"sqlite:///{folder}/log.db", create=True)
    with write(engine) as conn:
        for size in (1, 5, 256, 700):
            count = size - len(list(ours.entries(conn)))
            ours.append_many(conn, [("test", {"n": n}) for n in range(count)], time=now)
            head = ours.checkpoint(conn)
            ours.add_cosignature(conn, size, cosign(head.text, name, witness, now))
            checkpoints[size] = ours.head(conn)
            for index in sorted({0, size // 2, size - 1}):
                leaf = next(ours.entries(conn, index, index + 1)).leaf.decode()
                text = ours.proof(conn, index).encode().decode()
                cases.append({"kind": "proof", "keys": keys, "leaf": leaf, "proof": text})
        for old, then in checkpoints.items():
            for new, head in checkpoints.items():
                if old <= new:
                    hashes = ours.consistency_proof(conn, old, new)
                    cases.append(
                        {
                            "kind": "consistency",
                            "old": old,
                            "new": new,
                            "old_root": to_base64(then.root),
                            "new_root": to_base64(head.root),
                            "hashes": [*map(to_base64, hashes)],
                        }
                    )
    cases += [
        {"kind": "checkpoint", "keys": keys, "note": head.encode().decode()}
        for head in checkpoints.values()
    ]
    return cases


def test_aics_accepts_what_we_make(aics, log):
    assert aics(log) == [True] * len(log)


def test_aics_refuses_what_is_mutated(aics, log):
    cases = []
    for case in log:
        if case["kind"] == "consistency":
            if case["old"] == case["new"]:
                continue
            cases += [
                {**case, "hashes": case["hashes"][1:]},
                {**case, "hashes": [*case["hashes"], to_base64(bytes(32))]},
                {**case, "old_root": case["new_root"]},
                {**case, "new_root": to_base64(bytes(32))},
                {**case, "old": case["old"] + 1},
            ]
            continue
        name = {"proof": "proof", "checkpoint": "note"}[case["kind"]]
        # aics-tlog does without the last newline, which our reader wants.
        changed = [text for text in mutated(case[name]) if f"{text}\n" != case[name]]
        cases += [{**case, name: text} for text in changed]
        if case["kind"] == "proof":
            cases.append({**case, "leaf": case["leaf"] + " "})
    accepted = [case for case, said in zip(cases, aics(cases), strict=True) if said]
    assert accepted == []
    assert len(cases) > 500
