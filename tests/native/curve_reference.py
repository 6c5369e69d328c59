"""Curve25519 and RFC 9380 hashing in plain Python, for comparison: affine points, no tricks."""

import hashlib

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
A = 486662

Point = tuple[int, int] | None  # None is the neutral element


def add(left: Point, right: Point) -> Point:
    if left is None:
        return right
    if right is None:
        return left
    (x1, y1), (x2, y2) = left, right
    if x1 == x2 and (y1 + y2) % P == 0:
        return None
    if left == right:
        slope = (3 * x1 * x1 + 2 * A * x1 + 1) * pow(2 * y1, -1, P)
    else:
        slope = (y2 - y1) * pow(x2 - x1, -1, P)
    x3 = (slope * slope - A - x1 - x2) % P
    return x3, (slope * (x1 - x3) - y1) % P


def multiply(point: Point, scalar: int) -> Point:
    result: Point = None
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def curve(x: int) -> int:
    return (x**3 + A * x**2 + x) % P


def is_square(value: int) -> bool:
    return value == 0 or pow(value, (P - 1) // 2, P) == 1


def root(value: int) -> int:
    candidate = pow(value, (P + 3) // 8, P)
    if candidate * candidate % P != value:
        candidate = candidate * pow(2, (P - 1) // 4, P) % P
    assert candidate * candidate % P == value
    return candidate


def expand_message_xmd(message: bytes, tag: bytes, length: int) -> bytes:
    """RFC 9380, section 5.3.1, with SHA-512."""
    tag_prime = tag + bytes([len(tag)])
    start = bytes(128) + message + length.to_bytes(2, "big") + b"\0" + tag_prime
    b0 = hashlib.sha512(start).digest()
    blocks = [hashlib.sha512(b0 + b"\1" + tag_prime).digest()]
    while 64 * len(blocks) < length:
        mixed = bytes(x ^ y for x, y in zip(b0, blocks[-1], strict=True))
        number = bytes([len(blocks) + 1])
        blocks.append(hashlib.sha512(mixed + number + tag_prime).digest())
    return b"".join(blocks)[:length]


def map_to_curve(r: int) -> tuple[int, int]:
    """RFC 9380, section 6.7.1, the steps as they stand there with K = 1 and Z = 2."""
    x1 = -A * pow(1 + 2 * r * r, -1, P) % P
    if is_square(curve(x1)):
        y = root(curve(x1))
        return x1, y if y % 2 == 1 else P - y
    x2 = (-x1 - A) % P
    y = root(curve(x2))
    return x2, y if y % 2 == 0 else -y % P


def hash_to_curve(message: bytes, tag: bytes) -> Point:
    uniform = expand_message_xmd(message, tag, 96)
    elements = [int.from_bytes(uniform[i : i + 48], "big") % P for i in (0, 48)]
    q0, q1 = (map_to_curve(element) for element in elements)
    return multiply(add(q0, q1), 8)
