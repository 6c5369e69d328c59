"""For each of the bank's segments: what do the shared customers look like in the partner's data?

A private join and compute (Ion et al., EuroS&P 2020) by group, with Paillier's encryption.

    1. bank -> partner   per segment of at least the minimum size, in random order and without its
                         name: shuffled a·H(x)
    2. partner -> bank   per segment: b·(a·H(x)), shuffled within the segment
    3. partner -> bank   every row, shuffled: b·H(y), Enc(packed features of y)
                         the bank multiplies by a, finds the segment, adds to its sum
    4. bank -> partner   per segment: the sum, re-randomised and masked, its counts readable
    5. partner -> bank   decrypts, checks each count against the minimum, answers what reaches it,
                         with noise if that was agreed, and is not too near an earlier release
                         the bank removes its mask

The bank learns the partner's size, the shared count of every segment it sent, and what is released.
The partner learns sizes and shared counts (and how many values were missing) of nameless segments.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

from federated._native import GroupSum, PublicKey, Scalar, SecretKey, multiply, permutation
from federated.aggregation.schema import (
    Aggregates,
    Asked,
    FeatureAggregate,
    Groups,
    SegmentAggregate,
    Table,
)
from federated.arrays import I64, U8, U64, Bool
from federated.channel import Channel
from federated.disclosure.noise import Laplace, Noise, Privacy
from federated.errors import AnswersDisagree, GroupTooSmall, ProtocolViolation
from federated.hooks import BankPeriod, PartnerPeriod, Progress, Release, silent
from federated.paillier import keys
from federated.paillier.ciphertexts import encode, parse
from federated.paillier.packing import Counts, Layout, from_integers, to_integers
from federated.pipeline import pipelined
from federated.points import (
    POINT,
    chunks,
    hash_ids,
    index_of,
    parse_points,
    product,
    receive_points,
    refuse_repeats,
    send_points,
)
from protos.concordat.v1.run_pb2 import EncryptedRows, GroupSizes, MaskedSums, ReleasedSums

A = TypeVar("A", bound=Asked)

ROWS = 2048  # encrypted and sent at a time


def run_bank(
    channel: Channel,
    groups: Groups,
    features: Sequence[Asked],
    public: PublicKey,
    *,
    partner_size: int,
    minimum_group: int,
    key_bits: int,
    together: bool = False,
    privacy: Privacy | None = None,
    period: BankPeriod | None = None,
    release: Release,
    progress: Progress = silent,
) -> Aggregates:
    """public: the partner's key, of the size key_bits that the agreement demands.

    together: the groups are compared, so that all are released or none. privacy: what the noise is
    for that the partner adds to the sums; None if they are exact. period: of runs that the
    partner holds against each other; without one nothing in this run recurs in another.

    Raises InvalidKey, and ProtocolViolation where the partner deviates in form or counts.
    """
    keys.check_key_size(public, key_bits)
    noise = Noise.of([feature.columns for feature in features], privacy).columns
    layout = _plan(features, partner_size, key_bits, noise)
    a = period.scalar if period else Scalar.random()

    # 1. The segments of at least the minimum size, in random order and without their names.
    sizes = np.bincount(groups.segment, minlength=groups.segments)
    sent = np.flatnonzero(_released(sizes, minimum_group, together=together))
    sent = sent[permutation(len(sent))]
    channel.send(GroupSizes(sizes=sizes[sent].tolist()))
    segments = [SegmentAggregate(None, (None,) * len(features))] * groups.segments
    if not len(sent):
        release()
        return Aggregates(tuple(segments))
    order = _shuffled_by_group(groups.segment, sent, groups.segments)
    hashed = hash_ids(groups.ids, progress)[order]
    send_points(channel, hashed, a, stage="blind ids", progress=progress)

    # 2. The same points times b, shuffled within each segment.
    ours = receive_points(channel, len(order), stage="receive own ids", progress=progress)
    index = index_of(ours)
    group_of = np.append(np.repeat(np.arange(len(sent)), sizes[sent]), len(sent))

    # 3. Each row, times a, finds the segment that it is added to. What matches nothing, -1, finds
    #    the last sum, which is discarded.
    shared = np.zeros(len(sent) + 1, np.int64)
    sums = GroupSum(public, len(shared) * len(layout.plaintexts))

    def add(rows: tuple[U8, U64]) -> U8:
        points, ciphertexts = rows
        products = product(points, a)
        group = group_of[index.find(products)]
        np.add(shared, np.bincount(group, minlength=len(shared)), out=shared)
        sums.add(ciphertexts, _spread(group, len(layout.plaintexts)))
        return products

    rows = _receive_rows(channel, layout, public, partner_size, progress)
    refuse_repeats(np.concatenate(list(pipelined(add, rows))))

    # 4. The sums, masked and re-randomised: their counts tell the partner something.
    progress("release", 0, 1)
    if period:
        period.counted(sent, shared[:-1])
    release()
    masks = [layout.draw_masks() for _ in sent]
    plain = [plaintext for mask in masks for plaintext in layout.mask_plaintexts(mask)]
    totals = sums.result()[: len(plain)]
    _send_ciphertexts(channel, public.rerandomise(totals, from_integers(plain, layout.limbs)))

    # 5. What reaches the minimum, without its mask.
    answers = _receive_answers(channel, len(sent))
    released = _released(shared[:-1], minimum_group, together=together)
    held: list[int] = []
    for segment, answer, count, open_, mask in zip(
        sent, answers, shared[:-1], released, masks, strict=True
    ):
        if open_ and answer.held_back:
            held.append(int(segment))
        blocks = len(layout.blocks) if open_ and not answer.held_back else 0
        if answer.count != count or len(answer.blocks) != blocks:
            raise AnswersDisagree(
                "The other side's answer does not agree with the matches counted here."
            )
        if blocks:
            segments[segment] = _unmask(answer, mask, layout, features, minimum_group, noise=noise)
    _tell_held_back(period, held)
    progress("release", 1, 1)
    return Aggregates(tuple(segments))


def run_partner(
    channel: Channel,
    table: Table[A],
    features: Sequence[A],
    secret: SecretKey,
    *,
    bank_size: int,
    groups: int,
    minimum_group: int,
    together: bool = False,
    privacy: Privacy | None = None,
    short_exponents: bool = False,
    period: PartnerPeriod | None = None,
    release: Release,
    progress: Progress = silent,
) -> int:
    """How many of the bank's groups were released; `groups` is how many there may be.

    period: what was released in earlier runs, where the bank's pseudonyms stay the same.

    Raises FeatureUnfit for the table, ProtocolViolation where the bank deviates in form.
    """
    table.check(features)
    noise = Noise.of([feature.columns for feature in features], privacy)
    layout = _plan(features, len(table.ids), secret.public.bits, noise.columns)
    b = Scalar.random()

    # 1. The bank's segments.
    sizes = _receive_sizes(channel, bank_size, minimum_group)
    if len(sizes) > groups or (together and 0 < len(sizes) < groups):
        raise ProtocolViolation("The other side sent another number of groups than was agreed.")
    if not len(sizes):
        release()
        return 0
    hashed = hash_ids(table.ids, progress)
    pseudonyms: list[U8] = []
    theirs = receive_points(
        channel,
        int(sizes.sum()),
        b,
        stage="blind bank's ids",
        seen=(lambda points: pseudonyms.append(period.pseudonyms(points))) if period else None,
        progress=progress,
    )
    if period:
        period.sent(sizes, np.concatenate(pseudonyms))

    # 2. The same points times b, shuffled within each segment.
    group_of = np.repeat(np.arange(len(sizes)), sizes)
    answer = theirs[_shuffled_by_group(group_of, np.arange(len(sizes)), len(sizes))]
    send_points(channel, answer, stage="answer", progress=progress)

    # 3. Every row, in random order.
    def encrypted(rows: U64) -> tuple[U8, U64]:
        plaintexts = table.pack(rows, features, layout)
        ciphertexts = keys.encrypt(secret, plaintexts, short_exponents=short_exponents)
        return multiply(hashed[rows], b), ciphertexts

    order = permutation(len(table.ids))
    parts = (order[part] for part in chunks(len(order), _rows_per_frame(channel, layout)))
    _send_rows(channel, pipelined(encrypted, parts), len(order), progress)

    # 4. The masked sums; their counts can be read.
    progress("release", 0, 1)
    masked = _receive_ciphertexts(channel, len(sizes) * len(layout.plaintexts), secret.public)
    counts = _read_counts(to_integers(secret.decrypt(masked)), layout)
    if any(count.rows > size for count, size in zip(counts, sizes, strict=True)):
        raise ProtocolViolation("The other side sent a sum of more rows than its group has.")
    if sum(count.rows for count in counts) > len(table.ids):
        raise ProtocolViolation("The other side sent sums of more rows than there are.")

    # 5. What reaches the minimum.
    shared = np.array([count.rows for count in counts])
    released = _released(shared, minimum_group, together=together)
    held = np.zeros(len(counts), np.bool_)
    if period:
        held = released & period.counted(_counted(counts, layout), released)
        held |= held.any() and together
        released &= ~held
    drawn = noise.draw(len(counts)).tolist()
    release()
    _send_answers(
        channel,
        [
            _answer(count, layout, minimum_group, added)
            if open_
            else _withheld(count, held_back=back)
            for count, open_, back, added in zip(
                counts, released, held.tolist(), drawn, strict=True
            )
        ],
    )
    progress("release", 1, 1)
    return int(released.sum())


def _plan(features: Sequence[Asked], rows: int, key_bits: int, noise: Sequence[Laplace]) -> Layout:
    bounds = [one.bound for one in noise]
    return Layout.plan([feature.columns for feature in features], rows, key_bits, bounds)


# Segments


def _released(counts: I64, minimum_group: int, *, together: bool) -> Bool:
    """Which groups reach the minimum; where they stand together, all of them or none."""
    reached = counts >= minimum_group
    return reached & (reached.all() or not together)


def _shuffled_by_group(group: I64, order: I64, groups: int) -> I64:
    """Rows of the groups in `order`, group after group, each shuffled; others are left out."""
    place = np.full(groups, len(order))
    place[order] = np.arange(len(order))
    shuffled = permutation(len(group)).astype(np.int64)
    places = place[group[shuffled]]
    by_group = shuffled[np.argsort(places, kind="stable")]
    return by_group[: np.count_nonzero(places < len(order))]


def _receive_sizes(channel: Channel, bank_size: int, minimum_group: int) -> I64:
    sizes = list(channel.receive(GroupSizes).sizes)
    if any(size < minimum_group for size in sizes):
        raise GroupTooSmall(
            f"The other side sent a group of fewer than {minimum_group} ids, "
            "the minimum that the agreement demands."
        )
    if sum(sizes) > bank_size:
        raise ProtocolViolation("The other side sent groups of more ids than it announced.")
    return np.array(sizes, np.int64)


# Rows


def _rows_per_frame(channel: Channel, layout: Layout) -> int:
    row = POINT + len(layout.plaintexts) * 16 * layout.limbs
    return max(1, min(ROWS, channel.room // row))


def _send_rows(
    channel: Channel, parts: Iterable[tuple[U8, U64]], total: int, progress: Progress
) -> None:
    sent = 0
    progress("encrypt and send rows", sent, total)
    for points, ciphertexts in parts:
        sent += len(points)
        channel.send(
            EncryptedRows(
                points=points.tobytes(),
                ciphertexts=encode(ciphertexts).tobytes(),
                last=sent == total,
            )
        )
        progress("encrypt and send rows", sent, total)


def _receive_rows(
    channel: Channel, layout: Layout, public: PublicKey, expected: int, progress: Progress
) -> Iterator[tuple[U8, U64]]:
    """Points uint8 (n, 32) with ciphertexts uint64 (n * plaintexts, 2L), frame by frame."""
    received, last = 0, False
    while not last:
        progress("add encrypted rows", received, expected)
        frame = channel.receive(EncryptedRows)
        last = frame.last
        points = parse_points(frame.points, expected - received, last=last)
        received += len(points)
        yield (
            points,
            parse(frame.ciphertexts, len(points) * len(layout.plaintexts), public),
        )
    progress("add encrypted rows", expected, expected)


def _spread(group: I64, plaintexts: int) -> I64:
    """The sum that each ciphertext belongs to: a group has one for each plaintext of a row."""
    return (group[:, np.newaxis] * plaintexts + np.arange(plaintexts)).ravel()


# Ciphertexts


def _send_ciphertexts(channel: Channel, ciphertexts: U64) -> None:
    data = encode(ciphertexts).tobytes()
    for part in chunks(len(data), channel.room):
        channel.send(MaskedSums(ciphertexts=data[part], last=part.stop == len(data)))


def _receive_ciphertexts(channel: Channel, count: int, public: PublicKey) -> U64:
    size = count * public.bits // 4
    data = bytearray()
    last = False
    while not last:
        frame = channel.receive(MaskedSums)
        last = frame.last
        data += frame.ciphertexts
        if not (frame.ciphertexts or last) or last != (len(data) >= size):
            raise ProtocolViolation("The other side sent a wrong number of sums.")
    return parse(bytes(data), count, public)


# Answers


def _read_counts(plaintexts: list[int], layout: Layout) -> list[Counts]:
    """Of every group, from its decrypted plaintexts."""
    each = len(layout.plaintexts)
    return [layout.read(plaintexts[i : i + each]) for i in range(0, len(plaintexts), each)]


def _counted(counts: Sequence[Counts], layout: Layout) -> I64:
    """As a period takes them: the rows of each group, and how many have each feature."""
    rows = np.array([count.rows for count in counts], np.int64)
    found = np.repeat(rows[:, np.newaxis], 1 + len(layout.features), axis=1)
    for at, block in enumerate(layout.blocks):
        if block.feature is not None:
            found[:, 1 + block.feature] = [count.blocks[at] for count in counts]
    return found


def _withheld(counts: Counts, *, held_back: bool = False) -> ReleasedSums.Group:
    return ReleasedSums.Group(count=counts.rows, held_back=held_back)


def _answer(
    counts: Counts, layout: Layout, minimum_group: int, noise: Sequence[int] = ()
) -> ReleasedSums.Group:
    """What reaches the minimum, block by block, with its noise; below it only the count."""
    group = _withheld(counts)
    if counts.rows >= minimum_group:
        for block, count, masked in zip(layout.blocks, counts.blocks, counts.masked, strict=True):
            released = group.blocks.add()
            if count >= minimum_group:
                released.count = count
                sums = layout.add_noise(block, masked, noise) if noise else masked
                released.sums = sums.to_bytes((block.end - block.start + 7) // 8, "little")
    return group


def _send_answers(channel: Channel, answers: list[ReleasedSums.Group]) -> None:
    most = max(answer.ByteSize() for answer in answers) + 8
    for part in chunks(len(answers), max(1, channel.room // most)):
        channel.send(ReleasedSums(groups=answers[part], last=part.stop == len(answers)))


def _receive_answers(channel: Channel, expected: int) -> Iterator[ReleasedSums.Group]:
    """One answer a group, frame by frame: none is kept, as its size is the peer's choice."""
    received, last = 0, False
    while not last:
        frame = channel.receive(ReleasedSums)
        last = frame.last
        received += len(frame.groups)
        if not frame.groups or received > expected or last != (received == expected):
            raise ProtocolViolation("The other side sent a wrong number of answers.")
        yield from frame.groups


def _tell_held_back(period: BankPeriod | None, groups: list[int]) -> None:
    if period:
        period.held_back(np.array(groups, np.int64))
    elif groups:
        raise AnswersDisagree("The other side holds back what nothing earlier comes near to.")


def _unmask(
    answer: ReleasedSums.Group,
    masks: Sequence[int],
    layout: Layout,
    features: Sequence[Asked],
    minimum_group: int,
    *,
    noise: Sequence[Laplace],
) -> SegmentAggregate:
    """The statistics of one segment; a feature any of whose blocks is withheld is suppressed."""
    sums: dict[int, int] = {}
    counts: dict[int | None, int] = {None: answer.count}
    for block, released, mask in zip(layout.blocks, answer.blocks, masks, strict=True):
        count = counts.setdefault(block.feature, released.count)
        if released.count != count or 0 < count < minimum_group or count > answer.count:
            raise AnswersDisagree("The other side answered with counts that cannot be.")
        if count:
            masked = int.from_bytes(released.sums, "little")
            sums |= layout.unpack(block, masked - mask, count)
    starts = np.cumsum([0, *(len(columns.maxima) for columns in layout.features)]).tolist()
    aggregates: list[FeatureAggregate | None] = []
    for i, (feature, (start, stop)) in enumerate(zip(features, pairwise(starts), strict=True)):
        count = counts[i if layout.features[i].may_be_missing else None]
        own = [sums[column] for column in range(start, stop)] if count else []
        aggregates.append(feature.aggregate(count, own, noise[start:stop]) if count else None)
    return SegmentAggregate(answer.count, tuple(aggregates))
