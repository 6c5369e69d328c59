"""The append-only log: canonical JSON entries in a Merkle tree, signed checkpoints, proofs.

An entry is stored as the bytes that were hashed; the columns beside them are for searching, and
`compliance.verify` compares them with the bytes. All tree state is read from the database, inside
the caller's transaction, so several processes may append.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import NoneType
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import (
    Column,
    Connection,
    Index,
    LargeBinary,
    String,
    Table,
    Transaction,
    delete,
    false,
    func,
    insert,
    or_,
    select,
)
from sqlalchemy.exc import IntegrityError

from compliance import merkle
from compliance.batch import U8, as_bytes, from_bytes, joined_bytes, lines
from compliance.canonical import MAX_BYTES, canonical, timestamp
from compliance.errors import LogDamaged, LogKeyReplaced, NotInLog
from compliance.merkle import HASH_BYTES, Frontier, NodeReader, Range
from compliance.note import Checkpoint, Signature, VerifierKey, sign
from compliance.proof import Proof
from compliance.signing import SigningKey
from compliance.store import Integer64, insert_columns, metadata, packed, quick, tree_hashes
from federated import _native

NONCE_BYTES = 16
TILE = 8  # level of the lowest subtrees that are stored, of 256 leaves
LARGEST = (1 << 63) - 1  # size that a database can name
PAGE = 4096  # rows fetched at a time where a caller may ask for any number

log_entries = Table(
    "log_entries",
    metadata,
    Column("index", Integer64, primary_key=True, autoincrement=False),
    Column("leaf", LargeBinary, nullable=False),
    Column("leaf_hash", LargeBinary(HASH_BYTES), nullable=False),
    Column("type", String, nullable=False),
    Column("time", String, nullable=False),
    Column("run", String),
)

# Most entries belong to no run.
Index(
    "ix_log_entries_run",
    log_entries.c.run,
    sqlite_where=log_entries.c.run.is_not(None),
    postgresql_where=log_entries.c.run.is_not(None),
)

# Complete subtrees of level TILE and above; those below are made of log_entries.leaf_hash.
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

# Of each sub-tree, as `log_nodes` of the log.
subtree_nodes = Table(
    "subtree_nodes",
    metadata,
    Column("root", LargeBinary, primary_key=True),
    Column("level", Integer64, primary_key=True, autoincrement=False),
    Column("index", Integer64, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(HASH_BYTES), nullable=False),
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
        tree = _tree(conn, tree_size(conn))
        start, frontier = tree.frontier.size, tree.frontier
        at = timestamp(time)
        kinds = [kind for kind, _ in entries]
        bodies = [body for _, body in entries]
        runs = [body.get("run") for body in bodies]
        if not {*map(type, runs)} <= {str, NoneType}:
            raise ValueError("a run is named by text")
        leaves, hashes = _leaves(kinds, bodies, at)
        completed = frontier.extend(hashes)
        rows: dict[str, list[Any]] = {
            "index": list(range(start, frontier.size)),
            "leaf": leaves,
            "leaf_hash": as_bytes(hashes),
            "type": kinds,
            "time": [at] * len(leaves),
            "run": runs,
        }
        try:
            if leaves:
                insert_columns(conn, log_entries, rows)
            if nodes := _node_rows(completed):
                insert_columns(conn, log_nodes, nodes)
        except IntegrityError as error:
            raise _damaged("hashes are stored for entries that are gone") from error
        _keep(conn, tree)
        return range(start, frontier.size)

    def checkpoint(self, conn: Connection, successor: SigningKey | None = None) -> Checkpoint:
        """Sign and store the tree as it is now; the stored one if nothing was added since.

        successor: a key that signs as well, and alone from the next one on. Raises LogDamaged
        rather than sign a tree that does not extend the last one signed, and LogKeyReplaced if
        this key is no longer the log's.
        """
        size, last = _checkpoint(conn, _LAST)
        tree = _tree(conn, size)
        if last is not None:
            if last.size > size or tree.root(conn, last.size) != last.root:
                raise _damaged("it does not extend its own last checkpoint")
            own = [line for line in last.signatures if line.name == self.origin]
            if own and not own[-1].by(self.verifier):
                raise LogKeyReplaced(
                    "The log's key was replaced while this process had the one before.",
                    "Try again; the key that counts is read anew.",
                )
            if last.size == size:
                _keep(conn, tree)
                return last
        unsigned = Checkpoint(self.origin, size, tree.root(conn, size))
        keys = [self.key] if successor is None else [self.key, successor]
        lines = (sign(unsigned.text, self.origin, key) for key in keys)
        signed = unsigned.signed(*lines)
        row: dict[str, list[Any]] = {
            "size": [size],
            "root": [signed.root],
            "note": [signed.encode()],
        }
        insert_columns(conn, checkpoints, row)
        _keep(conn, tree)
        return signed

    def head(self, conn: Connection) -> Checkpoint | None:
        """The latest checkpoint, with the cosignatures it has so far."""
        return _checkpoint(conn, _LAST)[1]

    def checkpoint_at(self, conn: Connection, size: int) -> Checkpoint:
        """The checkpoint of a size, with its cosignatures. Raises NotInLog if there is none."""
        _, found = _checkpoint(conn, f"{size:d}")
        if found is None:
            raise NotInLog(f"The log has no checkpoint of size {size}.", "Ask for another size.")
        return found

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
        if 0 <= index < size:
            node = _within(conn, size, merkle.inclusion_ranges(index, size))
            if node is not None:
                return merkle.inclusion_proof(index, size, node)
        raise NotInLog(f"The log of size {size} has no entry {index}.", "Check the entry's number.")

    def consistency_proof(self, conn: Connection, old: int, new: int) -> list[bytes]:
        """Proof that the tree of size `old` is a prefix of that of size `new`. Raises NotInLog."""
        if 0 <= old <= new:
            node = _within(conn, new, merkle.consistency_ranges(old, new))
            if node is not None:
                return merkle.consistency_proof(old, new, node)
        raise NotInLog(f"The log has no sizes {old} and {new}, in this order.", "Check the sizes.")

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
    frontier, completed = Frontier(), []
    for start in range(0, len(leaves), PAGE):
        hashes = _native.leaf_hashes(*joined_bytes(leaves[start : start + PAGE]))
        completed += [part for part in frontier.extend(hashes) if part[0] >= TILE]
    root = frontier.root()
    known = select(subtree_leaves.c.index).where(subtree_leaves.c.root == root).limit(1)
    if conn.execute(known).first() is None:
        for start in range(0, len(leaves), PAGE):
            page = list(leaves[start : start + PAGE])
            columns = {"root": [root] * len(page), "index": [*range(start, start + len(page))]}
            insert_columns(conn, subtree_leaves, {**columns, "leaf": page})
        if nodes := _node_rows(completed):
            insert_columns(conn, subtree_nodes, {"root": [root] * len(nodes["hash"]), **nodes})
    return root


def subtree_proof(conn: Connection, root: bytes, index: int) -> tuple[int, list[bytes]]:
    """The size of a sub-tree and the inclusion proof of its leaf `index`.

    Raises NotInLog, and LogDamaged if a hash that is needed is not stored.
    """
    last = select(func.max(subtree_leaves.c.index)).where(subtree_leaves.c.root == root)
    found = conn.execute(last).scalar_one()
    size = 0 if found is None else int(found) + 1
    if not 0 <= index < size:
        raise NotInLog(
            f"The sub-tree has no leaf {index}.", "Check its root and the leaf's number."
        )

    def fetch(nodes: Sequence[Node], ranges: Sequence[Range]) -> Stored:
        table = subtree_nodes.c
        wanted = or_(false(), *((table.level == at) & (table.index == i) for at, i in nodes))
        query = select(table.level, table.index, table.hash).where(table.root == root, wanted)
        parts = {part[0]: subtree_hashes(conn, root, *part).tobytes() for part in ranges}
        return {(at, i): value for at, i, value in conn.execute(query)}, parts

    ranges = merkle.inclusion_ranges(index, size)
    node = _made_of(ranges, fetch)
    return size, [merkle.range_root(start, stop, node) for start, stop in ranges]


def subtree_hashes(conn: Connection, root: bytes, start: int, stop: int) -> U8:
    """The hashes of the stored leaves [start, stop) of a sub-tree: uint8 (n, 32), n at most PAGE.

    Of a leaf that is no bytes, that of an empty one.
    """
    table = subtree_leaves.c
    where = (table.root == root) & table.index.between(start, stop - 1)
    found = packed(conn, [table.leaf], where, [table.index])
    if found is not None and found[0]:
        data, offsets = lines(found[1][0])
        if len(offsets) == found[0] + 1:  # no leaf holds a newline
            return _native.leaf_hashes(data, offsets, 1)
    query = select(table.leaf).where(where).order_by(table.index)
    leaves = [leaf if isinstance(leaf, bytes) else b"" for (leaf,) in conn.execute(query)]
    return _native.leaf_hashes(*joined_bytes(leaves))


def _leaves(
    kinds: Sequence[str], bodies: Sequence[Mapping[str, Any]], time: str
) -> tuple[list[bytes], U8]:
    """The canonical JSON of entries, and its hashes as leaves. Raises as `canonical`.

    Most are written by a kernel, in a fraction of the time.
    """
    width = 2 * NONCE_BYTES
    nonces = secrets.token_hex(NONCE_BYTES * len(bodies))
    written, hashes = _native.written_entries(bodies, kinds, time, nonces)
    plain = [leaf for leaf in written if leaf is not None and len(leaf) <= MAX_BYTES]
    if len(plain) == len(bodies):
        return plain, hashes
    leaves = []
    for i, (kind, body) in enumerate(zip(kinds, bodies, strict=True)):
        if not body.keys().isdisjoint({"type", "time", "nonce"}):
            raise ValueError("a body may not hold type, time or nonce")
        nonce = nonces[i * width : (i + 1) * width]
        leaves.append(canonical({**body, "type": kind, "time": time, "nonce": nonce}))
    return leaves, _native.leaf_hashes(*joined_bytes(leaves))


def tree_size(conn: Connection) -> int:
    """How many entries the log has, signed or not."""
    return int(quick(conn, _SIZE)[0][0])


_SIZE = 'SELECT coalesce(max("index") + 1, 0) FROM log_entries'
_LAST = "(SELECT max(size) FROM checkpoints)"


def _checkpoint(conn: Connection, size: str) -> tuple[int, Checkpoint | None]:
    """The log's size now, and the checkpoint of one that is written in SQL, with cosignatures."""
    rows = quick(
        conn,
        f"SELECT ({_SIZE}), note, line FROM (SELECT {size} AS size) AS wanted "  # noqa: S608
        "LEFT JOIN checkpoints USING (size) LEFT JOIN cosignatures USING (size) ORDER BY witness",
    )
    now, note, _ = rows[0]
    if note is None:
        return now, None
    lines = [Signature.parse(line) for _, _, line in rows if line is not None]
    found = Checkpoint.parse(note)
    return now, found.signed(*lines) if lines else found


@dataclass(frozen=True)
class _Tree:
    """The log's tree as a transaction has read it, and as it has grown by its hand since."""

    frontier: Frontier
    roots: dict[int, bytes]

    def root(self, conn: Connection, size: int) -> bytes:
        """The root at a size; from the stored hashes where it is not known. Raises LogDamaged."""
        if size not in self.roots:
            now = size == self.frontier.size
            self.roots[size] = self.frontier.root() if now else tree_root(conn, size)
        return self.roots[size]


_trees: WeakKeyDictionary[Transaction, _Tree] = WeakKeyDictionary()


def _tree(conn: Connection, size: int) -> _Tree:
    """The tree as it is now, at this size. Raises LogDamaged.

    What this transaction read or wrote before is not read again: nobody else writes meanwhile.
    """
    transaction = conn.get_transaction()
    known = _trees.pop(transaction, None) if transaction is not None else None
    if known is not None and known.frontier.size == size:  # else rolled back to a savepoint
        return known
    whole = size >> TILE << TILE
    peaks = merkle.subtrees(0, whole)
    nodes, tails = tree_hashes(conn, peaks, [(whole, size)] if whole < size else [])
    tail = tails.get(whole, b"")
    if any(len(nodes.get(node, b"")) != HASH_BYTES for node in peaks):
        raise _damaged("a node of its tree is missing")
    if len(tail) != (size - whole) * HASH_BYTES:
        raise _damaged("the hash of an entry is missing")
    frontier = Frontier(whole, [nodes[node] for node in peaks])
    frontier.extend(from_bytes([tail], HASH_BYTES))
    return _Tree(frontier, {size: frontier.root()})


def _keep(conn: Connection, tree: _Tree) -> None:
    """Has the transaction remember the tree it has made."""
    transaction = conn.get_transaction()
    if transaction is not None:
        _trees[transaction] = tree


def tree_root(conn: Connection, size: int) -> bytes:
    """The root of the tree of a size, from the stored hashes. Raises LogDamaged."""
    return merkle.range_root(0, size, _reader(conn, [(0, size)]))


def hidden_hashes(conn: Connection, start: int, stop: int) -> list[tuple[int, bytes]]:
    """What stands for entries [start, stop) where they are not shown: levels and hashes."""
    node = _reader(conn, [(start, stop)])
    return [(level, node(level, index)) for level, index in merkle.subtrees(start, stop)]


def _within(conn: Connection, size: int, ranges: Sequence[Range]) -> NodeReader | None:
    """As `_reader`, of ranges within a size; None if the log is smaller. Raises LogDamaged.

    One query tells both: the hash of the last entry is read with the rest.
    """
    if size > LARGEST:
        return None
    last = (size - 1, size) if size else (0, 0)
    node = _reader(conn, [*ranges, last])
    try:
        merkle.range_root(*last, node)
    except LogDamaged:
        if tree_size(conn) < size:
            return None
        raise
    return node


def _reader(conn: Connection, ranges: Sequence[Range]) -> NodeReader:
    """The hashes that make up these ranges of the log, from what is stored, fetched at once."""
    return _made_of(ranges, partial(tree_hashes, conn))


Node = tuple[int, int]  # level and index
Stored = tuple[Mapping[Node, bytes], Mapping[int, bytes]]


def _made_of(
    ranges: Sequence[Range], fetch: Callable[[Sequence[Node], Sequence[Range]], Stored]
) -> NodeReader:
    """The hashes that make up these ranges; fetch: as `store.tree_hashes`."""
    covering = {node for start, stop in ranges for node in merkle.subtrees(start, stop)}
    ends: dict[int, int] = {}  # up to which of its leaves a tile is needed
    for level, index in covering:
        if level < TILE:
            tile, stop = index >> (TILE - level), (index + 1) << level
            ends[tile] = max(stop, ends.get(tile, 0))
    parts = [(tile << TILE, stop) for tile, stop in ends.items()]
    nodes, leaves = fetch([node for node in covering if node[0] >= TILE], parts)
    rows = {
        start >> TILE: merkle.levels(from_bytes([leaves[start]], HASH_BYTES))
        for start, stop in parts
        if len(leaves.get(start, b"")) == (stop - start) * HASH_BYTES
    }

    def read(level: int, index: int) -> bytes:
        if level >= TILE:
            found = nodes.get((level, index), b"")
        elif (tile := index >> (TILE - level)) in rows:
            found = rows[tile][level][index - (tile << (TILE - level))].tobytes()
        else:
            found = b""
        if not isinstance(found, bytes) or len(found) != HASH_BYTES:
            raise _damaged(f"node {level}/{index} is missing")
        return found

    return read


def _node_rows(completed: Iterable[tuple[int, int, U8]]) -> dict[str, list[Any]]:
    """The rows of `log_nodes` for subtrees, as `Frontier.extend` gives them; none if none."""
    rows: dict[str, list[Any]] = {}
    for level, first, nodes in completed:
        if level >= TILE:
            rows.setdefault("level", []).extend([level] * len(nodes))
            rows.setdefault("index", []).extend(range(first, first + len(nodes)))
            rows.setdefault("hash", []).extend(as_bytes(nodes))
    return rows


def _damaged(problem: str) -> LogDamaged:
    return LogDamaged(
        f"The log was changed: {problem}.",
        "Stop the node, keep the store as evidence and run `concordat audit verify`.",
    )
