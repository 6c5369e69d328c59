import shutil
from secrets import token_bytes

import pandas as pd
import pytest
from institutions import CONSENT, NOW, Institution, person

from compliance import audit, erasure, gate
from compliance.batch import as_bytes, from_bytes
from compliance.canonical import parse
from compliance.consent import consent_leaves, consents, refusals, restrictions, terms
from compliance.erasure import Files, Tombstone
from compliance.errors import (
    ConsentChanged,
    ConsentSuperseded,
    NobodyEligible,
    PersonUnknown,
    RetentionRuns,
    VaultKey,
)
from compliance.merkle import verify_inclusion
from compliance.person import Changes
from compliance.store import open_store, read, write
from compliance.vault import (
    KEY_BYTES,
    WRAPPING_KEYS,
    VaultKeys,
    create_key,
    replace_keys,
    subjects,
    tombstones,
    wrapping_id,
)

ANNA, BEN, CARL = person(1), person(2), person(3)
PAIR = {name: CONSENT[name] for name in ("purpose", "recipient")}
LATER = {"granted_at": "2026-11-24T00:00:00Z"}


@pytest.fixture
def files(tmp_path):
    made = Files(tmp_path / "lookup", tmp_path / "wrapping", tmp_path / "erased")
    create_key(made.lookup)
    create_key(made.wrapping, WRAPPING_KEYS)
    return made


@pytest.fixture
def bank(new_store, files):
    """Anna and Ben have consented; Anna has refused something else."""
    made = Institution.create(new_store, "bank")
    made.vault = files.keys()
    made.take({}, {"subject": BEN}, {"recipient": "other"})
    change(made, "refuse", ANNA, {**PAIR, "recipient": "third", "at": "2026-01-01T00:00:00Z"})
    return made


def change(side, verb, *arguments, now=NOW):
    with write(side.engine) as conn:
        done = getattr(Changes(conn, side.log, side.vault, now), verb)(*arguments)
        side.log.checkpoint(conn)
    return done


def erase(side, files, subject, now=NOW):
    with write(side.engine) as conn:
        done = erasure.erase(conn, side.log, files, subject, now=now)
        side.log.checkpoint(conn)
    settle(side, files)
    return done


def settle(side, files):
    with write(side.engine) as conn:
        erasure.settle(conn, files)
    side.vault = files.keys()


def catch_up(side, files, now=NOW):
    with read(side.engine) as conn:
        assert erasure.behind(conn, files)
    with write(side.engine) as conn:
        again = erasure.catch_up(conn, side.log, files, now=now)
        side.log.checkpoint(conn)
    settle(side, files)
    with read(side.engine) as conn:
        assert not erasure.behind(conn, files)
    return again


def findings(side):
    with write(side.engine) as conn:
        side.log.checkpoint(conn)
        return audit.verify(conn, side.log.verifier, keys={}, vault=side.vault).report.findings


def rows(side, table):
    with read(side.engine) as conn:
        return pd.DataFrame(conn.execute(table.select()).mappings(), columns=table.c.keys())


def test_of_whoever_is_erased_no_row_is_left(bank, files):
    done = erase(bank, files, ANNA)
    assert done.leaves == 3
    assert len(rows(bank, subjects)) == len(rows(bank, consents)) == 1
    assert len(rows(bank, consent_leaves)) == 1
    assert rows(bank, refusals).empty
    assert list(rows(bank, terms)["recipient"]) == ["partner"]
    with pytest.raises(PersonUnknown):
        change(bank, "withdraw", ANNA, {"at": "2026-02-01T00:00:00Z"})
    assert bank.decide(BEN).size == 1
    assert findings(bank) == []


def test_old_roots_and_proofs_still_verify(bank, files):
    with write(bank.engine) as conn:
        before = bank.log.checkpoint(conn)
        proofs = [bank.log.inclusion_proof(conn, at, before.size) for at in range(before.size)]
    erase(bank, files, ANNA)
    with write(bank.engine) as conn:
        after = bank.log.checkpoint(conn)
        for at, entry in enumerate(bank.log.entries(conn, 0, before.size)):
            verify_inclusion(entry.leaf_hash, at, before.size, proofs[at], before.root)
        assert bank.log.consistency_proof(conn, before.size, after.size)
        assert bank.log.checkpoint_at(conn, before.size).root == before.root


def test_the_entry_names_nobody_and_the_tombstone_opens_it(bank, files):
    name = as_bytes(bank.vault.subjects_of([ANNA]))[0]
    done = erase(bank, files, ANNA)
    with read(bank.engine) as conn:
        *_, last = bank.log.entries(conn)
    body = parse(last.leaf)
    assert body.keys() == {"type", "time", "nonce", "leaves", "record"}
    (row,) = rows(bank, tombstones).itertuples(index=False)
    assert row.entry == done.entry == last.index
    assert row.tombstone != name
    stone = Tombstone(row.tombstone, row.salt, row.lookup_keys, row.erased_at)
    assert stone.record(row.above) == body["record"]
    assert erasure.enlisted(files.erased) == [stone]


def test_the_old_keys_are_gone_and_open_no_older_copy(bank, files):
    before = rows(bank, subjects)
    old = files.keys()
    erase(bank, files, ANNA)
    now = files.keys()
    (gone,) = before.loc[before["subject"] == as_bytes(old.subjects_of([ANNA]))[0], "wrapping_key"]
    assert old.by_id.keys() - now.by_id.keys() >= {gone}
    assert old.by_id[gone] not in files.wrapping.read_bytes()
    assert len(now.by_id) == WRAPPING_KEYS
    with pytest.raises(VaultKey):
        now.unwrap(before)
    assert (now.unwrap(rows(bank, subjects)) == old.unwrap(before)[before["id"] == 2]).all()


def test_whoever_shared_the_key_keeps_the_secret(bank, files):
    """With a single wrapping key, as older nodes have it, that is everybody."""
    with write(bank.engine) as conn:
        one = token_bytes(KEY_BYTES)
        people = rows(bank, subjects)
        names, secrets = people["subject"], files.keys().unwrap(people)
        single = VaultKeys(files.keys().lookup, one)
        wrapped = single.wrap(secrets, from_bytes(names, 32), list(single.by_id) * len(people))
        for name, secret in zip(names, wrapped, strict=True):
            where = subjects.c.subject == name
            row = {"secret": secret, "wrapping_key": wrapping_id(one)}
            conn.execute(subjects.update().where(where).values(row))
    replace_keys(files.wrapping, one)
    erase(bank, files, ANNA)
    assert one not in files.wrapping.read_bytes()
    assert (bank.vault.unwrap(rows(bank, subjects)) == secrets[people["id"] == 2]).all()
    assert findings(bank) == []


def test_retention_comes_first(bank, files):
    change(bank, "restrict", ANNA, {"until": "2027-01-01T00:00:00Z", "reason": "tax-law"})
    with pytest.raises(NobodyEligible, match="restricted: 1"):
        bank.decide(ANNA)
    with pytest.raises(RetentionRuns, match="2027-01-01T00:00:00Z"):
        erase(bank, files, ANNA)
    assert erasure.enlisted(files.erased) == []
    assert findings(bank) == []
    assert erase(bank, files, ANNA, now=NOW.replace(year=2027, month=2)).leaves == 4
    assert rows(bank, restrictions).empty
    assert findings(bank) == []


def test_a_restriction_that_is_lifted_is_over(bank, files):
    change(bank, "restrict", ANNA, {"until": "2027-01-01T00:00:00Z"})
    change(bank, "lift", ANNA, {"reason": "by-mistake"})
    assert bank.decide(ANNA).size == 1
    assert findings(bank) == []
    assert erase(bank, files, ANNA).leaves == 5


def test_an_import_and_a_grant_have_to_be_newer_than_the_erasure(bank, files):
    erase(bank, files, ANNA)
    done = bank.take({}, {"subject": CARL}, {"recipient": "other"})
    assert (done.new, done.erased) == (1, 2)
    with pytest.raises(ConsentSuperseded, match="erased"):
        change(bank, "grant", ANNA, CONSENT)
    with pytest.raises(ConsentSuperseded, match="erased"):
        change(bank, "refuse", ANNA, {**PAIR, "at": "2026-01-01T00:00:00Z"})
    assert bank.take(LATER).new == 1
    assert findings(bank) == []


def test_whoever_comes_back_is_another_person(bank, files):
    decided = bank.decide(ANNA)
    erase(bank, files, ANNA)
    erase(bank, files, BEN)
    bank.take(LATER)
    assert set(rows(bank, subjects)["id"]).isdisjoint({1, 2})
    later = NOW.replace(day=25)
    again = bank.decide(ANNA, now=later)
    assert (again.references != decided.references).any()
    with read(bank.engine) as conn, pytest.raises(ConsentChanged):
        gate.confirm(conn, decided, now=later)
    assert erase(bank, files, ANNA, now=later).leaves == 1
    assert findings(bank) == []


def test_a_restored_backup_forgets_again(tmp_path, files):
    bank = Institution.create(tmp_path, "bank")
    bank.vault = files.keys()
    bank.take({}, {"subject": BEN}, {"subject": CARL})
    backup = [
        tmp_path / "backup.db",
        *(tmp_path / f"{name}.old" for name in ("lookup", "wrapping")),
    ]
    bank.engine.dispose()
    for kept, path in zip(
        backup, (tmp_path / "bank.db", files.lookup, files.wrapping), strict=True
    ):
        shutil.copy(path, kept)
    erase(bank, files, ANNA)
    erase(bank, files, BEN)

    bank.engine = open_store(f"sqlite:///{backup[0]}")
    restored = Files(backup[1], backup[2], files.erased)
    bank.vault = restored.keys()
    assert bank.decide(ANNA, BEN, CARL).size == 3, "before the list is looked at"
    assert catch_up(bank, restored) == 2
    assert bank.decide(ANNA, BEN, CARL).size == 1
    assert bank.take({}).erased == 1
    assert findings(bank) == []


def test_an_erasure_that_was_interrupted_is_completed(bank, files):
    (name,) = as_bytes(bank.vault.subjects_of([ANNA]))
    erasure.enlist(files.erased, [Tombstone.of(name, bank.vault, NOW)])
    assert catch_up(bank, files) == 1
    assert bank.decide(ANNA, BEN).size == 1
    assert findings(bank) == []


def test_a_list_that_was_lost_is_written_again(bank, files):
    erase(bank, files, ANNA)
    kept = files.erased.read_bytes()
    files.erased.write_bytes(kept[:40])  # as a power cut may leave it
    assert catch_up(bank, files) == 0
    assert files.erased.read_bytes() == kept


def test_rotated_wrapping_keys_open_everything_and_the_old_ones_nothing(bank, files):
    old = files.keys()
    before = old.unwrap(rows(bank, subjects))
    with write(bank.engine) as conn:
        erasure.rotate_wrapping(conn, bank.log, files, now=NOW)
        bank.log.checkpoint(conn)
    settle(bank, files)
    assert (bank.vault.unwrap(rows(bank, subjects)) == before).all()
    assert old.by_id.keys().isdisjoint(bank.vault.by_id)
    with pytest.raises(VaultKey):
        old.unwrap(rows(bank, subjects))
    assert findings(bank) == []


def rotate_lookup(bank, files):
    with write(bank.engine) as conn:
        erasure.rotate_lookup(conn, bank.log, files, now=NOW)
        bank.log.checkpoint(conn)
    bank.vault = files.keys()


def test_people_are_found_under_a_new_lookup_key_only(bank, files):
    old = files.keys()
    erase(bank, files, BEN)
    rotate_lookup(bank, files)
    assert bank.decide(ANNA).size == 1
    assert bank.take({}).known == 1
    assert bank.take({"subject": BEN}).erased == 1
    names = set(rows(bank, subjects)["subject"])
    assert names.isdisjoint(as_bytes(old.subjects_of([ANNA])))
    assert erase(bank, files, ANNA).leaves == 3
    assert bank.take({}).erased == 1
    assert findings(bank) == []


def test_a_rotation_that_was_interrupted_is_completed(bank, files):
    replace_keys(files.lookup, files.lookup.read_bytes() + token_bytes(KEY_BYTES))
    replace_keys(files.wrapping, files.wrapping.read_bytes() + token_bytes(KEY_BYTES))
    catch_up(bank, files)
    assert bank.decide(ANNA, BEN).size == 2
    assert len(bank.vault.by_id) == WRAPPING_KEYS
    assert findings(bank) == []


def test_older_lookup_keys_than_the_vaults_are_refused(bank, files):
    old = files.lookup.read_bytes()
    rotate_lookup(bank, files)
    files.lookup.write_bytes(old)
    with pytest.raises(VaultKey, match="older than the vault"):
        catch_up(bank, files)


def test_an_erasure_by_the_back_door_is_found(bank, files):
    erase(bank, files, ANNA)
    bank.take({"subject": CARL, "withdrawn_at": "2026-01-01T00:00:00Z"})
    with write(bank.engine) as conn:
        bank.log.checkpoint(conn)
        carl = subjects.c.subject == as_bytes(bank.vault.subjects_of([CARL]))[0]
        (id_,) = conn.execute(consents.select().order_by(consents.c.id.desc()).limit(1)).scalars()
        conn.execute(consent_leaves.delete().where(consent_leaves.c.consent == id_))
        conn.execute(consents.delete().where(consents.c.id == id_))
        conn.execute(subjects.delete().where(carl))
    assert "the log: 3 of what it commits to was erased; the vault lacks 4" in findings(bank)
