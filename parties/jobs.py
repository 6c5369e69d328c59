"""What each kind of job does once both sides have signed the intent: two functions, one a role."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from compliance.agreement import Agreement, Binned, Job, Lookup, Score, features_read
from compliance.canonical import canonical
from compliance.gate import as_tokens
from federated._native import SecretKey
from federated.aggregation import evaluate, insight
from federated.aggregation.evaluate import Distribution
from federated.aggregation.schema import (
    Aggregates,
    BinTable,
    Feature,
    FeatureAggregate,
    FeatureTable,
    Groups,
    Margin,
    Over,
    Share,
)
from federated.arrays import I64, U8
from federated.channel import Channel
from federated.disclosure.noise import Privacy
from federated.errors import TableUnsound
from federated.hooks import Progress, Release, unnamed
from federated.identifiers import Ids
from federated.paillier import keys
from federated.psi import intersect, lookup, overlap
from federated.risk import score
from federated.risk.scorecard import Scorecard, weigh
from parties import bins, tables
from parties.periods import BankSide, PartnerSide
from parties.sources import Scaled, scaled, segments
from parties.watch import LIST, Watch
from protos.errors import ConcordatError


@dataclass(frozen=True)
class Material:
    """What a side puts in: the rows of its table that passed the gate.

    segment: in which segment or group the period has each of them, int64 (n,), -1 for none; the
    bank's, where there is a period.
    """

    ids: Ids
    frame: pd.DataFrame
    segment: I64 | None = None


@dataclass(frozen=True)
class Run:
    """What a job's two functions need of the run they are in."""

    agreement: Agreement
    job: Job
    channel: Channel
    material: Material
    peer_size: int
    release: Release
    progress: Progress
    modulus: bytes  # of the other side's Paillier key, where the job has one
    proof: bytes  # that it is one
    secret_key: Callable[[int], SecretKey]
    note: Callable[[str, Any], None]  # keeps something for the run's report
    card: Scorecard | None = None  # the bank's, for a score
    watch: Watch | None = None  # for an early warning
    use: tables.Use | None = None  # for a lookup or score
    earlier: bins.Earlier | None = None  # the run that a stability is measured against
    named: Callable[[U8], None] = lambda tokens: None  # told what its people are called in this run
    period: BankSide | PartnerSide | None = None  # what it is compared with

    def table(self) -> tables.Use:
        if self.use is None:
            raise ValueError("the agreement allows no such table")
        return self.use

    @property
    def bank_period(self) -> BankSide | None:
        return self.period if isinstance(self.period, BankSide) else None

    @property
    def partner_period(self) -> PartnerSide | None:
        return self.period if isinstance(self.period, PartnerSide) else None

    def segment(self) -> I64:
        """In which segment or group the bank's people are, int64 (n,); -1 for none."""
        if self.material.segment is not None:
            return self.material.segment
        return placed(self.agreement, self.job, self.material.frame)

    def groups(self, segment: I64, count: int) -> Groups:
        """Those who are in one, without the segments that stay home this time."""
        home = self.bank_period.home if self.bank_period else ()
        rows = np.flatnonzero((segment >= 0) & ~np.isin(segment, home))
        return Groups(self.material.ids.take(rows), segment[rows], count)

    @property
    def flaw(self) -> ConcordatError | None:
        return self.bank_period.flaw if self.bank_period else None


@dataclass(frozen=True)
class Outcome:
    """A result: the file that is handed out (the bank commits to its own), and what is shown.

    tokens: what each person in the result is called in this run, by their id, as CSV.
    """

    file_name: str
    file: bytes
    summary: dict[str, Any]
    tokens: bytes = b""
    watched: tuple[Watch, pd.DataFrame, dict[str, Any]] | None = None  # for the next early warning
    flaw: ConcordatError | None = (
        None  # for this side only: the other goes on as if there were none
    )


# Who encrypts, and so tells the other side its modulus.
ENCRYPTS = {
    ("partner", "insight"),
    ("partner", "evaluate"),
    ("partner", "stability"),
    ("bank", "score"),
}


def columns(agreement: Agreement, job: Job, role: str) -> list[str]:
    """The columns of the role's dataset that the job reads beside the identifier."""
    if job.job in {"lookup", "score", "evaluate", "stability"} and role == "partner":
        return list(getattr(agreement.jobs, job.job).features)
    if job.job == "evaluate" and agreement.data.bank.label:
        return [agreement.data.bank.label.column]
    if job.between is not None:
        axis, _ = bins.populations(agreement)
        return [axis.column]
    if job.job != "insight":
        return []
    if role == "bank":
        return list(dict.fromkeys(axis.column for axis in agreement.segmentation))
    return features_read(agreement, job)


def placed(agreement: Agreement, job: Job, frame: pd.DataFrame) -> I64:
    """In which of the job's segments or groups each row is, int64 (n,); -1 for none."""
    if job.job == "insight":
        return segments(frame, agreement.segmentation)
    if job.between is not None:
        axis, pair = bins.populations(agreement)
        return bins.groups(segments(frame, [axis]), pair)
    if job.job == "evaluate" and agreement.data.bank.label:
        bad, known = bins.labelled(frame, agreement.data.bank.label)
        return np.where(known, bad, -1)
    return np.zeros(len(frame), np.int64)


def bank(run: Run) -> Outcome:
    """The bank's part of the job; its result."""
    return _BANK[run.job.job](run)


def partner(run: Run) -> Outcome | None:
    """The partner's part of the job; what it learns beside sizes, if the agreement says so."""
    return _PARTNER[run.job.job](run)


def _privacy(run: Run) -> Privacy | None:
    """What the noise is for, where the agreement asks for some."""
    terms = run.agreement.noise
    if terms is None or not run.agreement.noised(run.job.job):
        return None
    return Privacy(Fraction(terms.epsilon), Fraction(terms.delta))


def _told_noise(run: Run) -> dict[str, Any]:
    """For the summary of a result."""
    terms = run.agreement.noise
    if terms is None or not run.agreement.noised(run.job.job):
        return {}
    return {"noise": {"epsilon": float(terms.epsilon), "delta": float(terms.delta)}}


# overlap


def _bank_overlap(run: Run) -> Outcome:
    found = overlap.run_bank(
        run.channel,
        run.material.ids,
        run.peer_size,
        release=run.release,
        progress=run.progress,
    )
    result = {"count": found.count, "partner_size": run.peer_size}
    return Outcome("overlap.json", canonical(result) + b"\n", result)


def _partner_overlap(run: Run) -> None:
    overlap.run_partner(
        run.channel,
        run.material.ids,
        run.peer_size,
        release=run.release,
        progress=run.progress,
    )


# intersect


def _partner_learns_ids(agreement: Agreement) -> bool:
    terms = agreement.jobs.intersect
    return terms is not None and terms.partner_learns == "ids"


def _bank_intersect(run: Run) -> Outcome:
    both_learn = _partner_learns_ids(run.agreement)
    found = intersect.run_bank(
        run.channel,
        run.material.ids,
        run.peer_size,
        partner_learns_ids=both_learn,
        named=(lambda places: run.named(as_tokens(places))) if both_learn else unnamed,
        release=run.release,
        progress=run.progress,
    )
    return _ids_outcome(run, found)


def _partner_intersect(run: Run) -> Outcome | None:
    found = intersect.run_partner(
        run.channel,
        run.material.ids,
        run.peer_size,
        partner_learns_ids=_partner_learns_ids(run.agreement),
        named=lambda places: run.named(as_tokens(places)),
        release=run.release,
        progress=run.progress,
    )
    return None if found is None else _ids_outcome(run, found)


def _ids_outcome(run: Run, found: intersect.Intersection) -> Outcome:
    """The side's own ids: CSV with one column, named after the identifier's kind, sorted."""
    ids = run.material.ids
    found_ids = ids.take(found.rows).to_strings()
    file = _plain_csv({ids.kind: found_ids.take(pc.sort_indices(found_ids))})
    tokens = _tokens(ids.take(found.rows), as_tokens(found.places))
    return Outcome("intersect.csv", file, {"count": len(found.rows)}, tokens)


def _plain_csv(columns: Mapping[str, Any]) -> bytes:
    """Of columns in which no value needs quotes: no kind of id has such a character."""
    file = io.BytesIO(f"{','.join(columns)}\n".encode())
    file.seek(0, io.SEEK_END)
    options = pa.csv.WriteOptions(include_header=False, quoting_style="none")
    pa.csv.write_csv(pa.table(dict(columns)), file, options)
    return file.getvalue()


# insight


def _features(agreement: Agreement, job: Job) -> list[Feature]:
    declared = agreement.data.partner.features
    found = []
    for name, statistics in job.features.items():
        one = declared[name]
        over = one.over if "ratio" in statistics else None
        divisor = declared[over] if over else None
        found.append(
            Feature(
                name=name,
                statistics=frozenset(statistics),
                lower=one.lower,
                upper=one.upper,
                decimals=one.decimals,
                bins=one.bins,
                share=_share(one.share),
                may_be_missing=one.may_be_missing or bool(divisor and divisor.may_be_missing),
                over=Over(over, divisor.lower, divisor.upper, divisor.decimals)
                if over and divisor
                else None,
            )
        )
    return found


def _share(condition: Any) -> Share | None:
    return None if condition is None else Share(condition.above, condition.up_to)


def _bank_insight(run: Run) -> Outcome:
    terms = run.agreement.jobs.insight
    if terms is None:
        raise ValueError("the agreement allows no insight")
    axes = run.agreement.segmentation
    labels = list(product(*(axis.labels for axis in axes)))
    segment = run.segment()
    if nowhere := int((segment < 0).sum()):
        run.note("without_segment", nowhere)
    features = _features(run.agreement, run.job)
    found = insight.run_bank(
        run.channel,
        run.groups(segment, len(labels)),
        features,
        keys.peer_key(run.modulus, run.proof, terms.key_bits),
        partner_size=run.peer_size,
        minimum_group=terms.minimum_group,
        key_bits=terms.key_bits,
        privacy=_privacy(run),
        period=run.bank_period,
        release=run.release,
        progress=run.progress,
    )
    names = [axis.label for axis in axes]
    suppressed = sum(1 for one in found if one.suppressed)
    table = _insight_rows(names, labels, features, found, noised=_privacy(run) is not None)
    summary = {
        "segments": len(labels),
        "suppressed_segments": suppressed,
        "minimum_group": terms.minimum_group,
        **_told_noise(run),
        "table": table,
    }
    if run.bank_period and run.bank_period.held:
        summary["held_back"] = [" / ".join(labels[one]) for one in run.bank_period.held]
    return Outcome("insight.csv", _insight_csv(table), summary, flaw=run.flaw)


def _partner_insight(run: Run) -> None:
    terms = run.agreement.jobs.insight
    if terms is None:
        raise ValueError("the agreement allows no insight")
    features = _features(run.agreement, run.job)
    names = features_read(run.agreement, run.job)
    columns = dict(zip(names, _scaled(run, names), strict=True))
    values = np.column_stack([columns[feature.name].values for feature in features])
    present = np.column_stack([columns[feature.name].present for feature in features])
    over = {feature.over.name for feature in features if feature.over}
    for i, feature in enumerate(features):
        if feature.over:
            present[:, i] &= columns[feature.over.name].present
    insight.run_partner(
        run.channel,
        FeatureTable(
            run.material.ids, values, present, {name: columns[name].values for name in over}
        ),
        features,
        run.secret_key(terms.key_bits),
        bank_size=run.peer_size,
        groups=math.prod(len(axis.labels) for axis in run.agreement.segmentation),
        minimum_group=terms.minimum_group,
        privacy=_privacy(run),
        short_exponents=terms.exponents == "short",
        period=run.partner_period,
        release=run.release,
        progress=run.progress,
    )


def _scaled(run: Run, names: Sequence[str]) -> list[Scaled]:
    """The partner's columns by the agreement's bounds; what did not fit is noted."""
    declared, frame = run.agreement.data.partner.features, run.material.frame
    found = [
        scaled(frame[name], declared[name].lower, declared[name].upper, declared[name].decimals)
        for name in names
    ]
    for name in names:
        del frame[name]  # the text takes more room than its numbers
    run.note("values", {name: column.counts for name, column in zip(names, found, strict=True)})
    return found


def _insight_rows(
    axes: Sequence[str],
    labels: Sequence[Sequence[str]],
    features: Sequence[Feature],
    found: Aggregates,
    *,
    noised: bool,
) -> list[dict[str, Any]]:
    """A row for every segment and feature, suppressed ones too."""
    asked: set[str] = {statistic for feature in features for statistic in feature.statistics}
    return [
        {
            **dict(zip(axes, segment, strict=True)),
            "feature": feature.name,
            **_statistics(aggregate, asked, noised=noised),
            "suppressed": aggregate is None,
        }
        for segment, one in zip(labels, found, strict=True)
        for feature, aggregate in zip(features, one.features, strict=True)
    ]


def _statistics(found: FeatureAggregate | None, asked: set[str], *, noised: bool) -> dict[str, Any]:
    """Sums exact, as text if they are not whole; what was divided as the nearest double.

    With noise its scale and the ends of an interval follow each figure that carries some.
    """
    values: dict[str, Any] = {"count": found.count if found else None}
    for name in ("sum", "mean", "variance", "share", "ratio", "histogram"):
        if name in asked:
            value = getattr(found, name) if found else None
            values[name] = _figure(value)
            if noised:
                values |= _interval(name, value, found.margins.get(name) if found else None)
    return values


def _figure(value: Any) -> Any:
    if isinstance(value, Fraction):
        return float(value)
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else format(value, "f")
    return value


def _interval(name: str, value: Any, margin: Margin | None) -> dict[str, Any]:
    """NAME_scale, NAME_low, NAME_high: where the figure lies without its noise, at 95 %."""
    scale: float | None = None
    low: Any = None
    high: Any = None
    if margin is not None and isinstance(value, tuple):
        low, high = (
            tuple(int(count + by) for count in value) for by in (-margin.below, margin.above)
        )
    elif margin is not None:
        low, high = float(Fraction(value) - margin.below), float(Fraction(value) + margin.above)
    if margin is not None and margin.scale is not None:
        scale = float(margin.scale)
    return {f"{name}_scale": scale, f"{name}_low": low, f"{name}_high": high}


def _insight_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Empty cells where suppressed or not asked; a histogram's counts separated by semicolons."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case tuple():
            return ";".join(map(str, value))
        case _:
            return str(value)


# lookup


def _bank_lookup(run: Run) -> Outcome:
    use = run.table()
    found = lookup.run_bank(
        run.channel,
        run.material.ids,
        use.copy,
        use.terms,
        partner_size=run.peer_size,
        verify=use.verify,
        keep=use.keep,
        release=run.release,
        progress=run.progress,
    )
    ids = run.material.ids.take(found.rows)
    columns: dict[str, Any] = {ids.kind: ids.to_strings().to_pylist()}
    for at, name in enumerate(_named(run.agreement.jobs.lookup)):
        value = found.payloads[:, at * tables.VALUE : (at + 1) * tables.VALUE]
        numbers = np.ascontiguousarray(value[:, 1:]).view("<i8").ravel()
        texts = _decimals(numbers.tolist(), run.agreement.data.partner.features[name].decimals)
        columns[name] = np.where(value[:, 0] == 1, texts, "")
    flaw, tokens = _flaw(found.unsound), _tokens(ids, found.keys)
    return Outcome("lookup.csv", _csv(columns), _asked(run, len(ids)), tokens, flaw=flaw)


def _partner_lookup(run: Run) -> None:
    use = run.table()
    table = use.table
    if table is None:
        parts = []
        for column in _scaled(run, _named(run.agreement.jobs.lookup)):
            parts.append(column.present.astype(np.uint8)[:, np.newaxis])
            parts.append(column.values.astype("<i8")[:, np.newaxis].view(np.uint8))
        payloads = np.hstack(parts)
        table = lookup.make_table(
            run.channel,
            run.material.ids,
            payloads.__getitem__,
            use.terms,
            progress=run.progress,
        )
        use.hold(table)
    _answer(run, table)


def _answer(run: Run, table: lookup.Table) -> None:
    use = run.table()
    run.named(table.keys(use.rows()))
    lookup.run_partner(
        run.channel,
        table,
        use.known,
        use.terms,
        bank_size=run.peer_size,
        sign=use.sign,
        release=run.release,
        progress=run.progress,
    )


def _named(terms: Lookup | Score | None) -> tuple[str, ...]:
    return terms.features if terms else ()


def _decimals(numbers: Sequence[int], decimals: int) -> list[str]:
    return [str(Decimal(number).scaleb(-decimals)) for number in numbers]


def _tokens(ids: Ids, tokens: U8) -> bytes:
    """What each person of a result is called in this run: the id's column, then token, in hex."""
    count, width = tokens.shape
    digits = np.frombuffer(tokens.tobytes().hex().encode(), f"S{2 * width}", count)
    texts = pa.array(digits, pa.binary()).cast(pa.string())
    return _plain_csv({ids.kind: ids.to_strings(), "token": texts})


def _asked(run: Run, found: int) -> dict[str, Any]:
    return {"asked": len(run.material.ids), "found": found, "partner_size": run.peer_size}


def _flaw(unsound: int) -> TableUnsound | None:
    if not unsound:
        return None
    return TableUnsound(
        f"Of {unsound:,} of the people asked for, the other side's table has a row that tells "
        "nothing: it does not open, or holds what no row can. They are left out of the result.",
        "If the next table has such rows again, show this message to whoever runs the other node.",
    )


def _csv(columns: Mapping[str, Any]) -> bytes:
    """Rows sorted by the first column."""
    frame = pd.DataFrame(columns, dtype=str)
    frame = frame.sort_values(frame.columns[0])
    return str(frame.to_csv(index=False, lineterminator="\n")).encode()


# score


def _bank_score(run: Run) -> Outcome:
    use, terms = run.table(), run.agreement.jobs.score
    if run.card is None or terms is None:
        raise ValueError("a score needs a scorecard, and an agreement that allows it")
    found = score.run_bank(
        run.channel,
        run.material.ids,
        weigh(run.card, tables.grids(run.agreement)),
        run.secret_key(terms.key_bits),
        held=use.copy,
        terms=use.terms,
        partner_size=run.peer_size,
        verify=use.verify,
        keep=use.keep,
        release=run.release,
        progress=run.progress,
    )
    ids = run.material.ids.take(found.rows)
    tokens = _tokens(ids, found.keys)
    scores = [str(one) for one in run.card.score(found.sums)]
    columns = {ids.kind: ids.to_strings().to_pylist(), "score": scores}
    summary, flaw = _asked(run, len(ids)), _flaw(found.unsound)
    if run.watch is None:
        return Outcome("score.csv", _csv(columns), summary, tokens, flaw=flaw)
    frame = pd.DataFrame(columns, dtype=str)
    fell, counts = run.watch.compare(frame)
    listed = str(fell.to_csv(index=False, lineterminator="\n")).encode()
    return Outcome(LIST, listed, summary | counts, tokens, (run.watch, frame, counts), flaw)


def _partner_score(run: Run) -> None:
    use, terms = run.table(), run.agreement.jobs.score
    if terms is None:
        raise ValueError("the agreement allows no score")
    table = use.table
    if table is None:
        grids = tables.grids(run.agreement)
        columns = _scaled(run, [grid.feature for grid in grids])
        places = [
            grid.place(column.values, column.present, column.strange)
            for grid, column in zip(grids, columns, strict=True)
        ]
        table = score.make_table(
            run.channel,
            run.material.ids,
            np.column_stack(places),
            grids,
            public=keys.peer_key(run.modulus, run.proof, terms.key_bits),
            terms=use.terms,
            progress=run.progress,
        )
        use.hold(table)
    _answer(run, table)


# evaluate, stability


def _terms(run: Run) -> Binned:
    terms = getattr(run.agreement.jobs, run.job.job)
    if isinstance(terms, Binned):
        return terms
    raise ValueError(f"the agreement allows no {run.job.job}")


def _distributions(run: Run, groups: Groups) -> list[Distribution] | None:
    terms = _terms(run)
    return evaluate.run_bank(
        run.channel,
        groups,
        bins.features(run.agreement, terms, run.earlier),
        keys.peer_key(run.modulus, run.proof, terms.key_bits),
        partner_size=run.peer_size,
        minimum_group=terms.minimum_group,
        key_bits=terms.key_bits,
        privacy=_privacy(run),
        period=run.bank_period,
        release=run.release,
        progress=run.progress,
    )


def _bank_evaluate(run: Run) -> Outcome:
    label = run.agreement.data.bank.label
    if label is None:
        raise ValueError("the agreement names no label")
    bad = run.segment()
    if unknown := int((bad < 0).sum()):
        run.note("without_label", unknown)
    found = _distributions(run, run.groups(bad, 2))
    terms = _terms(run)
    table = bins.evaluated(terms.features, found or [], terms.minimum_cell)
    summary: dict[str, Any] = {"minimum_group": terms.minimum_group, "suppressed": found is None}
    summary |= _told_noise(run)
    if found is not None:
        good, bad_ = found[0].counts.sum(axis=1).tolist()
        shown = bins.by_feature(table, "total_iv")
        summary |= {"good": good, "bad": bad_, "sign": bins.SIGN, "table": shown}
    columns = bins.NOISED if run.agreement.noised("evaluate") else bins.EVALUATED
    return Outcome("evaluate.csv", bins.to_csv(columns, table), summary, flaw=run.flaw)


def _bank_stability(run: Run) -> Outcome:
    if run.job.between is not None:
        return _bank_populations(run)
    found = _distributions(run, run.groups(run.segment(), 1))
    terms = _terms(run)
    table = bins.compared(terms.features, found or [], run.earlier, terms.minimum_cell)
    summary: dict[str, Any] = {"minimum_group": terms.minimum_group, "suppressed": found is None}
    if found is not None:
        run.note("bins", bins.kept(terms.features, [one.edges for one in found], table))
        summary["shared"] = int(found[0].counts.sum())
        if run.earlier is not None:
            summary["table"] = bins.by_feature(table, "total_psi", "shift")
    return Outcome("stability.csv", bins.to_csv(bins.COMPARED, table), summary, flaw=run.flaw)


def _bank_populations(run: Run) -> Outcome:
    group = run.segment()
    if neither := int((group < 0).sum()):
        run.note("without_population", neither)
    found = _distributions(run, run.groups(group, 2))
    terms = _terms(run)
    table = bins.set_apart(terms.features, found or [], terms.minimum_cell)
    summary: dict[str, Any] = {"minimum_group": terms.minimum_group, "suppressed": found is None}
    if found is not None:
        expected, actual = found[0].counts.sum(axis=1).tolist()
        summary |= {"expected": expected, "actual": actual}
        summary["table"] = bins.by_feature(table, "total_psi", "shift")
    return Outcome("stability.csv", bins.to_csv(bins.COMPARED, table), summary, flaw=run.flaw)


def _partner_bins(run: Run) -> None:
    terms = _terms(run)
    asked = bins.features(run.agreement, terms, run.earlier)
    placed = bins.placed(run.material.frame, asked, terms)
    run.note("values", placed.counts)
    if run.job.between is None:
        run.note("bins", bins.kept(terms.features, placed.edges))
    evaluate.run_partner(
        run.channel,
        BinTable(run.material.ids, placed.bins),
        placed.edges,
        asked,
        run.secret_key(terms.key_bits),
        bank_size=run.peer_size,
        groups=2 if run.job.job == "evaluate" or run.job.between is not None else 1,
        minimum_group=terms.minimum_group,
        privacy=_privacy(run),
        short_exponents=terms.exponents == "short",
        period=run.partner_period,
        release=run.release,
        progress=run.progress,
    )


_BANK = {
    "overlap": _bank_overlap,
    "intersect": _bank_intersect,
    "insight": _bank_insight,
    "lookup": _bank_lookup,
    "score": _bank_score,
    "evaluate": _bank_evaluate,
    "stability": _bank_stability,
}
_PARTNER: dict[str, Callable[[Run], Outcome | None]] = {
    "overlap": _partner_overlap,
    "intersect": _partner_intersect,
    "insight": _partner_insight,
    "lookup": _partner_lookup,
    "score": _partner_score,
    "evaluate": _partner_bins,
    "stability": _partner_bins,
}
