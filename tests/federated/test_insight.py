"""The insight protocol against pandas joins, and against peers that deviate."""

from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from functools import cache

import numpy as np
import pandas as pd
import pytest
from two_sides import Gate, Withdrawn, phones, play, succeed, tampering

from federated._native import Scalar, SecretKey
from federated.aggregation import insight
from federated.aggregation.schema import Feature, FeatureTable, Groups, Over, Share
from federated.channel import Channel
from federated.errors import (
    AnswersDisagree,
    FeatureUnfit,
    GroupTooSmall,
    InvalidCiphertext,
    InvalidKey,
    InvalidPoint,
    PeerAborted,
    ProtocolViolation,
)
from federated.paillier import keys
from federated.paillier.packing import Layout, from_integers, to_integers
from federated.points import hash_ids, product, receive_points, send_points
from protos.concordat.v1.run_pb2 import (
    EncryptedRows,
    GroupSizes,
    MaskedSums,
    Points,
    ReleasedSums,
)

D = Decimal
EVERYTHING = frozenset({"count", "sum", "mean", "variance", "share", "histogram"})
BALANCE = Feature(
    "balance",
    EVERYTHING,
    lower=D("-500.00"),
    upper=D("1000.00"),
    decimals=2,
    bins=(D("-100"), D("0"), D("250.5")),
    share=Share(above=D(0)),
)
AGE = Feature(
    "age",
    frozenset({"sum", "mean", "variance"}),
    lower=D(18),
    upper=D(99),
    may_be_missing=False,
)
VISITS = Feature("visits", frozenset({"count", "histogram"}), D(0), D(5), bins=(D(0), D(2)))
FEATURES = [BALANCE, AGE, VISITS]
BITS = 1024


@cache
def secret_key(bits: int) -> SecretKey:
    return keys.generate(bits, allow_small=True)


@dataclass
class Case:
    """Both sides' data, as frames and as the protocol takes it."""

    bank: pd.DataFrame  # phone, segment
    partner: pd.DataFrame  # phone, and the features as integers, NaN where missing
    features: list[Feature]
    segments: int
    minimum: int
    bits: int = BITS

    def __post_init__(self) -> None:
        secret_key(self.bits)  # made here, before two threads ask for it

    @property
    def groups(self) -> Groups:
        return Groups(phones(self.bank.phone), self.bank.segment.to_numpy(), self.segments)

    @property
    def table(self) -> FeatureTable:
        columns = self.partner[[f.name for f in self.features]]
        return FeatureTable(
            phones(self.partner.phone),
            columns.fillna(0).to_numpy().astype(np.int64),
            columns.notna().to_numpy(),
        )

    def run_bank(self, channel: Channel, **changes):
        arguments = {
            "partner_size": len(self.partner),
            "minimum_group": self.minimum,
            "key_bits": self.bits,
            "release": Gate(),
        }
        public = secret_key(self.bits).public
        return insight.run_bank(channel, self.groups, self.features, public, **arguments | changes)

    def run_partner(self, channel: Channel, **changes):
        arguments = {
            "bank_size": len(self.bank),
            "groups": self.segments,
            "minimum_group": self.minimum,
            "release": Gate(),
        }
        return insight.run_partner(
            channel, self.table, self.features, secret_key(self.bits), **arguments | changes
        )

    def succeed(self, **play_as):
        found, released = succeed(self.run_bank, self.run_partner, **play_as)
        assert released == sum(not segment.suppressed for segment in found)
        return found


def generate(
    seed: int,
    *,
    bank: int = 150,
    partner: int = 120,
    features: list[Feature] = FEATURES,
    segments: int = 4,
    minimum: int = 10,
    missing: float = 0.1,
    people: int = 200,
) -> Case:
    rng = np.random.default_rng(seed)
    table = {"phone": rng.permutation(people)[:partner]}
    for feature in features:
        # Often at a bound, so that the extremes of every slot occur.
        values = rng.integers(feature.low, feature.high, partner, endpoint=True).astype(float)
        values = np.where(rng.random(partner) < 0.1, feature.low, values)
        values = np.where(rng.random(partner) < 0.1, feature.high, values)
        if feature.may_be_missing:
            values[rng.random(partner) < missing] = np.nan
        table[feature.name] = values
    customers = {
        "phone": rng.permutation(people)[:bank],
        "segment": rng.integers(0, segments, bank),
    }
    return Case(pd.DataFrame(customers), pd.DataFrame(table), features, segments, minimum)


def check_against_join(case: Case, found) -> None:
    joined = case.bank.merge(case.partner, on="phone")
    assert len(found.segments) == case.segments
    for segment, aggregate in enumerate(found):
        shared = joined[joined.segment == segment]
        own = (case.bank.segment == segment).sum()
        assert aggregate.suppressed == (own < case.minimum or len(shared) < case.minimum)
        if aggregate.suppressed:
            assert aggregate.count is None
            assert aggregate.features == (None,) * len(case.features)
            continue
        assert aggregate.count == len(shared)
        for feature, one in zip(case.features, aggregate.features, strict=True):
            column = shared[feature.name].dropna()
            if len(column) < case.minimum:
                assert one is None
                continue
            check_feature(feature, one, [Fraction(int(v), 10**feature.decimals) for v in column])


def check_feature(feature: Feature, one, values: list[Fraction]) -> None:
    asked, n = feature.statistics, len(values)
    mean = sum(values) / n
    assert one.count == n
    assert one.sum == (sum(values) if "sum" in asked else None)
    assert one.mean == (mean if "mean" in asked else None)
    assert one.variance == (
        sum((v - mean) ** 2 for v in values) / n if "variance" in asked else None
    )
    assert one.share == (Fraction(sum(v > 0 for v in values), n) if "share" in asked else None)
    if "histogram" in asked:
        edges = [-np.inf, *map(float, feature.bins), np.inf]
        binned = pd.cut(pd.Series([float(v) for v in values]), edges)
        assert list(one.histogram) == binned.value_counts(sort=False).tolist()
    else:
        assert one.histogram is None


@pytest.mark.parametrize("seed", range(4))
def test_every_statistic_equals_the_plain_join(seed: int) -> None:
    case = generate(seed)
    check_against_join(case, case.succeed())


def test_a_ratio_counts_those_who_have_both() -> None:
    """Of segment 0 forty people have both, of segment 1 thirty, of segment 2 nine: withheld."""
    people = np.arange(120)
    over = Over("made", D(1), D(50))
    ratio = Feature("taken", frozenset({"mean", "ratio"}), D(0), D(9), over=over)
    case = Case(
        pd.DataFrame({"phone": people, "segment": people // 40}),
        pd.DataFrame({"phone": people, "taken": people % 10}),
        [ratio],
        segments=3,
        minimum=10,
    )
    made, both = people % 7 + 1, (people < 70) | (people > 110)

    def run_partner(channel: Channel) -> int:
        table = replace(case.table, present=both[:, np.newaxis], over={"made": made})
        key = secret_key(case.bits)
        return insight.run_partner(
            channel, table, [ratio], key, bank_size=120, groups=3, minimum_group=10, release=Gate()
        )

    found, released = succeed(case.run_bank, run_partner)
    assert released == 3
    for segment, count in enumerate((40, 30)):
        taken, divisor = ((people % 10)[:70], made[:70])
        own = slice(40 * segment, 40 * segment + count)
        (one,) = found.segments[segment].features
        assert (one.count, one.mean) == (count, Fraction(int(taken[own].sum()), count))
        assert one.ratio == Fraction(int(taken[own].sum()), int(divisor[own].sum()))
    assert found.segments[2].features == (None,)


def test_several_ciphertexts_a_row_and_many_frames() -> None:
    wide = [replace(BALANCE, name=f"f{i}") for i in range(9)]
    case = generate(7, features=wide)
    assert len(Layout.plan([f.columns for f in wide], 120, BITS).plaintexts) > 1
    check_against_join(case, case.succeed(max_frame=3000))


def test_a_2048_bit_key() -> None:
    case = replace(generate(8), bits=2048)
    check_against_join(case, case.succeed())


def test_short_exponents() -> None:
    case = replace(generate(8), bits=2048)
    found, _ = succeed(
        case.run_bank, lambda channel: case.run_partner(channel, short_exponents=True)
    )
    check_against_join(case, found)


def test_a_key_that_phe_made() -> None:
    imported = keys.from_phe(keys.to_phe(secret_key(BITS)), allow_small=True)
    case = generate(9)
    found, _ = succeed(
        case.run_bank,
        lambda channel: insight.run_partner(
            channel,
            case.table,
            case.features,
            imported,
            bank_size=len(case.bank),
            groups=case.segments,
            minimum_group=case.minimum,
            release=Gate(),
        ),
    )
    check_against_join(case, found)


def test_a_feature_with_too_few_values_is_withheld_alone() -> None:
    case = generate(3, missing=0.9)
    found = case.succeed()
    check_against_join(case, found)
    released = [segment.features for segment in found if not segment.suppressed]
    assert any(one[0] is None and one[1] is not None for one in released)


def fixed(shared: int, *, only_bank: int = 0, minimum: int = 5) -> Case:
    """One segment with so many shared customers."""
    bank = pd.DataFrame({"phone": range(shared + only_bank), "segment": 0})
    partner = pd.DataFrame({"phone": range(shared), "age": 30})
    return Case(bank, partner, [AGE], 1, minimum)


@pytest.mark.parametrize(("shared", "suppressed"), [(4, True), (5, False)])
def test_the_minimum_itself_is_released(shared: int, suppressed: bool) -> None:
    found = fixed(shared, only_bank=3).succeed()
    assert [segment.suppressed for segment in found] == [suppressed]


@pytest.mark.parametrize(
    "case",
    [
        generate(1, minimum=1000),
        generate(1, bank=0),
        generate(1, partner=0),
        generate(1, partner=1),
        generate(1, partner=1, minimum=1),
        generate(1, segments=100),
        generate(1, segments=100, minimum=1),
        fixed(1, minimum=1),
    ],
    ids=[
        "every segment stays home",
        "no customers",
        "no partner rows",
        "one partner row",
        "one partner row, released",
        "small segments",
        "segments of one",
        "one and the same",
    ],
)
def test_edges(case: Case) -> None:
    check_against_join(case, case.succeed())


def test_no_match_at_all() -> None:
    case = generate(1)
    case.partner.phone += 1000
    found = case.succeed()
    assert all(segment.suppressed for segment in found)


def test_release_is_called_once_on_each_side() -> None:
    for case in (fixed(8), fixed(8, minimum=100)):
        ours, theirs = Gate(), Gate()
        succeed(
            lambda ch, case=case, ours=ours: case.run_bank(ch, release=ours),
            lambda ch, case=case, theirs=theirs: case.run_partner(ch, release=theirs),
        )
        assert ours.calls == theirs.calls == 1


def test_a_shut_gate_at_the_partner_releases_nothing() -> None:
    case = fixed(8)
    ours, theirs = play(case.run_bank, lambda ch: case.run_partner(ch, release=Gate(shut=True)))
    assert isinstance(theirs.error, Withdrawn)
    assert isinstance(ours.error, PeerAborted)


def test_a_shut_gate_at_the_bank_gives_no_result() -> None:
    case, gate = fixed(8), Gate()
    ours, theirs = play(
        lambda ch: case.run_bank(ch, release=Gate(shut=True)),
        lambda ch: case.run_partner(ch, release=gate),
    )
    assert isinstance(ours.error, Withdrawn)
    assert ours.result is None
    # The partner has not seen the shared counts: the abort came in place of the sums.
    assert isinstance(theirs.error, PeerAborted)
    assert gate.calls == 0


def test_progress_moves_in_order_of_the_protocol() -> None:
    case = generate(1)
    stages: dict[str, list[str]] = {"bank": [], "partner": []}

    def note(side: str):
        def progress(stage: str, done: int, total: int) -> None:
            assert 0 <= done <= total
            if stage not in stages[side]:
                stages[side].append(stage)

        return progress

    succeed(
        lambda ch: case.run_bank(ch, progress=note("bank")),
        lambda ch: case.run_partner(ch, progress=note("partner")),
    )
    assert stages == {
        "bank": ["hash ids", "blind ids", "receive own ids", "add encrypted rows", "release"],
        "partner": ["hash ids", "blind bank's ids", "answer", "encrypt and send rows", "release"],
    }


# What each side sees


def test_the_partner_sees_sizes_in_no_fixed_order_and_no_small_group() -> None:
    """Three segments reach the minimum; their order on the wire is random."""
    sizes = [5, 6, 7, 2]
    bank = pd.DataFrame({"phone": range(20), "segment": np.repeat(range(4), sizes)})
    orders = set()
    for _ in range(60):
        case = Case(bank, pd.DataFrame({"phone": [1], "age": [30]}), [AGE], 4, 5)
        _, theirs = play(case.run_bank, lambda ch: list(ch.receive(GroupSizes).sizes))
        orders.add(tuple(theirs.result))
    assert {tuple(sorted(order)) for order in orders} == {(5, 6, 7)}
    assert len(orders) > 1


class KnownScalar:
    """In place of a random one."""

    @staticmethod
    def random() -> Scalar:
        return Scalar.from_bytes((8 * 12345).to_bytes(32, "little"))


def test_the_answer_is_shuffled_within_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insight, "Scalar", KnownScalar)
    case = fixed(40)
    points = hash_ids(phones(range(40)))

    def bank(channel: Channel):
        channel.send(GroupSizes(sizes=[15, 25]))
        send_points(channel, points)
        return receive_points(channel, 40)

    ours, _ = play(bank, lambda ch: case.run_partner(ch, groups=2))
    answer = [bytes(point) for point in ours.result]
    in_order = [bytes(point) for point in product(points, KnownScalar.random())]
    for group in (slice(0, 15), slice(15, 40)):
        assert sorted(answer[group]) == sorted(in_order[group])
        assert answer[group] != in_order[group]


def test_rows_travel_in_random_order_and_never_twice_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(insight, "Scalar", KnownScalar)
    case = fixed(40)

    def bank(channel: Channel) -> EncryptedRows:
        channel.send(GroupSizes(sizes=[40]))
        send_points(channel, hash_ids(phones(range(40))))
        receive_points(channel, 40)
        return channel.receive(EncryptedRows)

    first, second = (play(bank, case.run_partner)[0].result for _ in range(2))
    in_order = product(hash_ids(case.table.ids), KnownScalar.random()).tobytes()
    assert len({first.points, second.points, in_order}) == 3
    assert len(ciphertexts(first)) == 40
    assert not set(ciphertexts(first)) & set(ciphertexts(second))


def test_what_the_partner_decrypts_hides_the_sums_but_not_the_counts() -> None:
    """The same run twice: the readable count is the same, everything above it is not."""
    case = fixed(8)
    secret = secret_key(BITS)
    seen = []

    def keep(message: MaskedSums) -> None:
        limbs = np.frombuffer(message.ciphertexts, "<u8").reshape(-1, BITS // 32)
        seen.extend(to_integers(secret.decrypt(limbs)))

    for _ in range(2):
        play(tampering(case.run_bank, MaskedSums, keep), case.run_partner)
    count_bits = (8).bit_length()
    assert [plain % 2**count_bits for plain in seen] == [8, 8]
    assert seen[0] >> count_bits != seen[1] >> count_bits


# A partner that deviates


def ciphertexts(rows: EncryptedRows | MaskedSums) -> list[int]:
    size = BITS // 4
    data = rows.ciphertexts
    return [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]


def replace_first(number: int):
    """Put another ciphertext in the place of the first."""

    def change(message: EncryptedRows | MaskedSums) -> None:
        first = number.to_bytes(BITS // 4, "little")
        message.ciphertexts = first + message.ciphertexts[len(first) :]

    return change


def modulus() -> int:
    return int.from_bytes(secret_key(BITS).public.modulus, "little")


def bad_ciphertexts() -> dict[str, int]:
    n = modulus()
    p = int.from_bytes(secret_key(BITS).primes()[0], "little")
    return {"zero": 0, "n squared": n * n, "largest": 2 ** (2 * BITS) - 1, "not coprime": 7 * p}


def assign(**fields):
    """Change fields to what a function makes of the message."""

    def change(message) -> None:
        for name, make in fields.items():
            setattr(message, name, make(message))

    return change


def refused_by_bank(case: Case, kind, change) -> ProtocolViolation:
    ours, _ = play(case.run_bank, tampering(case.run_partner, kind, change))
    assert ours.result is None
    assert isinstance(ours.error, ProtocolViolation), ours.error
    return ours.error


@pytest.mark.parametrize("which", ["zero", "n squared", "largest", "not coprime"])
def test_the_bank_refuses_a_rows_bad_ciphertext(which: str) -> None:
    error = refused_by_bank(fixed(8), EncryptedRows, replace_first(bad_ciphertexts()[which]))
    assert isinstance(error, InvalidCiphertext)


def point(u: int) -> bytes:
    return u.to_bytes(32, "little")


@pytest.mark.parametrize(
    "make",
    [
        lambda rows: rows.points[:-32] + rows.points[:32],
        lambda rows: point(1) + rows.points[32:],
        lambda rows: point(0) + rows.points[32:],
        lambda rows: point(2**255 - 19) + rows.points[32:],
        lambda rows: rows.points[:31] + b"\xff" + rows.points[32:],
    ],
    ids=["repeated", "small order", "zero", "not reduced", "top bit"],
)
@pytest.mark.parametrize("shift", [0, 1000], ids=["matching", "not matching"])
def test_the_bank_refuses_a_rows_bad_point(make, shift: int) -> None:
    case = fixed(8)
    case.partner.phone += shift
    error = refused_by_bank(case, EncryptedRows, assign(points=make))
    assert isinstance(error, InvalidPoint)


def test_the_bank_refuses_a_repeated_row_in_another_frame() -> None:
    case = fixed(40)
    frames: list[bytes] = []

    def repeat(rows: EncryptedRows) -> None:
        frames.append(rows.points)
        rows.points = frames[0][: len(rows.points)]

    ours, _ = play(
        case.run_bank, tampering(case.run_partner, EncryptedRows, repeat), max_frame=4000
    )
    assert len(frames) > 1
    assert isinstance(ours.error, InvalidPoint)


@pytest.mark.parametrize(
    "change",
    [
        assign(points=lambda rows: rows.points[:-32]),
        assign(points=lambda rows: rows.points[:-1]),
        assign(points=lambda rows: rows.points + point(9)),
        assign(ciphertexts=lambda rows: rows.ciphertexts[:-1]),
        assign(ciphertexts=lambda rows: rows.ciphertexts + rows.ciphertexts[:256]),
        assign(ciphertexts=lambda rows: b""),
        assign(last=lambda rows: False),
        assign(points=lambda rows: b"", ciphertexts=lambda rows: b""),
        assign(
            points=lambda rows: rows.points[:-32],
            ciphertexts=lambda rows: rows.ciphertexts[: -BITS // 4],
        ),
    ],
)
def test_the_bank_refuses_a_wrong_number_of_rows(change) -> None:
    refused_by_bank(fixed(8), EncryptedRows, change)


@pytest.mark.parametrize("announced", [7, 9])
def test_the_bank_refuses_another_size_than_announced(announced: int) -> None:
    case = fixed(8)
    ours, _ = play(lambda ch: case.run_bank(ch, partner_size=announced), case.run_partner)
    assert isinstance(ours.error, ProtocolViolation)


@pytest.mark.parametrize(
    "make",
    [
        lambda frame: frame.points[:-32],
        lambda frame: frame.points + point(9),
        lambda frame: frame.points[:-32] + frame.points[:32],
        lambda frame: frame.points[:-32] + point(0),
    ],
    ids=["fewer", "more", "repeated", "zero"],
)
def test_the_bank_refuses_a_bad_answer_to_its_points(make) -> None:
    refused_by_bank(fixed(8), Points, assign(points=make))


def change_block(**fields):
    def change(message: ReleasedSums) -> None:
        block = message.groups[0].blocks[0]
        for name, value in fields.items():
            setattr(block, name, value)

    return change


def drop_blocks(message: ReleasedSums) -> None:
    del message.groups[0].blocks[:]


def drop_groups(message: ReleasedSums) -> None:
    del message.groups[:]


def repeat_group(message: ReleasedSums) -> None:
    message.groups.append(message.groups[0])


def change_count(by: int):
    def change(message: ReleasedSums) -> None:
        message.groups[0].count += by

    return change


@pytest.mark.parametrize(
    "change",
    [
        change_count(1),
        change_count(-1),
        drop_blocks,
        change_block(count=7),
        change_block(count=9),
        change_block(count=2),
        change_block(sums=b""),
        change_block(sums=b"\xff" * 30),
        change_block(sums=b"\xff" * 3000),
    ],
)
def test_the_bank_refuses_an_answer_that_disagrees(change) -> None:
    error = refused_by_bank(fixed(8), ReleasedSums, change)
    assert isinstance(error, AnswersDisagree)


@pytest.mark.parametrize("change", [drop_groups, repeat_group])
def test_the_bank_refuses_a_wrong_number_of_answers(change) -> None:
    refused_by_bank(fixed(8), ReleasedSums, change)


def test_the_bank_keeps_no_answer_but_reads_it_as_it_comes() -> None:
    """A partner whose every answer fills a frame is refused at the first."""
    bank = pd.DataFrame({"phone": range(40), "segment": np.arange(40) % 8})
    case = Case(bank, pd.DataFrame({"phone": range(40), "age": 30}), [AGE], 8, 5)

    def partner(channel: Channel) -> None:
        send = channel.send

        def send_apart(message) -> None:
            if isinstance(message, ReleasedSums):
                for group in message.groups:
                    group.blocks[0].sums = bytes(1_000_000)
                    send(ReleasedSums(groups=[group]))
            else:
                send(message)

        channel.send = send_apart
        case.run_partner(channel)

    ours, _ = play(case.run_bank, partner)
    assert isinstance(ours.error, AnswersDisagree)
    assert ours.channel.bytes_received < 1_100_000


def test_the_bank_refuses_a_group_released_below_the_minimum() -> None:
    case = fixed(4, only_bank=4)
    ours, _ = play(case.run_bank, lambda ch: case.run_partner(ch, minimum_group=3))
    assert isinstance(ours.error, AnswersDisagree)


def test_the_bank_refuses_a_key_of_another_size() -> None:
    case = fixed(8)
    ours, theirs = play(lambda ch: case.run_bank(ch, key_bits=3072), case.run_partner)
    assert isinstance(ours.error, InvalidKey)
    assert isinstance(theirs.error, PeerAborted)


def test_the_partners_table_is_checked_before_anything_is_sent() -> None:
    case = fixed(8)
    case.partner.loc[3, "age"] = 100
    _, theirs = play(case.run_bank, case.run_partner)
    assert isinstance(theirs.error, FeatureUnfit)


# A bank that deviates


def refused_by_partner(case: Case, kind, change) -> ProtocolViolation:
    released = Gate()
    _, theirs = play(
        tampering(case.run_bank, kind, change),
        lambda channel: case.run_partner(channel, release=released),
    )
    assert isinstance(theirs.error, ProtocolViolation), theirs.error
    assert released.calls == 0
    return theirs.error


def set_sizes(*sizes: int):
    def change(message: GroupSizes) -> None:
        message.sizes[:] = sizes

    return change


def test_the_partner_refuses_a_group_below_the_minimum() -> None:
    error = refused_by_partner(fixed(8, minimum=4), GroupSizes, set_sizes(5, 3))
    assert isinstance(error, GroupTooSmall)


@pytest.mark.parametrize("sizes", [(9,), (8, 5), (2**64 - 1,), (5,), (6,)])
def test_the_partner_refuses_other_sizes_than_announced_or_sent(sizes: tuple[int, ...]) -> None:
    refused_by_partner(fixed(8), GroupSizes, set_sizes(*sizes))


@pytest.mark.parametrize(
    "make",
    [
        lambda frame: frame.points[:-32] + frame.points[:32],
        lambda frame: frame.points[:-32] + point(1),
        lambda frame: frame.points[:-32] + point(2**256 - 1),
    ],
    ids=["repeated", "small order", "not canonical"],
)
def test_the_partner_refuses_bad_points(make) -> None:
    error = refused_by_partner(fixed(8), Points, assign(points=make))
    assert isinstance(error, InvalidPoint)


@pytest.mark.parametrize("which", ["zero", "n squared", "largest", "not coprime"])
def test_the_partner_refuses_a_bad_sum(which: str) -> None:
    error = refused_by_partner(fixed(8), MaskedSums, replace_first(bad_ciphertexts()[which]))
    assert isinstance(error, InvalidCiphertext)


@pytest.mark.parametrize(
    "change",
    [
        assign(ciphertexts=lambda sums: b""),
        assign(ciphertexts=lambda sums: sums.ciphertexts[:-1]),
        assign(ciphertexts=lambda sums: sums.ciphertexts * 2),
        assign(ciphertexts=lambda sums: b"", last=lambda sums: False),
        assign(last=lambda sums: False),
    ],
)
def test_the_partner_refuses_a_wrong_number_of_sums(change) -> None:
    refused_by_partner(fixed(8), MaskedSums, change)


def add_plaintext(place: int, plaintext: int):
    """Add to what a sum will decrypt to."""

    def change(message: MaskedSums) -> None:
        n = modulus()
        numbers = ciphertexts(message)
        numbers[place] = numbers[place] * (1 + plaintext * n) % (n * n)
        message.ciphertexts = b"".join(c.to_bytes(BITS // 4, "little") for c in numbers)

    return change


@pytest.mark.parametrize("by", [1, -1, 2 ** (BITS - 2)], ids=["one", "minus one", "much"])
def test_the_partner_refuses_sums_that_contradict_each_other(by: int) -> None:
    """Two plaintexts of one group: only one is changed."""
    wide = [replace(BALANCE, name=f"f{i}") for i in range(9)]
    case = generate(7, features=wide)
    refused_by_partner(case, MaskedSums, add_plaintext(0, by))


def test_the_partner_refuses_a_sum_of_more_rows_than_the_group_has() -> None:
    case = fixed(8)
    error = refused_by_partner(case, MaskedSums, add_plaintext(0, 1))
    assert "more rows than its group has" in error.message


def test_the_partner_refuses_sums_of_more_rows_than_there_are() -> None:
    bank = pd.DataFrame({"phone": range(30), "segment": np.repeat([0, 1], 15)})
    partner = pd.DataFrame({"phone": range(30)[5:25], "age": 30})
    case = Case(bank, partner, [AGE], 2, 5)

    def change(message: MaskedSums) -> None:
        add_plaintext(0, 5)(message)
        add_plaintext(1, 5)(message)

    error = refused_by_partner(case, MaskedSums, change)
    assert "more rows than there are" in error.message


@pytest.mark.parametrize("message", [MaskedSums(last=True), Points(last=True)])
def test_frames_out_of_order_are_refused(message) -> None:
    _, theirs = play(lambda channel: channel.send(message), fixed(8).run_partner)
    assert isinstance(theirs.error, ProtocolViolation)
    assert type(message).__name__ in theirs.error.message
    assert "GroupSizes" in theirs.error.message


# What no check detects


def marking(case: Case, mark, read):
    """A partner that marks each row's plaintext, and reads the marks before it answers."""
    secret, rows = secret_key(BITS), len(case.partner)
    layout = Layout.plan([f.columns for f in case.features], rows, BITS)

    def partner(channel: Channel) -> list:
        sizes = list(channel.receive(GroupSizes).sizes)
        b = Scalar.random()
        send_points(channel, receive_points(channel, sum(sizes), b))
        packed = case.table.pack(np.arange(rows, dtype=np.uint64), case.features, layout)
        plain = [p + mark(layout, row) for row, p in enumerate(to_integers(packed))]
        channel.send(
            EncryptedRows(
                points=product(hash_ids(case.table.ids), b).tobytes(),
                ciphertexts=secret.encrypt(from_integers(plain, layout.limbs)).tobytes(),
                last=True,
            )
        )
        sums = channel.receive(MaskedSums).ciphertexts
        limbs = np.frombuffer(sums, "<u8").reshape(-1, BITS // 32)
        seen = [read(layout, plain) for plain in to_integers(secret.decrypt(limbs))]
        counts = insight._read_counts([plain for _, plain in seen], layout)
        answers = [insight._answer(count, layout, case.minimum) for count in counts]
        insight._send_answers(channel, answers)
        return [marks for marks, _ in seen]

    ours, theirs = play(case.run_bank, partner)
    assert ours.error is None, ours.error
    assert theirs.error is None, theirs.error
    return theirs.result


def two_segments() -> Case:
    """Even numbers are the bank's customers, in segments by turns."""
    bank = pd.DataFrame({"phone": range(0, 80, 2), "segment": np.arange(40) % 2})
    return Case(bank, pd.DataFrame({"phone": range(40), "age": 30}), [AGE], 2, 5)


def test_marks_above_the_sums_do_not_tell_the_partner_who_matched() -> None:
    matched = {tuple(range(0, 40, 4)), tuple(range(2, 40, 4))}

    def read(layout: Layout, plain: int):
        end = layout.blocks[-1].end
        return tuple(row for row in range(40) if plain >> end + row & 1), plain

    found = marking(two_segments(), lambda layout, row: 1 << layout.blocks[-1].end + row, read)
    assert not matched & set(found)


def test_a_partner_that_deviates_can_tell_a_few_by_its_counts() -> None:
    """Counts have to be readable, so a count that is too large marks a row. Here row 4's."""
    mark = 2**5  # the groups have 20 customers: the count needs five bits of its six

    def read(layout: Layout, plain: int):
        return bool(plain & mark), plain & ~mark

    found = marking(two_segments(), lambda layout, row: mark if row == 4 else 0, read)
    assert sorted(found) == [False, True]


def test_a_bank_that_deviates_can_extract_one_persons_row() -> None:
    """The attack of the threat model, so that nobody takes the threshold for more than it is.

    The bank gives one person a scalar of her own, recognises her row, and sends that row's
    ciphertext to the power of the minimum as the group's "sum": the count reads as the minimum.
    """
    case = fixed(8)
    case.partner["age"] = range(30, 38)
    victim = 3
    n, layout = modulus(), Layout.plan([AGE.columns], 8, BITS)
    a, own = Scalar.random(), Scalar.random()

    def bank(channel: Channel) -> int:
        hashed = hash_ids(phones(range(8)))
        blinded = product(hashed, a)
        blinded[victim] = product(hashed[[victim]], own)[0]
        channel.send(GroupSizes(sizes=[8]))
        send_points(channel, blinded)
        answer = {bytes(point) for point in receive_points(channel, 8)}
        rows = channel.receive(EncryptedRows)
        points = np.frombuffer(rows.points, np.uint8).reshape(-1, 32)
        place = [bytes(point) in answer for point in product(points, own)].index(True)
        copies = pow(ciphertexts(rows)[place], case.minimum, n * n)
        data = from_integers([copies], BITS // 32).tobytes()
        channel.send(MaskedSums(ciphertexts=data, last=True))
        block = channel.receive(ReleasedSums).groups[0].blocks[0]
        sums = layout.unpack(layout.blocks[0], int.from_bytes(block.sums, "little"), 5)
        return AGE.low + sums[0] // case.minimum

    ours, theirs = play(bank, case.run_partner)
    assert theirs.error is None
    assert ours.result == 30 + victim


def test_a_partner_opens_any_number_of_its_own_key_for_a_bank_that_deviates() -> None:
    """Why a node's scores have a key of their own: here the "sum" is points, beside true counts."""
    case = fixed(8)
    case.partner["age"] = range(30, 38)
    n, layout = modulus(), Layout.plan([AGE.columns], 8, BITS)
    points = 617
    (encrypted,) = to_integers(secret_key(BITS).encrypt(from_integers([points], BITS // 64)))

    def bank(channel: Channel) -> int:
        block = layout.blocks[0]
        channel.send(GroupSizes(sizes=[8]))
        send_points(channel, hash_ids(phones(range(8))), Scalar.random())
        receive_points(channel, 8)
        channel.receive(EncryptedRows)
        counts = case.minimum | case.minimum << block.count_start
        forged = pow(encrypted, 1 << block.start, n * n) * (1 + counts * n) % (n * n)
        data = from_integers([forged], BITS // 32).tobytes()
        channel.send(MaskedSums(ciphertexts=data, last=True))
        released = channel.receive(ReleasedSums).groups[0].blocks[0]
        return int.from_bytes(released.sums, "little")

    ours, theirs = play(bank, case.run_partner)
    assert theirs.error is None
    assert ours.result == points


# A period: runs that the partner holds against each other


@dataclass
class BankKeeps:
    """A period as the bank keeps it, in which nothing is kept."""

    scalar: Scalar = field(default_factory=Scalar.random)
    shared: dict[int, int] = field(default_factory=dict)
    back: list[int] = field(default_factory=list)

    def counted(self, groups, shared) -> None:
        self.shared = dict(zip(groups.tolist(), shared.tolist(), strict=True))

    def held_back(self, groups) -> None:
        self.back = groups.tolist()


@dataclass
class PartnerKeeps:
    """As the partner does: it holds back what has so many shared people."""

    hold: int = -1
    groups: set[frozenset[bytes]] = field(default_factory=set)
    counts: list[list[int]] = field(default_factory=list)

    def pseudonyms(self, points):
        return points[:, :16]

    def sent(self, sizes, pseudonyms) -> None:
        parts = np.split(pseudonyms, np.cumsum(sizes)[:-1])
        self.groups = {frozenset(row.tobytes() for row in part) for part in parts}

    def counted(self, counts, reached):
        self.counts = sorted(counts.tolist())
        return counts[:, 0] == self.hold


def in_period(case: Case, bank: BankKeeps, partner: PartnerKeeps):
    return succeed(
        lambda ch: case.run_bank(ch, period=bank), lambda ch: case.run_partner(ch, period=partner)
    )


def test_in_a_period_the_partner_knows_pseudonyms_again() -> None:
    case = generate(5, segments=3)
    bank, first, second, other = BankKeeps(), PartnerKeeps(), PartnerKeeps(), PartnerKeeps()
    in_period(case, bank, first)
    in_period(case, bank, second)
    in_period(case, BankKeeps(), other)
    assert first.groups == second.groups
    assert sum(map(len, first.groups)) == len(case.bank)
    assert not frozenset.union(*first.groups) & frozenset.union(*other.groups)


def test_in_a_period_both_count_what_a_run_would_release() -> None:
    case = generate(5, segments=3)
    bank, partner = BankKeeps(), PartnerKeeps()
    found, released = in_period(case, bank, partner)
    counts = {at: one.count for at, one in enumerate(found)}
    assert (bank.shared, bank.back, released) == (counts, [], 3)
    have = [
        [one.count, *(feature.count if feature else 0 for feature in one.features)] for one in found
    ]
    assert partner.counts == sorted(have)


def test_a_group_that_the_partner_holds_back_is_suppressed() -> None:
    case = generate(5, segments=3)
    full = case.succeed()
    bank = BankKeeps()
    found, released = in_period(case, bank, PartnerKeeps(hold=full.segments[1].count))
    assert (bank.back, released) == ([1], 2)
    assert [one.suppressed for one in found] == [False, True, False]
    assert found.segments[0] == full.segments[0]


def test_groups_that_stand_together_are_held_back_together() -> None:
    case = generate(5, segments=2)
    full = case.succeed()
    bank, partner = BankKeeps(), PartnerKeeps(hold=full.segments[1].count)
    found, released = succeed(
        lambda ch: case.run_bank(ch, period=bank, together=True),
        lambda ch: case.run_partner(ch, period=partner, together=True),
    )
    assert (sorted(bank.back), released) == ([0, 1], 0)
    assert all(one.suppressed for one in found)


def test_nothing_is_held_back_without_a_period() -> None:
    case = generate(5, segments=3)
    count = case.succeed().segments[1].count
    ours, _ = play(case.run_bank, lambda ch: case.run_partner(ch, period=PartnerKeeps(hold=count)))
    assert isinstance(ours.error, AnswersDisagree)


def test_the_partner_can_refuse_before_it_answers() -> None:
    class Refuses(PartnerKeeps):
        def sent(self, sizes, pseudonyms) -> None:
            raise GroupTooSmall("of a few people", "")

    case = generate(5, segments=3)
    ours, theirs = play(case.run_bank, lambda ch: case.run_partner(ch, period=Refuses()))
    assert isinstance(theirs.error, GroupTooSmall)
    assert isinstance(ours.error, PeerAborted)
