"""How are the shared customers of each of the bank's groups spread over bins of the partner's data?

`evaluate` compares two groups, the good and the bad; `stability` asks for one. It is the private
join of `insight` with bins in place of values, and one message more:

    1.-5. as in insight: per group the count of every bin, if all groups reach the minimum
    6. partner -> bank   where the bins meet, if anything was released

What each row adds is a 1 in one bin of every feature. The bins lie under the mask: the partner
reads the count of a group, not of its bins, which would tell it what the groups have in common.
The partner plans with as many bins for a feature as the agreement allows, so that how many it came
to is not known before the release either.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from federated._native import PublicKey, SecretKey
from federated.aggregation import insight
from federated.aggregation.schema import Bins, BinTable, FeatureAggregate, Groups, Margin
from federated.arrays import I64
from federated.channel import Channel
from federated.disclosure.noise import Privacy
from federated.errors import AnswersDisagree, ProtocolViolation
from federated.hooks import BankPeriod, PartnerPeriod, Progress, Release, silent
from federated.points import chunks
from federated.risk.binning import Edges
from protos.concordat.v1.run_pb2 import BinEdges


@dataclass(frozen=True)
class Distribution:
    """One feature. counts: int64 (groups, bins), the bin of missing values last if there is one.

    Each group's counts add up to what it shares, with noise as well. margin: of a count, and of
    that of missing values, which carries the noise of all others; None where they are exact.
    """

    edges: Edges
    counts: I64
    margin: tuple[Margin, Margin] | None = None


def run_bank(
    channel: Channel,
    groups: Groups,
    features: Sequence[Bins],
    public: PublicKey,
    *,
    partner_size: int,
    minimum_group: int,
    key_bits: int,
    privacy: Privacy | None = None,
    period: BankPeriod | None = None,
    release: Release,
    progress: Progress = silent,
) -> list[Distribution] | None:
    """A distribution a feature; None if a group is below the minimum, here or among the shared, or
    was held back.

    Raises InvalidKey, and ProtocolViolation where the partner deviates in form or counts.
    """
    found = insight.run_bank(
        channel,
        groups,
        features,
        public,
        partner_size=partner_size,
        minimum_group=minimum_group,
        key_bits=key_bits,
        together=True,
        privacy=privacy,
        period=period,
        release=release,
        progress=progress,
    )
    if any(group.suppressed for group in found):
        return None
    asked = [[one for one in group.features if one and one.histogram] for group in found]
    return [
        _distribution(feature, edges, [of_group[i] for of_group in asked])
        for i, (feature, edges) in enumerate(
            zip(features, _receive_edges(channel, features), strict=True)
        )
    ]


def run_partner(
    channel: Channel,
    table: BinTable,
    edges: Sequence[Edges],
    features: Sequence[Bins],
    secret: SecretKey,
    *,
    bank_size: int,
    groups: int,
    minimum_group: int,
    privacy: Privacy | None = None,
    short_exponents: bool = False,
    period: PartnerPeriod | None = None,
    release: Release,
    progress: Progress = silent,
) -> None:
    """edges: of each feature; with noise, those agreed, as others would tell of the table.

    Raises ProtocolViolation where the bank deviates in form.
    """
    released = insight.run_partner(
        channel,
        table,
        features,
        secret,
        bank_size=bank_size,
        groups=groups,
        minimum_group=minimum_group,
        together=True,
        privacy=privacy,
        short_exponents=short_exponents,
        period=period,
        release=release,
        progress=progress,
    )
    if released:
        # Whether any value at all is missing would be exact.
        noised = privacy is not None
        _send_edges(channel, [Edges(one.inner, one.missing or noised) for one in edges])


def _distribution(feature: Bins, edges: Edges, found: Sequence[FeatureAggregate]) -> Distribution:
    """The bins there are, without those planned for."""
    counts = np.array([one.histogram for one in found], np.int64)
    bins = len(edges.inner) + 1
    margins = found[0].margins
    if margins:  # then the edges are agreed, and there is always a bin of missing values
        if bins != feature.most or not edges.missing:
            raise AnswersDisagree("The other side answered with other bins than those agreed.")
        return Distribution(edges, counts, (margins["histogram"], margins["missing"]))
    if counts[:, bins : feature.most].any() or (counts[:, -1].any() and not edges.missing):
        raise AnswersDisagree("The other side answered with values in bins that there are not.")
    return Distribution(
        edges, np.delete(counts, np.s_[bins : feature.most + (not edges.missing)], 1)
    )


def _send_edges(channel: Channel, edges: Sequence[Edges]) -> None:
    told = [BinEdges.Feature(inner=one.inner, missing=one.missing) for one in edges]
    most = max(one.ByteSize() for one in told) + 8
    for part in chunks(len(told), max(1, channel.room // most)):
        channel.send(BinEdges(features=told[part], last=part.stop == len(told)))


def _receive_edges(channel: Channel, features: Sequence[Bins]) -> list[Edges]:
    told: list[BinEdges.Feature] = []
    last = False
    while not last:
        frame = channel.receive(BinEdges)
        last = frame.last
        told += frame.features
        if not frame.features or len(told) > len(features) or last != (len(told) == len(features)):
            raise ProtocolViolation("The other side sent the edges of a wrong number of features.")
    return [_edges(one, feature) for one, feature in zip(told, features, strict=True)]


def _edges(told: BinEdges.Feature, feature: Bins) -> Edges:
    inner = tuple(told.inner)
    ascending = all(lower < upper for lower, upper in pairwise(inner))
    if len(inner) >= feature.most or not ascending or not all(map(math.isfinite, inner)):
        raise ProtocolViolation("The other side sent edges that make no bins.")
    if feature.inner is not None and inner != feature.inner:
        raise ProtocolViolation("The other side sent other edges than those agreed.")
    return Edges(inner, told.missing)
