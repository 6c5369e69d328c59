"""A result is a file of its run's folder only once the run's completion is in the log.

The folder then holds the result, its salt, and both receipts: whoever checks a completion needs
the intent it completes. Until then the result lies there under another name; a node that died in
between finds it when it starts again, and releases or discards it by what the log says.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from parties.files import PARTIAL, write_private

RECEIPT = "receipt.json"
INTENT = "intent.json"
REJECTS = "rejects.csv"
SALT = "salt"
CARD = "scorecard.json"
CARD_SALT = "scorecard.salt"
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


def release(folder: Path, intent: bytes, completion: bytes) -> dict[str, str]:
    """Both receipts, then what was kept; where they are now, for the report. Twice does no harm."""
    write_private(folder / INTENT, intent, overwrite=True)
    write_private(folder / RECEIPT, completion, overwrite=True)
    for path in folder.glob(f"*{_UNRELEASED}"):
        path.rename(path.with_suffix(""))
    found = {"intent_file": str(folder / INTENT), "receipt_file": str(folder / RECEIPT)}
    others = {INTENT, RECEIPT, REJECTS, SALT, CARD, CARD_SALT}
    for path in folder.iterdir():
        if path.name not in others and path.suffix != PARTIAL:
            found["result_file"] = str(path)
    return found


def discard(folder: Path) -> None:
    """What a run without a completion has kept."""
    for path in folder.glob(f"*{_UNRELEASED}*"):  # also one that was being written
        path.unlink()
