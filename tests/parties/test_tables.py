"""Lookups and scores between two real nodes: epochs, withdrawals, limits, copies."""

import gc
import hashlib
import json
import time
import weakref
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from ready import (
    AGREEMENT,
    SHARED,
    Watch,
    agree,
    consent_table,
    import_consents,
    log_of,
    paused_job,
    phones,
    shoppers,
    until,
    withdraw,
)

from federated.psi import lookup
from parties import admin, agreements, audits, session, tables
from parties.node import Node
from parties.tables import Tables
from protos.errors import ConcordatError

Nodes = tuple[Node, Node]

SPENT = shoppers().set_index("phone")["spend"]
CARD = {
    "scorecard": "spending",
    "version": 1,
    "scaling": {"pdo": 20, "base_score": 600, "base_odds": 50},
    "decimals": 1,
    "base": 500,
    "features": {
        "spend": {
            "bins": [{"upper": 100, "points": -20}, {"below": 301, "points": 5}, {"points": 30.5}],
            "missing": -1,
            "unseen": -2,
        }
    },
}


def job(kind: str, **more: Any) -> str:
    document = {"job": kind, "agreement": "offers", "purpose": "credit-offer"}
    return yaml.safe_dump(document | more)


def run(bank: Node, kind: str, **more: Any) -> dict[str, Any]:
    return session.run_job(bank, job(kind, **more), lambda *_: None, session.Control())


def result(report: dict[str, Any]) -> pd.DataFrame:
    return pd.read_csv(report["result_file"], dtype=str)


def looked_up(report: dict[str, Any]) -> dict[str, int]:
    found = result(report)
    assert list(found) == ["phone", "spend"]
    assert found["phone"].is_monotonic_increasing
    return {row.phone: int(row.spend) for row in found.itertuples()}


def expected(ids: list[str]) -> dict[str, int]:
    return {one: int(SPENT[one]) for one in ids}


def card(bank: Node, name: str = "card.yaml", **changes: Any) -> str:
    (bank.home.path / name).write_text(yaml.safe_dump(CARD | changes))
    return name


def people(bank: Node, ids: list[str]) -> str:
    pd.DataFrame({"phone": ids}).to_csv(bank.home.path / "people.csv", index=False)
    return "people.csv"


def points(spent: int) -> float:
    return 500 + (-20 if spent <= 100 else 5 if spent < 301 else 30.5)


def epoch(bank: Node, kind: str = "lookup") -> str:
    line = (bank.home.path / "tables" / f"offers.{kind}").read_bytes().partition(b"\n")[0]
    return json.loads(line)["epoch"]


def received(report: dict[str, Any]) -> int:
    return sum(stage["bytes_received"] for stage in report["stages"].values())


# lookup


def test_a_lookup_is_the_join_and_the_table_is_fetched_once(lasting: Nodes) -> None:
    bank, shop = lasting
    watch = Watch(shop)
    first = run(bank, "lookup")
    assert looked_up(first) == expected(SHARED)
    assert first["result"] == {"asked": 115, "found": len(SHARED), "partner_size": 115}
    again = run(bank, "lookup", people=people(bank, SHARED[:3]))
    assert looked_up(again) == expected(SHARED[:3])
    assert received(first) > 115 * 53 > received(again)
    assert epoch(bank) == epoch(bank)
    theirs = watch.ended(2)
    assert [one["report"]["gate"] for one in theirs] == [
        {"eligible": 115, "excluded": {"no consent": 5}},
        {"eligible": 115, "removed": 0},
    ]
    assert "read table" not in theirs[1]["report"]["stages"]


def test_only_consenting_applicants_are_asked_for(lasting: Nodes) -> None:
    """Of those named, one has not consented to the bank, one not to the shop; one is no phone."""
    bank, _ = lasting
    named = [phones(0, 1)[0], phones(60, 61)[0], SHARED[4], "12", SHARED[4], phones(300, 301)[0]]
    report = run(bank, "lookup", people=people(bank, named))
    assert looked_up(report) == expected([SHARED[4]])
    assert report["gate"] == {"eligible": 2, "excluded": {"no consent": 2}}
    assert report["rows"]["duplicates"] == 1


def test_nobody_may_be_found(lasting: Nodes) -> None:
    bank, _ = lasting
    named = people(bank, list(phones(10, 12)))
    report = run(bank, "lookup", people=named)
    assert Path(report["result_file"]).read_text() == "phone,spend\n"
    assert report["result"] == {"asked": 2, "found": 0, "partner_size": 115}
    report = run(bank, "score", scorecard=card(bank), people=named)
    assert Path(report["result_file"]).read_text() == "phone,score\n"


def test_a_receipt_names_everybody_in_the_table(lasting: Nodes) -> None:
    bank, shop = lasting
    watch = Watch(shop)
    report = run(bank, "lookup", people=people(bank, SHARED[:2]))
    (theirs,) = watch.ended()
    assert audits.compare(bank, Path(theirs["report"]["receipt_file"])) == (report["run"], [])
    intent = json.loads(
        audits.Envelope.from_json(Path(report["intent_file"]).read_bytes()).payload
    )["predicate"]
    assert intent["bank"]["inputs"]["size"] == 2
    assert intent["partner"]["inputs"]["size"] == 115
    assert "people" not in intent["job"]
    for node in lasting:
        assert audits.verify(node)[0].ok


def test_who_withdraws_is_out_before_the_next_answer(ready: Nodes) -> None:
    bank, shop = ready
    run(bank, "lookup")
    before = epoch(bank)
    withdraw(shop, pd.Series(SHARED[:2]), "bank", "purchases")
    watch = Watch(shop)
    report = run(bank, "lookup", people=people(bank, SHARED[:4]))
    assert looked_up(report) == expected(SHARED[2:4])
    assert report["result"]["partner_size"] == 113
    assert epoch(bank) == before
    assert watch.ended()[0]["report"]["gate"] == {"eligible": 113, "removed": 2}
    copy = bank.home.path / "tables" / "offers.lookup"
    assert len(copy.read_bytes().partition(b"\n")[2]) == 113 * 53
    # Consent given anew counts from the next table on.
    import_consents(
        shop,
        consent_table(
            pd.Series(SHARED[:1]), "bank", "purchases", granted_at="2025-07-01T00:00:00Z"
        ),
    )
    assert looked_up(run(bank, "lookup")) == expected(SHARED[2:])
    shop.tables = Tables()
    assert looked_up(run(bank, "lookup")) == expected([SHARED[0], *SHARED[2:]])


def test_who_withdraws_while_the_run_is_under_way_is_out(ready: Nodes) -> None:
    bank, shop = ready
    run(bank, "lookup")
    with paused_job(bank, job("lookup"), "ask") as (running, _):
        withdraw(shop, pd.Series(SHARED[:1]), "bank", "purchases")
    assert running.report is not None
    assert looked_up(running.report) == expected(SHARED[1:])
    states = [one["state"] for one in bank.runs()]
    assert sorted(states) == ["completed", "completed", "refused"]


def test_a_consent_that_expires_takes_its_person_out(ready: Nodes) -> None:
    bank, shop = ready
    import_consents(
        shop,
        consent_table(
            phones(500, 501),
            "bank",
            "purchases",
            expires_at=(shop.now() + timedelta(hours=1)).isoformat(timespec="seconds"),
        ),
    )
    table = pd.concat([shoppers(), pd.DataFrame({"phone": phones(500, 501), "spend": [1]})])
    table.to_csv(shop.home.path / "shoppers.csv", index=False)
    assert run(bank, "lookup")["result"]["partner_size"] == 116
    later(bank, shop, hours=2)
    assert run(bank, "lookup")["result"]["partner_size"] == 115


def later(*nodes: Node, hours: float) -> None:
    for node in nodes:
        node.now = lambda clock=node.now: clock() + timedelta(hours=hours)


def test_an_epoch_ends_and_its_scalar_with_it(ready: Nodes) -> None:
    bank, shop = ready
    run(bank, "lookup")
    (held,) = shop.tables._held.values()
    before, scalar = epoch(bank), held.table.scalar.to_bytes()
    later(bank, shop, hours=23)
    run(bank, "lookup")
    assert epoch(bank) == before
    later(bank, shop, hours=1)
    assert looked_up(run(bank, "lookup")) == expected(SHARED)
    assert epoch(bank) != before
    (held,) = shop.tables._held.values()
    assert held.table.scalar.to_bytes() != scalar


def test_a_table_goes_when_its_time_is_up_even_if_nobody_asks(ready: Nodes) -> None:
    bank, shop = ready
    run(bank, "lookup")
    (slot, held) = next(iter(shop.tables._held.items()))
    shop.tables.hold(slot, held, timedelta(seconds=0.05))
    until(lambda: not shop.tables._held)


def test_a_table_does_not_outlast_its_agreement(ready: Nodes) -> None:
    bank, shop = ready
    soon = (bank.now() + timedelta(hours=1)).replace(microsecond=0)
    text = AGREEMENT.format(version=2, partner_learns="size")
    path = bank.home.path / "agreement.yaml"
    path.write_text(text.replace("until: 2035-01-01T00:00:00+08:00", f"until: {soon.isoformat()}"))
    agreements.propose(bank, path)
    agreements.sign(shop, "offers", 2)
    run(bank, "lookup")
    (held,) = shop.tables._held.values()
    assert held.until == soon


@pytest.mark.parametrize("step", ["suspended", "terminated"])
@pytest.mark.parametrize("by_bank", [True, False], ids=["by the bank", "by a command here"])
def test_a_table_goes_with_its_agreement(
    ready: Nodes, monkeypatch: pytest.MonkeyPatch, step: Any, by_bank: bool
) -> None:
    """Told by the bank, at once; declared by another process of its own, when the node looks."""
    bank, shop = ready
    monkeypatch.setattr(tables, "LOOKED_AT", 3600 if by_bank else 0.2)
    run(bank, "lookup")
    (held,) = shop.tables._held.values()
    gone = weakref.ref(held.table)
    del held
    time.sleep(0.5)
    assert shop.tables._held, "the node has looked, and the agreement was in force"
    agreements.declare(bank if by_bank else Node.open(shop.home), "offers", step, "an incident")
    if by_bank:
        assert not shop.tables._held
    until(lambda: not shop.tables._held and not shop.tables._ends)

    def zeroised() -> bool:
        gc.collect()
        return gone() is None

    until(zeroised)


def test_a_table_goes_if_its_agreement_cannot_be_looked_at(
    ready: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, shop = ready
    run(bank, "lookup")
    monkeypatch.setattr(shop, "reading", None)
    shop.tables.check()
    assert not shop.tables._held


def test_nothing_keeps_a_table_that_was_replaced(ready: Nodes) -> None:
    """Its scalar is zeroised when it is dropped: no timer and no run may still refer to it."""
    bank, shop = ready
    run(bank, "lookup")
    before = weakref.ref(next(iter(shop.tables._held.values())).table)
    bank.copies._known.clear()
    (bank.home.path / "tables" / "offers.lookup").unlink()
    run(bank, "lookup")

    def gone() -> bool:
        gc.collect()
        return before() is None

    until(gone)
    assert len(shop.tables._held) == len(shop.tables._ends) == 1


def test_a_new_version_of_the_agreement_takes_a_new_table(ready: Nodes) -> None:
    bank, shop = ready
    run(bank, "lookup")
    before = epoch(bank)
    agree(bank, shop, version=2)
    run(bank, "lookup")
    assert epoch(bank) != before
    assert len(shop.tables._held) == 1


@pytest.mark.parametrize("spoil", ["lost", "cut", "changed", "header"])
def test_a_copy_that_is_gone_or_damaged_is_fetched_anew(ready: Nodes, spoil: str) -> None:
    bank, _ = ready
    run(bank, "lookup")
    before = epoch(bank)
    path = bank.home.path / "tables" / "offers.lookup"
    data = path.read_bytes()
    match spoil:
        case "lost":
            path.unlink()
        case "cut":
            path.write_bytes(data[:-1])
        case "changed":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "header":
            path.write_bytes(b"[]" + data)
    bank.copies._known.clear()
    assert looked_up(run(bank, "lookup")) == expected(SHARED)
    assert epoch(bank) != before


def test_a_bank_that_starts_again_goes_on_with_its_copy(ready: Nodes) -> None:
    bank, _ = ready
    run(bank, "lookup")
    before = epoch(bank)
    bank.copies._known.clear()
    assert looked_up(run(bank, "lookup")) == expected(SHARED)
    assert epoch(bank) == before


def test_people_per_day_bounds_what_is_asked_repeats_included(ready: Nodes) -> None:
    bank, shop = ready
    agree(bank, shop, version=2, people_per_day=5)
    named = people(bank, SHARED[:2])
    for _ in range(2):
        run(bank, "lookup", people=named)
    with pytest.raises(ConcordatError) as refused:
        run(bank, "lookup", people=named)
    assert (refused.value.code, refused.value.clause) == ("E310", "jobs.lookup.people_per_day")
    assert "4 people were asked for" in refused.value.message
    run(bank, "lookup", people=people(bank, SHARED[:1]))
    later(bank, shop, hours=25)
    run(bank, "lookup", people=named)


def test_the_partner_counts_for_itself(ready: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    bank, shop = ready
    agree(bank, shop, version=2, people_per_day=3)
    check = session.Session._check_asked
    monkeypatch.setattr(
        session.Session,
        "_check_asked",
        lambda self, asked: None if self.role == "bank" else check(self, asked),
    )
    with pytest.raises(ConcordatError) as refused:
        run(bank, "lookup")
    assert refused.value.peer_code == "E310"


@pytest.mark.parametrize("name", ["people.txt", "none.csv"])
def test_a_file_of_people_that_cannot_be_read_is_named(lasting: Nodes, name: str) -> None:
    with pytest.raises(ConcordatError) as refused:
        run(lasting[0], "lookup", people=name)
    assert refused.value.code in {"E620", "E110"}


@pytest.mark.parametrize("kind", ["lookup", "score"])
def test_a_run_does_not_fail_on_a_spoilt_row(
    ready: Nodes, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partner, who spoilt it, would know that its person was asked for."""
    bank, shop = ready

    def spoilt(*args: Any) -> Any:
        rows = seal(*args)
        rows[::2, -1] ^= 1
        return rows

    seal = lookup.seal
    monkeypatch.setattr(lookup, "seal", spoilt)
    watch = Watch(shop)
    report = run(bank, kind, **({"scorecard": card(bank)} if kind == "score" else {}))
    assert report["state"] == watch.ended()[0]["state"] == "completed"
    found = report["result"]["found"]
    assert 0 < found == len(result(report)) < len(SHARED)
    (warning,) = report["warnings"]
    assert warning["code"] == "E210"
    assert f"Of {len(SHARED) - found} of the people" in warning["message"]
    assert "next table" in warning["next_step"]


# score


def test_a_score_is_the_plain_calculation(lasting: Nodes) -> None:
    bank, _shop = lasting
    first = run(bank, "score", scorecard=card(bank))
    assert result(first).to_dict("list") == {
        "phone": SHARED,
        "score": [f"{points(SPENT[one]):.1f}" for one in SHARED],
    }
    before = epoch(bank, "score")
    again = run(bank, "score", scorecard=card(bank), people=people(bank, SHARED[:2]))
    assert result(again)["phone"].tolist() == SHARED[:2]
    assert epoch(bank, "score") == before
    # Another scorecard takes another table: its points are in the rows.
    feature = {"bins": [{"points": 7}], "missing": 0, "unseen": 0}
    other = card(bank, features={"spend": feature})
    report = run(bank, "score", scorecard=other)
    assert set(result(report)["score"]) == {"507.0"}
    assert epoch(bank, "score") != before
    assert (bank.home.path / "tables" / "offers.score").stat().st_mode & 0o777 == 0o600


def test_scores_have_a_key_of_their_own(bank: Node, paillier_key: bytes) -> None:
    """As a partner a node opens sums for others."""
    bank.home.key("paillier-2048").write_bytes(paillier_key)
    for_sums, for_scores = (bank.paillier_key(2048, scores=scores) for scores in (False, True))
    assert for_sums.public.modulus != for_scores.public.modulus
    again = bank.paillier_key(2048, scores=True)
    assert again.public.modulus == for_scores.public.modulus


def test_the_scorecard_can_be_opened_to_an_auditor(lasting: Nodes) -> None:
    bank, shop = lasting
    report = run(bank, "score", scorecard=card(bank), people=people(bank, SHARED[:1]))
    folder = bank.home.run_folder(report["run"])
    salt = bytes.fromhex((folder / "scorecard.salt").read_text())
    data = (folder / "scorecard.json").read_bytes()
    assert json.loads(data)["features"]["spend"]["bins"][2] == {"points": 30.5}
    (entry,) = [one for one in log_of(bank, report["run"]) if one["type"] == "score.card"]
    assert entry["commitment"] == hashlib.sha256(salt + data).hexdigest()
    assert "score.card" not in {one["type"] for one in log_of(shop, report["run"])}
    intent = Path(report["intent_file"]).read_text()
    assert "spending" not in intent
    assert report["result_file"].endswith("score.csv")


def test_missing_and_strange_values_have_points(ready: Nodes) -> None:
    bank, shop = ready
    table = shoppers().astype({"spend": object})
    table.loc[table["phone"] == SHARED[0], "spend"] = ""
    table.loc[table["phone"] == SHARED[1], "spend"] = "a lot"
    table.to_csv(shop.home.path / "shoppers.csv", index=False)
    found = result(run(bank, "score", scorecard=card(bank), people=people(bank, SHARED[:3])))
    assert found["score"].tolist() == ["499.0", "498.0", f"{points(SPENT[SHARED[2]]):.1f}"]
    looked = result(run(bank, "lookup", people=people(bank, SHARED[:3])))
    assert looked["spend"].fillna("").tolist() == ["", "", str(SPENT[SHARED[2]])]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"scorecard": "none.yaml"}, "E620"),
        ({}, "E302"),
        ({"scorecard": "unfit.yaml"}, "E122"),
        ({"scorecard": "wrong.yaml"}, "E121"),
        ({"scorecard": "text.yaml"}, "E121"),
    ],
)
def test_a_scorecard_that_cannot_be_used_starts_nothing(
    lasting: Nodes, changes: dict[str, str], code: str
) -> None:
    bank, shop = lasting
    card(bank, "unfit.yaml", features={"age": CARD["features"]["spend"]})
    card(bank, "wrong.yaml", base="much")
    (bank.home.path / "text.yaml").write_text("- no mapping\n")
    watch = Watch(shop)
    with pytest.raises(ConcordatError) as refused:
        run(bank, "score", **changes)
    assert refused.value.code == code
    assert not watch.new()


# Early warning


def test_an_early_warning_lists_who_fell_for_the_bank_alone(ready: Nodes) -> None:
    bank, shop = ready
    job = {"scorecard": card(bank), "watch": {"fell_by": 30}}
    first = run(bank, "score", **job)
    assert Path(first["result_file"]).read_text() == "phone,before,now,fall\n"
    assert first["result"]["compared"] == 0

    table = shoppers()
    rich = [one for one in SHARED if SPENT[one] >= 301]
    table.loc[table["phone"].isin(rich[:2]), "spend"] = 5  # falls by 50.5
    table.loc[table["phone"] == rich[2], "spend"] = 200  # by 25.5
    table.to_csv(shop.home.path / "shoppers.csv", index=False)
    withdraw(bank, pd.Series(rich[3:4]), "shop", "profile")
    shop.tables = Tables()  # a month later there is another table
    watch = Watch(shop)
    report = run(bank, "score", **job)
    assert result(report).to_dict("list") == {
        "phone": rich[:2],
        "before": ["530.5"] * 2,
        "now": ["480.0"] * 2,
        "fall": ["50.5"] * 2,
    }
    counts = {
        "scored": len(SHARED) - 1,
        "compared": len(SHARED) - 1,
        "fell_by_more_than": "30",
        "fell": 2,
    }
    assert counts.items() <= report["result"].items()
    (entry,) = [one for one in log_of(bank, report["run"]) if one["type"] == "score.watch"]
    assert counts.items() <= entry.items()
    assert len(entry) == len(counts) + 4
    (theirs,) = watch.ended()
    assert "fell" not in json.dumps(theirs["report"])
    kept = (bank.home.path / "watch" / "offers.spending").read_text()
    assert rich[0] in kept
    assert rich[3] not in kept  # who has withdrawn is not remembered

    # Under another scorecard a fall says nothing.
    job["scorecard"] = card(bank, base=100)
    assert run(bank, "score", **job)["result"]["compared"] == 0


@pytest.mark.parametrize("text", ["", "{}\nphone,score\n", "{", "\xff"])
def test_last_scores_that_cannot_be_read_are_none(ready: Nodes, text: str) -> None:
    bank, _ = ready
    path = bank.home.path / "watch" / "offers.spending"
    path.parent.mkdir()
    path.write_bytes(text.encode("latin-1"))
    report = run(bank, "score", scorecard=card(bank), watch={"fell_by": 1})
    assert report["result"]["compared"] == 0


def test_the_files_a_job_names_start_at_its_folder(tmp_path: Path) -> None:
    text = job("score", scorecard="card.yaml", people="/elsewhere/people.csv", watch={"fell_by": 1})
    found = yaml.safe_load(admin._with_paths(text, tmp_path / "jobs" / "score.yaml"))
    assert found == yaml.safe_load(text) | {"scorecard": str(tmp_path / "jobs" / "card.yaml")}
    for other in (job("overlap"), "people: [", "people: &a b"):
        assert admin._with_paths(other, tmp_path / "job.yaml") == other
