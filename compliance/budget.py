"""The privacy budget of an agreement: what noised runs may tell in a calendar period, all together.

It is kept in the log alone: a run's epsilon is spent by an entry, `noise.spent`, in the transaction
that releases it. Each side keeps its own account. What a run has spent is gone, also if it then
fails, or its node dies before the answer leaves.
"""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, select

from compliance.agreement import Agreement
from compliance.canonical import calendar, parse
from compliance.errors import BudgetSpent
from compliance.log import Log, log_entries

_SPENT = "noise.spent"


def remaining(conn: Connection, agreement: Agreement, *, now: datetime) -> Decimal | None:
    """The epsilon that is left in this period, of all versions; None if there is no budget."""
    if agreement.noise is None:
        return None
    budget = agreement.noise.budget
    entry = log_entries.c
    query = select(entry.leaf).where(
        entry.run.is_not(None),
        entry.type == _SPENT,
        entry.time.startswith(_period(agreement, now)),
    )
    spent = [parse(leaf) for leaf in conn.execute(query).scalars()]
    own = [Decimal(one["epsilon"]) for one in spent if one["agreement"] == agreement.agreement]
    return max(budget.epsilon - sum(own), Decimal(0))


def check(conn: Connection, agreement: Agreement, job: str, *, now: datetime) -> None:
    """Raises BudgetSpent (E312) where a job with noise would spend more than is left."""
    terms, left = agreement.noise, remaining(conn, agreement, now=now)
    if terms is None or left is None or not agreement.noised(job):
        return
    if left < terms.epsilon:
        name, version = agreement.named
        raise BudgetSpent(
            f"The privacy budget of {name}, version {version}, is used up: of epsilon "
            f"{terms.budget.epsilon} a {terms.budget.per} there is {left} left, and a run "
            f"spends {terms.epsilon}.",
            f"Wait for the next {terms.budget.per} (in UTC), or agree on a new version with a "
            "larger `noise.budget` or a smaller `noise.epsilon`.",
        )


def spend(
    conn: Connection, log: Log, agreement: Agreement, job: str, run: str, *, now: datetime
) -> None:
    """Spend what a run needs, if it is one with noise. Before the release, in its transaction.

    Raises BudgetSpent (E312); then nothing is spent.
    """
    check(conn, agreement, job, now=now)
    if agreement.noise is None or not agreement.noised(job):
        return
    body = {
        "run": run,
        "agreement": agreement.agreement,
        "period": _period(agreement, now),
        "epsilon": str(agreement.noise.epsilon),
        "delta": str(agreement.noise.delta),
    }
    log.append(conn, _SPENT, body, time=now)


def _period(agreement: Agreement, now: datetime) -> str:
    """As the log's times begin in it."""
    if agreement.noise is None:
        raise ValueError("the agreement has no budget")
    return calendar(agreement.noise.budget.per, now)
