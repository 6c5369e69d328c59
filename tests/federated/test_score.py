"""A score under encryption is the plain calculation; peers that deviate are refused."""

from decimal import Decimal
from functools import cache, partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lookup import edit, sign, verify
from two_sides import Gate, phones, play, succeed, tampering

from federated._native import PublicKey, Rerandomiser, SecretKey
from federated.errors import (
    InvalidCiphertext,
    InvalidKey,
    ProtocolViolation,
    TableUnsound,
)
from federated.paillier import keys
from federated.paillier.packing import from_integers, to_integers
from federated.psi import lookup
from federated.psi.lookup import Copy, Terms
from federated.risk import score
from federated.risk.scorecard import Grid, Scorecard, Weights, starts, weigh
from protos.concordat.v1.run_pb2 import EncryptedPoints, TableRows

BITS = 1024
TERMS = Terms("C25519-SHA512", bytes(32), b"a score", score.payload_bytes(BITS))
GRIDS = (Grid("delay", (-1, 0, 1), 0), Grid("bill", (0, 150_00), 2), Grid("unused", (), 0))
CARD = Scorecard.read(
    {
        "scorecard": "card",
        "version": 1,
        "scaling": {"pdo": 20, "base_score": 600, "base_odds": 50},
        "decimals": 1,
        "base": 500.5,
        "features": {
            "delay": {
                "bins": [
                    {"upper": -1, "points": 30},
                    {"upper": 0, "points": 10},
                    {"points": -55.5},
                ],
                "missing": -3,
                "unseen": -7,
            },
            "bill": {
                "bins": [{"below": 0.01, "points": -1}, {"points": 4}],
                "missing": 0,
                "unseen": 0,
            },
        },
    }
)
WEIGHTS = weigh(CARD, GRIDS)


@cache
def secret_key() -> SecretKey:
    return keys.generate(BITS, allow_small=True)


def places(rows: int, seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.column_stack([random.integers(0, grid.places, rows) for grid in GRIDS])


def plain(rows: np.ndarray, weights: Weights = WEIGHTS) -> list[int]:
    """Sums of points, by looking each up."""
    return [
        weights.offset + sum(int(weights.values[at]) for at in row + starts(GRIDS)) for row in rows
    ]


def bank(asked: list[int], size: int, held: Copy | None = None, kept=lambda copy: None):
    secret_key()
    return lambda ch: score.run_bank(
        ch,
        phones(asked),
        WEIGHTS,
        secret_key(),
        held=held,
        terms=TERMS,
        partner_size=size,
        verify=verify,
        keep=kept,
        release=Gate(),
    )


def partner(people: list[int], rows: np.ndarray, asked: int, *, public: PublicKey | None = None):
    def role(channel) -> lookup.Table:
        table = score.make_table(
            channel,
            phones(people),
            rows,
            GRIDS,
            public=public or secret_key().public,
            terms=TERMS,
        )
        answer(table, asked)(channel)
        return table

    return role


def answer(table: lookup.Table, asked: int, known: int | None = None):
    return lambda ch: lookup.run_partner(
        ch, table, known, TERMS, bank_size=asked, sign=sign, release=Gate()
    )


def test_scores_are_the_plain_ones_in_this_run_and_the_next() -> None:
    rows, copies = places(40), []
    asked = [3, 99, 1, 39]
    found, table = succeed(bank(asked, 40, kept=copies.append), partner(list(range(40)), rows, 4))
    assert found.rows.tolist() == [0, 2, 3]
    assert found.sums == plain(rows[[3, 1, 39]])
    found, _ = succeed(bank([5], 40, copies[0]), answer(table, 1, 0))
    assert (found.rows.tolist(), found.sums, found.unsound) == ([0], plain(rows[[5]]), 0)


def test_a_bank_that_finds_nobody_has_no_scores() -> None:
    found, _ = succeed(bank([7], 2), partner([1, 2], places(2), 1))
    assert (found.rows.tolist(), found.sums, found.unsound) == ([], [], 0)


# What travels


def test_a_rows_payload_is_new_to_the_banks_eyes() -> None:
    """Two rows with the same places have different ciphertexts, none the plain product."""
    public = secret_key().public
    points = public.encrypt(from_integers(WEIGHTS.values.tolist(), BITS // 64))
    choices = np.zeros((3, len(GRIDS)), np.int64) + starts(GRIDS)
    sums = Rerandomiser(public).sums(points, choices)
    product = points[choices[0, 0]][None]
    for at in choices[0, 1:]:
        product = public.add(product, points[at][None])
    assert len({row.tobytes() for row in (*sums, *product)}) == 4
    assert len(set(to_integers(secret_key().decrypt(np.vstack([sums, product]))))) == 1


@pytest.mark.parametrize("rows", [3, 400])  # r^n for each, and products of powers
def test_masks_are_nth_powers_that_never_repeat(rows: int) -> None:
    public = secret_key().public
    n = int.from_bytes(public.modulus, "little")
    p, q = (int.from_bytes(prime, "little") for prime in secret_key().primes())
    one = from_integers([1], BITS // 32)
    masks = to_integers(Rerandomiser(public).sums(one, np.zeros((rows, 1), np.int64)))
    assert len(set(masks)) == rows
    for mask in masks[:5]:
        assert pow(mask, (p - 1) * (q - 1), n * n) == 1  # exactly the n-th powers
        assert mask % n != 1
    # Uniform: about half of them are squares modulo p.
    squares = sum(pow(mask, (p - 1) // 2, p) == 1 for mask in masks)
    assert rows < 100 or 0.35 < squares / rows < 0.65


@given(st.integers(0, 4), st.integers(1, 5), st.data())
@settings(max_examples=20, deadline=None)
def test_sums_are_those_of_the_chosen(rows: int, width: int, data) -> None:
    public = secret_key().public
    numbers = data.draw(st.lists(st.integers(0, 2**70), min_size=1, max_size=6))
    table = np.array(
        [
            data.draw(st.lists(st.integers(0, len(numbers) - 1), min_size=width, max_size=width))
            for _ in range(rows)
        ],
        np.int64,
    ).reshape(rows, width)
    points = public.encrypt(from_integers(numbers, BITS // 64))
    found = to_integers(secret_key().decrypt(Rerandomiser(public).sums(points, table)))
    assert found == [sum(numbers[at] for at in row) for row in table]


def test_the_kernel_refuses_what_it_cannot_add() -> None:
    public = secret_key().public
    kernel, points = Rerandomiser(public), public.encrypt(from_integers([1, 2], BITS // 64))
    for choices in ([[0, 1], [0, 2]], [[0, 1], [-1, 0]]):
        with pytest.raises(ValueError, match="row 1"):
            kernel.sums(points, np.array(choices))
    with pytest.raises(ValueError, match="ciphertext 1"):
        kernel.sums(np.vstack([points[:1], points[:1] | np.uint64(2**64 - 1)]), np.array([[0]]))
    with pytest.raises(ValueError, match="something"):
        kernel.sums(points, np.zeros((2, 0), np.int64))


@pytest.mark.parametrize("factor", [3, 1_048_573])
def test_a_modulus_with_a_small_factor_is_refused(factor: int) -> None:
    """With many small factors the n-th powers could be too few to hide behind."""
    start = 2**1023 // factor | 1
    modulus = (start * factor).to_bytes(128, "little")
    with pytest.raises(
        ValueError, match=f"divisible by {3 if start % 3 == 0 else factor}|divisible"
    ):
        Rerandomiser(PublicKey(modulus))
    _, theirs = play(
        lambda ch: ch.send(EncryptedPoints(ciphertexts=(bytes([1]) + bytes(255)) * 14, last=True)),
        partner([1], places(1), 1, public=PublicKey(modulus)),
    )
    assert isinstance(theirs.error, InvalidKey)


# Decrypting many at once


@given(st.lists(st.integers(0, 2**20), max_size=40), st.integers(0, 2**20))
@settings(max_examples=15, deadline=None)
def test_small_plaintexts_are_decrypted_together(numbers: list[int], more: int) -> None:
    most = max([*numbers, more])
    ciphertexts = secret_key().public.encrypt(from_integers(numbers, BITS // 64))
    assert score.decrypt_small(secret_key(), ciphertexts, most) == numbers


def test_a_plaintext_that_cannot_be_is_noticed() -> None:
    """With those it was decrypted with: of 40, every 20th."""
    encrypt = secret_key().public.encrypt
    for wrong in (6, 2**900, int.from_bytes(secret_key().public.modulus, "little") - 1):
        ciphertexts = encrypt(from_integers([3] * 7 + [wrong] + [3] * 32, BITS // 64))
        spoilt = [None if at in (7, 21, 35) else 3 for at in range(40)]
        found = score.decrypt_small(secret_key(), ciphertexts, 5)
        assert found == spoilt


# What a partner or a bank may not do


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (edit(ciphertexts=lambda old: old[:-1]), ProtocolViolation),
        (edit(ciphertexts=lambda old: old + old), ProtocolViolation),
        (edit(ciphertexts=lambda old: b""), ProtocolViolation),
        (edit(ciphertexts=lambda old: b"", last=lambda old: False), ProtocolViolation),
        (edit(last=lambda old: False), ProtocolViolation),
        (edit(ciphertexts=lambda old: bytes(len(old))), InvalidCiphertext),
        (edit(ciphertexts=lambda old: b"\xff" * len(old)), InvalidCiphertext),
    ],
)
def test_a_banks_bad_points_are_refused(change, error) -> None:
    role = tampering(bank([1], 2), EncryptedPoints, change)
    _, theirs = play(role, partner([1, 2], places(2), 1))
    assert isinstance(theirs.error, error)


@pytest.mark.parametrize("forged", ["zero", "too large", "not coprime", "no score"])
def test_a_partner_cannot_tell_by_a_forged_payload_whether_it_was_asked_for(forged: str) -> None:
    """Nor, by a run that fails, how a sum of the bank's compares with the largest there can be."""
    public = secret_key().public
    n = int.from_bytes(public.modulus, "little")
    good, wrong = public.encrypt(from_integers([WEIGHTS.most, WEIGHTS.most + 1], BITS // 64))
    if forged != "no score":
        numbers = {"zero": 0, "too large": n * n, "not coprime": n}
        (wrong,) = from_integers([numbers[forged]], BITS // 32)
    payloads = np.vstack([good, wrong]).view(np.uint8)

    def forge(asked: int):
        def role(channel) -> None:
            channel.receive(EncryptedPoints)
            table = lookup.make_table(channel, phones([1, 2]), payloads.__getitem__, TERMS)
            answer(table, asked)(channel)

        return role

    for asked, rows, unsound in ([1], [0], 0), ([2], [], 1), ([2, 1], [1], 1):
        found, _ = succeed(bank(asked, 2), forge(len(asked)))
        assert (found.rows.tolist(), found.unsound) == (rows, unsound)
        assert found.sums == [WEIGHTS.most + WEIGHTS.offset for _ in rows]


def test_a_bank_of_its_own_making_can_spell_out_the_places() -> None:
    """Why to allow `score` is to disclose the bins: powers of two, and the partner cannot see."""
    rows = places(5, seed=3)
    values = np.array([1 << at for at in range(len(WEIGHTS.values))], np.int64)
    spying = Weights(values, 0, int(values.sum()))
    role = partial(
        score.run_bank, ids=phones(range(5)), weights=spying, secret=secret_key(), held=None
    )
    found, _ = succeed(
        lambda ch: role(
            ch,
            terms=TERMS,
            partner_size=5,
            verify=verify,
            keep=lambda copy: None,
            release=Gate(),
        ),
        partner(list(range(5)), rows, 5),
    )
    read = [[at for at in range(len(values)) if one >> at & 1] for one in found.sums]
    assert read == (rows + starts(GRIDS)).tolist()


def test_a_spoilt_table_is_noticed() -> None:
    role = tampering(partner([1, 2], places(2), 1), TableRows, edit(rows=lambda old: old[::-1]))
    ours, _ = play(bank([1], 2), role)
    assert isinstance(ours.error, TableUnsound)


def test_scores_are_decimals() -> None:
    assert CARD.score([-3, 0]) == [Decimal("500.2"), Decimal("500.5")]
