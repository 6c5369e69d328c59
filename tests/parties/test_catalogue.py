"""The catalogue says what the libraries do, and what agreements may say of it."""

import pytest
from ready import AGREEMENT

from compliance.agreement import Agreement
from parties import catalogue, features
from parties.errors import FeatureUnknown

VALUES = {"DAY": "15", "CATEGORY": "books", "CHANNEL": "app"}


def full(name: str) -> str:
    """With a value where the catalogue has a word."""
    name, colon, word = name.partition(":")
    return f"{name}{colon}{VALUES.get(word, '')}"


LIBRARIES = list(catalogue.sectors())
NAMES = [full(name) for library in LIBRARIES for name in catalogue.names(library)]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_computes_what_the_catalogue_has_and_nothing_else(library: str) -> None:
    methods = {name for name in vars(features.LIBRARIES[library]) if not name.startswith("_")}
    listed = {name.partition(":")[0] for name in catalogue.sectors()[library].features}
    assert methods == listed


@pytest.mark.parametrize("library", LIBRARIES)
def test_features_need_columns_that_there_are(library: str) -> None:
    sector = catalogue.sectors()[library]
    there = {f"{table}.{column}" for table, one in sector.tables.items() for column in one.columns}
    for name, entry in sector.features.items():
        assert there.issuperset(entry.needs), name


TEXT = AGREEMENT.format(version=1, partner_learns="size")


@pytest.mark.parametrize("name", NAMES)
def test_an_agreement_takes_what_is_proposed(name: str) -> None:
    entry = catalogue.find(name).entry
    assert entry.bins
    head, *lines = catalogue.proposed([name]).splitlines()
    match head.partition(":")[0]:
        case "features":
            text = TEXT.replace("    features:\n", f"    features:\n    {lines[0]}\n")
            said = Agreement.from_yaml(text).data.partner.features[name]
            for field in ("unit", "lower", "upper", "decimals", "bins"):
                assert getattr(said, field) == getattr(entry, field)
        case "segmentation":
            text = TEXT.replace("segmentation:\n", f"segmentation:\n{lines[0]}\n")
            axis, _ = Agreement.from_yaml(text).segmentation
            assert axis.column == name
            assert axis.labels == entry.bands
            assert tuple(band.upper for band in axis.bands[:-1]) == entry.bins
        case _:
            text = TEXT.replace("  bank: {", f"  bank: {{{head}, ")
            label = Agreement.from_yaml(text).data.bank.label
            assert (label.column, label.bad) == (name, entry.bad)


@pytest.mark.parametrize(
    "name",
    [
        "recency_days",
        "ecommerce.recency",
        "ecommerce.recency_days:1",
        "ecommerce._n",
        "ecommerce.category_share",
        "ecommerce.category_share:",
        "ecommerce.category_share:a b",
        "ecommerce.category_share:" + "a" * 33,
        "ecommerce.payday_share:0",
        "ecommerce.payday_share:32",
        "ecommerce.payday_share:x",
        "telecom.recency_days",
        "insurance.age",
        "ecommerce.__init__",
        "ecommerce.recency_days\n",
    ],
)
def test_what_is_no_feature(name: str) -> None:
    with pytest.raises(FeatureUnknown, match="no feature"):
        catalogue.find(name)


def test_there_is_no_other_library() -> None:
    with pytest.raises(FeatureUnknown, match="no library 'shoe'"):
        catalogue.listed("shoe")


def test_one_feature_is_described_with_a_value_and_without() -> None:
    for name in ("ecommerce.payday_share:DAY", "ecommerce.payday_share:28"):
        found = catalogue.described(name)
        assert found["name"] == name
        assert found["upper"] == 1


def agreed(names: dict[str, str]) -> Agreement:
    text = TEXT
    for old, new in names.items():
        text = text.replace(old, new)
    return Agreement.from_yaml(text)


def test_an_agreement_is_held_against_the_catalogue() -> None:
    catalogue.check(agreed({}))
    catalogue.check(agreed({"spend": "ecommerce.monetary"}))  # in a currency
    catalogue.check(agreed({"spend": "other.monetary"}))  # a column of somebody's own
    for names in (
        {"spend": "ecommerce.spend"},
        {"spend": "ecommerce.frequency"},  # orders, not CNY
        {"age": "bank.shoe_size"},
        {"bank: {": "bank: {label: {column: bank.bad, bad: [x]}, "},
    ):
        with pytest.raises(FeatureUnknown):
            catalogue.check(agreed(names))
