"""Files that only their owner may read."""

import os
from pathlib import Path

PARTIAL = ".partial"  # what a file is called until it is whole


def write_private(path: Path, data: bytes, *, overwrite: bool = False) -> None:
    """Write a file with mode 0600, whole or not at all. FileExistsError unless `overwrite`."""
    if path.exists() and not overwrite:
        raise FileExistsError(path)
    partial = path.with_name(path.name + PARTIAL)
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
