"""Files of rows: tables as CSV and Parquet, consents as CSV."""

import io
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from compliance.agreement import Axis, Band
from fuzz.target import Setup, Target
from parties import consents
from parties.config import Home
from parties.node import Node
from parties.sources import (
    Dataset,
    Identifier,
    Table,
    header,
    present,
    read_table,
    scaled,
    segments,
)

_CSV = """phone,age,city,spend
13912345678,29,north,10.50
+86 138 1234 5678,,"so""uth, east",1e+05
0086-13712345678,61,北,-0.004999999999999999999
nonsense,31,south,"1,234"
""".encode()

_CONSENTS = b"""phone,purpose,recipient,categories,kind,granted_at,expires_at,withdrawn_at
13912345678,credit-offer,shop,a;b,separate,2026-01-01T00:00:00+08:00,2027-01-01T00:00:00Z,
13812345678,offer,shop,b,written,2026-01-01 00:00+0800,2027-01-01T00:00Z,2026-05-01T09:30:00.5Z
13712345678,credit-offer,shop,b,general,2026-01-01T00:00:00,2027-01-01T00:00:00Z,
"""

_AXES = [
    Axis(
        label="age", column="age", bands=(Band(label="-29", upper=Decimal(29)), Band(label="30-"))
    ),
    Axis(label="city", column="city", values=("north", "south")),
]


def _use(table: Table) -> None:
    segments(table.frame, _AXES)
    scaled(table.frame["spend"], Decimal(-100), Decimal(50000), 2)
    table.counts()


def _table(name: str, folder: Path) -> Dataset:
    return Dataset(
        path=folder / name,
        identifier=Identifier(column="phone", kind="phone"),
        duplicates="first",
    )


def _csv_table(folder: Path) -> Target:
    dataset = _table("table.csv", folder)

    def read(data: bytes) -> None:
        dataset.path.write_bytes(data)
        _use(read_table(dataset, folder, ["age", "city", "spend"]))

    return Target(read, [_CSV, b"\xef\xbb\xbf" + _CSV.replace(b"\n", b"\r\n", 2)])


def _parquet_table(folder: Path) -> Target:
    dataset = _table("table.parquet", folder)

    def read(data: bytes) -> None:
        dataset.path.write_bytes(data)
        _use(read_table(dataset, folder, ["age", "city", "spend"]))

    table = pa.table(
        {
            "phone": ["13912345678", "13812345678", None],
            "age": pa.array([29, None, 61], pa.int32()),
            "city": pa.array(["north", "south", "north"]).dictionary_encode(),
            "spend": pa.array([Decimal("10.50"), None, Decimal("-1.00")], pa.decimal128(9, 2)),
        }
    )
    files = []
    for compression in ("none", "snappy", "zstd"):
        file = io.BytesIO()
        pq.write_table(table, file, compression=compression)
        files.append(file.getvalue())
    return Target(read, files)


def _columns(folder: Path) -> Target:
    """What columns a raw table has, before anything of it is read."""
    csv, parquet = folder / "raw.csv", folder / "raw.parquet"

    def read(data: bytes) -> None:
        path = parquet if data.startswith(b"PAR1") else csv
        path.write_bytes(data)
        present(path, None, Identifier(column="phone", kind="phone"))
        header(path)

    file = io.BytesIO()
    pq.write_table(pa.table({"phone": ["13912345678"], "Time": ["x"], "": [1]}), file)
    quoted = b'"a\n""b",,"c, d" ,A1\r\n1,2,3,4\r\n'
    return Target(read, [_CSV, quoted, file.getvalue()])


def _consents(folder: Path) -> Target:
    node = Node.create(Home(folder / "bank"), "bank", "bank", None)
    path = folder / "consents.csv"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        consents.import_file(node, path)

    return Target(read, [_CONSENTS])


TARGETS: dict[str, Setup] = {
    "table-csv": _csv_table,
    "table-parquet": _parquet_table,
    "table-columns": _columns,
    "consents": _consents,
}
