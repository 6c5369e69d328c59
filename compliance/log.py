"""The append-only log: canonical JSON entries in a Merkle tree, signed checkpoints, proofs.

An entry is stored as the bytes that were hashed; the columns beside them are for searching, and
`compliance.verify` compares them with the bytes. All tree state is read from the database, inside
the caller's transaction, so several processes may append.
"""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    LargeBinary,
    String,
    Table,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.exc import IntegrityError

from compliance import merkle
from compliance.batch import joined_bytes
from compliance.canonical import MAX_BYTES, canonical, timestamp
from compliance.errors import LogDamaged, NotInLog
from compliance.merkle import HASH_BYTES, Frontier, NodeReader, Range
from compliance.note import Checkpoint, Signature, VerifierKey, sign
from compliance.proof import Proof
from compliance.signing import SigningKey
from compliance.store import Integer64, insert_columns, metadata
from federated import _native

NONCE_BYTES = 16
PAGE = 4096  # rows fetched at a time where a caller may ask for any number

log_entries = Table(
    "log_entries",
    metadata,
    Column("index", Integer64, primary_key=True, autoincrement=False),
    Column("leaf", LargeBinary, nullable=False),
    Column("leaf_hash", LargeBinary(HASH_BYTES), nullable=False),
    Column("type", String, nullable=False),
    Column("time", String, nullable=False),
    Column("run", String, index=True),
)

# Complete subtrees of level 1 and above; level 0 is log_entries.leaf_hash.
log_nodes = Table(
    "log_nodes",
    metadata,
    Column("level", Integer64, primary_key=True, autoincrement=False),
    Column("index", Integer64, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(HASH_BYTES), nullable=False),
    sqlite_with_rowid=False,
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("size", Integer64, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", LargeBinary, nullable=False),
)

cosignatures = Table(
    "cosignatures",
    metadata,
    Column("size", Integer64, primary_key=True, autoincrement=False),
    Column("witness", String, primary_key=True),
    Column("line", String, nullable=False),
)

subtree_leaves = Table(
    "subtree_leaves",
    metadata,
    Column("root", LargeBinary, primary_key=True),
    Column("index", Integer64, primary_key=True, autoincrement=False),
    Column("leaf", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)


@dataclass(frozen=True)
class Entry:
    """A row of the log; `leaf` is canonical JSON."""

    index: int
    leaf: bytes
    leaf_hash: bytes
    type: str
    time: str
    run: str | None


@dataclass(frozen=True)
class Log:
    """An institution's log. `origin` names it in checkpoints and is the name of its key."""

    origin: str
    key: SigningKey

    @property
    def verifier(self) -> VerifierKey:
        return VerifierKey(self.origin, self.key.public)

    def append(
        self, conn: Connection, type_: str, body: Mapping[str, Any], *, time: datetime
    ) -> int:
        """Add one entry and return its index. See `append_many`."""
        return self.append_many(conn, [(type_, body)], time=time)[0]

    def append_many(
        self, conn: Connection, entries: Sequence[tuple[str, Mapping[str, Any]]], *, time: datetime
    ) -> range:
        """Add entries, each a type and a body, inside the caller's write transaction.

        Raises LogDamaged if the stored tree is not one that can be continued.

        An entry is the body with `type`, `time` and a random `nonce` added; the nonce keeps anyone
        who sees a hash from guessing the entry. A body's member `run` is also put in a column; a
        member `subtree` must be as `commit_subtree` describes.
        """
        frontier = _frontier(conn)
        start = frontier.size
        at = timestamp(time)
        runs, members = [], []
        for kind, body in entries:
            if not body.keys().isdisjoint({"type", "time", "nonce"}):
                raise ValueError("a body may not hold type, time or nonce")
            run = body.get("run")
            if not isinstance(run, str | None):
                raise ValueError("a run is named by text")  # noqa: TRY004
            runs.append(run)
            nonce = secrets.token_hex(NONCE_BYTES)
            members.append({**body, "type": kind, "time": at, "nonce": nonce})
        leaves = _canonical(members)
        hashes = list(map(merkle.leaf_hash, leaves))
        nodes = [node for leaf_hash in hashes for node in frontier.append(leaf_hash)]
        rows: dict[str, list[Any]] = {
            "index": list(range(start, frontier.size)),
            "leaf": leaves,
            "leaf_hash": hashes,
            "type": [kind for kind, _ in entries],
            "time": [at] * len(leaves),
            "run": runs,
        }
        try:
            if leaves:
                insert_columns(conn, log_entries, rows)
            if nodes:
                columns = zip(("level", "index", "hash"), zip(*nodes, strict=True), strict=True)
                insert_columns(conn, log_nodes, {name: list(values) for name, values in columns})
        except IntegrityError as error:
            raise _damaged("hashes are stored for entries that are gone") from error
        return range(start, frontier.size)

    def checkpoint(self, conn: Connection) -> Checkpoint:
        """Sign and store the tree as it is now; the stored one if nothing was added since.

        Raises LogDamaged rather than sign a tree that does not extend the last one signed.
        """
        size, last = tree_size(conn), self.head(conn)
        node = _reader(conn, [(0, size), (0, min(size, last.size if last else 0))])
        if last is not None:
            if last.size > size or merkle.range_root(0, last.size, node) != last.root:
                raise _damaged("it does not extend its own last checkpoint")
            if last.size == size:
                return last
        unsigned = Checkpoint(self.origin, size, merkle.range_root(0, size, node))
        signed = unsigned.signed(sign(unsigned.text, self.origin, self.key))
        conn.execute(insert(checkpoints).values(size=size, root=signed.root, note=signed.encode()))
        return signed

    def head(self, conn: Connection) -> Checkpoint | None:
        """The latest checkpoint, with the cosignatures it has so far."""
        size = conn.execute(select(func.max(checkpoints.c.size))).scalar()
        return None if size is None else self.checkpoint_at(conn, size)

    def checkpoint_at(self, conn: Connection, size: int) -> Checkpoint:
        """The checkpoint of a size, with its cosignatures. Raises NotInLog if there is none."""
        note = conn.execute(
            select(checkpoints.c.note).where(checkpoints.c.size == size)
        ).scalar_one_or_none()
        if note is None:
            raise NotInLog(f"The log has no checkpoint of size {size}.", "Ask for another size.")
        lines = conn.execute(
            select(cosignatures.c.line)
            .where(cosignatures.c.size == size)
            .order_by(cosignatures.c.witness)
        ).scalars()
        return Checkpoint.parse(note).signed(*map(Signature.parse, lines))

    def add_cosignature(self, conn: Connection, size: int, signature: Signature) -> None:
        """Store a witness's line, already verified, in place of its earlier one for this size."""
        key = {"size": size, "witness": signature.name}
        conn.execute(delete(cosignatures).filter_by(**key))
        conn.execute(insert(cosignatures).values(**key, line=str(signature)))

    def entries(self, conn: Connection, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
        """Entries [start, stop) in order, fetched a page at a time."""
        stop = tree_size(conn) if stop is None else stop
        for first in range(start, stop, PAGE):
            index = log_entries.c.index
            query = select(log_entries).where(index >= first, index < min(first + PAGE, stop))
            for row in conn.execute(query.order_by(index)):
                yield Entry(*row)

    def inclusion_proof(self, conn: Connection, index: int, size: int) -> list[bytes]:
        """Proof that entry `index` is in the tree of a size. Raises NotInLog."""
        if not 0 <= index < size <= tree_size(conn):
            raise NotInLog(
                f"The log of size {size} has no entry {index}.", "Check the entry's number."
            )
        node = _reader(conn, merkle.inclusion_ranges(index, size))
        return merkle.inclusion_proof(index, size, node)

    def consistency_proof(self, conn: Connection, old: int, new: int) -> list[bytes]:
        """Proof that the tree of size `old` is a prefix of that of size `new`. Raises NotInLog."""
        if not 0 <= old <= new <= tree_size(conn):
            raise NotInLog(
                f"The log has no sizes {old} and {new}, in this order.", "Check the sizes."
            )
        node = _reader(conn, merkle.consistency_ranges(old, new))
        return merkle.consistency_proof(old, new, node)

    def proof(self, conn: Connection, index: int) -> Proof:
        """Proof of an entry that others verify offline, under the latest checkpoint.

        Raises NotInLog if the checkpoint does not reach it yet.
        """
        head = self.head(conn)
        if head is None or not 0 <= index < head.size:
            raise NotInLog(
                f"No checkpoint covers entry {index} yet.", "Try again after the next checkpoint."
            )
        return Proof(index, tuple(self.inclusion_proof(conn, index, head.size)), head)


def commit_subtree(conn: Connection, leaves: Sequence[bytes]) -> bytes:
    """Store the leaves of a bulk import and return their root.

    The caller then appends one entry whose body holds
    `"subtree": {"root": <the root in hex>, "size": <the number of leaves>}`. Leaves need random
    bytes of their own: a root that was committed before is not stored again.
    """
    if not leaves:
        raise ValueError("a sub-tree needs a leaf")
    root = _root_of(leaves)
    known = select(subtree_leaves.c.index).where(subtree_leaves.c.root == root).limit(1)
    if conn.execute(known).first() is None:
        for start in range(0, len(leaves), PAGE):
            page = list(leaves[start : start + PAGE])
            columns = {"root": [root] * len(page), "index": [*range(start, start + len(page))]}
            insert_columns(conn, subtree_leaves, {**columns, "leaf": page})
    return root


def _root_of(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 tree head, from those of pages: a page, being a power of two, is a subtree."""
    pages = range(0, len(leaves), PAGE)
    heads = [_native.merkle_root(*joined_bytes(leaves[at : at + PAGE])) for at in pages]
    while len(heads) > 1:
        pairs = [merkle.node_hash(*heads[at : at + 2]) for at in range(0, len(heads) - 1, 2)]
        heads = pairs + heads[2 * len(pairs) :]
    return heads[0]


def subtree_proof(conn: Connection, root: bytes, index: int) -> tuple[int, list[bytes]]:
    """The size of a sub-tree and the inclusion proof of its leaf `index`. Raises NotInLog.

    Inner hashes are not stored: this reads and hashes all its leaves.
    """
    leaves = select(func.count()).select_from(subtree_leaves).where(subtree_leaves.c.root == root)
    size = conn.execute(leaves).scalar_one()
    if not 0 <= index < size:
        raise NotInLog(
            f"The sub-tree has no leaf {index}.", "Check its root and the leaf's number."
        )
    proof = [
        subtree_root(conn, root, start, stop)
        for start, stop in merkle.inclusion_ranges(index, size)
    ]
    return size, proof


def subtree_root(conn: Connection, root: bytes, start: int, stop: int) -> bytes:
    """The root over the stored leaves [start, stop) of a sub-tree, read a page at a time."""
    table = subtree_leaves.c
    frontier = Frontier()
    for first in range(start, stop, PAGE):
        page = (
            select(table.leaf)
            .where(table.root == root, table.index >= first, table.index < min(first + PAGE, stop))
            .order_by(table.index)
        )
        leaves = [leaf if isinstance(leaf, bytes) else b"" for (leaf,) in conn.execute(page)]
        frontier.extend(_native.leaf_hashes(*joined_bytes(leaves)))
    return frontier.root()


def _canonical(values: Sequence[Any]) -> list[bytes]:
    """The canonical JSON of each value. Raises as `canonical`.

    What JSON's own writer makes of a value is used where a kernel finds it to be canonical.
    """
    drafts = []
    for value in values:
        try:
            text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            drafts.append(text.encode())
        except (TypeError, ValueError, RecursionError):
            drafts.append(b"")
    plain = _native.plain_entries(*joined_bytes(drafts), [], "")
    return [
        draft if sure and len(draft) <= MAX_BYTES else canonical(value)
        for draft, sure, value in zip(drafts, plain.tolist(), values, strict=True)
    ]


def tree_size(conn: Connection) -> int:
    """How many entries the log has, signed or not."""
    last = conn.exec_driver_sql('SELECT max("index") FROM log_entries').scalar()
    return 0 if last is None else int(last) + 1


def _frontier(conn: Connection) -> Frontier:
    size = tree_size(conn)
    node = _reader(conn, [(0, size)])
    return Frontier(size, [node(level, index) for level, index in merkle.subtrees(0, size)])


def tree_root(conn: Connection, size: int) -> bytes:
    """The root of the tree of a size, from the stored hashes. Raises LogDamaged."""
    return merkle.range_root(0, size, _reader(conn, [(0, size)]))


def _reader(conn: Connection, ranges: Sequence[Range]) -> NodeReader:
    """The stored hashes that make up these ranges, fetched at once."""
    covering = {node for start, stop in ranges for node in merkle.subtrees(start, stop)}
    leaves = [index for level, index in covering if level == 0]
    inner = [(level, index) for level, index in covering if level > 0]
    hashes: dict[tuple[int, int], bytes] = {}
    # Written out, because the making of a query takes longer than its answer.
    if leaves:
        wanted = ", ".join(map(str, leaves))
        query = f'SELECT "index", leaf_hash FROM log_entries WHERE "index" IN ({wanted})'  # noqa: S608
        hashes |= {(0, index): leaf_hash for index, leaf_hash in conn.exec_driver_sql(query)}
    if inner:
        # SQLite answers `(level, index) IN (...)` by reading the whole table.
        wanted = " OR ".join(f'(level = {level} AND "index" = {index})' for level, index in inner)
        query = f'SELECT level, "index", hash FROM log_nodes WHERE {wanted}'  # noqa: S608
        found = conn.exec_driver_sql(query)
        hashes |= {(level, index): subtree for level, index, subtree in found}

    def read(level: int, index: int) -> bytes:
        try:
            return hashes[level, index]
        except KeyError:
            raise _damaged(f"node {level}/{index} is missing") from None

    return read


def _damaged(problem: str) -> LogDamaged:
    return LogDamaged(
        f"The log was changed: {problem}.",
        "Stop the node, keep the store as evidence and run `concordat audit verify`.",
    )
