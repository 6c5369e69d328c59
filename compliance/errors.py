"""Errors of the compliance room: agreements (E3xx), consent (E4xx), log (E5xx), storage (E7xx)."""

from collections.abc import Mapping

from protos.errors import ConcordatError


class NotCanonical(ConcordatError):
    code = "E500"


class DocumentTooLarge(ConcordatError):
    code = "E501"


class MalformedEnvelope(ConcordatError):
    code = "E502"


class InvalidSignature(ConcordatError):
    code = "E503"


class KeyFileError(ConcordatError):
    code = "E504"


class MalformedNote(ConcordatError):
    code = "E510"


class UnverifiedNote(ConcordatError):
    code = "E511"


class MalformedProof(ConcordatError):
    code = "E512"


class InvalidProof(ConcordatError):
    code = "E513"


class LogDamaged(ConcordatError):
    code = "E520"


class NotInLog(ConcordatError):
    code = "E521"


class LogRolledBack(ConcordatError):
    """A witness has cosigned a larger log than ours."""

    code = "E522"


class SplitView(ConcordatError):
    """A witness has cosigned a log that ours does not extend."""

    code = "E523"


class WitnessRefused(ConcordatError):
    code = "E524"


class SuccessionRefused(ConcordatError):
    code = "E525"


class LogKeyReplaced(ConcordatError):
    """Another process has rotated the log's key since this one read it."""

    code = "E526"


class UnsupportedStore(ConcordatError):
    code = "E700"


class StoreLocked(ConcordatError):
    code = "E701"


class StoreReadOnly(ConcordatError):
    code = "E702"


class StoreFull(ConcordatError):
    code = "E703"


class NotAStore(ConcordatError):
    code = "E704"


class StoreTooNew(ConcordatError):
    code = "E705"


class StoreUnavailable(ConcordatError):
    code = "E706"


class StoreDamaged(ConcordatError):
    code = "E707"


class StoreMissing(ConcordatError):
    code = "E708"


def missing_store() -> StoreMissing:
    return StoreMissing(
        "There is no store at the place that the configuration names.",
        "Correct `store` in config.yaml, or restore the latest backup; only `concordat init` makes "
        "a new store, for a new node.",
    )


class StoreNotDurable(ConcordatError):
    code = "E709"


# Agreements


class AgreementInvalid(ConcordatError):
    """The document is no valid agreement."""

    code = "E301"


class JobInvalid(ConcordatError):
    """The document is no valid job."""

    code = "E302"


class AgreementConflict(ConcordatError):
    """Another document is already known under this id and version."""

    code = "E303"


class AgreementUnknown(ConcordatError):
    """No such agreement, or not that version."""

    code = "E304"


class AgreementUnsigned(ConcordatError):
    """A signature is missing."""

    code = "E305"


class AgreementBroken(ConcordatError):
    """A signature or the stored document does not verify."""

    code = "E306"


class AgreementAmbiguous(ConcordatError):
    """There are several versions, and it was not said which is meant."""

    code = "E307"


class OffersWaiting(ConcordatError):
    """A partner has offered more agreements than anybody here has signed."""

    code = "E308"


class AgreementRefusal(ConcordatError):
    """The agreement does not allow this job; `clause` is the path of what says so."""

    code = "E310"

    def __init__(self, agreement: str, version: int, clause: str, why: str) -> None:
        steps = {
            "suspended": "Wait until it is resumed, or ask the institution that suspended it.",
            "terminated": "Agree on another one, under another name.",
            "superseded": "Run the job again, under the new version.",
        }
        super().__init__(
            f"Agreement {agreement}, version {version}, refuses this job by {clause}: {why}.",
            steps.get(clause, "Change the job, or agree on a new version that allows it."),
        )
        self.clause = clause


class NoticeRefused(ConcordatError):
    """A suspension, resumption or termination that does not follow from what is known."""

    code = "E311"


class BudgetSpent(ConcordatError):
    """The privacy budget of this period has less left than a run spends."""

    code = "E312"


class TooFewDiffer(ConcordatError):
    """What would be released differs from an earlier release of the period by few people."""

    code = "E313"


class SegmentationChanged(ConcordatError):
    """Who is in which segment is not what the period began with."""

    code = "E314"


class CellsReleased(ConcordatError):
    """As many exact figures as a period may have are out."""

    code = "E315"


# People


class MustSign(ConcordatError):
    """The node has users, and nobody was named."""

    code = "E320"


class UserUnknown(ConcordatError):
    code = "E321"


class NotAllowed(ConcordatError):
    """The user's role may not do this."""

    code = "E322"


class TwoPeople(ConcordatError):
    """It takes another officer."""

    code = "E323"


class WrongUserKey(ConcordatError):
    code = "E324"


class UserConflict(ConcordatError):
    """The name or the key is another user's."""

    code = "E325"


class LastOfficer(ConcordatError):
    """Nobody would be left to approve anything."""

    code = "E326"


class ProposalUnknown(ConcordatError):
    code = "E327"


class ProposalUnfit(ConcordatError):
    """What was proposed is about somebody else, or can no longer be done as it was proposed."""

    code = "E329"


class ProposalDecided(ConcordatError):
    code = "E328"


# Consent and the gate


class NobodyEligible(ConcordatError):
    """Nobody in the table may enter the run; `excluded` counts them by reason."""

    code = "E401"

    def __init__(self, excluded: Mapping[str, int]) -> None:
        counts = ", ".join(f"{reason}: {count}" for reason, count in excluded.items())
        super().__init__(
            f"Nobody in the table has a live consent for this run ({counts or 'it is empty'}).",
            "Check that consents are imported for this purpose, recipient and these categories.",
        )
        self.excluded = dict(excluded)


class ConsentChanged(ConcordatError):
    """Consents ended while the run was under way; `people` says how many."""

    code = "E402"

    def __init__(self, people: int) -> None:
        super().__init__(
            f"Consent ended for {people} of the people in this run while it was under way.",
            "Nothing was released; run the job again without them.",
        )
        self.people = people


class ConsentTable(ConcordatError):
    """The table lacks a column that a consent needs."""

    code = "E403"


class VaultKey(ConcordatError):
    """A vault key is missing, open to others, of the wrong size, or not the one in use."""

    code = "E404"


class ConsentInvalid(ConcordatError):
    """What is said of one person's consent is no valid consent, refusal or restriction."""

    code = "E405"


class ConsentSuperseded(ConcordatError):
    """A grant that is not newer than a refusal, withdrawal or erasure."""

    code = "E406"


class NothingToChange(ConcordatError):
    """The person has no consent, or no restriction, that could be changed so."""

    code = "E407"


class PersonUnknown(ConcordatError):
    code = "E408"


class RetentionRuns(ConcordatError):
    """The law keeps this person's records for some time yet."""

    code = "E409"


class NoticeInvalid(ConcordatError):
    code = "E410"


class NoticeConflict(ConcordatError):
    """Another notice has this name."""

    code = "E411"


class NoticeUnknown(ConcordatError):
    code = "E412"


class TombstonesUnreadable(ConcordatError):
    """The list of those who were erased cannot be read."""

    code = "E413"


class WithdrawalRefused(ConcordatError):
    """A notice that somebody has withdrawn is not one, or not the sender's to give."""

    code = "E414"


class AcknowledgementRefused(ConcordatError):
    """What should acknowledge a withdrawal notice does not prove that it was honoured."""

    code = "E415"


# Receipts


class ReceiptBroken(ConcordatError):
    """A receipt's statement or signature is not what it should be."""

    code = "E551"


class ReceiptConflict(ConcordatError):
    """Another receipt is already recorded for this run."""

    code = "E552"


# Evidence


class EvidenceUnwritable(ConcordatError):
    """There is something already where the evidence is to go, or nothing can be written there."""

    code = "E553"
