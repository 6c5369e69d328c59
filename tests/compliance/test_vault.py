import hmac
from secrets import token_bytes

import numpy as np
import pandas as pd
import pytest
from institutions import Institution, person

from compliance.batch import as_bytes
from compliance.errors import VaultKey
from compliance.store import read, write
from compliance.vault import VaultKeys, create_key, enrol, subjects

PEOPLE = [person(number) for number in range(5)]


@pytest.fixture
def bank(new_store):
    return Institution.create(new_store, "bank")


def test_keys_are_files_that_only_their_owner_reads(tmp_path):
    lookup, wrapping = tmp_path / "lookup.key", tmp_path / "wrapping.key"
    create_key(lookup)
    create_key(wrapping)
    assert lookup.stat().st_mode & 0o777 == 0o600
    keys = VaultKeys.load(lookup, wrapping)
    assert len(keys.lookup) == len(keys.wrapping) == 32
    assert keys.lookup != keys.wrapping
    with pytest.raises(FileExistsError):
        create_key(lookup)


def test_a_key_file_that_is_open_short_long_or_missing_is_refused(tmp_path):
    good, bad = tmp_path / "good.key", tmp_path / "bad.key"
    create_key(good)
    with pytest.raises(VaultKey, match="cannot be read"):
        VaultKeys.load(bad, good)
    for size in (0, 31, 33):
        bad.write_bytes(bytes(size))
        bad.chmod(0o600)
        with pytest.raises(VaultKey, match="32 bytes"):
            VaultKeys.load(good, bad)
    create_key(tmp_path / "shared.key")
    (tmp_path / "shared.key").chmod(0o640)
    with pytest.raises(VaultKey, match="Others"):
        VaultKeys.load(tmp_path / "shared.key", good)


def test_keys_do_not_print():
    keys = VaultKeys(b"\xaa" * 32, b"\xbb" * 32)
    assert "\\xaa" not in repr(keys)
    assert "\\xbb" not in repr(keys)


def test_a_subject_is_an_hmac_under_the_lookup_key():
    keys = VaultKeys(token_bytes(32), token_bytes(32))
    expected = [hmac.digest(keys.lookup, name.encode(), "sha256") for name in PEOPLE]
    assert as_bytes(keys.subjects_of(PEOPLE)) == expected
    assert as_bytes(keys.subjects_of(pd.Series(PEOPLE)[1:3])) == expected[1:3]
    assert keys.subjects_of([]).shape == (0, 32)


def test_a_person_keeps_the_secret_given_at_first(bank):
    people = bank.vault.subjects_of(PEOPLE)
    with write(bank.engine) as conn:
        ids, secrets = enrol(conn, bank.vault, people[:3])
        again, same = enrol(conn, bank.vault, people[[4, 2, 0, 1]])
    assert len({*ids, *again}) == 4
    assert list(again[1:]) == list(ids[[2, 0, 1]])
    assert (same[1:] == secrets[[2, 0, 1]]).all()
    assert len(np.unique(np.vstack([secrets, same[:1]]), axis=0)) == 4


def test_secrets_are_stored_encrypted_and_bound_to_their_person(bank):
    with write(bank.engine) as conn:
        _, secrets = enrol(conn, bank.vault, bank.vault.subjects_of(PEOPLE))
    with read(bank.engine) as conn:
        rows = pd.DataFrame(conn.execute(subjects.select()).mappings())
    for secret, stored in zip(as_bytes(secrets), rows["secret"], strict=True):
        assert secret not in stored
    assert (bank.vault.unwrap(rows) == secrets).all()
    swapped = rows.assign(secret=rows["secret"].iloc[::-1].to_numpy())
    with pytest.raises(VaultKey):
        bank.vault.unwrap(swapped)


def test_another_wrapping_key_opens_nothing(bank):
    people = bank.vault.subjects_of(PEOPLE)
    other = VaultKeys(bank.vault.lookup, token_bytes(32))
    with write(bank.engine) as conn:
        enrol(conn, bank.vault, people)
        with pytest.raises(VaultKey):
            enrol(conn, other, people)
