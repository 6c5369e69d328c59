import curve_reference as reference
import pytest
from arrays import integers, joined
from hypothesis import given
from hypothesis import strategies as st

from federated import _native

# RFC 9380, appendix J.4.1: message and x-coordinate of P.
RFC_TAG = b"QUUX-V01-CS02-with-curve25519_XMD:SHA-512_ELL2_RO_"
RFC_VECTORS = [
    (b"", 0x2DE3780ABB67E861289F5749D16D3E217FFA722192D16BBD9D1BFB9D112B98C0),
    (b"abc", 0x2B4419F1F2D48F5872DE692B0ACA72CC7B0A60915DD70BDE432E826B6ABC526D),
    (b"abcdef0123456789", 0x68CA1EA5A6ACF4E9956DAA101709B1EEE6C1BB0DF1DE3B90D4602382A104C036),
    (b"q128_" + b"q" * 128, 0x096E9C8BAE6C06B554C1EE69383BB0E82267E064236B3A30608D4ED20B73AC5A),
    (b"a512_" + b"a" * 512, 0x1BC61845A138E912F047B5E70BA9606BA2A447A4DADE024C8EF3DD42B7BBC5FE),
]
TAG = b"CONCORDAT-V01-CS01-with-curve25519_XMD:SHA-512_ELL2_RO_"


def test_rfc_9380_vectors() -> None:
    messages, expected = zip(*RFC_VECTORS, strict=True)
    assert integers(_native.hash_to_curve(b"", *joined(messages), RFC_TAG)) == list(expected)


@pytest.mark.parametrize(("message", "x"), RFC_VECTORS)
def test_the_reference_passes_the_same_vectors(message: bytes, x: int) -> None:
    point = reference.hash_to_curve(message, RFC_TAG)
    assert point is not None
    assert point[0] == x


@given(st.lists(st.binary(max_size=300), max_size=8), st.binary(max_size=150))
def test_agrees_with_the_reference(strings: list[bytes], prefix: bytes) -> None:
    found = integers(_native.hash_to_curve(prefix, *joined(strings), TAG))
    points = [reference.hash_to_curve(prefix + string, TAG) for string in strings]
    assert found == [point[0] for point in points if point is not None]


def test_a_batch_of_many_blocks_is_its_rows() -> None:
    strings = [b"+86139%08d" % i for i in range(1000)]
    batch = integers(_native.hash_to_curve(b"phone:", *joined(strings), TAG))
    assert len(set(batch)) == 1000
    for i in (0, 255, 256, 999):
        assert [batch[i]] == integers(_native.hash_to_curve(b"phone:", *joined([strings[i]]), TAG))


@pytest.mark.parametrize("tag", [b"x", b"x" * 255])
def test_tags_of_any_permitted_length(tag: bytes) -> None:
    point = reference.hash_to_curve(b"abc", tag)
    assert point is not None
    assert integers(_native.hash_to_curve(b"", *joined([b"abc"]), tag)) == [point[0]]


@pytest.mark.parametrize("tag", [b"", b"x" * 256])
def test_refuses_other_tags(tag: bytes) -> None:
    with pytest.raises(ValueError, match="tag"):
        _native.hash_to_curve(b"", *joined([b"abc"]), tag)
