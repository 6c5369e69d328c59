"""The registers of GDPR 30 and PIPL 23, 55 and 56."""

import csv
import json
from io import StringIO
from pathlib import Path

import pytest
from institutions import NOW, Institution, Run, person, sign_agreement

from compliance import activities, notice
from compliance.activities import Contact, Stated
from compliance.notice import Notice
from compliance.store import read, write

PEOPLE = [person(number) for number in range(5)]
STATED = Stated(
    controller="Example Bank",
    contact="privacy@bank.example",
    data_protection_officer="=HYPERLINK(evil)",
    data_subjects="customers",
    security_measures="+keys in hardware",
    recipients={"partner": Contact(name="@Shop", contact="-shop")},
)


@pytest.fixture
def bank(tmp_path: Path) -> Institution:
    """Five people with consents of several kinds, a run that is complete and one that is not."""
    bank, partner = (Institution.create(tmp_path, name) for name in ("bank", "partner"))
    sign_agreement(bank, partner)
    separate = [{"subject": subject} for subject in PEOPLE[:3]]
    again = {"subject": PEOPLE[0], "granted_at": "2025-07-01T09:00:00+08:00"}
    other = {"subject": PEOPLE[3], "kind": "written"}
    narrow = {"subject": PEOPLE[4], "categories": "customer-profile"}
    gone = {"subject": PEOPLE[2], "withdrawn_at": "2026-10-15T12:00:00+08:00"}
    bank.take(*separate, again, other, narrow)
    bank.take(gone)
    run = Run(bank, partner, bank.decide(*PEOPLE))
    run.begin()
    run.release()
    run.complete()
    Run(bank, partner, bank.decide(*PEOPLE[:2])).begin()
    return bank


def rows(bank: Institution, kind: activities.Kind, stated: Stated = STATED) -> list[dict]:
    with read(bank.engine) as conn:
        return activities.rows(
            conn, kind, name="bank", origin=bank.log.origin, stated=stated, now=NOW
        )


def test_the_record_has_every_item_of_the_article(bank: Institution) -> None:
    (row,) = rows(bank, "gdpr-30")
    for item in "abcdefg":
        assert any(name.startswith(f"30(1)({item}) ") for name in row)
    assert row["30(1)(a) controller"] == "Example Bank"
    assert row["30(1)(b) purposes"] == "credit-risk-assessment"
    assert row["30(1)(c) categories of personal data"] == "customer-profile, credit-performance"
    assert row["30(1)(d) recipients"] == "@Shop"
    assert row["30(1)(f) time limits for erasure"] == "730 days"
    assert (row["runs started"], row["runs complete"]) == (2, 1)
    assert row["people put in, repeats included"] == 3 + 2
    assert row["missing"].split("; ") == [
        "30(1)(a) joint controller",
        "30(1)(a) representative",
        "30(1)(e) transfers to third countries",
        "30(1)(e) safeguards",
    ]


def test_what_is_not_stated_is_listed(bank: Institution) -> None:
    (row,) = rows(bank, "gdpr-30", Stated())
    assert "30(1)(a) controller" in row["missing"].split("; ")
    assert "30(1)(g) security measures" in row["missing"].split("; ")
    assert row["30(1)(d) recipients"] == "partner"


def test_a_notice_says_what_the_configuration_does_not(bank: Institution) -> None:
    text = (Path(__file__).parents[2] / "docs/reference/notice.yaml").read_text("utf-8")
    for old, new in (("shop", "partner"), ("credit-offer", "credit-risk-assessment")):
        text = text.replace(old, new)
    with write(bank.engine) as conn:
        notice.add(conn, bank.log, Notice.from_yaml(text), time=NOW)
    (row,) = rows(bank, "gdpr-30", Stated())
    assert row["30(1)(a) controller"] == "Example Bank"
    (row,) = rows(bank, "pipl-23", Stated())
    assert row["23 recipient's contact"] == "privacy@partner.example"
    assert row["23 method"].startswith("Encrypted sums by segment")
    assert row["missing"] == ""


def test_the_register_of_provision_counts_people_by_kind_of_consent(bank: Institution) -> None:
    (row,) = rows(bank, "pipl-23")
    assert row["23 people with a live separate consent"] == 2
    assert row["people with a live written consent"] == 1
    assert row["people with a live general consent"] == 0
    assert row["55 impact assessment"] == "PIA-2026-014"
    assert row["56 records kept until at least"] == "2029-11-23"
    assert row["jobs"] == "insight, overlap"
    assert row["missing"] == "23 method"


@pytest.mark.parametrize("kind", ["gdpr-30", "pipl-23"])
def test_both_forms_say_the_same_and_no_cell_is_a_formula(bank: Institution, kind) -> None:
    found = rows(bank, kind)
    as_json = json.loads(activities.write(kind, "json", found, name="bank", now=NOW))
    assert as_json["entries"] == found
    assert as_json["institution"] == "bank"
    text = activities.write(kind, "csv", found, name="bank", now=NOW).decode()
    header, *lines = csv.reader(StringIO(text))
    assert header == list(found[0])
    for line, row in zip(lines, found, strict=True):
        for cell, value in zip(line, row.values(), strict=True):
            assert cell[:1] not in {*"=+-@\t\r\n＝＋－＠"} - {""}
            assert cell.removeprefix("'") == str(value).removeprefix("'")


def test_without_an_agreement_there_are_no_rows(tmp_path: Path) -> None:
    new = Institution.create(tmp_path, "bank")
    assert rows(new, "gdpr-30") == []
    assert activities.write("gdpr-30", "csv", [], name="bank", now=NOW) == b""


def test_the_29th_of_february_is_kept_long_enough() -> None:
    assert activities._years_on("2028-02-29T12:00:00Z") == "2031-03-01"
    assert activities._years_on("2026-11-23T12:00:00Z") == "2029-11-23"
