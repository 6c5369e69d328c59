import hmac
import json
import tempfile
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from institutions import CONSENT, Institution, person, table

from compliance.batch import as_bytes
from compliance.canonical import canonical, parse
from compliance.consent import KINDS, NEVER, consents, leaves, read, records, terms
from compliance.errors import ConsentTable, NobodyEligible
from compliance.log import subtree_leaves
from compliance.store import read as reading
from compliance.vault import subjects
from compliance.verify import verify_log


def microseconds(text):
    return microseconds_of(datetime.fromisoformat(text))


def microseconds_of(time):
    if time is None:
        return NEVER
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.fixture
def bank(new_store):
    return Institution.create(new_store, "bank")


def stored(side, table):
    with reading(side.engine) as conn:
        return pd.DataFrame(conn.execute(table.select()).mappings())


def bodies(side):
    with reading(side.engine) as conn:
        return [parse(entry.leaf) for entry in side.log.entries(conn)]


# Reading a table


def test_a_row_is_read_with_its_categories_sorted_and_its_times_in_utc():
    accepted, rejected = read(
        table({"categories": " b ; a;b;", "withdrawn_at": "2026-03-15T12:00:00.5Z"}, {})
    )
    assert rejected.empty
    row = accepted.iloc[0]
    assert row["categories"] == "a;b"
    assert row["granted_at"] == microseconds("2025-06-15T01:00:00+00:00")
    assert row["withdrawn_at"] == microseconds("2026-03-15T12:00:00.500000+00:00")
    assert accepted.iloc[1]["withdrawn_at"] == NEVER


@pytest.mark.parametrize(
    "time",
    [
        "2025-06-15T01:00:00Z",
        "2025-06-15T01:00Z",
        "2025-06-15 01:00:00+00:00",
        " 2025-06-15T09:00:00+08:00 ",
        "2025-06-15T09:00:00+0800",
        "2025-06-14T22:30:00.000000-02:30",
    ],
)
def test_a_time_is_iso_8601_with_any_offset(time):
    accepted, _ = read(table({"granted_at": time}))
    assert list(accepted["granted_at"]) == [microseconds("2025-06-15T01:00:00+00:00")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"subject": ""}, "subject is missing"),
        ({"purpose": "  "}, "purpose is missing"),
        ({"purpose": "risk assessment"}, "purpose is no short name"),
        ({"recipient": "p" * 65}, "recipient is no short name"),
        ({"recipient": "partner\n"}, None),
        ({"categories": ""}, "categories is missing"),
        ({"categories": " ; "}, "categories is missing"),
        ({"categories": "a;b c"}, "categories is no list of short names"),
        ({"kind": ""}, "kind is none of general, separate, written, guardian"),
        ({"kind": "Separate"}, "kind is none of general, separate, written, guardian"),
        ({"granted_at": ""}, "granted_at is missing"),
        ({"granted_at": "2025-06-15T09:00:00"}, "granted_at has no offset from UTC"),
        ({"expires_at": "2028-12-31 00:00"}, "expires_at has no offset from UTC"),
        ({"withdrawn_at": "2026-03-15T12:00:00"}, "withdrawn_at has no offset from UTC"),
        ({"granted_at": "2025-06-15"}, "granted_at is no ISO 8601 time"),
        ({"granted_at": "2025-02-30T09:00:00Z"}, "granted_at is no ISO 8601 time"),
        ({"granted_at": "2025-06-15T24:00:00Z"}, "granted_at is no ISO 8601 time"),
        ({"granted_at": "1e+05"}, "granted_at is no ISO 8601 time"),
        ({"granted_at": "2025-06-15T09:00:00+24:00"}, "granted_at is no ISO 8601 time"),
        ({"expires_at": "9999-12-31T23:59:59-08:00"}, "expires_at is no ISO 8601 time"),
        ({"expires_at": "9999-12-31T23:59:59Z"}, None),
        ({"withdrawn_at": "yes"}, "withdrawn_at is no ISO 8601 time"),
        ({"expires_at": CONSENT["granted_at"]}, "expires_at is not after granted_at"),
        ({"kind": "x", "purpose": ""}, "purpose is missing"),
    ],
)
def test_a_row_that_fails_is_refused_with_its_reason(change, reason):
    rows = table({}, change, {}).set_axis([7, 8, 8])
    accepted, rejected = read(rows)
    assert list(rejected) == ([] if reason is None else [reason])
    assert len(accepted) + len(rejected) == 3
    if reason:
        assert list(rejected.index) == [8]
        assert list(accepted.index) == [7, 8]


def test_cells_that_are_no_text_count_as_empty():
    rows = table({}, {}).astype(object)
    rows.loc[0, "withdrawn_at"] = None
    rows.loc[1, "withdrawn_at"] = np.nan
    accepted, rejected = read(rows)
    assert rejected.empty
    assert list(accepted["withdrawn_at"]) == [NEVER, NEVER]


def test_a_table_without_a_column_is_refused():
    with pytest.raises(ConsentTable, match="kind, withdrawn_at"):
        read(table({}).drop(columns=["kind", "withdrawn_at"]))


# Importing

GRANTED = ["2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z"]
WITHDRAWN = ["", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "2027-01-01T00:00:00Z"]

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "subject": st.sampled_from([person(1), person(2)]),
            "granted_at": st.sampled_from(GRANTED),
            "categories": st.sampled_from(["a;b", "b;a", "a"]),
            "withdrawn_at": st.sampled_from(WITHDRAWN),
        }
    ),
    max_size=6,
)


def held(side):
    """When each consent was withdrawn, by all that it is known by."""
    frame = (
        stored(side, consents)
        .merge(stored(side, terms), left_on="terms", right_on="id", suffixes=("", "_terms"))
        .merge(stored(side, subjects), left_on="subject", right_on="id", suffixes=("", "_hmac"))
    )
    found = {}
    for row in frame.itertuples():
        assert (row.subject_hmac, row.granted_at, row.categories) not in found
        assert row.state == ("ConsentGiven" if row.withdrawn_at == NEVER else "ConsentWithdrawn")
        found[row.subject_hmac, row.granted_at, row.categories] = row.withdrawn_at
    return found


@settings(max_examples=30, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=4))
def test_imports_add_and_withdraw_and_never_undo(imports):
    expected = {}
    with tempfile.TemporaryDirectory() as folder:
        bank = Institution.create(Path(folder), "bank")
        for rows in imports:
            groups = defaultdict(list)
            for row in rows:
                subject = hmac.digest(bank.vault.lookup, row["subject"].encode(), "sha256")
                key = (
                    subject,
                    microseconds(row["granted_at"]),
                    ";".join(sorted(row["categories"].split(";"))),
                )
                at = microseconds(row["withdrawn_at"]) if row["withdrawn_at"] else NEVER
                groups[key].append(at)
            changed = 0
            for key, withdrawals in groups.items():
                at = max(withdrawals)  # of equal rows any live one suffices
                changed += key not in expected or at < expected[key]
                expected[key] = min(at, expected.get(key, NEVER))
            size = len(bodies(bank))
            done = bank.take(*rows)
            assert done.new + done.withdrawn == changed
            assert done.known == len(rows) - changed
            assert done.entry == (size if changed else None)
            assert bank.take(*rows).entry is None, "the same table again changes nothing"
            if expected:
                assert held(bank) == expected
        with reading(bank.engine) as conn:
            assert verify_log(conn, bank.log.verifier).ok


def test_a_withdrawal_is_honoured_and_kept(bank):
    assert bank.take({}).new == 1
    later = bank.take({"withdrawn_at": "2026-06-01T00:00:00Z"})
    assert (later.new, later.withdrawn, later.known) == (0, 1, 0)
    assert bank.take({}).known == 1
    assert bank.take({"withdrawn_at": "2026-07-01T00:00:00Z"}).known == 1
    assert bank.take({"withdrawn_at": "2026-05-01T00:00:00Z"}).withdrawn == 1
    assert list(stored(bank, consents)["withdrawn_at"]) == [
        microseconds("2026-05-01T00:00:00+00:00")
    ]
    assert bank.take({"granted_at": "2026-08-01T00:00:00Z"}).new == 1, "a new grant is newer"


WITHDRAWN_ROW = {"withdrawn_at": "2026-06-01T00:00:00Z"}


def test_a_consent_said_twice_is_withdrawn_at_once(bank):
    done = bank.take({}, {})
    assert (done.new, done.known) == (1, 1)
    assert bank.take(WITHDRAWN_ROW).withdrawn == 1
    with pytest.raises(NobodyEligible, match="withdrawn: 1"):
        bank.decide(CONSENT["subject"])


@pytest.mark.parametrize("rows", [[{}], [{}, {}], [{}, WITHDRAWN_ROW], [WITHDRAWN_ROW, {}, {}]])
def test_no_number_of_equal_rows_undoes_a_withdrawal(bank, rows):
    bank.take(WITHDRAWN_ROW)
    assert bank.take(*rows).entry is None
    with pytest.raises(NobodyEligible, match="withdrawn: 1"):
        bank.decide(CONSENT["subject"])


def test_of_equal_rows_in_one_table_any_live_one_suffices(bank):
    bank.take({}, WITHDRAWN_ROW)
    assert bank.decide(CONSENT["subject"]).size == 1
    bank.take(WITHDRAWN_ROW)
    with pytest.raises(NobodyEligible):
        bank.decide(CONSENT["subject"])


def test_rejected_rows_keep_their_place_and_do_not_stop_the_others(bank):
    done = bank.take({"kind": "x"}, {}, {"purpose": ""})
    assert (done.new, dict(done.rejected)) == (
        1,
        {
            0: "kind is none of general, separate, written, guardian",
            2: "purpose is missing",
        },
    )


def test_a_table_without_a_valid_row_leaves_no_trace(bank):
    for rows in ([], [{"kind": "x"}]):
        assert bank.take(*rows).entry is None
    assert bodies(bank) == []
    assert stored(bank, subjects).empty


# What the log holds


def test_an_import_is_one_entry_that_commits_to_a_leaf_a_consent(bank):
    bank.take(*({"subject": person(number)} for number in range(20)), {"kind": "x"})
    (entry,) = bodies(bank)
    leaves = stored(bank, subtree_leaves)
    assert entry["type"] == "consent.import"
    assert entry["subtree"] == {"root": leaves["root"][0].hex(), "size": 20}
    counts = [entry[name] for name in ("new", "withdrawn", "known", "rejected")]
    assert counts == [20, 0, 0, 1]


def test_a_leaf_holds_two_hmacs_under_the_persons_secret_and_a_nonce(bank):
    bank.take({"withdrawn_at": "2026-03-15T12:00:00+08:00"})
    secret = bank.vault.unwrap(stored(bank, subjects))[0].tobytes()
    (leaf,) = stored(bank, subtree_leaves)["leaf"]
    body = parse(leaf)
    record = {
        "categories": ["credit-performance", "customer-profile"],
        "expires_at": "2028-12-30T16:00:00Z",
        "granted_at": "2025-06-15T01:00:00Z",
        "kind": "separate",
        "purpose": "credit-risk-assessment",
        "recipient": "partner",
        "state": "ConsentWithdrawn",
        "withdrawn_at": "2026-03-15T04:00:00Z",
    }
    reference = ["concordat.consent", "bank.example/log", "partner", "credit-risk-assessment"]
    assert body["record"] == hmac.digest(secret, canonical(record), "sha256").hex()
    assert body["reference"] == hmac.digest(secret, canonical(reference), "sha256").hex()
    assert len(bytes.fromhex(body["nonce"])) == 16
    assert body.keys() == {"nonce", "record", "reference"}


def test_the_log_links_nobody_across_recipients_and_purposes(bank):
    bank.take(
        {}, {"recipient": "other"}, {"purpose": "marketing"}, {"granted_at": "2026-01-01T00:00Z"}
    )
    found = [parse(leaf)["reference"] for leaf in stored(bank, subtree_leaves)["leaf"]]
    assert len(set(found)) == 3, "the same only where the same is asked of the same person"


def test_no_date_of_a_consent_and_no_name_for_a_person_is_in_the_log(bank):
    bank.take({}, {"subject": person(2), "withdrawn_at": "2026-03-15T12:00:00Z"})
    with reading(bank.engine) as conn:
        log = b"".join(entry.leaf for entry in bank.log.entries(conn))
    log += b"".join(stored(bank, subtree_leaves)["leaf"])
    people = [subject.hex() for subject in stored(bank, subjects)["subject"]]
    for trace in ("13900000001", "13900000002", "2025-06", "2028-12", "2026-03", *people):
        assert trace.encode() not in log


def test_leaves_are_not_in_the_order_of_the_rows(bank):
    people = [person(number) for number in range(200)]
    bank.take(*({"subject": subject} for subject in people))
    rows = stored(bank, subjects)
    secrets = dict(zip(rows["subject"], as_bytes(bank.vault.unwrap(rows)), strict=True))
    asked = canonical(["concordat.consent", bank.log.origin, "partner", CONSENT["purpose"]])
    references = [parse(leaf)["reference"] for leaf in stored(bank, subtree_leaves)["leaf"]]
    order = [
        references.index(hmac.digest(secrets[subject], asked, "sha256").hex())
        for subject in as_bytes(bank.vault.subjects_of(people))
    ]
    assert sorted(order) == list(range(200))
    assert order != list(range(200))


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", fullmatch=True)
TIMES = st.datetimes(
    datetime(1900, 1, 1), datetime(9999, 12, 31, 23, 59, 59), timezones=st.just(UTC)
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "purpose": NAMES,
                "recipient": NAMES,
                "categories": st.sets(NAMES, min_size=1, max_size=3),
                "kind": st.sampled_from(KINDS),
                "granted_at": TIMES,
                "expires_at": TIMES,
                "withdrawn_at": st.none() | TIMES,
                "state": st.sampled_from(["ConsentGiven", "ConsentWithdrawn"]),
            }
        ),
        min_size=1,
        max_size=3,
    )
)
def test_a_record_is_canonical_json(rows):
    times = ("granted_at", "expires_at", "withdrawn_at")
    frame = pd.DataFrame(
        row
        | {name: microseconds_of(row[name]) for name in times}
        | {"categories": ";".join(sorted(row["categories"]))}
        for row in rows
    )
    for row, record in zip(rows, records(frame), strict=True):
        expected = row | {"categories": sorted(row["categories"])}
        for name in times:
            if row[name] is None:
                del expected[name]
            else:
                expected[name] = row[name].isoformat().replace("+00:00", "Z")
        assert record.encode() == canonical(expected)


@given(st.integers(1, 4), st.randoms(use_true_random=False))
def test_leaves_are_canonical_json(count, random):
    nonces, records, references = (
        np.frombuffer(random.randbytes(count * width), np.uint8).reshape(count, width)
        for width in (16, 32, 32)
    )
    for leaf, *values in zip(
        leaves(nonces, records, references), nonces, records, references, strict=True
    ):
        names = ("nonce", "record", "reference")
        body = {name: value.tobytes().hex() for name, value in zip(names, values, strict=True)}
        assert leaf == canonical(body)
        assert json.loads(leaf) == body
