"""Between Python values and the kernels' arrays."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


def joined(strings: Sequence[bytes]) -> tuple[bytes, NDArray[np.uint64]]:
    """One buffer and its offsets."""
    offsets = np.cumsum([0, *map(len, strings)]).astype(np.uint64)
    return b"".join(strings), offsets


def points(values: Iterable[int | bytes]) -> NDArray[np.uint8]:
    """uint8 (n, 32) of little-endian coordinates."""
    rows = [v if isinstance(v, bytes) else v.to_bytes(32, "little") for v in values]
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), 32)


def limbs(values: Sequence[int], columns: int) -> NDArray[np.uint64]:
    """uint64 (n, columns), little-endian."""
    data = b"".join(value.to_bytes(8 * columns, "little") for value in values)
    return np.frombuffer(data, dtype="<u8").reshape(len(values), columns)


def integers(rows: NDArray[np.uint8] | NDArray[np.uint64]) -> list[int]:
    return [int.from_bytes(row.tobytes(), "little") for row in rows]
