"""What a report is made of: a run as both have signed it, and what this side kept of its result."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compliance.agreement import Agreement, Job
from parties.console import words


@dataclass(frozen=True)
class Told:
    """summary: the result in figures, as in the run's report. sizes: people put in, by party."""

    agreement: Agreement
    job: Job
    started: str
    sizes: Mapping[str, int]
    summary: Mapping[str, Any]
    language: str

    @property
    def bank(self) -> str:
        return self.agreement.parties.bank

    @property
    def partner(self) -> str:
        return self.agreement.parties.partner

    def say(self, name: str, /, **values: Any) -> str:
        return words.say(self.language, name, **values)

    def knows(self, name: str) -> bool:
        return words.known(self.language, name)
