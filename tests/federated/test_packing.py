from itertools import pairwise
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.errors import AnswersDisagree, FeatureUnfit, ProtocolViolation
from federated.paillier.packing import (
    MASK_BITS,
    MAX_VALUE,
    Columns,
    Layout,
    from_integers,
    to_integers,
)

maxima = st.one_of(st.integers(0, 3), st.integers(0, 2**24), st.integers(0, MAX_VALUE))
schemas = st.lists(
    st.builds(
        Columns,
        name=st.just("f"),
        maxima=st.lists(maxima, min_size=1, max_size=12).map(tuple),
        may_be_missing=st.booleans(),
    ),
    min_size=1,
    max_size=8,
)
key_sizes = st.sampled_from([1024, 2048, 3072])


@st.composite
def tables(draw, least=0):
    """A layout, and rows it fits: values uint64 (n, columns), present bool (n, features)."""
    schema = draw(schemas)
    n = draw(st.integers(least, 20))
    limit = draw(st.integers(max(n, 1), 10 * n + 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    always = np.array([not feature.may_be_missing for feature in schema])
    present = (rng.random((n, len(schema))) < 0.6) | always
    columns = []
    for i, feature in enumerate(schema):
        for maximum in feature.maxima:
            highest = rng.random(n) < 0.3  # the extreme is where carries would show
            column = rng.integers(0, maximum, n, np.uint64, endpoint=True)
            columns.append(np.where(highest, np.uint64(maximum), column) * present[:, i])
    values = np.column_stack(columns).reshape(n, len(columns)).astype(np.uint64)
    return Layout.plan(schema, limit, draw(key_sizes)), values, present


def add_up(layout: Layout, values, present) -> list[int]:
    """What decryption gives for the sum of all rows: one integer a plaintext."""
    rows = to_integers(layout.pack(values, present))
    per_row = len(layout.plaintexts)
    return [sum(rows[i::per_row]) for i in range(per_row)]


def plain_sums(values) -> list[int]:
    return [sum(int(x) for x in column) for column in values.T]


@given(tables())
def test_sums_come_back_exactly(table) -> None:
    layout, values, present = table
    masks = layout.draw_masks()
    sums = zip(add_up(layout, values, present), layout.mask_plaintexts(masks), strict=True)
    counts = layout.read([plain + mask for plain, mask in sums])

    assert counts.rows == len(values)
    unpacked: dict[int, int] = {}
    for block, count, masked, mask in zip(
        layout.blocks, counts.blocks, counts.masked, masks, strict=True
    ):
        column = present[:, block.feature] if block.feature is not None else np.ones(len(values))
        assert count == column.sum()
        unpacked |= layout.unpack(block, masked - mask, count)
    assert [unpacked[i] for i in range(values.shape[1])] == plain_sums(values)


@given(tables(), st.data())
def test_no_mask_reaches_a_count_or_another_block(table, data) -> None:
    layout, values, present = table
    extremes = [data.draw(st.sampled_from([0, 2**b.mask_bits - 1])) for b in layout.blocks]
    sums = zip(add_up(layout, values, present), layout.mask_plaintexts(extremes), strict=True)
    counts = layout.read([plain + mask for plain, mask in sums])
    assert counts.rows == len(values)
    for block, count, masked, mask in zip(
        layout.blocks, counts.blocks, counts.masked, extremes, strict=True
    ):
        layout.unpack(block, masked - mask, count)  # in range, so nothing came in from elsewhere


@given(tables())
def test_plaintexts_stay_below_a_third_of_any_modulus(table) -> None:
    layout, values, present = table
    extremes = [2**b.mask_bits - 1 for b in layout.blocks]
    sums = zip(add_up(layout, values, present), layout.mask_plaintexts(extremes), strict=True)
    assert all(3 * (plain + mask) < 1 << (64 * layout.limbs - 1) for plain, mask in sums)


@given(tables())
def test_the_bits_above_the_last_block_are_filled_at_random(table) -> None:
    """All that a modulus is sure to have room for."""
    layout, _, _ = table
    ends = [blocks[-1].end for blocks in layout.plaintexts]
    drawn = [layout.mask_plaintexts([0] * len(layout.blocks)) for _ in range(20)]
    assert all(p % 2**end == 0 for plain in drawn for p, end in zip(plain, ends, strict=True))
    for i, end in enumerate(ends):
        seen = [plaintexts[i] for plaintexts in drawn]
        room = 64 * layout.limbs - 3 - end
        assert max(seen) >> end < 2**room
        if room > 64:
            assert len(set(seen)) == 20
            assert max(seen) >> end > 2 ** (room - 3)


@given(tables())
def test_a_mask_is_64_bits_longer_than_the_sums_it_hides(table) -> None:
    layout, _, _ = table
    for block in layout.blocks:
        largest = sum(
            slot.maximum * (2**layout.count_bits - 1) << slot.start for slot in block.slots
        )
        assert largest.bit_length() + MASK_BITS <= block.mask_bits
    drawn = [layout.draw_masks() for _ in range(20)]
    assert all(
        m < 2**b.mask_bits for masks in drawn for m, b in zip(masks, layout.blocks, strict=True)
    )
    assert len({masks[0] for masks in drawn}) == 20


@given(tables())
def test_nothing_overlaps(table) -> None:
    layout, _, _ = table
    for blocks in layout.plaintexts:
        taken = [range(layout.count_bits)]
        for block in blocks:
            if block.feature is not None:
                taken.append(range(block.count_start, block.count_start + layout.count_bits))
            taken.append(range(block.start, block.end))
            slots = [range(s.start, s.start + s.width) for s in block.slots]
            assert slots[-1].stop == block.width
            assert all(a.stop == b.start for a, b in pairwise(slots))
        taken.sort(key=lambda r: r.start)
        assert all(a.stop <= b.start for a, b in pairwise(taken))


@given(tables(least=1), st.data())
def test_a_value_above_its_maximum_is_refused(table, data) -> None:
    layout, values, present = table
    slots = [s for b in layout.blocks for s in b.slots]
    slot = data.draw(st.sampled_from(slots))
    values[data.draw(st.integers(0, len(values) - 1)), slot.column] = slot.maximum + 1
    with pytest.raises(FeatureUnfit):
        layout.pack(values, present)


def test_a_negative_value_is_refused() -> None:
    layout = Layout.plan([Columns("f", (100,), False)], 10, 1024)
    values = np.array([[-1]]).astype(np.uint64)
    with pytest.raises(FeatureUnfit):
        layout.pack(values, np.ones((1, 1), bool))


def test_a_range_beyond_63_bits_is_refused_by_name() -> None:
    with pytest.raises(FeatureUnfit, match="income") as caught:
        Layout.plan([Columns("income", (2**32, 2**64), False)], 10, 3072)
    assert "fewer decimals or tighter bounds" in caught.value.next_step


def test_twenty_features_fit_one_plaintext() -> None:
    """The budgeted case: sums of twenty 17-bit features of a million rows under 2048 bits."""
    layout = Layout.plan([Columns(f"f{i}", (100_000,), False) for i in range(20)], 2**20, 2048)
    assert len(layout.plaintexts) == 1


def test_a_feature_may_span_plaintexts() -> None:
    layout = Layout.plan([Columns("f", (1,) * 200, True)], 10**6, 1024)
    assert len(layout.plaintexts) > 1
    assert all(block.feature == 0 for block in layout.blocks)
    rows = np.eye(200, dtype=np.uint64)
    read = layout.read(add_up(layout, rows, np.ones((200, 1), bool)))
    assert read.rows == 200
    assert set(read.blocks) == {200}


def one_feature() -> tuple[Layout, list[int]]:
    layout = Layout.plan([Columns("f", (100,) * 80, True)], 1000, 1024)
    values = np.ones((5, 80), np.uint64)
    return layout, add_up(layout, values, np.ones((5, 1), bool))


def test_plaintexts_that_disagree_on_the_row_count_are_refused() -> None:
    layout, plaintexts = one_feature()
    plaintexts[1] += 1
    with pytest.raises(ProtocolViolation, match="contradict"):
        layout.read(plaintexts)


def test_plaintexts_that_disagree_on_a_presence_count_are_refused() -> None:
    layout, plaintexts = one_feature()
    plaintexts[1] -= 1 << layout.blocks[1].count_start
    with pytest.raises(ProtocolViolation, match="contradict"):
        layout.read(plaintexts)


def test_more_values_than_rows_are_refused() -> None:
    layout, plaintexts = one_feature()
    more = [plain + (1 << layout.blocks[0].count_start) for plain in plaintexts]
    with pytest.raises(ProtocolViolation, match="contradict"):
        layout.read(more)


def test_a_plaintext_out_of_range_is_refused() -> None:
    layout, plaintexts = one_feature()
    plaintexts[0] += 1 << (64 * layout.limbs - 3)
    with pytest.raises(ProtocolViolation, match="out of range"):
        layout.read(plaintexts)


@pytest.mark.parametrize("sums", [-1, 5 * 100 + 1, 1 << 200])
def test_sums_that_cannot_be_are_refused(sums: int) -> None:
    layout = Layout.plan([Columns("f", (100,), False)], 1000, 1024)
    assert layout.unpack(layout.blocks[0], 500, 5) == {0: 500}
    with pytest.raises(AnswersDisagree):
        layout.unpack(layout.blocks[0], sums, 5)


@given(st.lists(st.integers(0, 2**1024 - 1), max_size=5))
@settings(max_examples=20)
def test_integers_go_to_limbs_and_back(integers) -> None:
    limbs = from_integers(integers, 16)
    assert limbs.shape == (len(integers), 16)
    assert to_integers(limbs) == integers


def test_limbs_are_little_endian() -> None:
    assert from_integers([comb(100, 50)], 2).tolist() == [
        [comb(100, 50) & (2**64 - 1), comb(100, 50) >> 64]
    ]
