"""Verify a whole log: every entry, hash, checkpoint, cosignature and sub-tree.

Nothing stored is believed. Leaf hashes are computed from the entries' bytes and the tree is built
anew from them; columns and stored hashes are only compared. Whatever differs is listed, never
raised, so that one changed byte does not hide another. A few pages of rows are held at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Executable,
    and_,
    func,
    not_,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.types import NullType

from compliance import merkle
from compliance.batch import U8, as_bytes, from_bytes, joined, joined_bytes, lines
from compliance.canonical import parse
from compliance.errors import (
    InvalidSignature,
    LogDamaged,
    MalformedNote,
    NotCanonical,
    UnverifiedNote,
)
from compliance.log import (
    TILE,
    Entry,
    checkpoints,
    cosignatures,
    log_entries,
    log_nodes,
    subtree_hashes,
    subtree_leaves,
    subtree_nodes,
    tree_root,
    tree_size,
)
from compliance.merkle import HASH_BYTES, Frontier, NodeReader
from compliance.note import Checkpoint, Signature, VerifierKey
from compliance.store import packed, tree_hashes
from federated import _native

MAX_FINDINGS = 1000
UNENDING = 1 << 63  # larger than any size
PAGE = 4096  # rows looked at one by one at a time
WHOLE = 4 * PAGE  # rows joined by the database at a time; a query is made of its parts anew

_NAMES = ("type", "time", "run")  # the members of an entry that are columns as well
_COLUMNS = [log_entries.c[name] for name in ("leaf", "leaf_hash", *_NAMES)]

Progress = Callable[[str, int, int], None]  # what is being checked, how many of how many (or 0)


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody follows."""


@dataclass
class LogReport:
    """What verifying found: nothing, if `ok`.

    `cosigned` is the largest size each witness has cosigned; what comes later only this
    institution vouches for. At most MAX_FINDINGS are listed; `unlisted` counts the rest.
    """

    size: int = 0
    checkpoints: int = 0
    cosignatures: int = 0
    subtrees: int = 0
    cosigned: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    unlisted: int = 0

    @property
    def ok(self) -> bool:
        return not self.findings

    def add(self, where: str, problem: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(f"{where}: {problem}")
        else:
            self.unlisted += 1

    def take_over(self, other: "LogReport") -> None:
        """List another's findings after one's own."""
        listed = other.findings[: MAX_FINDINGS - len(self.findings)]
        self.findings += listed
        self.unlisted += other.unlisted + len(other.findings) - len(listed)


def verify_log(
    conn: Connection,
    log: VerifierKey,
    witnesses: Iterable[VerifierKey] = (),
    earlier: Sequence[tuple[VerifierKey, int]] = (),
    progress: Progress = silent,
) -> LogReport:
    """Check the log with its key and those of all its witnesses, past ones too.

    earlier: keys that the log had before, oldest first, each with the size of the checkpoint that
    it signed last, together with its successor. progress: told of the entries after each page.
    Raises nothing for what it finds; E707 if the database itself cannot be read.
    """
    report = LogReport(size=tree_size(conn))
    _Tree(conn, report, [*earlier, (log, UNENDING)], progress).check()
    _check_cosignatures(conn, report, tuple(witnesses))
    return report


class _Tree:
    """Entries, stored hashes, sub-trees, and what checkpoints say of them."""

    def __init__(
        self,
        conn: Connection,
        report: LogReport,
        keys: Sequence[tuple[VerifierKey, int]],
        progress: Progress,
    ) -> None:
        self.conn = conn
        self.progress = progress
        self.report = report
        self.keys = keys  # of the log, each with the size up to which it signs
        self.frontier = Frontier()
        self.previous = -1  # the number of the entry before
        # Subtrees that differ, until their parent has been compared: only the lowest is reported.
        self.differing: set[tuple[int, int]] = set()
        # What is stored in their place: a checkpoint is not blamed for what a node is blamed for.
        self.stored: dict[tuple[int, int], object] = {}
        self.subtree_roots: set[bytes] = set()
        self.later = LogReport()  # findings to come after those on the entries

    def check(self) -> None:
        self._check_checkpoints(checkpoints.c.size <= 0)
        for page in _rows(self.conn, log_entries.c.index < 0):
            self._check_page(page)
        while self._whole_page() or self._any_page():
            self.progress("entries", self.frontier.size, self.report.size)
        self._check_strays()
        self._check_checkpoints(checkpoints.c.size > self.frontier.size)
        self.report.take_over(self.later)

    def _whole_page(self) -> bool:
        """Take the next page of entries if all in it is plainly right."""
        first = self.frontier.size
        index = log_entries.c.index
        if self.previous >= first:
            return False  # past a gap
        found = packed(self.conn, _COLUMNS, index.between(first, first + WHOLE - 1), [index])
        count = min(self.report.size - first, WHOLE)
        if not count or found is None or found[0] != count:
            return False
        leaf, leaf_hash, *columns = found[1]
        data, offsets = lines(leaf)
        texts = [(name, *lines(column)) for name, column in zip(_NAMES, columns, strict=True)]
        # With a newline in a value there would be more lines than rows.
        if any(len(ends) != count + 1 for ends in (offsets, *(ends for _, _, ends in texts))):
            return False
        if not _native.plain_entries(data, offsets, texts, "subtree", 1).all():
            return False
        hashes = _native.leaf_hashes(data, offsets, 1)
        if hashes.tobytes() != leaf_hash:
            return False
        self._build(hashes)
        self.previous = first + count - 1
        return True

    def _any_page(self) -> bool:
        """Take the next page of entries, whatever it holds; False at the end."""
        page = next(_rows(self.conn, log_entries.c.index > self.previous), None)
        if page is not None:
            self._check_page(page)
        return page is not None

    def _check_page(self, rows: Sequence[Any]) -> None:
        """Hash and compare entries, and look closer at each that is not plainly right."""
        index, leaf, leaf_hash, *columns = zip(*rows, strict=True)
        data, offsets = joined_bytes(list(map(_bytes, leaf)))
        hashes = _native.leaf_hashes(data, offsets)
        differs = (hashes != _hashes(leaf_hash)).any(axis=1)
        named = zip(_NAMES, columns, strict=True)
        texts = [(name, *joined(list(map(_text, column)))) for name, column in named]
        plain = _native.plain_entries(data, offsets, texts, "subtree")

        # The tree cannot be built past a gap; before its first entry stands what has no place.
        place = np.array(index, np.int64)
        first = int(np.searchsorted(place, self.frontier.size))
        follows = place[first:] == self.frontier.size + np.arange(len(place) - first)
        stop = first + int(follows.argmin() if not follows.all() else len(follows))
        gap = place != np.append(self.previous, place[:-1]) + 1
        gap[first:stop] = False
        self.previous = index[-1]

        for at in map(int, np.flatnonzero(differs[first:stop]) + first):
            self.differing.add((0, index[at]))
            self.stored[0, index[at]] = leaf_hash[at]
        for at in map(int, np.flatnonzero(differs | ~plain | gap)):
            if gap[at]:
                self.report.add(f"entry {index[at]}", "what comes before it is missing")
            self._check_entry(Entry(*rows[at]), differs=bool(differs[at]))
        self._build(hashes[first:stop])

    def _build(self, hashes: U8) -> None:
        """Add leaves to the tree, compare the subtrees this completes and the roots signed."""
        size = self.frontier.size
        known = dict(zip(merkle.subtrees(0, size), self.frontier.peaks, strict=True))
        rows = {0: (size, hashes)}

        def node(level: int, index: int) -> bytes:
            if (level, index) in self.stored:
                return _bytes(self.stored[level, index])
            if (level, index) in known:
                return known[level, index]
            first, completed = rows[level]
            return bytes(completed[index - first])

        for level, first, completed in self.frontier.extend(hashes):
            rows[level] = (first, completed)
            if level >= TILE:
                self._compare(level, first, completed)
            elif self.differing:
                self._lift(level, range(first, first + len(completed)), node)

        between = (checkpoints.c.size > size) & (checkpoints.c.size <= self.frontier.size)
        self._check_checkpoints(between, lambda size: merkle.range_root(0, size, node))
        if self.stored:
            peaks = merkle.subtrees(0, self.frontier.size)
            self.stored = {peak: self.stored[peak] for peak in peaks if peak in self.stored}

    def _check_entry(self, entry: Entry, *, differs: bool) -> None:
        name = f"entry {entry.index}"
        if differs:
            self.report.add(name, "leaf hash differs")
        try:
            body = parse(_bytes(entry.leaf))
        except NotCanonical:
            body = None
        if not isinstance(body, dict):
            self.report.add(name, "not a JSON object in canonical form")
            return
        for column in _NAMES:
            if body.get(column) != getattr(entry, column):
                self.report.add(name, f"column {column} differs from the entry")
        if "subtree" in body:
            self._check_subtree(name, body["subtree"])

    def _lift(self, level: int, completed: range, node: NodeReader) -> None:
        """What differs below differs in subtrees of a level that is not stored."""
        for below, index in list(self.differing):
            parent = index >> 1
            if below == level - 1 and parent in completed:
                children = (node(below, 2 * parent), node(below, 2 * parent + 1))
                self.stored[level, parent] = merkle.node_hash(*children)
                self.differing.remove((below, index))
                self.differing.add((level, parent))

    def _compare(self, level: int, first: int, built: U8) -> None:
        """Compare adjacent subtrees of a level with the stored hashes."""
        last = first + len(built) - 1
        nodes = [(level, index) for index in range(first, last + 1)]
        stored, _ = tree_hashes(self.conn, nodes, [])
        if stored != dict(zip(nodes, as_bytes(built), strict=True)):
            self._compare_each(level, first, built)
        if self.differing:
            self.differing = {
                (below, index)
                for below, index in self.differing
                if not (below == level - 1 and first <= index >> 1 <= last)
            }

    def _compare_each(self, level: int, first: int, built: U8) -> None:
        nodes = log_nodes.c
        where = (nodes.level == level) & nodes.index.between(first, first + len(built) - 1)
        query = select(*map(_as_it_is, (nodes.index, nodes.hash))).where(where)
        stored, present = np.zeros_like(built), np.zeros(len(built), np.bool_)
        values: dict[int, object] = {}
        for index, value in self.conn.execute(query):
            if isinstance(index, int):
                stored[index - first], present[index - first] = _hashes([value]), True
                values[index - first] = value
        for offset in np.flatnonzero((stored != built).any(axis=1)):
            index = first + int(offset)
            self.stored[level, index] = values.get(int(offset))
            children = {(level - 1, 2 * index), (level - 1, 2 * index + 1)}
            if not children & self.differing:
                begin, end = index << level, ((index + 1) << level) - 1
                problem = "hash differs" if present[offset] else "missing"
                self.report.add(f"node {level}/{index} (entries {begin} to {end})", problem)
            self.differing.add((level, index))

    def _check_subtree(self, name: str, subtree: Any) -> None:
        try:
            root, size = bytes.fromhex(subtree["root"]), subtree["size"]
            whole = (size, 0, size - 1)
        except (KeyError, TypeError, ValueError):
            self.report.add(name, "its sub-tree is malformed")
            return
        self.report.subtrees += 1
        self.subtree_roots.add(root)
        leaves = subtree_leaves.c
        stored, first, last = self.conn.execute(
            select(func.count(), func.min(leaves.index), func.max(leaves.index)).where(
                leaves.root == root
            )
        ).one()
        if (stored, first, last) != whole:
            self.report.add(name, f"its sub-tree has {stored} leaves instead of {size}")
            return
        frontier = Frontier()
        built: dict[tuple[int, int], bytes] = {}
        for start in range(0, size, PAGE):
            hashes = subtree_hashes(self.conn, root, start, min(start + PAGE, size))
            for level, place, nodes in frontier.extend(hashes):
                if level >= TILE:
                    built |= {(level, place + i): node for i, node in enumerate(as_bytes(nodes))}
        if frontier.root() != root:
            self.report.add(name, "the leaves of its sub-tree differ")
        columns = map(_as_it_is, (subtree_nodes.c[at] for at in ("level", "index", "hash")))
        query = select(*columns).where(subtree_nodes.c.root == root)
        if {(level, index): node for level, index, node in self.conn.execute(query)} != built:
            self.report.add(name, "the hashes stored of its sub-tree differ from its leaves")

    def _check_strays(self) -> None:
        """Stored hashes and sub-trees that belong to no entry."""
        nodes, size = log_nodes.c, self.report.size
        belongs = or_(
            *(
                and_(nodes.level == level, nodes.index.between(0, (size >> level) - 1))
                for level in range(TILE, max(TILE + 1, size.bit_length()))
            )
        )
        strays = select(nodes.level, nodes.index).where(not_(belongs)).limit(MAX_FINDINGS)
        for level, index in self.conn.execute(strays):
            self.report.add(f"node {level}/{index}", "belongs to no entries")
        roots = {*_distinct(self.conn, subtree_leaves.c.root)}
        roots |= {*_distinct(self.conn, subtree_nodes.c.root)}
        for root in roots - self.subtree_roots:
            self.report.add(f"sub-tree {_bytes(root).hex()}", "no entry commits to it")

    def _check_checkpoints(
        self, which: ColumnElement[bool], root_of: Callable[[int], bytes] | None = None
    ) -> None:
        """Check some of the checkpoints, given the root of the tree of each size.

        The stored hashes serve where none can be built.
        """
        query = select(checkpoints).where(which).order_by(checkpoints.c.size)
        for page in _pages(self.conn, query):
            for size, root, note in page:
                self.report.checkpoints += 1
                problem = self._checkpoint_problem(size, root, _bytes(note), root_of)
                if problem:
                    self.later.add(f"checkpoint {size}", problem)

    def _keys_at(self, size: int) -> list[VerifierKey]:
        """Who must have signed a checkpoint: where the key changes, both do."""
        starts = [-1, *(last for _, last in self.keys)]
        return [
            key
            for (key, last), start in zip(self.keys, starts, strict=False)
            if start <= size <= last
        ]

    def _checkpoint_problem(
        self, size: int, root: bytes, note: bytes, root_of: Callable[[int], bytes] | None
    ) -> str | None:
        try:
            checkpoint = Checkpoint.parse(note)
            for key in self._keys_at(checkpoint.size):
                checkpoint.verify(key)
        except MalformedNote:
            return "malformed"
        except UnverifiedNote:
            return "not signed by the log"
        if (checkpoint.size, checkpoint.root) != (size, root):
            return "its columns differ from what is signed"
        if size > self.report.size:
            return f"the log has only {self.report.size} entries"
        try:
            same = (root_of(size) if root_of else tree_root(self.conn, size)) == root
        except (LogDamaged, TypeError):  # a hash is missing, or not even bytes
            same = False
        return None if same else "its root differs from the entries"


def _check_cosignatures(
    conn: Connection, report: LogReport, witnesses: Sequence[VerifierKey]
) -> None:
    key = (cosignatures.c.size, cosignatures.c.witness)
    joined = cosignatures.outerjoin(checkpoints, cosignatures.c.size == checkpoints.c.size)
    query = select(*key, cosignatures.c.line, checkpoints.c.note).select_from(joined)
    for page in _pages(conn, query.order_by(*key)):
        for size, name, line, note in page:
            report.cosignatures += 1
            problem = _cosignature_problem(witnesses, name, str(line), _bytes(note))
            if problem:
                report.add(f"cosignature of {name} on checkpoint {size}", problem)
            else:
                report.cosigned[name] = size


def _cosignature_problem(
    witnesses: Sequence[VerifierKey], name: str, line: str, note: bytes
) -> str | None:
    try:
        signature = Signature.parse(line)
        checkpoint = Checkpoint.parse(note)
    except MalformedNote:
        return "it or the checkpoint is malformed"
    witness = next((key for key in witnesses if signature.by(key)), None)
    if witness is None or witness.name != name:
        return "not a known witness's"
    try:
        witness.verify(checkpoint.text, signature.value)
    except InvalidSignature:
        return "does not verify"
    return None


def _rows(conn: Connection, where: ColumnElement[bool]) -> Iterator[Sequence[Any]]:
    """Rows of the log by their numbers, each as the database holds it, a page at a time."""
    index = log_entries.c.index
    columns = (index, *_COLUMNS)
    query = select(*map(_as_it_is, columns)).order_by(index)
    while page := conn.execute(query.where(where).limit(PAGE)).all():
        yield page
        where = index > page[-1][0]


def _distinct(conn: Connection, column: Column[Any]) -> Iterator[Any]:
    """The values of a key's first column, each found by a search of the key."""
    unconverted = type_coerce(column, NullType())
    query = select(func.min(unconverted))
    value = conn.execute(query).scalar()
    while value is not None:
        yield value
        value = conn.execute(query.where(unconverted > value)).scalar()


def _as_it_is(column: Column[Any]) -> ColumnElement[Any]:
    """A column's values, unconverted: SQLite's hold any type."""
    return type_coerce(column, NullType()).label(column.name)


def _pages(conn: Connection, query: Executable) -> Iterator[Sequence[Any]]:
    return conn.execute(query.execution_options(yield_per=PAGE)).partitions()


def _bytes(value: object) -> bytes:
    """SQLite columns hold any type; what is not bytes is no entry, hash or note."""
    return value if isinstance(value, bytes) else b""


def _text(value: object) -> str:
    """A column's text, "" for none, and what no plain entry says for anything else."""
    return "" if value is None else value if isinstance(value, str) and value else "\0"


def _hashes(values: Sequence[object]) -> U8:
    """uint8 (n, 32); what is no hash becomes one that nothing has."""
    return from_bytes(
        [
            value if isinstance(value, bytes) and len(value) == HASH_BYTES else bytes(HASH_BYTES)
            for value in values
        ],
        HASH_BYTES,
    )
