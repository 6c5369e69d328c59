"""Two versions of an agreement, compared in words."""

import pytest
from institutions import AGREEMENT, YAML

from compliance.agreement import Agreement
from compliance.amendment import in_words


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version: 1", "version: 2", []),
        ("runs_per_day: 2", "runs_per_day: 5", ["runs a day at most: was 2, is now 5"]),
        (
            "{runs_per_day: 2}",
            "{runs_per_week: 9}",
            ["runs a day at most: is gone; it was 2", "runs a week at most: is new: 9"],
        ),
        (
            "until: 2028",
            "until: 2029",
            [
                "valid until: was 2028-12-31T00:00:00+08:00, is now 2029-12-31T00:00:00+08:00",
            ],
        ),
        (
            "PIA-2026-014",
            "{reference: PIA-2026-014, valid_until: 2027-01-01T00:00:00Z}",
            ["end of the impact assessment: is new: 2027-01-01T00:00:00Z"],
        ),
        (
            "[customer-profile, credit-performance]",
            "[customer-profile, income]",
            [
                "what the bank provides: categories: also income",
                "what the bank provides: categories: no longer credit-performance",
            ],
        ),
        ("overlap: {}\n", "\n", ["job overlap: is gone; it was without conditions"]),
        (
            "minimum_group: 50",
            "minimum_group: 20",
            ["job insight minimum group: was 50, is now 20"],
        ),
        (
            "pay_0: {lower: -2, upper: 8, decimals: 0",
            "pay_0: {lower: -2, upper: 9, decimals: 0",
            ["feature pay_0 upper: was 8, is now 9"],
        ),
        (
            'label: "30-49", upper: 49',
            'label: "30-49", upper: 45',
            ["segmentation age band bands 30-49 upper: was 49, is now 45"],
        ),
        (
            "[count, sum",
            "[sum, count",
            ["job insight statistics: is in another order"],
        ),
    ],
)
def test_each_change_is_a_line(old, new, words):
    assert old in YAML
    changed = Agreement.from_yaml(YAML.replace(old, new, 1))
    assert in_words(AGREEMENT, changed) == words


def test_what_is_written_shorter_is_no_change():
    longer = Agreement.from_yaml(YAML.replace("PIA-2026-014", "{reference: PIA-2026-014}"))
    assert in_words(AGREEMENT, longer) == in_words(longer, AGREEMENT) == []
