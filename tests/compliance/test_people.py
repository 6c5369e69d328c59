"""Users, their signatures in the log, and what takes two of them."""

from datetime import timedelta

import pytest
from institutions import NOW, Institution
from sqlalchemy import delete, insert, update

from compliance import people
from compliance.canonical import canonical, parse, to_base64
from compliance.errors import (
    InvalidSignature,
    LastOfficer,
    MustSign,
    NotAllowed,
    ProposalDecided,
    ProposalUnfit,
    ProposalUnknown,
    TwoPeople,
    UserConflict,
    UserUnknown,
    WrongUserKey,
)
from compliance.people import ActingLog, Actor, proposals, users
from compliance.signing import SigningKey, verify
from compliance.store import read, write

NAMES = ("li", "he", "wang", "audra")
ROLES = dict(zip(NAMES, ("officer", "officer", "engineer", "auditor"), strict=True))
KEYS = {name: SigningKey.generate() for name in NAMES}


@pytest.fixture
def bank(new_store):
    return Institution.create(new_store, "bank")


@pytest.fixture
def staffed(bank):
    """With two officers, an engineer and an auditor."""
    for name, by in zip(("li", "wang", "audra", "he"), (None, "li", "li", "li"), strict=True):
        assert add(bank, name, by) is None
    return bank


def actor(name):
    return Actor(name, KEYS[name]) if name else Actor("root")


def add(bank, name, by, role=None, key=None):
    key = key or KEYS[name].public
    return change(bank, by, "user.added", user=name, role=role or ROLES[name], key=key.hex())


def change(bank, by, type_, **body):
    with write(bank.engine) as conn:
        log = people.acting(conn, bank.log, actor(by))
        waiting = people.change(conn, log, type_, body, by="root", time=NOW)
        log.checkpoint(conn)
        return waiting


def enter(bank, by, type_, **body):
    with write(bank.engine) as conn:
        log = people.acting(conn, bank.log, actor(by))
        index = log.append(conn, type_, body, time=NOW)
        log.checkpoint(conn)
        return index


def propose(bank, by, act="agreement.resumed", detail=b"", **body):
    with write(bank.engine) as conn:
        log = people.acting(conn, bank.log, actor(by))
        made = people.propose(conn, log, act, body or {"agreement": "a"}, time=NOW, detail=detail)
        log.checkpoint(conn)
        return made


def approve(bank, by, made, **said):
    with write(bank.engine) as conn:
        log = people.acting(conn, bank.log, actor(by))

        def execute(log, approved):
            assert approved == made
            log.append(conn, approved.act, approved.body | said, time=NOW)

        people.approve(conn, log, made, execute, time=NOW)
        log.checkpoint(conn)


def refuse(bank, by, made, reason="no"):
    with write(bank.engine) as conn:
        log = people.acting(conn, bank.log, actor(by))
        people.refuse(conn, log, made, reason=reason, time=NOW)
        log.checkpoint(conn)


def entries(bank):
    with read(bank.engine) as conn:
        return {entry.index: parse(entry.leaf) for entry in bank.log.entries(conn)}


def problems(bank, log=None):
    with read(bank.engine) as conn:
        return list(people.problems(conn, bank.log.origin, log or entries(bank), [bank.key.public]))


def test_without_users_whoever_has_the_home_acts(bank):
    with write(bank.engine) as conn:
        assert people.acting(conn, bank.log, Actor("root")) is bank.log
        with pytest.raises(UserUnknown, match="has no users yet"):
            people.acting(conn, bank.log, actor("li"))


def test_the_first_user_is_an_officer_whom_nobody_signs_for(bank):
    with pytest.raises(LastOfficer, match="first user has to be an officer"):
        add(bank, "wang", None)
    add(bank, "li", None)
    (entry,) = entries(bank).values()
    assert (entry["by"], entry["user"], entry["role"]) == ("root", "li", "officer")
    assert "signature" not in entry
    assert problems(bank) == []


def test_from_then_on_somebody_has_to_sign(staffed):
    with read(staffed.engine) as conn:
        with pytest.raises(MustSign):
            people.acting(conn, staffed.log, Actor("root"))
        with pytest.raises(UserUnknown):
            people.acting(conn, staffed.log, Actor("nobody", KEYS["li"]))
        with pytest.raises(WrongUserKey):
            people.acting(conn, staffed.log, Actor("he", KEYS["li"]))


def test_an_entry_bears_its_users_signature_over_all_it_says(staffed):
    index = enter(staffed, "wang", "consent.import", new=3)
    entry = entries(staffed)[index]
    assert (entry["by"], entry["new"]) == ("wang", 3)
    said = {name: entry[name] for name in entry if name not in {"nonce", "signature"}}
    signed = canonical({**said, "log": staffed.log.origin})
    payload_type = b"application/vnd.concordat.entry+json"
    message = b"DSSEv1 %d %b %d %b" % (len(payload_type), payload_type, len(signed), signed)
    from base64 import b64decode

    verify(KEYS["wang"].public, b64decode(entry["signature"]), message)
    with pytest.raises(InvalidSignature):
        verify(KEYS["li"].public, b64decode(entry["signature"]), message)


def test_the_same_twice_within_a_second_is_two_acts(staffed):
    once, again = (enter(staffed, "wang", "consent.import", new=3) for _ in range(2))
    log = entries(staffed)
    assert log[once]["signature"] != log[again]["signature"]
    assert problems(staffed) == []
    assert problems(staffed, log | {again + 1: log[again]}) == [
        (f"entry {again + 1}", "its signature is that of another entry")
    ]


def test_an_entry_from_before_acts_were_told_apart_still_holds(staffed):
    index = enter(staffed, "wang", "consent.import", new=3)
    log = entries(staffed)
    del log[index]["once"]
    message = people.signed_bytes(staffed.log.origin, log[index])
    log[index]["signature"] = to_base64(KEYS["wang"].sign(message))
    assert problems(staffed, log) == []


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("wang", "user.added"),
        ("wang", "agreement.suspended"),
        ("li", "job.asked"),
        *(
            ("audra", type_)
            for type_ in (
                *("user.added", "agreement.proposed", "agreement.suspended", "consent.import"),
                *("job.asked", "proposal.made", "proposal.refused", "consent.withdrawn"),
            )
        ),
    ],
)
def test_a_role_allows_what_it_is_for(staffed, name, type_):
    with pytest.raises(NotAllowed, match=f"{name} is an? {ROLES[name]}"):
        enter(staffed, name, type_)


def test_an_auditor_reads_and_that_is_an_entry(staffed):
    with write(staffed.engine) as conn:
        people.read(conn, staffed.log, actor("audra"), "audit.log", time=NOW, run="7")
    entry = list(entries(staffed).values())[-1]
    assert (entry["type"], entry["read"], entry["run"], entry["by"]) == (
        *("audit.read", "audit.log", "7", "audra"),
    )
    assert problems(staffed) == []


def test_nobody_signs_for_somebody_else(staffed):
    with write(staffed.engine) as conn:
        log = people.acting(conn, staffed.log, actor("li"))
        with pytest.raises(ValueError, match="by the user whose act it is"):
            log.append(conn, "agreement.suspended", {"by": "he"}, time=NOW)


def test_with_one_officer_users_are_added_at_once_with_two_it_takes_another(staffed):
    waiting = change(staffed, "li", "user.removed", user="audra")
    assert (waiting.act, waiting.proposed_by) == ("user.removed", "li")
    with pytest.raises(TwoPeople):
        enter(staffed, "li", "user.removed", user="audra")
    with read(staffed.engine) as conn:
        assert people.find(conn, "audra").role == "auditor"
    with write(staffed.engine) as conn:
        log = people.acting(conn, staffed.log, actor("he"))

        def execute(log, approved):
            people.change(conn, log, approved.act, approved.body, by="", time=NOW)

        people.approve(conn, log, waiting, execute, time=NOW)
        log.checkpoint(conn)
        assert {user.name for user in people.everyone(conn)} == {"li", "he", "wang"}
    assert problems(staffed) == []


def test_names_and_keys_are_one_users(staffed):
    with pytest.raises(UserConflict, match="a user wang already"):
        add(staffed, "wang", "li")
    with pytest.raises(UserConflict, match="has this key"):
        add(staffed, "wang2", "li", role="engineer", key=KEYS["wang"].public)


def test_an_officer_stays(bank):
    add(bank, "li", None)
    add(bank, "wang", "li")
    for type_, more in (("user.removed", {}), ("user.changed", {"role": "engineer"})):
        with pytest.raises(LastOfficer, match="the only officer"):
            change(bank, "li", type_, user="li", **more)
    change(bank, "li", "user.changed", user="wang", role="officer")
    assert problems(bank) == []


def test_whoever_proposes_cannot_approve(staffed):
    made = propose(staffed, "li")
    with pytest.raises(TwoPeople, match="li has proposed it"):
        approve(staffed, "li", made)
    with pytest.raises(NotAllowed):
        approve(staffed, "wang", made)
    with pytest.raises(NotAllowed):
        refuse(staffed, "wang", made)
    approve(staffed, "he", made, key=staffed.key.keyid)
    last = list(entries(staffed).values())[-1]
    assert (last["type"], last["by"], last["proposal"]) == ("agreement.resumed", "he", made.id)
    assert problems(staffed) == []


def test_a_proposal_is_decided_once(staffed):
    made = propose(staffed, "wang")
    refuse(staffed, "wang", made, "a mistake of mine")
    for decide in (approve, refuse):
        with pytest.raises(ProposalDecided):
            decide(staffed, "li", made)
    with read(staffed.engine) as conn:
        assert people.pending(conn) == []
        assert people.find_proposal(conn, made.id[:8]).state == "refused"
        for name in ("", "zz"):
            with pytest.raises(ProposalUnknown):
                people.find_proposal(conn, name)


def test_what_fails_leaves_the_proposal_open(staffed):
    made = propose(staffed, "wang")
    with pytest.raises(ZeroDivisionError), write(staffed.engine) as conn:
        log = people.acting(conn, staffed.log, actor("li"))
        people.approve(conn, log, made, lambda *_: 1 / 0, time=NOW)
    with read(staffed.engine) as conn:
        assert people.pending(conn) == [made]
    approve(staffed, "li", made)


def test_only_what_was_approved_can_be_carried_out(staffed):
    made = propose(staffed, "wang", agreement="a")
    for type_, body in (("agreement.terminated", {"agreement": "a"}), (made.act, {})):
        with pytest.raises(ProposalUnfit), write(staffed.engine) as conn:
            log = people.acting(conn, staffed.log, actor("li"))
            people.approve(
                conn,
                log,
                made,
                lambda log, _, type_=type_, body=body, conn=conn: log.append(
                    conn, type_, body, time=NOW
                ),
                time=NOW,
            )


def test_the_same_is_not_proposed_twice(staffed):
    made = propose(staffed, "wang")
    assert propose(staffed, "li") == made
    assert propose(staffed, "li", agreement="b") != made


def test_what_the_log_may_not_hold_is_kept_until_the_decision(staffed):
    made = propose(staffed, "li", act="consent.erased", detail=b"person 7", note="x")
    assert made.detail == b"person 7"
    assert b"person 7" not in canonical(list(entries(staffed).values()))
    assert problems(staffed) == []
    refuse(staffed, "he", made)
    with read(staffed.engine) as conn:
        assert people.find_proposal(conn, made.id).detail == b""
    assert problems(staffed) == []


# What an audit finds in a log that does not keep to this


def forged(bank, index, **changes):
    log = entries(bank)
    log[index] = log[index] | changes
    return log


def test_a_changed_entry_does_not_bear_its_signature(staffed):
    index = enter(staffed, "wang", "consent.import", new=3)
    for change_ in ({"new": 4}, {"time": "2020-01-01T00:00:00Z"}, {"by": "li"}):
        ((where, problem),) = problems(staffed, forged(staffed, index, **change_))
        assert where == f"entry {index}"
        assert problem.endswith("does not hold")


def test_a_signature_is_of_one_log_and_one_entry(staffed):
    index = enter(staffed, "wang", "consent.import", new=3)
    log = entries(staffed)
    log[index + 1] = log[index]
    assert problems(staffed, log) == [
        (f"entry {index + 1}", "its signature is that of another entry")
    ]
    with read(staffed.engine) as conn:
        found = list(people.problems(conn, "other.example/log", entries(staffed), b""))
    assert len([problem for _, problem in found if problem.endswith("does not hold")]) == 4


def unsigned(bank, type_, time=NOW, **body):
    with write(bank.engine) as conn:
        return bank.log.append(conn, type_, body, time=time)


def test_an_entry_nobody_signed_is_found_once_there_are_users(bank):
    unsigned(bank, "consent.import", new=1)
    add(bank, "li", None)
    index = unsigned(bank, "consent.import", time=NOW + timedelta(1), new=1)
    assert problems(bank) == [(f"entry {index}", "no user has signed it")]


def test_a_decision_by_one_person_is_found(staffed):
    key = staffed.key.keyid
    index = unsigned(staffed, "agreement.resumed", agreement="a", key=key, by="li")
    assert (f"entry {index}", "no second person has approved it") in problems(staffed)
    theirs = unsigned(staffed, "agreement.resumed", agreement="a", key="00", by="shop")
    assert not [found for found in problems(staffed) if found[0] == f"entry {theirs}"]


def test_approving_ones_own_is_found(staffed):
    made = propose(staffed, "li")
    approve(staffed, "he", made, key=staffed.key.keyid)
    log = entries(staffed)
    index = max(log) - 1
    assert log[index]["type"] == "proposal.approved"
    log[index] = log[index] | {"by": "li"}
    assert (f"entry {index}", "li approved what li had proposed") in problems(staffed, log)
    del log[index]
    assert (f"entry {index + 1}", "no second person has approved it") in problems(staffed, log)


def test_carrying_it_out_twice_or_otherwise_is_found(staffed):
    made = propose(staffed, "li", agreement="a")
    approve(staffed, "he", made, key=staffed.key.keyid)
    log = entries(staffed)
    index = max(log)
    twice = {**log, index + 1: log[index]}
    found = problems(staffed, twice)
    assert (f"entry {index + 1}", "what was approved was carried out before") in found
    other = {**log, index: log[index] | {"agreement": "b"}}
    assert (f"entry {index}", "it is not what was approved") in problems(staffed, other)


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        (update(users).where(users.c.name == "wang").values(role="officer"), "user wang"),
        (update(users).where(users.c.name == "li").values(key=bytes(32)), "user li"),
        (delete(users).where(users.c.name == "he"), "user he"),
        (insert(users).values(name="new", role="officer", key=b"\x01" * 32), "user new"),
        (delete(proposals), "proposal {}"),
        (update(proposals).values(state="approved"), "proposal {}"),
        (update(proposals).values(proposed_by="he"), "proposal {}"),
        (update(proposals).values(body=b"{}"), "proposal {}"),
        (update(proposals).values(detail=b"person 8"), "proposal {}"),
    ],
)
def test_the_tables_are_what_the_log_says(staffed, statement, finding):
    made = propose(staffed, "li", act="consent.erased", detail=b"person 7", note="x")
    with write(staffed.engine) as conn:
        conn.execute(statement)
    assert finding.format(made.id[:8]) in [where for where, _ in problems(staffed)]


@pytest.mark.parametrize("type_", ["user.added", "proposal.made", "proposal.approved"])
def test_entries_that_say_nothing_are_findings_and_no_crash(staffed, type_):
    index = unsigned(staffed, type_, by="li")
    assert (f"entry {index}", "it lacks what it needs to say") in problems(staffed)


def test_an_acting_log_is_a_log(staffed):
    with read(staffed.engine) as conn:
        log = people.acting(conn, staffed.log, actor("li"))
    assert isinstance(log, ActingLog)
    assert log.verifier == staffed.log.verifier
