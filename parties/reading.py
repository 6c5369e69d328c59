"""What users look at is an entry of the log: the verb around `compliance.people.read`."""

from contextlib import suppress
from typing import Any

from compliance import people
from compliance.errors import LogDamaged
from parties.node import Node


def read(node: Node, what: str, **more: Any) -> None:
    """Enters that a user looks at something, before it is shown; on a node without users nothing.

    A log so damaged that it takes no entry is looked at all the same. Raises E320, E321, E324.
    """
    with node.reading() as conn:
        if not people.any_users(conn) and node.actor.key is None:
            return
    with suppress(LogDamaged), node.writing() as conn:
        people.read(conn, node.log, node.actor, what, time=node.now(), **more)
