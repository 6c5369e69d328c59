"""Early warning: whose score has fallen since the last time. For the bank alone.

The last scores lie in the bank's home, one file for each agreement and scorecard. They are those of
the people who were in the last run: who has withdrawn since is not in this one, and is forgotten.
"""

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from compliance.canonical import canonical
from parties.files import write_private

LIST = "early_warning.csv"
_SCORE = r"-?[0-9]+(\.[0-9]+)?"


@dataclass(frozen=True)
class Watch:
    """path: where the last scores are. card: digest of the scorecard, as falls say nothing if it is
    another one. fell_by: whose score fell by more than this is listed.
    """

    path: Path
    card: str
    fell_by: Decimal

    def compare(self, scores: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Who fell, the deepest first, and the counts. scores: the id's column, then score."""
        name = scores.columns[0]
        both = scores.merge(self._last(name), on=name, suffixes=("", "_before"))
        columns = both[["score_before", "score"]].astype(object).map(Decimal)
        both["fall"] = columns["score_before"] - columns["score"]
        fell = both[both["fall"] > self.fell_by]
        fell = fell.sort_values(["fall", name], ascending=[False, True])
        fell = fell.rename(columns={"score_before": "before", "score": "now"})
        listed = fell[[name, "before", "now", "fall"]]
        return listed, {
            "scored": len(scores),
            "compared": len(both),
            "fell_by_more_than": str(self.fell_by),
            "fell": len(listed),
        }

    def keep(self, scores: pd.DataFrame) -> None:
        """For the next time."""
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        header = canonical({"scorecard": self.card})
        text = scores.to_csv(index=False, lineterminator="\n")
        write_private(self.path, header + b"\n" + text.encode(), overwrite=True)

    def _last(self, name: str) -> pd.DataFrame:
        """The last scores under this scorecard; none if there are none that can be read."""
        nobody = pd.DataFrame({name: [], "score": []}, dtype=str)
        try:
            with self.path.open(encoding="utf-8") as file:
                if json.loads(file.readline()) != {"scorecard": self.card}:
                    return nobody
                last = pd.read_csv(file, dtype=str)
        except (OSError, ValueError):
            return nobody
        if list(last) != [name, "score"] or not last["score"].str.fullmatch(_SCORE).all():
            return nobody
        return last
