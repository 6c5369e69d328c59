import secrets

import curve_reference as reference
import numpy as np
import pytest
from arrays import integers, joined, points
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from federated import _native

P, ORDER = reference.P, reference.ORDER
# Coordinates of the points of order 1, 2, 4 and 8 on the curve, 2 and 4 on its twist.
SMALL_ORDER = [
    0,
    1,
    P - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
]


def clamp(data: bytes) -> bytes:
    """decodeScalar25519 of RFC 7748, section 5."""
    return bytes([data[0] & 248, *data[1:31], data[31] & 127 | 64])


def multiply(point: bytes, scalar: bytes) -> bytes:
    return _native.multiply(points([point]), _native.Scalar.from_bytes(scalar)).tobytes()


def hashed(count: int) -> np.ndarray:
    strings = [secrets.token_bytes(8) for _ in range(count)]
    return _native.hash_to_curve(b"", *joined(strings), b"test")


# RFC 7748, section 5.2: scalar, u, product. The second u has its top bit set, which the RFC masks
# and which Concordat refuses, so the mask is applied here.
@pytest.mark.parametrize(
    ("scalar", "u", "product"),
    [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a413",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ],
)
def test_rfc_7748_vectors(scalar: str, u: str, product: str) -> None:
    assert multiply(bytes.fromhex(u), clamp(bytes.fromhex(scalar))).hex() == product


def test_rfc_7748_iterated() -> None:
    scalar = u = (9).to_bytes(32, "little")
    results = {}
    for i in range(1, 1001):
        scalar, u = multiply(u, clamp(scalar)), scalar
        results[i] = scalar.hex()
    assert results[1] == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert results[1000] == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


@given(st.binary(min_size=32, max_size=32), st.integers(2, P - 2))
def test_agrees_with_x25519(scalar: bytes, u: int) -> None:
    point = u.to_bytes(32, "little")
    expected = X25519PrivateKey.from_private_bytes(scalar).exchange(
        X25519PublicKey.from_public_bytes(point)
    )
    assert multiply(point, clamp(scalar)) == expected


# 2^256 - 8 needs all 256 bits; 8(l-1) is the largest that `random` gives.
@pytest.mark.parametrize("scalar", [8, 16, 8 * (ORDER - 1), 2**255, 2**256 - 8, 2**256 // 3 & ~7])
def test_scalars_of_any_size(scalar: int) -> None:
    point = reference.hash_to_curve(b"abc", b"test")
    assert point is not None
    product = reference.multiply(point, scalar)
    assert product is not None
    found = multiply(point[0].to_bytes(32, "little"), scalar.to_bytes(32, "little"))
    assert int.from_bytes(found, "little") == product[0]


def test_a_batch_of_many_blocks_is_its_rows() -> None:
    rows, scalar = hashed(700), _native.Scalar.random()
    batch = _native.multiply(rows, scalar)
    for i in (0, 255, 256, 511, 699):
        assert (_native.multiply(rows[i : i + 1], scalar) == batch[i]).all()


def test_the_inverse_unblinds_and_order_does_not_matter() -> None:
    rows = hashed(300)
    a, b = _native.Scalar.random(), _native.Scalar.random()
    blinded = _native.multiply(rows, a)
    assert (_native.multiply(blinded, a.inverse()) == rows).all()
    assert (_native.multiply(_native.multiply(rows, b), a) == _native.multiply(blinded, b)).all()


def test_random_scalars_are_eightfold_residues() -> None:
    for _ in range(200):
        scalar = _native.Scalar.random()
        value = int.from_bytes(scalar.to_bytes(), "little")
        inverse = int.from_bytes(scalar.inverse().to_bytes(), "little")
        assert value % 8 == 0
        assert 0 < value // 8 < ORDER
        assert inverse == 8 * pow(8 * value, -1, ORDER)


@given(st.integers(1, 2**253 - 1).filter(lambda s: s % ORDER != 0))
def test_inverse_of_given_scalars(s: int) -> None:
    scalar = _native.Scalar.from_bytes((8 * s).to_bytes(32, "little"))
    inverse = int.from_bytes(scalar.inverse().to_bytes(), "little")
    assert inverse == 8 * pow(64 * s, -1, ORDER)


@pytest.mark.parametrize(
    "data",
    [bytes(32), (8 * ORDER).to_bytes(32, "little"), b"\x09" + bytes(31), bytes(31), b"\x08" * 33],
)
def test_refused_scalars(data: bytes) -> None:
    with pytest.raises(ValueError, match="scalar"):
        _native.Scalar.from_bytes(data)


REFUSED = [
    *SMALL_ORDER,
    P,  # 0 again
    P + 1,
    P + 9,  # the base point, not canonical
    2**255 - 1,
    2**255 + 9,  # the top bit
    2**256 - 1,
]


@pytest.mark.parametrize("u", REFUSED)
@pytest.mark.parametrize("row", [0, 299, 699])
def test_refused_points_are_named(u: int, row: int) -> None:
    rows = hashed(700)
    rows[row] = points([u])[0]
    with pytest.raises(ValueError, match=rf"row {row} "):
        _native.multiply(rows, _native.Scalar.random())


def test_the_first_of_several_refused_points_is_named() -> None:
    rows = hashed(700)
    rows[[650, 400, 270]] = points([0, P, 1])
    with pytest.raises(ValueError, match="row 270 "):
        _native.multiply(rows, _native.Scalar.random())


def test_points_next_to_the_refused_ones_pass() -> None:
    # 4 and p-2 are on the curve or its twist, of large order.
    scalar = _native.Scalar.random()
    assert 0 not in integers(_native.multiply(points([2, 4, P - 2, P - 3]), scalar))


def test_no_points() -> None:
    assert _native.multiply(points([]), _native.Scalar.random()).shape == (0, 32)


@pytest.mark.parametrize(
    "array",
    [
        np.ones((2, 31), np.uint8),
        np.ones((2, 64), np.uint8)[:, ::2],
        np.asfortranarray(np.ones((2, 32), np.uint8)),
    ],
)
def test_refused_shapes(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="array"):
        _native.multiply(array, _native.Scalar.random())


@pytest.mark.parametrize("array", [np.ones((2, 32), np.int8), np.ones(32, np.uint8), [[1]]])
def test_other_types_are_type_errors(array: np.ndarray) -> None:
    with pytest.raises(TypeError):
        _native.multiply(array, _native.Scalar.random())


def test_repeated() -> None:
    rows = hashed(100)
    assert _native.repeated(rows) == 0
    assert _native.repeated(np.concatenate([rows, rows[:7], rows[:3]])) == 10
    assert _native.repeated(points([])) == 0
