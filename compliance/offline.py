#!/usr/bin/env python3
"""Verify a folder of evidence from a Concordat node, offline.

    python3 -I verify.py [FOLDER ...] [--trust KEYS.json]

This file needs Python 3.9 or later and nothing else: no network, no other package, none of the
program that wrote the evidence. It is written to be read. The formats are public: RFC 6962 trees,
RFC 8032 signatures, C2SP checkpoints, cosignatures and tlog-proofs, DSSE envelopes.

Given the folders of two institutions, it also compares them. Keys are taken from each folder; an
outsider should have them from the institutions themselves, in a file that --trust names (such as
a folder's own keys.json, once its keys were compared over the phone). One key of a succession is
enough: entries of the log, signed by the key before and the key after, lead to the others.

It ends with 0 if everything holds, with 1 if anything does not, and names what does not.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import re
import stat
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Iterable, Iterator, NamedTuple

MANIFEST, KEYS, PERSON, ITSELF = "manifest.json", "keys.json", "person.json", "verify.py"
LOG, RECEIPTS, AGREEMENTS = "log.jsonl", "receipts.jsonl", "agreements.jsonl"
STEPS, NOTICES = "steps.jsonl", "notices.jsonl"
FORM = "concordat-evidence/1"
EVIDENCE, AGREEMENT, NOTICE, RECEIPT = (
    "application/vnd.concordat.evidence+json",
    "application/vnd.concordat.agreement+json",
    "application/vnd.concordat.agreement-notice+json",
    "application/vnd.in-toto+json",
)
DECLARED = (  # the entries whose documents go with the whole log
    "agreement.suspended",
    "agreement.resumed",
    "agreement.terminated",
    "notice.added",
)
WITHDRAWAL = "application/vnd.concordat.withdrawal-notice+json"
SUCCESSION = "application/vnd.concordat.succession+json"
ENTRY = "application/vnd.concordat.entry+json"  # what a user signs of an entry
USERS = ("user.added", "user.changed", "user.removed")
ROTATED = ("key.rotated", "peer.rotated")  # the entries that introduce keys: own, and partners'
KINDS = {"signing": 0, "log": 1, "witness": 4}  # of keys; the number is C2SP's
LONGEST = 4 << 20  # bytes of a document, or of a line of many


class Wrong(Exception):
    """Something does not hold; the text says what."""


# Ed25519 signatures, RFC 8032, section 5.1. Points are (X, Y, Z, T) with x = X/Z and y = Y/Z.

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
NEUTRAL = (0, 1, 1, 0)


def add(a: Any, b: Any) -> Any:
    """Section 5.1.4; also for doubling."""
    m, n = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * D * a[3] * b[3] % P, 2 * a[2] * b[2] % P
    e, f, g, h = n - m, d - c, d + c, n + m
    return e * f % P, g * h % P, f * g % P, e * h % P


def decode(data: bytes) -> Any:
    """A point from its 32 bytes, by section 5.1.3; only the canonical form of one is taken."""
    sign, y = data[31] >> 7, int.from_bytes(data, "little") & (1 << 255) - 1
    u, v = y * y - 1, D * y * y + 1
    x = u * v**3 * pow(u * v**7, (P - 5) // 8, P) % P
    if (v * x * x - u) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if len(data) != 32 or y >= P or (v * x * x - u) % P or (x == 0 and sign):
        raise Wrong("is no point of the curve")
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


def encode(a: Any) -> bytes:
    inverse = pow(a[2], P - 2, P)
    x, y = a[0] * inverse % P, a[1] * inverse % P
    return int(y | (x & 1) << 255).to_bytes(32, "little")


BASE = decode((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def check_signature(public: bytes, signature: bytes, message: bytes) -> None:
    """Section 5.1.7, without the cofactor. A key of small order would fit any message."""
    if len(public) != 32 or len(signature) != 64:
        raise Wrong("a key or signature has another length than Ed25519's")
    key, s = decode(public), int.from_bytes(signature[32:], "little")
    eight = add(add(key, key), add(key, key))
    if encode(add(eight, eight)) == encode(NEUTRAL):
        raise Wrong("a key fits any message")
    if s >= ORDER:
        raise Wrong("a signature is out of range")
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % ORDER
    minus = (P - key[0], key[1], key[2], P - key[3])
    sums, both = (NEUTRAL, BASE, minus, add(BASE, minus)), NEUTRAL  # s*BASE - k*key, bit by bit
    for bit in range(252, -1, -1):
        both = add(add(both, both), sums[(s >> bit & 1) + 2 * (k >> bit & 1)])
    if encode(both) != signature[:32]:
        raise Wrong("a signature does not hold")


# Merkle trees, RFC 6962, section 2.1.


def leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """A tree that is built from left to right; it keeps a hash for each bit of its size."""

    def __init__(self) -> None:
        self.size, self.peaks = 0, []  # type: int, list[tuple[int, bytes]]

    def add(self, subtree: bytes, level: int = 0) -> None:
        """A leaf's hash, or that of a whole subtree of 2^level leaves, where one may stand."""
        if not 0 <= level < 63 or self.size % (1 << level):
            raise Wrong("a subtree stands where none can")
        self.size += 1 << level
        while self.peaks and self.peaks[-1][0] == level:
            subtree, level = node_hash(self.peaks.pop()[1], subtree), level + 1
        self.peaks.append((level, subtree))

    def root(self) -> bytes:
        if not self.peaks:
            return hashlib.sha256(b"").digest()
        root = self.peaks[-1][1]
        for _, left in reversed(self.peaks[:-1]):
            root = node_hash(left, root)
        return root


def check_inclusion(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> None:
    """That a leaf's hash stands at this place of a tree (RFC 9162, section 2.1.3.2)."""
    position, last, subtree = index, size - 1, leaf
    if not 0 <= index < size:
        raise Wrong("a proof is of a place that the tree does not have")
    for sibling in path:
        if last == 0:
            raise Wrong("a proof is too long")
        if position & 1 or position == last:
            subtree = node_hash(sibling, subtree)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            subtree = node_hash(subtree, sibling)
        position, last = position >> 1, last >> 1
    if last or subtree != root:
        raise Wrong("a proof does not lead to the root")


# Reading what somebody else has written.


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name is there twice")
    return dict(pairs)


def short_number(digits: str) -> int:
    if len(digits) > 19:
        raise ValueError("too long a number")
    return int(digits)


def parse(data: bytes) -> Any:
    """JSON that all readers read alike: each name once, no monstrous numbers."""
    try:
        return json.loads(data.decode(), object_pairs_hook=once, parse_int=short_number)
    except (ValueError, RecursionError) as error:
        raise Wrong("is not JSON as it should be") from error


def compact(value: Any) -> bytes:
    """JSON as it is signed (RFC 8785), of texts, whole numbers, lists and ASCII names."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def from_base64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
        if base64.b64encode(data).decode() == text:
            return data
    except (TypeError, ValueError):
        pass
    raise Wrong("holds what is not Base64")


def from_hex(text: Any, length: int = 32) -> bytes:
    if not isinstance(text, str) or not re.fullmatch(f"[0-9a-f]{{{2 * length}}}", text):
        raise Wrong("holds what is not a hash or key in hex")
    return bytes.fromhex(text)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Key(NamedTuple):
    """A C2SP verifier key: of a log (kind 1) or a witness (kind 4); or a party's own (kind 0)."""

    name: str
    public: bytes
    kind: int

    @classmethod
    def parse(cls, text: str) -> Key:
        try:
            name, number, rest = text.split("+", 2)
        except (AttributeError, ValueError):
            raise Wrong("holds what is no verifier key") from None
        data = from_base64(rest)
        key = cls(name, data[1:], data[0] if data else 0)
        if key.kind not in (1, 4) or key.number.hex() != number:
            raise Wrong("holds a verifier key that does not fit its name")
        return key

    @property
    def number(self) -> bytes:
        material = self.name.encode() + b"\n" + bytes([self.kind]) + self.public
        return hashlib.sha256(material).digest()[:4]


class Checkpoint(NamedTuple):
    """A log's head, and who signed it: C2SP tlog-checkpoint, signed-note, tlog-cosignature."""

    origin: str
    size: int
    root: bytes
    text: bytes
    lines: list[tuple[str, bytes]]

    @classmethod
    def parse(cls, data: bytes) -> Checkpoint:
        try:
            text, _, below = data.decode().rpartition("\n\n")
            origin, size, root = text.split("\n")[:3]
            signatures = below.split("\n")
            if signatures.pop() or len(signatures) > 100 or not re.fullmatch("[0-9]{1,19}", size):
                raise ValueError
            lines = []
            for line in signatures:
                dash, name, encoded = line.split(" ")
                lines.append((name, from_base64(encoded)))
                if dash != "\u2014":
                    raise ValueError
        except ValueError:
            raise Wrong("is no signed checkpoint") from None
        return cls(origin, int(size), from_base64(root), text.encode() + b"\n", lines)

    def signed_at(self, key: Key) -> str | None:
        """When this key signed it ("" for a log, which says no time); None if it did not."""
        when = None
        for name, blob in self.lines:
            if (name, blob[:4]) != (key.name, key.number):
                continue
            message, signature, when = self.text, blob[4:], ""
            if key.kind == 4:
                seconds, signature = int.from_bytes(blob[4:12], "big"), blob[12:]
                message = b"cosignature/v1\ntime %d\n" % seconds + self.text
                when = utc(seconds)
            check_signature(key.public, signature, message)
        return when


def utc(seconds: float) -> str:
    try:
        time = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)
        return time.strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        return "a time that cannot be"


def pae(kind: str, payload: bytes) -> bytes:
    """What is signed of a payload, by DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d " % (len(kind.encode()), kind.encode(), len(payload)) + payload


class Envelope(NamedTuple):
    """A DSSE envelope: a payload, and signatures by the SHA-256 of the key that made them."""

    kind: str
    payload: bytes
    signatures: dict[str, bytes]

    @classmethod
    def parse(cls, data: bytes) -> Envelope:
        found = parse(data)
        try:
            signed = {one["keyid"]: from_base64(one["sig"]) for one in found["signatures"]}
            envelope = cls(found["payloadType"], from_base64(found["payload"]), signed)
            if len(found) == 3 and len(signed) <= 16 and compact(found) == data:
                return envelope
        except (KeyError, TypeError, ValueError):
            pass
        raise Wrong("is no signed envelope")

    def check(self, kind: str, keys: list[Key]) -> Any:
        """What it says, if all of these keys have signed it."""
        if self.kind != kind:
            raise Wrong(f"is not of the kind {kind}")
        for key in keys:
            if sha256(key.public) not in self.signatures:
                raise Wrong(f"lacks the signature of {key.name}")
            try:
                signature = self.signatures[sha256(key.public)]
                check_signature(key.public, signature, pae(kind, self.payload))
            except Wrong as wrong:
                raise Wrong(f"is not signed by {key.name}: {wrong}") from None
        said = parse(self.payload)
        if not isinstance(said, dict):
            raise Wrong("says nothing")
        return said


# A folder of evidence.


class Claim(NamedTuple):
    """That a log of this origin and size has this root, and who says so."""

    origin: str
    size: int
    root: bytes
    where: str


class Receipt(NamedTuple):
    """SHA-256 of a receipt's envelope and of its payload, what it says, and whose keys signed."""

    envelope: str
    payload: str
    said: Any
    signers: list[Key]


def one_succession(some: list[str], others: list[str]) -> bool:
    """Whether two lists of keys, oldest first, overlap and say the same as far as both go."""
    if some[0] in others:
        return all(a == b for a, b in zip(some, others[others.index(some[0]) :]))
    return others[0] in some and one_succession(others, some)


class Evidence:
    """A folder: what holds, what does not, and what cannot be told from it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, str(folder)
        self.holds, self.fails, self.open = [], [], []  # type: list[str], list[str], list[str]
        self.files: dict[str, Any] = {}
        self.keys: dict[str, dict[str, list[str]]] = {}  # by kind and owner, oldest first
        self.line: dict[tuple[str, str], list[Key]] = {}  # the same
        self.ends: dict[tuple[str, str], list[int]] = {}  # the entries that introduce the next key
        self.scope: dict[str, Any] = {}
        self.claims: list[Claim] = []
        self.roots: dict[int, bytes] = {}
        self.entries: dict[int, Any] = {}  # of runs and agreements; of a person, all there are
        self.agreements: dict[str, Any] = {}  # by digest
        self.receipts: dict[tuple[str, str], Receipt] = {}  # by run and kind
        self.documents: dict[str, list[Key]] = {}  # signers of notices, to parties and to people
        self.signers: dict[tuple[str, str], Key] = {}  # of agreements, by digest and key's SHA-256
        self.users: dict[str, tuple[str, bytes]] = {}  # role and key, as the log has told so far
        self.acts: dict[str, str] = {}  # whose act an entry is, by that user's signature
        self.heads: dict[bytes, Checkpoint] = {}
        self.cosigned: dict[str, tuple[int, str]] = {}
        self.head = Checkpoint("", -1, b"", b"", [])
        self.origin = ""
        self.size = self.shown = 0

    def attempt(self, where: str, check: Any, *given: Any) -> Any:
        """What a check returns; None if something is wrong, which is then written down."""
        try:
            return check(*given)
        except Wrong as wrong:
            self.fails.append(f"{where} {wrong}.")
        except OSError as error:
            self.fails.append(f"{where} cannot be read: {error.strerror}.")
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
            self.fails.append(f"{where} does not have the parts that it should have.")
        return None

    def path(self, name: str, most: int = 1 << 62) -> Path:
        path = self.folder / name
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > most:
            raise Wrong("is no file, or too large a one")
        return path

    def read(self, name: str, most: int = LONGEST) -> bytes:
        return self.path(name, most).read_bytes()

    def named(self, folder: str) -> Iterator[str]:
        """The files of a folder that the manifest names, in order."""
        return (name for name in sorted(self.files) if name.startswith(f"{folder}/"))

    def verify_documents(self, trusted: dict[str, Any] | None) -> None:
        """Everything but the log itself."""
        self.attempt(KEYS, self.take_keys, trusted)
        self.attempt(MANIFEST, self.take_manifest)
        for name in self.named("checkpoints"):
            self.attempt(name, lambda name=name: self.take_head(Checkpoint.parse(self.read(name))))
        for name, take in (
            (AGREEMENTS, self.take_agreement),
            (RECEIPTS, self.take_receipt),
            (STEPS, self.take_step),
            (NOTICES, self.take_notice),
        ):
            if name in self.files:
                self.attempt(name, self.take_lines, name, take)
        for name in self.named("seen"):
            self.attempt(name, self.take_seen, name)

    def take_keys(self, trusted: dict[str, Any] | None) -> None:
        self.keys, self.name = (said := parse(self.read(KEYS)))["keys"], said["institution"]
        for kind, owners in self.keys.items():
            for owner, texts in owners.items():
                self.take_line(kind, owner, texts)
                known = texts if trusted is None else trusted["keys"][kind].get(owner, [])
                if not known or not one_succession(texts, known):
                    raise Wrong(f"names other {kind} keys of {owner} than you trust")
        if len({key.public for line in self.line.values() for key in line}) < sum(
            map(len, self.line.values())
        ):
            raise Wrong("gives two institutions one key, or one key twice")
        self.origin = self.line["log", self.name][0].name

    def take_line(self, kind: str, owner: str, texts: list[str]) -> None:
        """The keys of one kind that somebody has had, oldest first."""
        line = [
            Key(owner, from_hex(text), 0) if kind == "signing" else Key.parse(text)
            for text in texts
        ]
        if {(key.name, key.kind) for key in line} != {(line[0].name, KINDS[kind])}:
            raise Wrong(f"names a {kind} key of {owner} that is none")
        self.line[kind, owner] = line

    def follow_keys(self) -> None:
        """Takes the steps from key to key that the log tells of; every later key needs one."""
        for index, body in sorted(self.entries.items()):
            if body["type"] in ROTATED and (body["kind"], body["party"]) in self.line:
                self.attempt(f"Entry {index}", self.follow_key, index, body)
        for (kind, owner), line in sorted(self.line.items()):
            ends = self.ends.get((kind, owner), [])
            if ("signing", owner) in self.line:  # a third witness has its keys from elsewhere
                for key in line[len(ends) + 1 :]:
                    self.fails.append(
                        f"{KEYS} names a {kind} key of {owner} that no entry introduces after the "
                        f"one before it: {key.public.hex()}."
                    )
            for key, following, end in zip(line, line[1:], ends):
                self.holds.append(
                    f"{utc_of(self.entries[end])}  entry {end}: {owner}'s {kind} key "
                    f"{key.public.hex()[:16]} counts no longer, {following.public.hex()[:16]} does."
                )

    def follow_key(self, index: int, body: dict[str, Any]) -> None:
        """That a key and the one after it have signed that the one follows the other."""
        kind, owner = body["kind"], body["party"]
        line, ends = self.line[kind, owner], self.ends.setdefault((kind, owner), [])
        envelope = Envelope.parse(from_base64(body["succession"]))
        pair = line[len(ends) : len(ends) + 2]
        if [key.public.hex() for key in pair] != [body["old"], body["new"]]:
            raise Wrong(f"introduces a {kind} key of {owner} that {KEYS} does not name there")
        said = envelope.check(SUCCESSION, [key._replace(name=owner) for key in pair])
        if any(said[part] != body[part] for part in ("party", "kind", "old", "new")):
            raise Wrong(f"introduces another {kind} key of {owner} than was signed for")
        if (body["type"] == ROTATED[0]) != (owner == self.name):
            raise Wrong("introduces a key of another institution than it may")
        ends.append(index)

    def key_at(self, kind: str, owner: str, index: int) -> Key:
        """The key that counted when an entry was written."""
        past = sum(end < index for end in self.ends.get((kind, owner), []))
        return self.line[kind, owner][past]

    def check_time(self, signers: list[Key], index: int) -> None:
        """That those who signed what an entry speaks of had these keys then."""
        for key in signers:
            if key != self.key_at("signing", key.name, index):
                raise Wrong(f"speaks of what {key.name} signed with a key that did not count then")

    def signed_by(self, envelope: Envelope, parties: Iterable[str]) -> list[Key]:
        """The keys of these parties under an envelope; each party needs one."""
        found = []
        for party in parties:
            line = self.line["signing", party]
            own = [key for key in line if sha256(key.public) in envelope.signatures]
            found += own or line[-1:]
        return found

    def take_manifest(self) -> None:
        envelope = Envelope.parse(self.read(MANIFEST))
        said, wrong = parse(envelope.payload), len(self.fails)
        self.files, self.scope = said["files"], said["scope"]
        for name, digest in sorted(self.files.items()):
            self.attempt(name, self.take_file, name, digest)
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            if name not in self.files and name not in (MANIFEST, ITSELF) and not path.is_dir():
                self.fails.append(f"{name} is in the folder, and the manifest does not name it.")
        if (said["evidence"], said["institution"]) != (FORM, self.name):
            raise Wrong("is of another form, or of another institution")
        envelope.check(EVIDENCE, self.line["signing", self.name][-1:])
        if len(self.fails) == wrong:
            self.holds.append(
                f"The {len(self.files)} files are those of the manifest that {self.name} signed, "
                f"as made on {said['made']}."
            )

    def take_file(self, name: str, digest: str) -> None:
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name, re.ASCII):
            raise Wrong("is no name for a file of evidence")
        found = hashlib.sha256()
        with self.path(name).open("rb") as file:
            for part in iter(lambda: file.read(1 << 20), b""):
                found.update(part)
        if found.hexdigest() != digest:
            raise Wrong("is not the file that the manifest names")

    def take_head(self, head: Checkpoint) -> None:
        """A checkpoint of this log. Whose keys counted at its size, `check_heads` looks at."""
        own = self.line["log", self.name]
        if head.origin != self.origin or not any(head.signed_at(key) is not None for key in own):
            raise Wrong(f"is not signed by the log {self.origin}")
        self.heads[head.text] = head
        self.claims.append(Claim(head.origin, head.size, head.root, f"the checkpoint {head.size}"))
        self.head = max(self.head, head, key=lambda one: one.size)

    def check_heads(self) -> None:
        for head in self.heads.values():
            self.attempt(f"The checkpoint {head.size}", self.check_head, head)

    def check_head(self, head: Checkpoint) -> None:
        """Who signed it had these keys then; where the log's key changes, both have signed."""
        for (kind, owner), line in self.line.items():
            if kind == "signing" or (kind == "log") != (owner == self.name):
                continue  # the log's keys are its own, its witnesses are others
            counted = line  # of a third witness
            if ("signing", owner) in self.line:
                counted = [self.key_at(kind, owner, at) for at in (head.size - 1, head.size)]
            for key in line:
                when = head.signed_at(key)
                if when is not None and key not in counted:
                    raise Wrong(f"is signed by a {kind} key of {owner} that did not count then")
                if when is None and kind == "log" and key in counted:
                    raise Wrong(f"lacks the signature of the {kind} key of {owner} of then")
                if when:
                    last = self.cosigned.get(key.name, (0, ""))
                    self.cosigned[key.name] = max(last, (head.size, when))

    def take_seen(self, name: str) -> None:
        """The last checkpoint of a partner's log that this institution has cosigned."""
        seen = Checkpoint.parse(self.read(name))
        logs = [line for (kind, _), line in self.line.items() if kind == "log"]
        keys = [key for line in logs for key in line if key.name == seen.origin != self.origin]
        if all(seen.signed_at(key) is None for key in keys):
            raise Wrong("is not signed by a partner's log")
        self.claims.append(Claim(seen.origin, seen.size, seen.root, name))

    def lines(self, name: str) -> Iterator[bytes]:
        with self.path(name).open("rb") as file:
            for line in iter(lambda: file.readline(LONGEST + 2), b""):
                if line[-1:] != b"\n" or len(line) > LONGEST + 1:
                    raise Wrong("does not end its lines")
                yield line[:-1]

    def take_lines(self, name: str, take: Any) -> None:
        for number, line in enumerate(self.lines(name), 1):
            self.attempt(f"{name}, line {number},", take, line)

    def take_agreement(self, line: bytes) -> None:
        envelope = Envelope.parse(line)
        said = parse(envelope.payload)
        digest, keys = sha256(envelope.payload), self.signed_by(envelope, said["parties"].values())
        envelope.check(AGREEMENT, keys)
        self.agreements[digest] = said
        self.signers.update({(digest, sha256(key.public)): key for key in keys})

    def take_step(self, line: bytes) -> None:
        """A suspension, resumption or termination of an agreement, signed by whose it is."""
        envelope = Envelope.parse(line)
        party = parse(envelope.payload)["party"]
        keys = self.signed_by(envelope, [party])
        envelope.check(NOTICE, keys)
        self.documents[sha256(envelope.payload)] = keys

    def take_notice(self, line: bytes) -> None:
        """What people were told when they were asked; the log names its digest."""
        self.documents[sha256(line)] = []

    def take_receipt(self, line: bytes) -> None:
        """A run's intent or completion, as both have signed it."""
        envelope = Envelope.parse(line)
        statement = parse(envelope.payload)
        said = statement["predicate"]
        run, kind = said["run"], statement["predicateType"][len("urn:concordat:run-") : -len(":v1")]
        if statement["predicateType"] == "urn:concordat:run-completion:v1":
            intent = self.receipts.get((run, "intent"))
            if intent is None or intent.payload != said["intent"]:
                raise Wrong("completes an intent that is not here")
            started = intent.said
        elif statement["predicateType"] == "urn:concordat:run-intent:v1":
            started = said
            self.check_terms(said)
            for at in (said["bank"]["log"], said["partner"]["log"]):
                where = f"the intent of run {run}"
                self.claims.append(Claim(at["origin"], at["size"], from_hex(at["root"]), where))
        else:
            raise Wrong("is the receipt of something else")
        sides = [started[role] for role in ("bank", "partner")]
        keys = [Key(side["party"], from_hex(side["key"]), 0) for side in sides]
        if keys[0].name == keys[1].name or any(
            key not in self.line["signing", key.name] for key in keys
        ):
            raise Wrong("names a key that is not its party's, or one party twice")
        envelope.check(RECEIPT, keys)
        self.receipts[run, kind] = Receipt(sha256(line), sha256(envelope.payload), said, keys)

    def check_terms(self, started: dict[str, Any]) -> None:
        """That an agreement both have signed was valid, for this purpose and kind of job."""
        agreement = self.agreements.get(started["agreement"]["digest"])
        if agreement is None:
            raise Wrong("names an agreement that is not here, signed by both")
        begin, now, end = (
            datetime.fromisoformat(text.replace("Z", "+00:00"))
            for text in (
                agreement["valid"]["from"],
                started["started"],
                agreement["valid"]["until"],
            )
        )
        sides = {role: started[role]["party"] for role in ("bank", "partner")}
        if not begin <= now < end or sides != agreement["parties"]:
            raise Wrong("is outside the time of its agreement, or between others")
        purposes = {agreement["purpose"], started["purpose"], started["job"]["purpose"]}
        if len(purposes) > 1 or started["job"]["job"] not in agreement["jobs"]:
            raise Wrong("is for what its agreement does not allow")

    def follow_log(self, claims: list[Claim]) -> None:
        """The log, entry by entry; notes its roots at the sizes that anybody has claimed."""
        tree = Tree()
        wanted = {claim.size for claim in claims if claim.origin == self.origin}
        for line in self.lines(LOG):
            if tree.size in wanted:
                self.roots[tree.size] = tree.root()
            if line[:1] == b"[":  # not shown: the hash of 2^level entries
                level, hashed = parse(line)
                tree.add(from_hex(hashed), level)
            else:
                self.take_entry(tree.size, line)
                tree.add(leaf_hash(line))
        self.roots[tree.size], self.size = tree.root(), tree.size
        if (tree.size, tree.root()) != (self.head.size, self.head.root):
            raise Wrong(
                "does not make the root of the log's checkpoint: something in it was changed, "
                "added or left out"
            )
        if self.scope == {"log": "whole"} and self.shown < self.size:
            raise Wrong("hides entries, and is said to be the whole log")

    def take_entry(self, index: int, leaf: bytes) -> None:
        body = parse(leaf)
        kind = body.get("type") if isinstance(body, dict) else None
        if not isinstance(kind, str):
            raise Wrong(f"holds no entry at {index}")
        self.shown += 1
        if "signature" in body or kind in USERS:
            self.attempt(f"Entry {index}", self.take_act, body)
        if "person" in self.scope or kind.startswith(("run.", "agreement.", "notice.", *ROTATED)):
            self.entries[index] = body

    def take_act(self, body: dict[str, Any]) -> None:
        """That the user whose act it is has signed it; and who is a user from then on."""
        name, by, first = str(body.get("user")), body.get("by"), not self.users
        if body["type"] not in USERS or not first:  # nobody could sign for the first
            if "signature" not in body or by not in self.users:
                raise Wrong("is not signed by anybody who is known as a user of then")
            said = {part: body[part] for part in body if part not in ("nonce", "signature")}
            message = pae(ENTRY, compact({**said, "log": self.origin}))
            try:
                check_signature(self.users[by][1], from_base64(body["signature"]), message)
            except Wrong as wrong:
                raise Wrong(f"is not signed by {by}, whose act it should be: {wrong}") from None
            if body["signature"] in self.acts:
                raise Wrong(f"bears the signature of {by} under another entry")
            self.acts[body["signature"]] = by
            if body["type"] in USERS and self.users[by][0] != "officer":
                raise Wrong(f"changes users, and {by} was no officer")
        if body["type"] == "user.removed":
            del self.users[name]
        elif body["type"] == "user.changed":
            self.users[name] = (body["role"], self.users[name][1])
        elif body["type"] == "user.added":
            self.users[name] = (body["role"], from_hex(body["key"]))

    def follow_proofs(self) -> None:
        """Single entries of the log, each with its C2SP tlog-proof."""
        names = (name for name in self.named("entries") if name.endswith(".json"))
        for index, name in sorted((int(name[len("entries/") : -5]), name) for name in names):
            self.attempt(name, self.take_proof, name, index)

    def take_proof(self, name: str, index: int) -> None:
        leaf, proof = self.read(name), self.read(f"entries/{index}.tlog-proof")
        lines, _, note = proof.decode().partition("\n\n")
        header, place, *path = lines.split("\n")
        if (header, place) != ("c2sp.org/tlog-proof@v1", f"index {index}") or len(path) > 63:
            raise Wrong("has no proof of its place in the log")
        head = Checkpoint.parse(note.encode())
        if head.text != self.head.text or head.lines != self.head.lines:
            self.take_head(head)
        hashes = [from_base64(line) for line in path]
        check_inclusion(leaf_hash(leaf), index, head.size, hashes, head.root)
        self.take_entry(index, leaf)

    def match(self) -> None:
        """What the entries speak of is here, as they speak of it; and nothing else is here."""
        spoken: dict[tuple[str, str], int] = {}
        released: dict[Any, int] = {}
        for index, body in sorted(self.entries.items()):
            self.attempt(f"Entry {index}", self.match_entry, index, body, spoken, released)
        for run, step in sorted(self.receipts.keys() - spoken.keys()):
            self.fails.append(f"No entry of the log speaks of the {step} of run {run}.")
        for run in sorted({run for run, _ in self.receipts}):
            self.attempt(f"Run {run}", self.match_run, run, spoken, released)
        for (digest, _), key in sorted(self.signers.items()):  # those that no entry speaks of
            self.fails.append(
                f"No entry of the log speaks of the signature of {key.name} under agreement "
                f"{self.agreements[digest]['agreement']}."
            )

    def match_entry(self, index: int, body: Any, spoken: Any, released: Any) -> None:
        """Notes where a receipt is spoken of, and what was released."""
        step = body["type"].partition(".")[2]
        whole = self.scope == {"log": "whole"}
        if body["type"] in ("run.intent", "run.completion"):
            run = body["run"]
            spoken[run, step] = index
            if (run, step) not in self.receipts:
                raise Wrong(f"speaks of the {step} of run {run}, which is not here")
            if self.receipts[run, step].envelope != body["receipt"]:
                raise Wrong(f"speaks of another {step} of run {run}")
            self.check_time(self.receipts[run, step].signers, index)
        elif body["type"] == "run.release":
            released[body["run"], body["root"], body["size"]] = index
        elif body["type"] == "agreement.signed" and body["digest"] in self.agreements:
            self.check_time([self.signers.pop((body["digest"], body["key"]))], index)
        elif whole and body["type"] in DECLARED:
            named = body["digest"] if step == "added" else body["notice"]
            if named not in self.documents:
                raise Wrong("speaks of a notice that is not here")
            signers = self.documents[named]  # who acknowledged it may have had another key by then
            self.check_time([key for key in signers if sha256(key.public) == body["key"]], index)

    def match_run(self, run: str, spoken: dict[Any, int], released: dict[Any, int]) -> None:
        """That the gate released what both had signed for, after that and before the end."""
        inputs = self.own_side(run)["inputs"]
        if (run, "completion") in spoken:
            release = released.get((run, inputs["root"], inputs["size"]), -1)
            if not spoken[run, "intent"] < release < spoken[run, "completion"]:
                raise Wrong("is complete, and the gate did not release what went into it")

    def own_side(self, run: str) -> dict[str, Any]:
        """What this institution's own section of an intent says."""
        started = self.receipts[run, "intent"].said
        own = [
            one
            for one in (started["bank"], started["partner"])
            if one["log"]["origin"] == self.origin and one["party"] == self.name
        ]
        if len(own) != 1:
            raise Wrong("is not one of this institution's")
        return dict(own[0])

    def verify_claims(self) -> None:
        """That what was signed of this log at earlier sizes is what it was."""
        for claim in self.claims:
            self.attempt(claim.where, self.check_claim, claim)

    def check_claim(self, claim: Claim) -> bool:
        """Raises Wrong if the log here is another; False if it does not show."""
        root = self.roots.get(claim.size)
        if claim.origin == self.origin and root is not None and root != claim.root:
            raise Wrong(f"speaks of another log of {claim.size} entries than is here")
        if self.scope == {"log": "whole"} and claim.origin == self.origin and root is None:
            raise Wrong(f"speaks of {claim.size} entries; the log here has {self.size}")
        return root is not None

    # One person

    def verify_person(self) -> None:
        told = parse(self.read(PERSON))
        if not told["timeline"] and told["runs"]:
            raise Wrong("shows runs of somebody of whom the log says nothing")
        secret = from_hex(told["secret"]) if told["timeline"] else b""
        for item in told["timeline"]:
            self.attempt(f"{PERSON}: entry {item['entry']}", self.check_event, item, secret)
        for item in told["runs"]:
            self.attempt(f"{PERSON}: run {item['run']}", self.check_run, item, secret)
        for item in told["erased"]:
            self.attempt(f"{PERSON}: entry {item['entry']}", self.check_tombstone, item)

    def check_event(self, item: dict[str, Any], secret: bytes) -> None:
        """That an entry, or a leaf of a bulk import, commits to this record of this person."""
        body = self.entries[item["entry"]]
        leaf = body
        if "leaf" in item:
            path = [from_base64(line) for line in item["proof"]]
            root, size = from_hex(body["subtree"]["root"]), body["subtree"]["size"]
            check_inclusion(leaf_hash(item["leaf"].encode()), item["position"], size, path, root)
            leaf = parse(item["leaf"].encode())
        record = parse(item["record"].encode())
        about = (
            ["concordat.consent", self.origin, record["recipient"], record["purpose"]]
            if "purpose" in record
            else ["concordat.restriction", self.origin]
        )
        if leaf["record"] != mac(secret, item["record"].encode()).hex():
            raise Wrong("commits to another record")
        if leaf["reference"] != mac(secret, compact(about)).hex():
            raise Wrong("is about somebody else, or something else")
        self.holds.append(f"{utc_of(body)}  entry {item['entry']}: {in_words(record)}")

    def check_run(self, item: dict[str, Any], secret: bytes) -> None:
        """That the person's data was put into a run, or was not."""
        run, salt = item["run"], from_hex(item["salt"])
        entry, started = self.entries[item["entry"]], self.receipts[item["run"], "intent"].said
        if (entry["type"], entry["run"]) != ("run.intent", run) or entry["salt"] != sha256(salt):
            raise Wrong("has another salt than its entry says")
        inputs = self.own_side(run)["inputs"]
        root, size = from_hex(inputs["root"]), inputs["size"]
        agreement = started["agreement"]
        scope = [agreement["id"], agreement["version"], started["purpose"]]
        reference = mac(secret, compact(["concordat.run", self.origin, *scope]))
        mine = mac(salt, reference)
        when = started["started"]
        if item["present"]:
            path = [from_base64(line) for line in item["proof"]]
            check_inclusion(leaf_hash(mine), item["index"], size, path, root)
            self.holds.append(f"{when}  run {run}: this person's data was put in ({scope[2]}).")
            for one in item["told"]:
                self.attempt(f"{PERSON}: entry {one['entry']}", self.check_told, one, run)
            return
        index, near = self.rebuild(f"inputs/{run}.leaves", root, size, mine)
        if (index, near) != (item["index"], item["neighbours"]):
            raise Wrong("names other neighbours than there are")
        self.holds.append(f"{when}  run {run}: this person's data was not put in ({scope[2]}).")

    def check_told(self, item: dict[str, Any], run: str) -> None:
        """That a partner was told to delete a row of a run; whose row, the institution says."""
        envelope = Envelope.parse(item["notice"].encode())
        entry = self.entries[item["entry"]]
        said = envelope.check(WITHDRAWAL, [self.key_at("signing", self.name, item["entry"])])
        if entry["type"] != "withdrawal.noticed" or entry["digest"] != sha256(envelope.payload):
            raise Wrong("speaks of another notice")
        if run not in said["rows"]:
            raise Wrong("is a notice on another run")
        self.holds.append(f"{said['time']}  run {run}: {said['recipient']} was told to delete.")

    def rebuild(self, name: str, root: bytes, size: int, mine: bytes) -> tuple[int, dict[str, str]]:
        """A run's whole tree, sorted and without this leaf; its place there, and its neighbours."""
        tree, last, index, near = Tree(), b"", 0, {}
        with self.path(name).open("rb") as file:
            for leaf in iter(lambda: file.read(32), b""):
                if leaf <= last or leaf == mine or len(leaf) != 32:
                    raise Wrong("is not shown to be without this person")
                if last < mine:
                    index = tree.size + (leaf < mine)
                    near = {str(tree.size): leaf.hex()}
                    if last and leaf > mine:
                        near[str(tree.size - 1)] = last.hex()
                tree.add(leaf_hash(leaf))
                last = leaf
        if (tree.size, tree.root()) != (size, root):
            raise Wrong("is not shown by the leaves that both institutions signed for")
        return index, near

    def check_tombstone(self, item: dict[str, Any]) -> None:
        names = ("above", "erased_at", "lookup_keys", "tombstone")
        said = compact({name: item[name] for name in names})
        if self.entries[item["entry"]]["record"] != mac(from_hex(item["salt"]), said).hex():
            raise Wrong("is about another erasure")
        self.holds.append(f"{item['erased_at']}  entry {item['entry']}: the person was erased.")


def mac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, "sha256").digest()


def utc_of(body: dict[str, Any]) -> str:
    return str(body["time"])


def in_words(record: dict[str, Any]) -> str:
    """A consent, refusal or restriction on one line."""
    about = f"{record['purpose']}, {record['recipient']}" if "purpose" in record else "every run"
    rest = {name: record[name] for name in sorted(record) if name not in ("purpose", "recipient")}
    told = (f"{name} {'/'.join(v) if isinstance(v, list) else v}" for name, v in rest.items())
    return f"{about} ({', '.join(told)})"


# The whole.

LIMITS = """\
What this cannot show:
- that what an institution put in was true, or that nothing ran outside the program: the receipts
  say what both institutions signed, no more;
- that the newest entries stay: what no witness has cosigned, the institution alone vouches for;
  and institution and witnesses together can rewrite a log;
- which person stands behind an entry, unless the institution shows it with `audit person`; that
  the secret shown there is this person's, the institution says; whoever was erased and came back
  has a new one, and what was before can be shown neither way;
- whose the keys are: compare them with those the institutions gave you themselves;
- who was allowed to act inside the institution: that its users have signed what they did is
  checked, by the keys its log names, not who stands behind a key nor what a role may do; and the
  registers and notices are its own statements, held to no more than its signature and its log."""


def compare(ours: Evidence, theirs: Evidence) -> None:
    """What two institutions' evidence says of each other; failures are written to the first."""
    for kind, party in sorted(ours.line.keys() & theirs.line.keys()):
        if not one_succession(ours.keys[kind][party], theirs.keys[kind][party]):
            ours.fails.append(
                f"{ours.name} and {theirs.name} know {party} by different {kind} keys."
            )
    both = sorted(ours.receipts.keys() & theirs.receipts.keys())
    for run, kind in both:
        if ours.receipts[run, kind] != theirs.receipts[run, kind]:
            ours.fails.append(
                f"The {kind} of run {run} says one thing at {ours.name}, another at {theirs.name}."
            )
    for run, kind in sorted(ours.receipts):
        started = ours.receipts[run, "intent"].said
        shared = theirs.name in (started["bank"]["party"], started["partner"]["party"])
        if shared and theirs.scope == {"log": "whole"} and (run, kind) not in theirs.receipts:
            ours.fails.append(f"{theirs.name} shows no {kind} of run {run}; {ours.name} does.")
    held = 0
    for claim in ours.claims:
        root = theirs.roots.get(claim.size) if claim.origin == theirs.origin else None
        held += root == claim.root
        if root not in (None, claim.root):
            ours.fails.append(
                f"At {ours.name}, {claim.where} speaks of another log of "
                f"{theirs.name} with {claim.size} entries than {theirs.name} shows."
            )
    ours.holds.append(
        f"{len(both)} receipts are the same at {theirs.name}; {held} heads of its "
        f"log that {ours.name} signed for are in the log that {theirs.name} shows."
    )


def summary(one: Evidence) -> None:
    """In sentences, what was looked at and holds."""
    add = one.holds.append
    scope = ", ".join(f"{name} {value}" for name, value in one.scope.items())
    if "person" not in one.scope:
        add(
            f"The log {one.origin} has {one.size:,} entries; {one.shown:,} of them are shown "
            f"({scope}), the others by hashes; together they make the root that the log signed."
        )
    else:
        add(f"{one.shown:,} entries are shown, each with a proof that it is in {one.origin}.")
    for name, (size, when) in sorted(one.cosigned.items()):
        add(f"{name} has cosigned the first {size:,} entries, on {when}.")
    if one.agreements:
        add(
            "Both parties have signed: "
            + ", ".join(
                sorted(
                    f"agreement {one['agreement']}, version {one['version']}"
                    for one in one.agreements.values()
                )
            )
            + "."
        )
    if one.acts:
        names = ", ".join(sorted({*one.acts.values()}))
        add(f"Entries that users have signed as their acts: {len(one.acts):,} ({names}).")
    done = {run for run, kind in one.receipts if kind == "completion"}
    started = {run for run, kind in one.receipts if kind == "intent"}
    add(
        f"Runs started, each signed by both under an agreement valid then: {len(started)}; "
        f"complete, what went in released by the gate: {len(done)}."
    )
    one.open += [f"Run {run} was started and is not complete." for run in sorted(started - done)]
    if not one.cosigned:
        one.open.append("No witness has cosigned this log.")


def verify(folders: list[Path], trusted: dict[str, Any] | None) -> list[Evidence]:
    """Each folder's evidence, verified. trusted: keys from elsewhere, in the form of keys.json."""
    found = [Evidence(folder) for folder in folders]
    for one in found:
        one.attempt(one.name, one.verify_documents, trusted)
    claims = [claim for one in found for claim in one.claims]
    for one in found:
        if "person" in one.scope:
            one.attempt(one.name, one.follow_proofs)
        else:
            one.attempt(LOG, one.follow_log, claims)
        one.attempt(KEYS, one.follow_keys)
        one.attempt(one.name, one.check_heads)
        one.attempt(one.name, one.match)
        one.attempt(one.name, one.verify_claims)
        if not one.fails:
            summary(one)
        if "person" in one.scope:
            one.attempt(PERSON, one.verify_person)
    for one in found:
        for other in found:
            if one is not other:
                one.attempt(other.name, compare, one, other)
    return found


def main() -> int:
    """Says what holds and what does not; 0 if everything that was checked holds."""
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[Path(__file__).parent])
    parser.add_argument("--trust", type=Path, help="a file of keys, in the form of keys.json")
    options = parser.parse_args()
    try:
        trusted = parse(options.trust.read_bytes()) if options.trust else None
    except (OSError, Wrong) as error:
        print(f"{options.trust} cannot be used: {error}.")
        return 1
    found = verify(options.folders, trusted)
    for one in found:
        print(f"Evidence of {printable(one.name)} ({one.folder})")
        for label, lines in (("holds", one.holds), ("WRONG", one.fails), ("note ", one.open)):
            for line in lines:
                print(f"  {label}  {printable(line)}")
        if trusted is None and one.keys:
            print("  keys   taken from this folder; compare them with the institutions:")
            for kind, owners in sorted(one.keys.items()):
                for owner, texts in sorted(owners.items()):
                    for text in texts:
                        print(f"           {kind} of {printable(owner)}: {printable(text)}")
    wrong = sum(len(one.fails) for one in found)
    print(f"\n{LIMITS}\n")
    print("Everything that was checked holds." if not wrong else f"{wrong} things are WRONG.")
    return 1 if wrong else 0


def printable(text: object) -> str:
    """What somebody else wrote, without what could play tricks on a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in str(text))[:500]


if __name__ == "__main__":
    sys.exit(main())
