"""Numbered errors. A code means the same on both sides of the wire and has a page in docs/errors.

The number's first digit names the room that raises it:

====  =========================================================
1xx   a user's data: tables, identifiers, features
2xx   the peer's bytes: frames, points, ciphertexts
3xx   agreements
4xx   consent and the gate
5xx   the log, checkpoints, receipts
6xx   the node: configuration, pairing, connection, jobs
7xx   storage
====  =========================================================
"""

from typing import ClassVar


class ConcordatError(Exception):
    """A failure that a user can act on: one sentence, and the next step.

    Neither may hold an identifier, a payload or a key: both are logged and cross the wire.
    """

    code: ClassVar[str] = "E000"

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    @property
    def numbered(self) -> str:
        """The message after its number, where nothing else says the number."""
        return f"{self.code} {self.message}"
