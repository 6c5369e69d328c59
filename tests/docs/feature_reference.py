"""docs/reference/features.md, made from the catalogue."""

from collections.abc import Iterator

from parties import catalogue
from parties.catalogue import Entry, RawTable

HEAD = """\
# Features of raw tables

A partner holds events, not features. A dataset that names a library under `features` in
[config.yaml](config.yaml) gives a job one row a person, made of the raw table when the job runs:

- **The window.** What happened in the `window_days` before the day `as_of` begins, in `timezone`.
  Times carry an offset, or are local already. Whoever has no row in the window is not in the table.
- **Columns** have the names below; the dataset's `sql` renames and derives them. A column that is
  *asked for* is only read for features that need it. Empty is missing; a time or number that cannot
  be read ends the run ([E125](../errors/E125.md)).
- **Names.** An agreement and a job call a feature by its full name, which says what it means on
  both sides. A definition that changes takes a new name. In `ecommerce.category_share:CATEGORY` a
  value stands for the word: `ecommerce.category_share:books`.
- **Bounds.** The agreement declares what a feature is clipped to, and which segments the bank's
  customers fall into. What the catalogue says can be pasted there; instead of `money` name the
  currency of your table.

```console
$ concordat features propose {names}
{proposed}```

`concordat features build HOME DATASET -o features.parquet` writes the table that jobs would read;
`concordat features list` and `show` say what this page says, which
`python tests/docs/write_reference.py` makes from parties/catalogue.yaml.
"""

_USE = {
    "always": "needed",
    "if there": "used wherever it is there",
    "asked": "asked for",
}


NAMES = ("ecommerce.recency_days", "ecommerce.category_share:books", "bank.age_years")


def page() -> str:
    """The whole of features.md."""
    head = HEAD.format(names=" ".join(NAMES), proposed=catalogue.proposed(NAMES))
    return "\n".join([head, *_sections()])


def _sections() -> Iterator[str]:
    for library, sector in catalogue.sectors().items():
        yield f"## {library}\n\n{sector.about}\n"
        for number, (name, table) in enumerate(sector.tables.items()):
            yield _table(name, table, own=number == 0)
        yield "| feature | definition | unit | bounds | who has none | needs | source |"
        yield "|---|---|---|---|---|---|---|"
        for name, entry in sector.features.items():
            yield f"| `{library}.{name}` | {_row(entry)} |"
        yield ""


def _table(name: str, table: RawTable, *, own: bool) -> str:
    where = "the dataset's own table" if own else "under `features.tables`"
    whom = "The dataset's identifier column" if table.identified else "No identifier"
    lines = [f"**{name}**, {where}. {table.about} {whom}, and:", "", "| column | what | |"]
    lines += ["|---|---|---|"]
    lines += [
        f"| `{column}` | {one.kind}: {one.about} | {_USE[one.use]} |"
        for column, one in table.columns.items()
    ]
    return "\n".join([*lines, ""])


def _row(entry: Entry) -> str:
    bounds = f"{entry.lower} to {entry.upper}, {entry.decimals} decimals"
    needs = ", ".join(f"`{column}`" for column in entry.needs) or "–"
    cells = (entry.definition, entry.unit, bounds, entry.missing, needs, entry.source)
    return " | ".join(cells)
