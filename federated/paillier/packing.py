"""Many exact sums in few plaintexts.

Plaintext, from the lowest bit:

    row count | presence count of a feature ... | block | block | ...      below n/3

A block holds what one count governs: the sums of a feature that may be missing under its presence
count, those of all other features under the row count. Adding plaintexts adds every slot; a slot
has room for the largest value on every row, and one bit more, or as many as its noise needs. Before
the key's owner decrypts, each block is masked by a random number 64 bits longer than its sums, so
that the counts stay readable, nothing carries into another block, and each block can be released or
withheld alone. The empty bits above the last block are filled at random too: an owner who deviates
could mark each of its rows there, and would read who matched. Sums that do not fit one plaintext go
on in the next, which has a row count of its own.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from federated.arrays import I64, U64, Bool
from federated.errors import AnswersDisagree, FeatureUnfit, ProtocolViolation

MASK_BITS = 64
NOISE_BITS = 1
MAX_VALUE = 2**63 - 1


@dataclass(frozen=True)
class Query:
    """So many columns that get noise together.

    sensitivity: by how much, in all, one row can change their sums by its value alone.
    """

    columns: int
    sensitivity: int


@dataclass(frozen=True)
class Columns:
    """The numbers a feature contributes to a row: column i holds 0 <= x <= maxima[i].

    queries: how they stand together where noise is added.
    """

    name: str
    maxima: tuple[int, ...]
    may_be_missing: bool
    queries: tuple[Query, ...] = ()


@dataclass(frozen=True)
class Slot:
    """Where the sum of one column lies in its block; all in bits.

    noise: what is added to the sum lies within ±noise, and is shifted by as much.
    """

    column: int
    maximum: int
    noise: int
    start: int
    width: int


@dataclass(frozen=True)
class Block:
    """Sums that one count governs. `feature` is None where that is the row count."""

    feature: int | None
    count_start: int
    start: int
    width: int
    slots: tuple[Slot, ...]

    @property
    def mask_bits(self) -> int:
        return self.width + MASK_BITS

    @property
    def end(self) -> int:
        """The first bit beyond the masked sums."""
        return self.start + self.mask_bits + 1


@dataclass(frozen=True)
class Counts:
    """What the key's owner reads in the decrypted plaintexts of one group."""

    rows: int
    blocks: tuple[int, ...]  # the count that governs each block
    masked: tuple[int, ...]  # each block's sums, under the mask


@dataclass(frozen=True)
class Layout:
    """Where everything lies. Both sides derive the same one."""

    features: tuple[Columns, ...]
    count_bits: int
    limbs: int
    plaintexts: tuple[tuple[Block, ...], ...]

    @staticmethod
    def plan(
        features: Sequence[Columns], rows: int, key_bits: int, noise: Sequence[int] = ()
    ) -> "Layout":
        """A layout for sums over at most `rows` rows, and noise within ± that of each column.

        Raises FeatureUnfit for a column whose values may exceed 63 bits.
        """
        rows = max(rows, 1)
        count_bits = rows.bit_length()
        limbs = key_bits // 64
        capacity = _capacity(limbs)
        plans: list[dict[int | None, list[_Column]]] = []  # the columns of each block
        free, column = 0, 0
        for number, feature in enumerate(features):
            governing = number if feature.may_be_missing else None
            opening = MASK_BITS + 1 + (count_bits if feature.may_be_missing else 0)
            for maximum in feature.maxima:
                if maximum > MAX_VALUE:
                    raise FeatureUnfit(
                        f"The range of feature {feature.name} is too wide to be added up exactly.",
                        "Use fewer decimals or tighter bounds, or do not ask for its variance.",
                    )
                bound = noise[column] if noise else 0
                width = _slot_width(maximum, rows, bound)
                cost = width if plans and governing in plans[-1] else width + opening
                if not plans or cost > free:
                    plans.append({})
                    free, cost = capacity - count_bits, width + opening
                free -= cost
                plans[-1].setdefault(governing, []).append((column, maximum, bound))
                column += 1
        return Layout(
            tuple(features),
            count_bits,
            limbs,
            tuple(_arrange(plan, rows) for plan in plans),
        )

    @property
    def blocks(self) -> list[Block]:
        """In the order in which they are released."""
        return [block for blocks in self.plaintexts for block in blocks]

    def pack(self, values: U64, present: Bool) -> U64:
        """uint64 (n, columns) and bool (n, features) -> uint64 (n * plaintexts, limbs).

        The plaintexts of a row stand together. Values must be 0 where the feature is absent.
        Raises FeatureUnfit for a value above its maximum: it could overflow into its neighbour.
        """
        packed = np.zeros((len(values), len(self.plaintexts), self.limbs), np.uint64)
        for number, blocks in enumerate(self.plaintexts):
            plaintext = packed[:, number]
            plaintext[:, 0] = 1
            for block in blocks:
                if block.feature is not None:
                    _put(plaintext, present[:, block.feature].astype(np.uint64), block.count_start)
                for slot in block.slots:
                    column = values[:, slot.column]
                    if (column > np.uint64(slot.maximum)).any():
                        raise FeatureUnfit(
                            "A feature has a value outside its declared bounds.",
                            "Clip the values to the bounds before the run.",
                        )
                    _put(plaintext, column, block.start + slot.start)
        return packed.reshape(-1, self.limbs)

    def pack_bits(self, columns: I64) -> U64:
        """int64 (n, m) -> uint64 (n * plaintexts, limbs): a 1 in each of these columns of a row.

        -1 stands for no column; a row names none twice. The columns must all count every row.
        """
        places = np.zeros(1 + sum(len(feature.maxima) for feature in self.features), np.int64)
        bits = np.zeros(len(places), np.uint64)  # the last place, of no column, adds nothing
        for number, blocks in enumerate(self.plaintexts):
            for block in blocks:
                for slot in block.slots:
                    limb, shift = divmod(block.start + slot.start, 64)
                    places[slot.column] = number * self.limbs + limb
                    bits[slot.column] = 1 << shift
        packed = np.zeros((len(columns), len(self.plaintexts), self.limbs), np.uint64)
        packed[:, :, 0] = 1
        row = np.arange(len(columns))[:, np.newaxis] * (len(self.plaintexts) * self.limbs)
        np.add.at(packed.reshape(-1), (row + places[columns]).ravel(), bits[columns].ravel())
        return packed.reshape(-1, self.limbs)

    def draw_masks(self) -> tuple[int, ...]:
        """A fresh mask for each block of one group."""
        return tuple(secrets.randbits(block.mask_bits) for block in self.blocks)

    def mask_plaintexts(self, masks: Sequence[int]) -> list[int]:
        """What is to be added to each plaintext of one group: its masks, random bits above them."""
        following = iter(masks)
        plaintexts = []
        for blocks in self.plaintexts:
            end = blocks[-1].end
            plaintext = secrets.randbits(_capacity(self.limbs) - end) << end
            plaintext += sum(next(following) << block.start for block in blocks)
            plaintexts.append(plaintext)
        return plaintexts

    def read(self, plaintexts: Sequence[int]) -> Counts:
        """The decrypted plaintexts of one group. ProtocolViolation if they contradict."""
        rows = {self._count(plaintext, 0) for plaintext in plaintexts}
        presence: dict[int | None, set[int]] = {None: rows}
        masked = []
        for plaintext, blocks in zip(plaintexts, self.plaintexts, strict=True):
            if plaintext >> _capacity(self.limbs):
                raise ProtocolViolation("The other side sent sums that are out of range.")
            for block in blocks:
                count = self._count(plaintext, block.count_start)
                presence.setdefault(block.feature, set()).add(count)
                masked.append(_bits(plaintext, block.start, block.end - block.start))
        if any(len(counts) > 1 or max(counts) > max(rows) for counts in presence.values()):
            raise ProtocolViolation("The other side sent sums whose counts contradict each other.")
        counts = tuple(max(presence[block.feature]) for block in self.blocks)
        return Counts(max(rows), counts, tuple(masked))

    def unpack(self, block: Block, sums: int, count: int) -> dict[int, int]:
        """The sum by column of a block without its mask; with its noise, if it has any.

        Raises AnswersDisagree for sums that `count` rows cannot have.
        """
        unpacked = {
            slot.column: _bits(sums, slot.start, slot.width) - slot.noise for slot in block.slots
        }
        possible = all(
            unpacked[slot.column] <= count * slot.maximum + slot.noise for slot in block.slots
        )
        if sums < 0 or sums >> block.width or not possible:
            raise AnswersDisagree("The other side answered with sums that cannot be.")
        return unpacked

    @staticmethod
    def add_noise(block: Block, masked: int, noise: Sequence[int]) -> int:
        """The masked sums of a block with noise: one number a column of the layout."""
        shifted = sum(noise[slot.column] + slot.noise << slot.start for slot in block.slots)
        return _bits(masked + shifted, 0, block.end - block.start)

    def _count(self, plaintext: int, start: int) -> int:
        return _bits(plaintext, start, self.count_bits)


def to_integers(array: U64) -> list[int]:
    """uint64 (n, limbs) -> n integers."""
    return [int.from_bytes(row.tobytes(), "little") for row in array.astype("<u8")]


def from_integers(integers: Iterable[int], limbs: int) -> U64:
    """n integers -> uint64 (n, limbs)."""
    data = b"".join(number.to_bytes(8 * limbs, "little") for number in integers)
    return np.frombuffer(data, "<u8").reshape(-1, limbs).astype(np.uint64)


def _capacity(limbs: int) -> int:
    """Bits of a plaintext: n has 64 bits a limb, so 2^(64 limbs - 3) < n/3."""
    return 64 * limbs - 3


_Column = tuple[int, int, int]  # its number, its maximum, the bound of its noise


def _slot_width(maximum: int, rows: int, noise: int) -> int:
    """Room for the sum, a bit more, and at least for the sum plus noise shifted to be positive."""
    most = max(maximum * rows, 1)
    return max(most.bit_length() + NOISE_BITS, (most + 2 * noise).bit_length())


def _arrange(plan: dict[int | None, list[_Column]], rows: int) -> tuple[Block, ...]:
    """Counts first, then the blocks."""
    count_bits = rows.bit_length()
    count_starts: dict[int | None, int] = {None: 0}
    for feature in plan:
        count_starts.setdefault(feature, count_bits * len(count_starts))
    start = count_bits * len(count_starts)
    blocks = []
    for feature, columns in plan.items():
        slots, width = [], 0
        for column, maximum, noise in columns:
            slots.append(Slot(column, maximum, noise, width, _slot_width(maximum, rows, noise)))
            width += slots[-1].width
        blocks.append(Block(feature, count_starts[feature], start, width, tuple(slots)))
        start = blocks[-1].end
    return tuple(blocks)


def _put(plaintext: U64, values: U64, start: int) -> None:
    """Set 63-bit values at this bit of every row; the bits there are still zero."""
    limb, shift = divmod(start, 64)
    plaintext[:, limb] |= values << np.uint64(shift)
    if shift and limb + 1 < plaintext.shape[1]:
        plaintext[:, limb + 1] |= values >> np.uint64(64 - shift)


def _bits(number: int, start: int, width: int) -> int:
    return (number >> start) & ((1 << width) - 1)
