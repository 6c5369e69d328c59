"""Merkle trees of RFC 6962 and RFC 9162: hashes, inclusion and consistency proofs.

A complete subtree is named by its level and its index there: (0, i) is leaf i, and (l, i) covers
the leaves i·2^l to (i+1)·2^l - 1. Once complete it never changes, so a log stores these hashes and
every root and proof, at any size, is made of O(log n) of them. Each hash in a proof is the root of
a range of leaves [start, stop), which is a few complete subtrees side by side.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from compliance.errors import InvalidProof
from federated import _native

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

U8 = NDArray[np.uint8]

NodeReader = Callable[[int, int], bytes]
"""The hash of the complete subtree (level, index)."""

Range = tuple[int, int]


def leaf_hash(leaf: bytes) -> bytes:
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree being built: its size and the hashes of the complete subtrees it consists of.

    `peaks` are those of `subtrees(0, size)`, left to right.
    """

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self.peaks = list(peaks)

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Add a leaf by its hash; returns the subtrees this completes as (level, index, hash)."""
        completed = []
        level, index, subtree = 0, self.size, leaf
        while index & 1:
            subtree = node_hash(self.peaks.pop(), subtree)
            level, index = level + 1, index >> 1
            completed.append((level, index, subtree))
        self.peaks.append(subtree)
        self.size += 1
        return completed

    def extend(self, leaves: U8) -> list[tuple[int, int, U8]]:
        """Add many leaves by their hashes, uint8 (n, 32).

        Returns the subtrees this completes, from the lowest level up, as (level, index of the
        first, uint8 (m, 32)).
        """
        peaks = np.frombuffer(b"".join(self.peaks), np.uint8).reshape(-1, HASH_BYTES)
        peaks, completed = _native.grown_tree(self.size, peaks, leaves)
        joined = peaks.tobytes()
        self.peaks = [joined[i : i + HASH_BYTES] for i in range(0, len(joined), HASH_BYTES)]
        self.size += len(leaves)
        return [(level, first, row) for level, (first, row) in enumerate(completed, 1)]

    def root(self) -> bytes:
        return _fold(self.peaks) if self.peaks else EMPTY_ROOT


def levels(leaves: U8) -> list[U8]:
    """The complete subtrees over leaf hashes, uint8 (n, 32), of each level from 0 up."""
    rows = [leaves]
    while len(rows[-1]) > 1:
        rows.append(_native.parent_hashes(rows[-1]))
    return rows


def root(leaves: Iterable[bytes]) -> bytes:
    """The Merkle tree hash over leaves as they are (RFC 6962, section 2.1)."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf_hash(leaf))
    return frontier.root()


def subtrees(start: int, stop: int) -> list[tuple[int, int]]:
    """The fewest complete subtrees (level, index) that cover the leaves of a range."""
    covering = []
    while start < stop:
        level = (stop - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        covering.append((level, start >> level))
        start += 1 << level
    return covering


def range_root(start: int, stop: int, node: NodeReader) -> bytes:
    """The root over a range of a proof, or over a whole tree as [0, size)."""
    if start == stop:
        return EMPTY_ROOT
    return _fold([node(level, index) for level, index in subtrees(start, stop)])


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """PATH of RFC 6962, section 2.1.1: the ranges whose roots prove leaf `index` in a tree."""
    if not 0 <= index < size:
        raise ValueError("the tree has no such leaf")
    path = []
    start, stop = 0, size
    while stop - start > 1:
        split = start + _split(stop - start)
        if index < split:
            path.append((split, stop))
            stop = split
        else:
            path.append((start, split))
            start = split
    return path[::-1]


def consistency_ranges(old: int, new: int) -> list[Range]:
    """PROOF of RFC 6962, section 2.1.2: the ranges whose roots prove a tree a prefix of another."""
    if not 0 <= old <= new:
        raise ValueError("the old tree is not smaller than the new one")
    if old == 0:
        return []
    path = []
    start, stop = 0, new
    while old < stop:
        split = start + _split(stop - start)
        if old <= split:
            path.append((split, stop))
            stop = split
        else:
            path.append((start, split))
            start = split
    if start:  # the old tree is not itself a subtree whose root the verifier knows
        path.append((start, stop))
    return path[::-1]


def inclusion_proof(index: int, size: int, node: NodeReader) -> list[bytes]:
    return [range_root(start, stop, node) for start, stop in inclusion_ranges(index, size)]


def consistency_proof(old: int, new: int, node: NodeReader) -> list[bytes]:
    return [range_root(start, stop, node) for start, stop in consistency_ranges(old, new)]


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], tree_root: bytes
) -> None:
    """Raise InvalidProof unless the leaf hash stands at `index` (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        raise _invalid("inclusion", "the tree has no such leaf")
    position, last, subtree = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise _invalid("inclusion", "it is too long")
        if position & 1 or position == last:
            subtree = node_hash(sibling, subtree)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            subtree = node_hash(subtree, sibling)
        position, last = position >> 1, last >> 1
    if last or subtree != tree_root:
        raise _invalid("inclusion", "it does not lead to the tree's root")


def verify_consistency(
    old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Raise InvalidProof unless the old tree is a prefix of the new (RFC 9162, section 2.1.4.2).

    The empty tree is a prefix of every tree, and its proof is empty.
    """
    if not 0 <= old <= new:
        raise _invalid("consistency", "the old tree is larger than the new one")
    if old in {0, new}:
        if proof or (old == 0 and old_root != EMPTY_ROOT) or (old == new and old_root != new_root):
            raise _invalid("consistency", "it does not lead to both roots")
        return
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise _invalid("consistency", "it is too short")
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old_subtree = new_subtree = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise _invalid("consistency", "it is too long")
        if position & 1 or position == last:
            old_subtree = node_hash(sibling, old_subtree)
            new_subtree = node_hash(sibling, new_subtree)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new_subtree = node_hash(new_subtree, sibling)
        position, last = position >> 1, last >> 1
    if last or old_subtree != old_root or new_subtree != new_root:
        raise _invalid("consistency", "it does not lead to both roots")


def _fold(hashes: Sequence[bytes]) -> bytes:
    """The root over adjacent complete subtrees: the tree leans to the left."""
    *rest, subtree = hashes
    for left in reversed(rest):
        subtree = node_hash(left, subtree)
    return subtree


def _split(width: int) -> int:
    """The largest power of two smaller than the width, which is at least 2."""
    return 1 << (width - 1).bit_length() - 1


def _invalid(kind: str, problem: str) -> InvalidProof:
    return InvalidProof(
        f"A proof of {kind} does not hold: {problem}.",
        "Do not rely on it; ask its sender for a new one and compare both institutions' logs.",
    )
