"""A result is a file of its run's folder only once the run's completion is in the log.

Until then it lies beside that place under another name; a node that died in between finds it when
it starts again, and releases or discards it by what the log says.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from parties.files import write_private

RECEIPT = "receipt.json"
SALT = "salt"
_UNRELEASED = ".unreleased"


@contextmanager
def kept(folder: Path, files: Mapping[str, bytes]) -> Iterator[None]:
    """Hold the files ready while the completion is signed and logged; discard them if it fails."""
    try:
        for name, data in files.items():
            write_private(folder / f"{name}{_UNRELEASED}", data)
        yield
    except BaseException:
        discard(folder)
        raise


def release(folder: Path, receipt: bytes) -> dict[str, str]:
    """The receipt of the completion, then what was kept; where both are now, for the report."""
    write_private(folder / RECEIPT, receipt, overwrite=True)
    found = {"receipt_file": str(folder / RECEIPT)}
    for path in folder.glob(f"*{_UNRELEASED}"):
        released = path.rename(path.with_suffix(""))
        if released.name != SALT:
            found["result_file"] = str(released)
    return found


def discard(folder: Path) -> None:
    """What a run without a completion has kept."""
    for path in folder.glob(f"*{_UNRELEASED}"):
        path.unlink()
