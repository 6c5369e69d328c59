import numpy as np
import pytest
import rfc6962
from hypothesis import given
from hypothesis import strategies as st

from compliance import merkle
from compliance.errors import InvalidProof

SIZES = range(41)
LEAVES = [b"leaf %d" % index for index in SIZES]
HASHES = [merkle.leaf_hash(leaf) for leaf in LEAVES]
ROOTS = [rfc6962.mth(LEAVES[:size]) for size in SIZES]


class Nodes:
    """Complete subtrees as a log stores them; counts what is read."""

    def __init__(self, leaves):
        self.hashes = {}
        self.reads = 0
        frontier = merkle.Frontier()
        for index, leaf in enumerate(leaves):
            self.hashes[0, index] = merkle.leaf_hash(leaf)
            for level, position, subtree in frontier.append(merkle.leaf_hash(leaf)):
                self.hashes[level, position] = subtree

    def __call__(self, level, index):
        self.reads += 1
        return self.hashes[level, index]


NODES = Nodes(LEAVES)


def test_roots_of_the_certificate_transparency_vectors():
    for size, root in enumerate(rfc6962.ROOTS):
        assert merkle.root(rfc6962.LEAVES[:size]) == root == rfc6962.mth(rfc6962.LEAVES[:size])


def test_proofs_of_the_certificate_transparency_vectors():
    nodes = Nodes(rfc6962.LEAVES)
    for (index, size), path in rfc6962.PATHS.items():
        assert [item.hex() for item in merkle.inclusion_proof(index, size, nodes)] == list(path)
    for (old, new), proof in rfc6962.PROOFS.items():
        assert [item.hex() for item in merkle.consistency_proof(old, new, nodes)] == list(proof)


@pytest.mark.parametrize("size", SIZES)
def test_every_root(size):
    assert merkle.root(LEAVES[:size]) == ROOTS[size]
    assert merkle.range_root(0, size, NODES) == ROOTS[size]
    peaks = [NODES(*node) for node in merkle.subtrees(0, size)]
    assert merkle.Frontier(size, peaks).root() == ROOTS[size]


@pytest.mark.parametrize("size", SIZES)
def test_every_inclusion_proof(size):
    for index in range(size):
        proof = merkle.inclusion_proof(index, size, NODES)
        assert proof == rfc6962.path(index, LEAVES[:size])
        merkle.verify_inclusion(HASHES[index], index, size, proof, ROOTS[size])


@pytest.mark.parametrize("new", SIZES)
def test_every_consistency_proof(new):
    for old in range(1, new + 1):
        proof = merkle.consistency_proof(old, new, NODES)
        assert proof == rfc6962.proof(old, LEAVES[:new])
        merkle.verify_consistency(old, ROOTS[old], new, ROOTS[new], proof)


def mutations(proof):
    for position, item in enumerate(proof):
        for bit in (0, 7, 128, 255):
            flipped = (int.from_bytes(item) ^ (1 << bit)).to_bytes(32)
            yield [*proof[:position], flipped, *proof[position + 1 :]]
        yield [*proof[:position], *proof[position + 1 :]]
        yield [*proof[:position], item, *proof[position:]]
    for position in range(len(proof) - 1):
        yield [*proof[:position], proof[position + 1], proof[position], *proof[position + 2 :]]
    yield [*proof, bytes(32)]
    yield [bytes(32), *proof]


@pytest.mark.parametrize("size", SIZES)
def test_mutated_inclusion_proofs_are_rejected(size):
    for index in range(size):
        proof = merkle.inclusion_proof(index, size, NODES)
        for mutated in mutations(proof):
            with pytest.raises(InvalidProof):
                merkle.verify_inclusion(HASHES[index], index, size, mutated, ROOTS[size])
        for other in {*range(size), size, -1} - {index}:
            with pytest.raises(InvalidProof):
                merkle.verify_inclusion(HASHES[index], other, size, proof, ROOTS[size])
        with pytest.raises(InvalidProof):
            merkle.verify_inclusion(merkle.leaf_hash(b"?"), index, size, proof, ROOTS[size])


@pytest.mark.parametrize("new", SIZES)
def test_mutated_consistency_proofs_are_rejected(new):
    for old in range(1, new + 1):
        proof = merkle.consistency_proof(old, new, NODES)
        for mutated in mutations(proof):
            with pytest.raises(InvalidProof):
                merkle.verify_consistency(old, ROOTS[old], new, ROOTS[new], mutated)
        for other in {*range(1, new + 2)} - {old}:
            with pytest.raises(InvalidProof):
                merkle.verify_consistency(other, ROOTS[old], new, ROOTS[new], proof)
        with pytest.raises(InvalidProof):
            merkle.verify_consistency(old, ROOTS[old - 1], new, ROOTS[new], proof)
        with pytest.raises(InvalidProof):
            merkle.verify_consistency(old, ROOTS[old], new, ROOTS[new - 1], proof)


def test_two_empty_trees_have_one_root():
    for old_root, new_root in (
        (merkle.EMPTY_ROOT, ROOTS[1]),
        (ROOTS[1], merkle.EMPTY_ROOT),
        (ROOTS[1],) * 2,
    ):
        with pytest.raises(InvalidProof):
            merkle.verify_consistency(0, old_root, 0, new_root, [])


def test_the_empty_tree_is_a_prefix_of_every_tree():
    for new in SIZES:
        assert merkle.consistency_proof(0, new, NODES) == []
        merkle.verify_consistency(0, merkle.EMPTY_ROOT, new, ROOTS[new], [])
        with pytest.raises(InvalidProof):
            merkle.verify_consistency(0, ROOTS[1], new, ROOTS[new], [])
        with pytest.raises(InvalidProof):
            merkle.verify_consistency(0, merkle.EMPTY_ROOT, new, ROOTS[new], [bytes(32)])


def test_impossible_proofs_are_not_made():
    with pytest.raises(ValueError, match="no such leaf"):
        merkle.inclusion_ranges(5, 5)
    with pytest.raises(ValueError, match="not smaller"):
        merkle.consistency_ranges(6, 5)


def test_a_proof_reads_few_nodes():
    nodes = Nodes([b"%d" % index for index in range(3000)])
    for index in range(0, 3000, 37):
        nodes.reads = 0
        merkle.inclusion_proof(index, 2999, nodes)
        assert nodes.reads <= 2 * 12
        nodes.reads = 0
        merkle.consistency_proof(index, 2999, nodes)
        assert nodes.reads <= 3 * 12


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.lists(st.binary(min_size=32, max_size=32)))
def test_verifying_garbage_fails_cleanly(first, second, proof):
    with pytest.raises(InvalidProof):
        merkle.verify_inclusion(bytes(32), first, second, proof, b"\x01" * 32)
    with pytest.raises(InvalidProof):
        merkle.verify_consistency(first, bytes(32), second, b"\x01" * 32, proof)


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_subtrees_cover_a_proof_range_exactly(index, size):
    if index >= size:
        index, size = size, index + 1
    for start, stop in merkle.inclusion_ranges(index, size):
        covered = start
        for level, position in merkle.subtrees(start, stop):
            assert position << level == covered
            covered += 1 << level
        assert covered == stop


@given(st.lists(st.integers(0, 12), max_size=5))
def test_many_leaves_at_once_are_as_one_after_the_other(counts):
    one, many = merkle.Frontier(), merkle.Frontier()
    completed, completed_at_once = {}, {}
    for count in counts:
        hashes = HASHES[one.size % 20 :][:count]
        for leaf in hashes:
            completed |= {(level, index): node for level, index, node in one.append(leaf)}
        rows = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32)
        for level, first, nodes in many.extend(rows):
            completed_at_once |= {(level, first + at): bytes(row) for at, row in enumerate(nodes)}
    assert (many.size, many.peaks, many.root()) == (one.size, one.peaks, one.root())
    assert completed_at_once == completed
