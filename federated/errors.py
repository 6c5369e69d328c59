"""What the protocols refuse, and what their users do about it. Each code has a page in docs/errors.

No message holds an identifier, a payload or a key.
"""

import re

from protos.errors import ConcordatError

# Identifiers


class UnknownKind(ConcordatError):
    """A kind of identifier this version does not know."""

    code = "E101"

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"'{kind}' is not a kind of identifier.",
            "Use phone, resident_id, company_code or email; both institutions must use the same.",
        )


class UnknownRegion(ConcordatError):
    """A region that has no numbering plan."""

    code = "E102"

    def __init__(self, region: str) -> None:
        super().__init__(
            f"'{region}' is not a region phone numbers belong to.",
            "Use a two-letter ISO 3166 code in capitals, such as CN, HK or US.",
        )


# A table that cannot go into a run


class FeatureUnfit(ConcordatError):
    """A feature's declared range cannot be added up exactly, or its values leave that range."""

    code = "E120"


# A scorecard


class ScorecardInvalid(ConcordatError):
    """A scorecard, or another library's table of one, is not of the form it should have."""

    code = "E121"

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"This is no valid scorecard: {problem}.",
            "Correct it and try again; docs/reference/scorecard.yaml is a complete one.",
        )


class ScorecardUnfit(ConcordatError):
    """A scorecard uses a feature or an edge that the agreement does not have."""

    code = "E122"


# The peer's bytes


class ProtocolViolation(ConcordatError):
    """The peer sent something the protocol does not allow at this point."""

    code = "E201"

    def __init__(
        self,
        message: str,
        next_step: str = "The run ended without a result. Check that both nodes run the same "
        "version; if they do, show this message to whoever runs the other node.",
    ) -> None:
        super().__init__(message, next_step)


class MalformedFrame(ProtocolViolation):
    """Bytes that are no frame, or more of them than a frame may have."""

    code = "E202"


class InvalidPoint(ProtocolViolation):
    """A point that is not canonical, has small order, or came twice."""

    code = "E203"


class InvalidCiphertext(ProtocolViolation):
    """A ciphertext that is zero, too large or not coprime to the modulus, or a wrong plaintext."""

    code = "E204"


class InvalidKey(ProtocolViolation):
    """A Paillier modulus that is not of the form or size the agreement demands."""

    code = "E205"


class GroupTooSmall(ProtocolViolation):
    """The bank sent a group below the minimum."""

    code = "E206"


class AnswersDisagree(ProtocolViolation):
    """The peer's answer contradicts what this side counted itself."""

    code = "E207"


class TableUnsound(ProtocolViolation):
    """A table that is not what its head says, is not signed, or has a row that does not open."""

    code = "E210"


# The connection


class ConnectionLost(ConcordatError):
    """The peer went away."""

    code = "E208"


class PeerAborted(ConcordatError):
    """The peer ended the run and said why. Its words are cut short and kept printable."""

    code = "E209"

    def __init__(self, peer_code: str, said: str) -> None:
        self.peer_code = peer_code if re.fullmatch(r"E\d{3}", peer_code) else "E000"
        words = "".join(c for c in said[:300] if c.isprintable())
        super().__init__(
            f"The other side ended the run ({self.peer_code}): {words}",
            f"See docs/errors/{self.peer_code}.md; the other side has the details.",
        )
