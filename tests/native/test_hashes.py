import hashlib
import hmac

import numpy as np
import pytest
from arrays import joined
from hypothesis import given
from hypothesis import strategies as st

from federated import _native

LONG = (
    b"This is a test using a larger than block-size key and a larger than block-size data. "
    b"The key needs to be hashed before being used by the HMAC algorithm."
)
# RFC 4231, section 4: key, data, HMAC-SHA-256 (case 5 is truncated there to 128 bits).
RFC_4231 = [
    (
        b"\x0b" * 20,
        b"Hi There",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    ),
    (
        b"Jefe",
        b"what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
    (
        b"\xaa" * 20,
        b"\xdd" * 50,
        "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
    ),
    (
        bytes(range(1, 26)),
        b"\xcd" * 50,
        "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
    ),
    (b"\x0c" * 20, b"Test With Truncation", "a3b6167473100ee06e0c796c2955552b"),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
    (b"\xaa" * 131, LONG, "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
]
# The leaves and tree heads that implementations of RFC 6962 share as test data
# (certificate-transparency, merkle_tree_test.cc).
RFC_6962_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
RFC_6962_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize(("key", "data", "expected"), RFC_4231)
def test_rfc_4231(key: bytes, data: bytes, expected: str) -> None:
    [digest] = _native.hmac_sha256(key, *joined([data]))
    assert digest.tobytes().hex().startswith(expected)


@given(st.binary(max_size=200), st.lists(st.binary(max_size=200), max_size=20))
def test_hmac_agrees_with_hashlib(key: bytes, strings: list[bytes]) -> None:
    found = [row.tobytes() for row in _native.hmac_sha256(key, *joined(strings))]
    assert found == [hmac.digest(key, string, "sha256") for string in strings]


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.binary(max_size=99)), max_size=9))
def test_hmac_with_own_keys(pairs: list[tuple[bytes, bytes]]) -> None:
    keys = np.frombuffer(b"".join(key for key, _ in pairs), np.uint8).reshape(-1, 32)
    found = _native.hmac_sha256_each(keys, *joined([string for _, string in pairs]))
    expected = [hmac.digest(key, string, "sha256") for key, string in pairs]
    assert [row.tobytes() for row in found] == expected


def test_hmac_refuses_a_missing_key() -> None:
    with pytest.raises(ValueError, match="1 keys for 2 strings"):
        _native.hmac_sha256_each(np.zeros((1, 32), np.uint8), *joined([b"a", b"b"]))


def test_rfc_6962_heads() -> None:
    roots = [_native.merkle_root(*joined(RFC_6962_LEAVES[:n])).hex() for n in range(9)]
    assert roots == RFC_6962_ROOTS


def tree_head(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it defines it: split at the largest power of two below n."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + tree_head(leaves[:split]) + tree_head(leaves[split:])).digest()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 1000, 2047, 2048, 2049, 5000])
def test_heads_of_any_size(size: int) -> None:
    leaves = [b"%d" % i for i in range(size)]
    assert _native.merkle_root(*joined(leaves)) == tree_head(leaves)


def test_a_buffer_may_be_an_array_and_start_late() -> None:
    data = np.frombuffer(b"??abcd", np.uint8)
    offsets = np.array([2, 3, 6], np.uint64)
    assert _native.merkle_root(data, offsets) == tree_head([b"a", b"bcd"])


@pytest.mark.parametrize("offsets", [[], [0, 4], [0, 2, 1, 3], [2**64 - 1, 3], [2**63, 2**63 + 1]])
def test_refused_offsets(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="offsets"):
        _native.merkle_root(b"abc", np.array(offsets, np.uint64))
