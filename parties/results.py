"""A result is a file of its run's folder only once the run's completion is in the log.

The folder then holds the result, its salt, and both receipts: whoever checks a completion needs
the intent it completes. Until then the result lies there under another name; a node that died in
between finds it when it starts again, and releases or discards it by what the log says.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from parties.files import PARTIAL, write_private

RECEIPT = "receipt.json"
INTENT = "intent.json"
REJECTS = "rejects.csv"
SALT = "salt"
TOKENS = "tokens.csv"
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
    if result := result_file(folder):
        found["result_file"] = str(result)
    return found


def result_file(folder: Path) -> Path | None:
    """The result that a run has left, if any."""
    others = {INTENT, RECEIPT, REJECTS, SALT, TOKENS, CARD, CARD_SALT}
    results = (path for path in folder.iterdir() if path.suffix not in {PARTIAL, _UNRELEASED})
    return next((path for path in results if path.name not in others), None)


def forget(folder: Path, others: Iterable[Path], tokens: Collection[str]) -> None:
    """Take the people with these tokens out of a run's result, and out of other files.

    All files are written anew, whether anybody was in them or not: how long it takes does not tell.
    """
    named = folder / TOKENS
    if not named.is_file():  # the run has left nothing in clear
        return
    gone = {token.encode() for token in tokens}
    rows = (line.rpartition(b",") for line in named.read_bytes().splitlines())
    people = {person for person, _, token in rows if token in gone}
    result = result_file(folder)
    for path in (*([result] if result else []), *others, named):  # the names last of all
        kept = [line for line in path.read_bytes().splitlines(True) if _person(line) not in people]
        write_private(path, b"".join(kept), overwrite=True)


def _person(line: bytes) -> bytes:
    """Who a row is about: no kind of id has a character that would need quotes."""
    return line.partition(b",")[0].rstrip()


def discard(folder: Path) -> None:
    """What a run without a completion has kept."""
    for path in folder.glob(f"*{_UNRELEASED}*"):  # also one that was being written
        path.unlink()
