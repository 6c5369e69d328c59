import io
import itertools
import stat
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from compliance.agreement import Axis, Band
from parties import errors
from parties.sources import Dataset, Identifier, numbers, read_table, scaled, segments

PHONES = ["13912345678", "+86 138 1234 5678", "0086-13712345678"]
CANONICAL = ["+8613912345678", "+8613812345678", "+8613712345678"]


def dataset(path: Path | str, **settings) -> Dataset:
    return Dataset(path=Path(path), identifier=Identifier(column="phone", kind="phone"), **settings)


def read(folder: Path, content: bytes, columns=(), name="table.csv", **settings):
    (folder / name).write_bytes(content)
    return read_table(dataset(name, **settings), folder, columns)


def ids(table) -> list[str]:
    return table.ids.to_strings().to_pylist()


# Tables


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_a_csv_file(tmp_path, bom, end, last):
    lines = [b"name, phone ,age", b'"Li, ""W""",13912345678,41', "张,+86 138 1234 5678,".encode()]
    content = bom + end.join(lines) + end * last
    table = read(tmp_path, content, ["age", "name"])
    assert ids(table) == CANONICAL[:2]
    assert list(table.frame.columns) == ["age", "name"]
    assert table.frame["name"].tolist() == ['Li, "W"', "张"]
    assert table.frame["age"][0] == "41"
    assert table.frame["age"].isna().tolist() == [False, True]
    assert table.counts() == {"rows": 2, "accepted": 2, "duplicates": 0, "rejected": {}}


def test_a_field_may_span_lines(tmp_path):
    table = read(tmp_path, b'phone,note\n13912345678,"two\nlines"\n13812345678,\n', ["note"])
    assert table.frame["note"][0] == "two\nlines"
    assert ids(table) == CANONICAL[:2]


def test_text_stays_text(tmp_path):
    content = b"phone,code\n008613912345678,007\n13812345678,1e+05\n13712345678,NA\n"
    table = read(tmp_path, content, ["code"])
    assert table.frame["code"].tolist() == ["007", "1e+05", "NA"]


def test_a_table_may_have_odd_names(tmp_path):
    folder = tmp_path / "it's [1] region=north *"
    folder.mkdir()
    content = b',phone,"it\'s ""it"""\n0,13912345678,x\n'
    table = read(folder, content, ['it\'s "it"'], name="a[1]?.csv")
    assert table.frame['it\'s "it"'].tolist() == ["x"]
    (tmp_path / "link.csv").symlink_to(folder / "a[1]?.csv")
    assert ids(read_table(dataset("link.csv"), tmp_path)) == CANONICAL[:1]


def test_a_parquet_file(tmp_path):
    content = pa.table(
        {
            "phone": pa.array([13912345678, 13812345678]),
            "amount": pa.array([Decimal("0.10"), None], pa.decimal128(9, 2)),
            "spend": pa.array([1e20, 0.1]),
            "flag": pa.array([True, False]),
        }
    )
    pq.write_table(content, tmp_path / "table.parquet")
    table = read_table(dataset("table.parquet"), tmp_path, ["amount", "spend", "flag"])
    assert ids(table) == CANONICAL[:2]
    assert table.frame["amount"].dropna().tolist() == ["0.10"]
    assert numbers(table.frame["spend"]).values.tolist() == [1e20, 0.1]
    assert numbers(table.frame["flag"]).values.tolist() == [1, 0]


def test_no_columns_but_the_identifier(tmp_path):
    table = read(tmp_path, b"phone\n13912345678\nN/A\n13812345678\n")
    assert table.frame.shape == (2, 0)
    assert table.frame.iloc[[1]].shape == (1, 0)


def test_the_identifier_may_also_be_a_column(tmp_path):
    table = read(tmp_path, b"phone,age\n139 1234 5678,3\n", ["phone", "age", "age"])
    assert table.frame.to_dict("list") == {"phone": ["139 1234 5678"], "age": ["3"]}


def test_rejects_name_rows_and_stay_private(tmp_path):
    values = ["13912345678", "N/A", "+1 415", "1391234567x", "", '"a\n,b"']
    content = "phone,n\n" + "".join(f"{value},{i}\n" for i, value in enumerate(values))
    table = read(tmp_path, content.encode(), ["n"])
    assert ids(table) == CANONICAL[:1]
    assert table.frame["n"].tolist() == ["0"]
    assert table.counts() == {
        "rows": 6,
        "accepted": 1,
        "duplicates": 0,
        "rejected": {"not a phone number": 3, "too short": 1, "empty": 1},
    }
    file = tmp_path / "rejects.csv"
    file.write_text("old")
    file.chmod(0o644)
    table.write_rejects(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == (
        "row,reason,value\n2,not a phone number,N/A\n3,too short,+1 415\n"
        '4,not a phone number,1391234567x\n5,empty,\n6,not a phone number,"a\n,b"\n'
    )
    assert "1391234567x" not in repr(table)


DUPLICATES = f"""phone,n
13912345678,0
x,1
+86 139 1234 5678,2
{PHONES[1]},3
13912345678,4
""".encode()


def test_duplicates_are_an_error(tmp_path):
    with pytest.raises(errors.DuplicateIdentifiers) as caught:
        read(tmp_path, DUPLICATES)
    assert "1 persons more than once: 2 rows" in caught.value.message
    assert "duplicates: first" in caught.value.next_step


def test_or_the_first_row_counts(tmp_path):
    table = read(tmp_path, DUPLICATES, ["n"], duplicates="first")
    assert ids(table) == CANONICAL[:2]
    assert table.frame["n"].tolist() == ["0", "3"]
    assert table.counts()["duplicates"] == 2
    assert table.counts()["rejected"] == {"not a phone number": 1}


def test_rows_that_fail_are_not_duplicates_of_each_other(tmp_path):
    table = read(tmp_path, b"phone\nN/A\nN/A\n13912345678\n")
    assert table.counts() == {
        "rows": 3, "accepted": 1, "duplicates": 0, "rejected": {"not a phone number": 2},
    }  # fmt: skip


# Queries


def test_a_query_makes_one_row_a_person(tmp_path):
    sql = """
        SELECT canonical(phone) AS phone, sum(n::INTEGER) AS n FROM source -- one row each
        GROUP BY 1 ORDER BY 2;
    """
    table = read(tmp_path, DUPLICATES, ["n"], sql=sql)
    assert dict(zip(ids(table), table.frame["n"], strict=True)) == {
        CANONICAL[0]: "6",
        CANONICAL[1]: "3",
    }
    assert table.counts()["rejected"] == {"empty": 1}


@pytest.mark.parametrize(
    "sql",
    [
        "SELEC phone FROM source",
        "SELECT nothing FROM source",
        "SELECT phone FROM elsewhere",
        "SELECT phone, n::INTEGER AS n FROM source",
        "COPY source TO 'copy.csv'",
        "SELECT * FROM read_csv('{other}')",
        "SELECT * FROM '{other}'",
        "SELECT * FROM frame",
    ],
)
def test_a_query_that_fails_or_looks_elsewhere(tmp_path, sql):
    frame = pd.DataFrame({"phone": PHONES})
    other = tmp_path / "other.csv"
    frame.to_csv(other)
    with pytest.raises(errors.QueryFailed) as caught:
        read(tmp_path, b"phone,n\n13912345678,secret\n", ["n"], sql=sql.format(other=other))
    assert "secret" not in caught.value.message + caught.value.next_step


# Files that cannot be read


def test_no_such_file(tmp_path):
    with pytest.raises(errors.TableNotFound) as caught:
        read_table(dataset("none.csv"), tmp_path)
    assert str(tmp_path / "none.csv") in caught.value.message


def test_a_parquet_file_with_names_that_are_no_text(tmp_path):
    table = pa.table({"phone": ["13912345678"], "name": ["Li"]})
    file = io.BytesIO()
    pq.write_table(table, file, store_schema=False)
    with pytest.raises(errors.TableUnreadable):
        read(tmp_path, file.getvalue().replace(b"name", b"n\xffme"), name="table.parquet")


def test_not_a_readable_file(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(errors.TableUnreadable):
        read_table(dataset("folder.csv"), tmp_path)
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    with pytest.raises(errors.TableUnreadable):
        read_table(dataset("loop.csv"), tmp_path)
    with pytest.raises(errors.TableUnreadable):
        read(tmp_path, b"phone\n13912345678\n", name="csv.parquet")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b""),
        ("a.csv", b"\xef\xbb\xbf"),
        ("a.csv", b"\r\n"),
        ("a.csv", b"phone"),
        ("a.csv", b"phone\n"),
        ("a.parquet", b""),
    ],
)
def test_nothing_in_it(tmp_path, name, content):
    with pytest.raises(errors.TableEmpty):
        read(tmp_path, content, name=name)


@pytest.mark.parametrize(
    "content",
    [
        "phone,名\n13912345678,张\n".encode("gb18030"),
        "phone,age\n13912345678,41\n".encode("utf-16"),
        b"phone,age\n13912345678,\xff\n",
        b"phone,age\n13912345678,41\n" + b"13812345678,7\n" * 100_000 + b"1,\xc3",
    ],
)
def test_not_utf8_in_any_column(tmp_path, content):
    with pytest.raises(errors.NotUtf8):
        read(tmp_path, content)


def test_missing_columns_are_named_beside_those_there_are(tmp_path):
    content = b"Phone,age\n13912345678,3\n"
    with pytest.raises(errors.NoIdentifierColumn) as caught:
        read(tmp_path, content)
    assert "'phone'" in caught.value.message
    assert "Phone, age" in caught.value.next_step
    with pytest.raises(errors.NoColumn) as missing:
        read(tmp_path, content.lower(), ["age", "limit"])
    assert "'limit'" in missing.value.message
    assert "phone, age" in missing.value.next_step
    with pytest.raises(errors.NoColumn):
        read(tmp_path, content.lower(), ["limit"], sql="SELECT * FROM source")


@pytest.mark.parametrize(
    "first", ["13912345678", "+86 139-1234-5678", "11010519491231002X", "li@example.com"]
)
def test_no_header(tmp_path, first):
    with pytest.raises(errors.NoIdentifierColumn) as caught:
        read(tmp_path, f"{first},3\n13812345678,4\n".encode())
    assert first not in caught.value.message + caught.value.next_step
    assert "header" in caught.value.next_step


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"phone,age\n1,2\n13912345678\n5,6\n", "line 3"),
        (b"phone,age\n1,2\n13912345678,4,5\n", "line 3"),
        (b'phone,age\n1,2\n"13912345678,4\n5,6\n', "line 3"),
        (b'phone,age\n1,2\n"13912345678"x,4\n', "line 3"),
        (b"phone,age\n13912345678," + b"9" * 3_000_000 + b"\n", "line 2"),
        (b"p" * 200_000 + b"\n13912345678\n", "header"),
    ],
)
def test_malformed_csv(tmp_path, content, where):
    with pytest.raises(errors.TableMalformed) as caught:
        read(tmp_path, content, ["age"])
    assert where in caught.value.message
    assert "13912345678" not in caught.value.message + caught.value.next_step


def test_identifiers_that_were_numbers(tmp_path):
    pq.write_table(pa.table({"phone": [13912345678.0]}), tmp_path / "table.parquet")
    with pytest.raises(errors.IdentifierNotText):
        read_table(dataset("table.parquet"), tmp_path)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200)
    | st.text('phone,\n\r"\ufeff13912345678', max_size=60).map(str.encode)
    | st.text('ag,\n\r"12', max_size=60).map(lambda text: b"phone,age\n" + text.encode())
)
def test_any_bytes_are_a_table_or_a_numbered_error(tmp_path, content):
    for name in ("a.csv", "a.parquet"):
        try:
            table = read(tmp_path, content, name=name, duplicates="first")
        except errors.ConcordatError as error:
            assert "E110" < error.code < "E119"
        else:
            assert table.rows > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "table.xlsx"},
        {"identifier": {"column": "phone", "kind": "passport"}},
        {"identifier": {"column": "phone", "kind": "phone", "region": "XX"}},
        {"duplicates": "last"},
        {"colour": "red"},
    ],
)
def test_a_wrong_configuration(wrong):
    right = {"path": "table.csv", "identifier": {"column": "phone", "kind": "phone"}}
    Dataset.model_validate(right)
    with pytest.raises(ValidationError):
        Dataset.model_validate(right | wrong)


# Numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        (" 12\t", 12),
        ("-3", -3),
        ("+7", 7),
        ("007", 7),
        ("0.50", 0.5),
        (".5", 0.5),
        ("5.", 5),
        ("1e+05", 100_000),
        ("1E5", 100_000),
        ("2.5e-1", 0.25),
        ("-0", 0),
    ],
)
@pytest.mark.parametrize("neighbour", ["1", "x", ""])
def test_what_is_a_number(text, value, neighbour):
    assert numbers(pd.Series([text, neighbour])).values[0] == value


@pytest.mark.parametrize("neighbour", ["1", "x", ""])
def test_missing_and_text(neighbour):
    missing = [None, "", "  ", "NA", "n/a", "NaN", "null", "None", "inf", "-Infinity"]
    text = ["1,234", "12 000", "1_000", "0x10", "1e", "--5", "-", ".", "5%", "１", "True"]
    for values, count in ((missing, "missing"), (text, "text")):
        for value in values:
            found = numbers(pd.Series([value, neighbour], dtype="string"))
            assert np.isnan(found.values[0])
            expected = {"missing": neighbour == "", "text": neighbour == "x"}
            expected[count] += 1
            assert {"missing": found.missing, "text": found.text} == expected


def test_exact_integers():
    column = pd.Series(["1e+05", "12", "0.29", "1.15", "-1.005", "9007199254740993", "x", None])
    found = scaled(column, Decimal("-1e16"), Decimal("1e16"), 2)
    assert found.values.tolist() == [10_000_000, 1200, 29, 115, -100, 900719925474099300, 0, 0]
    assert found.present.tolist() == [True] * 6 + [False] * 2
    assert found.counts == {"missing": 1, "text": 1, "clipped": 0}


def test_surplus_decimals_round_half_to_even():
    column = pd.Series(
        ["0.5", "1.5", "2.5", "-0.5", "1.4999999999999999999999", "2.50000000000001"]
    )
    found = scaled(column, Decimal(-10), Decimal(10), 0)
    assert found.values.tolist() == [0, 2, 2, 0, 1, 3]
    column = pd.Series(["1.015", "1.025", "0.145", "0.155", "1.005"])
    assert scaled(column, Decimal(0), Decimal(2), 2).values.tolist() == [102, 102, 14, 16, 100]


def test_clipping_is_counted():
    column = pd.Series(["-5", "0", "8", "9", "1e300", "-1e300", "8.4", None, "inf"])
    found = scaled(column, Decimal(-2), Decimal(8), 0)
    assert found.values.tolist() == [-2, 0, 8, 8, 8, -2, 8, 0, 0]
    assert found.counts == {"missing": 2, "text": 0, "clipped": 4}


def test_numbers_beyond_a_doubles_integers_are_clipped_too():
    found = scaled(pd.Series(["1e308", "-1.7e308"]), Decimal(-1), Decimal(1), 9)
    assert found.values.tolist() == [10**9, -(10**9)]


def test_bounds_must_fit():
    for upper, decimals in (("0.5", 0), ("1e18", 2)):
        with pytest.raises(ValueError, match="decimals"):
            scaled(pd.Series(["1"]), Decimal(0), Decimal(upper), decimals)


WRITTEN = st.from_regex(
    r"[+-]?([0-9]{1,20}\.?[0-9]{0,12}|\.[0-9]{1,9})(e[+-]?[0-9]{1,2})?", fullmatch=True
)
NEAR_TIES = st.builds(
    "{}.{}5{}".format,
    st.integers(-(10**15), 10**15),
    st.integers(0, 99),
    st.sampled_from(["", "0", "0000001"]),
)


@given(
    st.lists(WRITTEN | NEAR_TIES, min_size=1),
    st.integers(0, 9),
    st.integers(-(10**8), -1),
    st.sampled_from([1, 10**4, 2 * 10**9]),
)
def test_every_number_is_the_integer_decimal_arithmetic_gives(texts, decimals, lower, upper):
    least, most = lower * 10**decimals, upper * 10**decimals
    expected = []
    with localcontext(prec=300):
        for text in texts:
            value = Decimal(text).scaleb(decimals).to_integral_value(ROUND_HALF_EVEN)
            expected.append(min(max(int(value), least), most))
    found = scaled(pd.Series(texts), Decimal(lower), Decimal(upper), decimals)
    assert found.values.tolist() == expected
    assert found.present.all()


@given(st.lists(st.none() | st.text(max_size=8) | st.text("0123456789.eE+- ", max_size=8)))
def test_every_row_is_a_number_missing_or_text(texts):
    found = scaled(pd.Series(texts, dtype="string"), Decimal(-5), Decimal(5), 3)
    assert found.present.sum() + found.counts["missing"] + found.counts["text"] == len(texts)
    assert (abs(found.values) <= 5000).all()
    assert not found.values[~found.present].any()


# Segments

AGE = Axis(
    label="age_band",
    column="age",
    bands=(
        Band(label="-29", upper=Decimal(29)),
        Band(label="30-39", upper=Decimal(39)),
        Band(label="40-"),
    ),
)
REGION = Axis(label="region", column="region", values=("north", "south"))


def test_bands_include_their_upper_bound():
    ages = ["29", "29.5", "30", "39", "39.01", "2.9e+01", "-1", "1e9", "x", None, "NaN"]
    index = segments(pd.DataFrame({"age": ages}), [AGE])
    assert index.tolist() == [0, 1, 1, 1, 2, 0, 0, 2, -1, -1, -1]
    assert index.dtype == np.int64


def test_segments_follow_the_product_of_labels():
    frame = pd.DataFrame(
        list(itertools.product(["20", "35", "50", ""], ["north", " south ", "east", None])),
        columns=["age", "region"],
    )
    index = segments(frame, [AGE, REGION])
    labels = list(itertools.product(AGE.labels, REGION.labels))
    assert [labels[i] if i >= 0 else None for i in index] == [
        *[("-29", "north"), ("-29", "south"), None, None],
        *[("30-39", "north"), ("30-39", "south"), None, None],
        *[("40-", "north"), ("40-", "south"), None, None],
        *[None] * 4,
    ]


def test_without_axes_there_is_one_segment():
    assert segments(pd.DataFrame(index=range(3)), []).tolist() == [0, 0, 0]


def test_columns_as_they_are_read(tmp_path):
    content = b"phone,age,region\n13912345678,3e+01,south\n13812345678,,north\nx,1,north\n"
    table = read(tmp_path, content, ["region", "age"])
    assert segments(table.frame, [AGE, REGION]).tolist() == [3, -1]
    found = scaled(table.frame["age"], Decimal(0), Decimal(100), 0)
    assert found.values.tolist() == [30, 0]
    assert found.counts == {"missing": 1, "text": 0, "clipped": 0}


def test_line_ends_of_several_kinds_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    path.write_bytes(b'\xef\xbb\xbfphone,a\r\n13912345678,"1\n,1"\n13912345679,2\r\n13912345670,\n')
    dataset = Dataset(path=path, identifier=Identifier(column="phone", kind="phone"))
    table = read_table(dataset, tmp_path, ["a"])
    assert [str(id_)[-1] for id_ in table.ids.to_strings()] == ["8", "9", "0"]
    assert table.frame["a"].fillna("").tolist() == ["1\n,1", "2", ""]
    path.write_bytes(b"phone,a\r\n13912345678,1,5\n13912345679,2\r\n")
    with pytest.raises(errors.TableMalformed, match=r"mixed\.csv"):
        read_table(dataset, tmp_path, ["a"])
