"""The first page: how the log stands, what waits, what expires, what ran."""

from collections import Counter
from datetime import timedelta
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy import func, select

from compliance import lifecycle, people, register, withdrawal
from compliance.canonical import parse
from compliance.log import cosignatures, log_entries, tree_size
from parties import consents
from parties.console.visit import Reading
from parties.node import Node

router = APIRouter()

_RECENT = timedelta(days=30)
_SOON = timedelta(days=30)
_LOOKED_AT = 1000  # of the latest reads, to find the last verification


@router.get("/")
def show(visit: Reading) -> Response:
    """At a glance."""
    node = visit.node
    since = (node.now() - _RECENT).isoformat(timespec="seconds")
    recent = [run for run in node.runs() if run["started_at"] >= since]
    with node.reading() as conn:
        pending = people.pending(conn)
        told = withdrawal.every(conn, now=node.now())
        untold = [
            notice
            for name in dict.fromkeys(held.agreement.agreement for held in register.every(conn))
            for notice in lifecycle.unacknowledged(conn, name)
        ]
    return visit.page(
        "home.html",
        log=log_state(node),
        pending=pending,
        untold=untold,
        withdrawals=[
            one
            for one in told
            if one["state"] != "acknowledged" and one["from"] == node.config.name
        ],
        expiring=consents.expiring(node, node.now() + _SOON),
        states=Counter(run["state"] for run in recent),
        recent=recent[:8],
        days_left=node.days_left(),
    )


def log_state(node: Node) -> dict[str, Any]:
    """Size, last checkpoint, up to where each witness has cosigned, and the last verification."""
    with node.reading() as conn:
        head, size = node.log.head(conn), tree_size(conn)
        at = select(log_entries.c.time).where(log_entries.c.index == (head.size if head else 0) - 1)
        signed_at = conn.execute(at).scalar()
        query = select(cosignatures.c.witness, func.max(cosignatures.c.size))
        cosigned = conn.execute(
            query.group_by(cosignatures.c.witness).order_by(cosignatures.c.witness)
        ).all()
        reads = (
            select(log_entries.c.leaf)
            .where(log_entries.c.type == "audit.read")
            .order_by(log_entries.c.index.desc())
            .limit(_LOOKED_AT)
        )
        said = (parse(leaf) for leaf in conn.execute(reads).scalars())
        verified = next((one for one in said if one.get("read") == "audit.verify"), None)
    return {
        "size": size,
        "signed": head.size if head else 0,
        "signed_at": signed_at,
        "cosigned": [(witness, upto) for witness, upto in cosigned],
        "verified": verified,
    }
