"""The catalogue says what the libraries do, and what agreements may say of it."""

import pytest
from ready import AGREEMENT

from compliance import agreement
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


@pytest.mark.parametrize("name", NAMES)
def test_an_agreement_takes_what_is_proposed(name: str) -> None:
    said = catalogue.proposed([name]).splitlines()
    text = AGREEMENT.format(version=1, partner_learns="size")
    declared = agreement.Agreement.from_yaml(
        text.replace("    features:\n", f"    features:\n    {said[1]}\n")
    ).data.partner.features[name]
    entry = catalogue.find(name).entry
    assert (declared.lower, declared.upper) == (entry.lower, entry.upper)
    assert (declared.unit, declared.decimals) == (entry.unit, entry.decimals)
    assert declared.bins == entry.bins != ()


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


def agreed(**names: str) -> Agreement:
    text = AGREEMENT.format(version=1, partner_learns="size")
    for old, new in names.items():
        text = text.replace(old, new)
    return Agreement.from_yaml(text)


def test_an_agreement_is_held_against_the_catalogue() -> None:
    catalogue.check(agreed())
    catalogue.check(agreed(spend="ecommerce.monetary"))  # in a currency
    catalogue.check(agreed(spend="other.monetary"))  # a column of somebody's own
    for names in (
        {"spend": "ecommerce.spend"},
        {"spend": "ecommerce.frequency"},  # orders, not CNY
        {"age": "ecommerce.shoe_size"},
    ):
        with pytest.raises(FeatureUnknown):
            catalogue.check(agreed(**names))
