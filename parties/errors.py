"""Errors of the node: tables (E11x), configuration, pairing, connection, jobs (E6xx)."""

from federated.errors import ConnectionLost
from protos.errors import ConcordatError

# Tables


class TableNotFound(ConcordatError):
    code = "E110"


class TableUnreadable(ConcordatError):
    """Not a file, not permitted, or not Parquet."""

    code = "E111"


class TableEmpty(ConcordatError):
    code = "E112"


class NotUtf8(ConcordatError):
    code = "E113"


class NoIdentifierColumn(ConcordatError):
    code = "E114"


class NoColumn(ConcordatError):
    code = "E115"


class TableMalformed(ConcordatError):
    """A row that is longer or shorter than the header, a quote that never ends."""

    code = "E116"


class DuplicateIdentifiers(ConcordatError):
    code = "E117"


class QueryFailed(ConcordatError):
    code = "E118"


class IdentifierNotText(ConcordatError):
    """A column of floating-point numbers: digits of the identifier may be lost already."""

    code = "E119"


class FeatureUnknown(ConcordatError):
    """A feature that the catalogue, or the dataset's library, does not have."""

    code = "E123"


class TableNotGiven(ConcordatError):
    """A feature needs a further raw table, which the dataset does not name."""

    code = "E124"


class ValueUnreadable(ConcordatError):
    """Text where a raw table should have a time or a number."""

    code = "E125"


class NothingInWindow(ConcordatError):
    """No row of a raw table lies in the time that features are made of."""

    code = "E126"


class PersonUnclear(ConcordatError):
    """Not exactly one identifier, or one that is none."""

    code = "E640"


# Configuration, pairing, connection, jobs


class ConfigError(ConcordatError):
    code = "E600"


class NoHome(ConcordatError):
    code = "E601"


class HomeExists(ConcordatError):
    code = "E602"


class PortBusy(ConcordatError):
    code = "E603"


class NotServing(ConcordatError):
    code = "E604"


class AlreadyServing(ConcordatError):
    code = "E605"


class InvitationError(ConcordatError):
    code = "E610"


class UnknownPeer(ConcordatError):
    code = "E611"


class PeerUnreachable(ConcordatError):
    code = "E612"


class PeerRefused(ConcordatError):
    """The partner's node answered with a numbered error of its own."""

    code = "E613"


class HandshakeRefused(ConcordatError):
    code = "E614"


class WrongVersion(ConcordatError):
    code = "E615"


class NotDelivered(ConcordatError):
    code = "E616"


class JobError(ConcordatError):
    code = "E620"


class Busy(ConcordatError):
    code = "E621"


class Cancelled(ConcordatError):
    code = "E622"


class UnknownRun(ConcordatError):
    code = "E623"


class WrongRole(ConcordatError):
    code = "E624"


class Interrupted(ConcordatError):
    """The node stopped during the run; said when it comes back."""

    code = "E625"


class TooManyRows(ConcordatError):
    code = "E626"


class NoConsentIdentifier(ConcordatError):
    code = "E627"


class NoReceipt(ConcordatError):
    code = "E628"


class RunTooLong(ConnectionLost):
    """The run was not over within the time that a node allows."""

    code = "E629"


class TooManyCalls(ConcordatError):
    """A partner has more calls open than a node answers at once."""

    code = "E630"


class HomeUnusable(ConcordatError):
    """A file in the node's home cannot be read or written."""

    code = "E631"


class TooManyAttempts(ConcordatError):
    """A partner has opened as many runs within a day as a node puts on record."""

    code = "E632"


class EarlierRunUnfit(ConcordatError):
    """A stability names an earlier run that nothing can be measured against."""

    code = "E633"


class ResultMissing(ConcordatError):
    """A run that has ended without a result, or not at all."""

    code = "E634"


class ResultGone(ConcordatError):
    """A result that is no longer what was released: its file is missing, or was changed."""

    code = "E635"


class WitnessNotConfigured(ConcordatError):
    """An agreement requires a third witness that this node does not know."""

    code = "E650"


class WitnessMissing(ConcordatError):
    """A third witness that an agreement requires has not cosigned."""

    code = "E651"


# The console


class PasswordUnfit(ConcordatError):
    code = "E660"


class SignInRefused(ConcordatError):
    """Not this user, or not their password or key."""

    code = "E661"


class SignInLimited(ConcordatError):
    """Too many sign-ins have failed."""

    code = "E662"


class FormRefused(ConcordatError):
    """A form that the console has not just shown to whoever is signed in."""

    code = "E663"


class FormUnfit(ConcordatError):
    """A field of a form at the console is missing, or cannot be read."""

    code = "E664"


# Recipes


class RecipeUnknown(ConcordatError):
    """No recipe of this name."""

    code = "E670"


class ResultUnfit(ConcordatError):
    """The figures of a recipe are asked of a file that is no result of its job."""

    code = "E671"


class InternalError(ConcordatError):
    code = "E699"
