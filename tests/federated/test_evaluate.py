"""Distributions of a partner's features over groups, against pandas, and against odd peers."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from two_sides import Gate, phones, play, succeed, tampering

from federated._native import SecretKey
from federated.aggregation import evaluate, insight
from federated.aggregation.schema import Bins, BinTable, Groups
from federated.channel import Channel
from federated.errors import AnswersDisagree, GroupTooSmall, ProtocolViolation
from federated.paillier import keys
from federated.paillier.packing import Layout, to_integers
from federated.risk.binning import Edges, find_edges, place
from protos.concordat.v1.run_pb2 import BinEdges, GroupSizes, MaskedSums, ReleasedSums

SECRET = keys.generate(1024, allow_small=True)
BINS = 5


@dataclass
class Case:
    """Both sides' data; the bank's groups are 0 and 1."""

    bank: pd.DataFrame  # phone, group
    partner: pd.DataFrame  # phone, features as float64
    minimum: int = 10
    groups: int = 2
    secret: SecretKey = SECRET

    @property
    def names(self) -> list[str]:
        return list(self.partner)[1:]

    @property
    def features(self) -> list[Bins]:
        return [Bins(name, BINS) for name in self.names]

    @property
    def edges(self) -> list[Edges]:
        return [find_edges(self.partner[n].to_numpy(), "quantile", BINS) for n in self.names]

    def run_bank(self, channel: Channel, **changes):
        arguments = {
            "partner_size": len(self.partner),
            "minimum_group": self.minimum,
            "key_bits": self.secret.public.bits,
            "release": Gate(),
        }
        groups = Groups(phones(self.bank.phone), self.bank.group.to_numpy(), self.groups)
        features = changes.pop("features", self.features)
        return evaluate.run_bank(
            channel, groups, features, self.secret.public, **arguments | changes
        )

    def run_partner(self, channel: Channel, **changes):
        arguments = {
            "bank_size": len(self.bank),
            "groups": self.groups,
            "minimum_group": self.minimum,
            "release": Gate(),
        }
        edges = changes.pop("edges", self.edges)
        placed = [
            place(self.partner[n].to_numpy(), e.inner, BINS)
            for n, e in zip(self.names, edges, strict=True)
        ]
        table = BinTable(phones(self.partner.phone), np.column_stack(placed))
        return evaluate.run_partner(
            channel, table, edges, self.features, self.secret, **arguments | changes
        )


def generate(seed: int, features: int = 4, people: int = 200) -> Case:
    rng = np.random.default_rng(seed)
    bank = pd.DataFrame({"phone": rng.permutation(people)[: people * 3 // 4]})
    bank["group"] = (rng.random(len(bank)) < 0.3).astype(np.int64)
    partner = pd.DataFrame({"phone": rng.permutation(people)[: people * 3 // 4]})
    for i in range(features):
        values = rng.normal(size=len(partner)).round(1) * 100
        if i % 3 == 1:
            values = np.where(values < 0, 0, values)  # many equal: some quantiles fall together
        if i % 2:
            values[rng.random(len(values)) < 0.1] = np.nan
        partner[f"f{i}"] = values
    return Case(bank, partner)


def check_against_join(case: Case, found) -> None:
    joined = case.bank.merge(case.partner, on="phone")
    assert len(found) == len(case.names)
    for name, one in zip(case.names, found, strict=True):
        column = case.partner[name]
        inner = np.unique(column.dropna().quantile(np.linspace(0, 1, BINS + 1)))[1:-1]
        assert one.edges.inner == tuple(inner)
        assert one.edges.missing == column.isna().any()
        for group in range(case.groups):
            values = joined.loc[joined.group == group, name]
            cut = pd.cut(values, [-np.inf, *inner, np.inf]).value_counts(sort=False)
            expected = [*cut, *([values.isna().sum()] if one.edges.missing else [])]
            assert one.counts[group].tolist() == expected


@pytest.mark.parametrize("seed", range(4))
def test_every_bin_equals_the_plain_join(seed: int) -> None:
    case = generate(seed)
    found, _ = succeed(case.run_bank, case.run_partner)
    check_against_join(case, found)


def test_many_features_several_ciphertexts_small_frames() -> None:
    case = generate(5, features=60)
    layout = Layout.plan([f.columns for f in case.features], len(case.partner), 1024)
    assert len(layout.plaintexts) > 1
    found, _ = succeed(case.run_bank, case.run_partner, max_frame=3000)
    check_against_join(case, found)


def test_one_group() -> None:
    case = replace(generate(6), groups=1)
    case.bank["group"] = 0
    found, _ = succeed(case.run_bank, case.run_partner)
    check_against_join(case, found)


def test_columns_that_have_one_value_or_none() -> None:
    case = generate(7, features=0)
    case.partner["constant"] = 3.0
    case.partner["missing"] = np.nan
    case.partner["two"] = np.arange(len(case.partner)) % 2.0
    found, _ = succeed(case.run_bank, case.run_partner)
    constant, missing, two = found
    assert constant.edges == Edges((), missing=False)
    assert constant.counts.shape == (2, 1)
    assert missing.edges == Edges((), missing=True)
    assert (missing.counts[:, 0] == 0).all()
    assert (missing.counts[:, 1] == constant.counts[:, 0]).all()
    # The quantiles of two values are these two, and the outer ones give way to infinity.
    assert two.edges == Edges((), missing=False)


def small(good: int, bad: int, strangers: int = 0) -> Case:
    """So many good and bad that are shared, and as many of each that are not."""
    shared = good + bad
    phone = np.arange(shared + 2 * strangers)
    group = np.array([0] * good + [1] * bad + [0, 1] * strangers)
    partner = pd.DataFrame({"phone": np.arange(shared), "f": np.arange(shared, dtype=float)})
    return Case(pd.DataFrame({"phone": phone, "group": group}), partner)


@pytest.mark.parametrize(
    ("good", "bad", "strangers", "released"),
    [
        (10, 10, 0, True),
        (9, 10, 0, False),  # never sent
        (10, 9, 0, False),
        (9, 30, 5, False),  # sent, but not released
        (30, 9, 5, False),
    ],
)
def test_both_groups_reach_the_minimum_or_nothing_is_told(
    good: int, bad: int, strangers: int, released: bool
) -> None:
    case = small(good, bad, strangers)
    heard = []

    def bank(channel: Channel):
        receive = channel.receive

        def listen(kind):
            heard.append(receive(kind))
            return heard[-1]

        channel.receive = listen
        return case.run_bank(channel)

    found, _ = succeed(bank, case.run_partner)
    assert (found is not None) == released
    sums = [group for frame in heard if isinstance(frame, ReleasedSums) for group in frame.groups]
    assert any(group.blocks for group in sums) == released
    assert any(isinstance(frame, BinEdges) for frame in heard) == released


def test_release_is_called_once_on_each_side_before_the_edges() -> None:
    case, ours, theirs = small(20, 20), Gate(), Gate()
    succeed(
        lambda ch: case.run_bank(ch, release=ours), lambda ch: case.run_partner(ch, release=theirs)
    )
    assert (ours.calls, theirs.calls) == (1, 1)


def test_the_partner_reads_two_counts_and_no_bin() -> None:
    """The key's owner decrypts the groups' counts; the bins stand under a mask."""
    case = small(40, 20)
    layout = Layout.plan([f.columns for f in case.features], len(case.partner), 1024)
    seen = []

    def bank(channel: Channel):
        send = channel.send

        def watched(message) -> None:
            if isinstance(message, MaskedSums):
                data = np.frombuffer(message.ciphertexts, "<u8").reshape(-1, 32)
                seen.extend(to_integers(SECRET.decrypt(data)))
            send(message)

        channel.send = watched
        return case.run_bank(channel)

    found, _ = succeed(bank, case.run_partner)
    assert sorted(plain & (1 << layout.count_bits) - 1 for plain in seen) == [20, 40]
    assert layout.blocks[0].count_start == 0
    assert all(block.feature is None for block in layout.blocks)
    assert found[0].counts.sum(axis=1).tolist() == [40, 20]


# Packing


@settings(max_examples=50)
@given(st.data())
def test_bits_are_packed_as_values_are(data) -> None:
    most = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=60))
    rows = data.draw(st.integers(1, 8))
    features = [Bins(f"f{i}", m) for i, m in enumerate(most)]
    layout = Layout.plan(
        [f.columns for f in features], 50, data.draw(st.sampled_from([1024, 2048]))
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    bins = rng.integers(0, np.array(most) + 1, (rows, len(most)))
    table = BinTable(phones(range(rows)), bins.astype(np.uint8))
    table.check(features)
    values = [(bins[:, i] == b).astype(np.uint64) for i, m in enumerate(most) for b in range(m)]
    plain = layout.pack(np.column_stack(values), np.ones((rows, len(most)), bool))
    packed = table.pack(np.arange(rows, dtype=np.uint64), features, layout)
    assert (packed == plain).all()


def test_three_thousand_bins_take_the_ciphertexts_that_were_planned() -> None:
    """100,000 people, 300 features, ten bins and the one for missing values, 2048 bits."""
    features = [Bins(f"f{i}", 10) for i in range(300)]
    assert len(Layout.plan([f.columns for f in features], 100_000, 2048).plaintexts) == 28


# Peers that deviate


def spoilt_edges(change) -> ProtocolViolation:
    case = generate(1)
    ours, _ = play(case.run_bank, tampering(case.run_partner, BinEdges, change))
    assert ours.result is None
    assert isinstance(ours.error, ProtocolViolation)
    return ours.error


def _swap(message: BinEdges) -> None:
    inner = message.features[0].inner
    inner[0], inner[1] = inner[1], inner[0]


@pytest.mark.parametrize(
    "change",
    [
        _swap,
        lambda message: message.features[0].inner.append(float("inf")),
        lambda message: message.features[0].inner.insert(0, float("nan")),
        lambda message: message.features[0].inner.extend([1e6 + i for i in range(5)]),
        lambda message: message.features[0].inner.append(message.features[0].inner[-1]),
        lambda message: message.features.pop(),
        lambda message: message.features.append(message.features[0]),
        lambda message: message.ClearField("features"),
    ],
)
def test_edges_that_make_no_bins_are_refused(change) -> None:
    spoilt_edges(change)


@pytest.mark.parametrize(
    "change",
    [
        lambda message: setattr(message.features[1], "missing", False),
        lambda message: message.features[0].inner.pop(),
    ],
)
def test_values_in_bins_that_there_are_not_are_refused(change) -> None:
    assert isinstance(spoilt_edges(change), AnswersDisagree)


def test_edges_both_know_must_be_those() -> None:
    case = generate(1)
    known = [Bins(n, BINS, e.inner) for n, e in zip(case.names, case.edges, strict=True)]
    found, _ = succeed(lambda ch: case.run_bank(ch, features=known), case.run_partner)
    check_against_join(case, found)
    other = [replace(one, inner=(*one.inner[:-1], 1e9)) for one in known]
    ours, _ = play(lambda ch: case.run_bank(ch, features=other), case.run_partner)
    assert isinstance(ours.error, ProtocolViolation)


def test_more_values_than_rows_are_refused() -> None:
    with pytest.raises(AnswersDisagree):
        Bins("f", 2).aggregate(5, [3, 3])
    assert Bins("f", 2).aggregate(5, [3, 1]).histogram == (3, 1, 1)


@pytest.mark.parametrize("sizes", [[60], [20, 20, 20]])
def test_a_bank_that_sends_another_number_of_groups_is_refused(sizes: list[int]) -> None:
    case = generate(1)
    gate = Gate()
    _, theirs = play(
        tampering(case.run_bank, GroupSizes, lambda message: _replace(message, sizes)),
        lambda ch: case.run_partner(ch, release=gate),
    )
    assert isinstance(theirs.error, ProtocolViolation)
    assert "number of groups" in theirs.error.message
    assert gate.calls == 0


def test_a_bank_that_sends_a_small_group_is_refused() -> None:
    case = generate(1)
    _, theirs = play(
        tampering(case.run_bank, GroupSizes, lambda message: _replace(message, [60, 9])),
        case.run_partner,
    )
    assert isinstance(theirs.error, GroupTooSmall)


def _replace(message: GroupSizes, sizes: list[int]) -> None:
    message.ClearField("sizes")
    message.sizes.extend(sizes)


def test_a_bank_that_deviates_can_read_one_persons_bins(monkeypatch) -> None:
    """The limit that docs/protocols.md states: copies of one row pass for a group."""
    case = small(20, 20)
    sums = insight.GroupSum

    class Sum:
        def __init__(self, public, count) -> None:
            self.inner, self.count = sums(public, count), count

        def add(self, ciphertexts, group) -> None:
            each = self.count // 3
            rows = group.reshape(-1, each)[:, 0] // each
            shared = np.flatnonzero(rows < 2)
            first = shared[0]
            for wanted in range(2):
                times = int((rows == wanted).sum())
                row = ciphertexts.reshape(-1, each, ciphertexts.shape[1])[first]
                for _ in range(times):
                    self.inner.add(row, wanted * each + np.arange(each))

        def result(self):
            return self.inner.result()

    monkeypatch.setattr(insight, "GroupSum", Sum)
    found, _ = succeed(case.run_bank, case.run_partner)
    assert all((one.counts.max(axis=1) == 20).all() for one in found)
