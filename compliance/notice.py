"""Notices: what people were told when they were asked, stored once and referred to by consents.

A notice holds what a consent record has in common with others (ISO/IEC TS 27560:2023, 6.3).
"""

import hashlib
from datetime import datetime
from typing import Annotated, Self

from pydantic import Field, PrivateAttr, model_validator
from sqlalchemy import Column, Connection, ForeignKey, LargeBinary, String, Table, insert, select

from compliance.agreement import Text, Token, _Document, _Model
from compliance.batch import next_id
from compliance.errors import NoticeConflict, NoticeInvalid, NoticeUnknown
from compliance.log import Log
from compliance.store import Integer64, metadata

Long = Annotated[str, Field(min_length=1, max_length=2000)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]

notices = Table(
    "notices",
    metadata,
    Column("id", Integer64, primary_key=True),
    Column("notice", String(64), nullable=False, unique=True),
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256 of the document, in hex
    Column("document", LargeBinary, nullable=False),
    Column("entry", ForeignKey("log_entries.index"), nullable=False, unique=True),
)


class Party(_Model):
    """Somebody the notice names: a controller, a recipient, an authority (6.3.6)."""

    name: Text
    address: Text
    contact: Text
    type: Text
    role: Text | None = None
    email: Text | None = None
    url: Text | None = None
    phone: Text | None = None


class Category(_Model):
    """A category of personal data, as consents name it (6.3.5)."""

    type: Text
    attributes: Texts | None = None
    optional: bool | None = None
    sensitive: Text | None = None
    special: Text | None = None


class Purpose(_Model):
    """A purpose, as consents name it."""

    description: Long
    type: Text | None = None


class Notice(_Document):
    """A notice. Raises NoticeInvalid (E410) when read."""

    invalid = NoticeInvalid
    noun = "notice"

    notice: Token
    privacy_notice: Text  # where it can be read
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
    purposes: Annotated[dict[Token, Purpose], Field(min_length=1)]
    categories: Annotated[dict[Token, Category], Field(min_length=1)]
    parties: Annotated[dict[Token, Party], Field(min_length=1)]
    controllers: Annotated[tuple[Token, ...], Field(min_length=1)]
    recipients: Annotated[tuple[Token, ...], Field(min_length=1)]
    storage_locations: Texts
    retention_period: Text
    jurisdiction: Text
    withdrawal_method: Long
    lawful_basis: Text | None = None
    collection_method: Long | None = None
    processing_method: Long | None = None
    processing_locations: Texts | None = None
    geographic_restrictions: Texts | None = None
    services: Texts | None = None
    privacy_rights: Texts | None = None
    codes_of_conduct: Texts | None = None
    impact_assessment: Text | None = None
    authority: Token | None = None
    _document: bytes = PrivateAttr(b"")

    @property
    def document(self) -> bytes:
        """The canonical JSON of the notice as written."""
        return self._document

    @property
    def digest(self) -> str:
        """SHA-256 of the document, in hex: what consents refer to."""
        return hashlib.sha256(self._document).hexdigest()

    @classmethod
    def from_document(cls, document: bytes) -> Self:
        notice = super().from_document(document)
        notice._document = document
        return notice

    @model_validator(mode="after")
    def _check(self) -> Self:
        authority = (self.authority,) if self.authority else ()
        for name in (*self.controllers, *self.recipients, *authority):
            if name not in self.parties:
                raise ValueError(f"parties: {name} is not described")
        return self


def add(conn: Connection, log: Log, notice: Notice, *, time: datetime) -> int | None:
    """Registers a notice; the index of its entry, or None if it is known already.

    Raises NoticeConflict (E411) if another notice has this name.
    """
    known = conn.execute(select(notices).where(notices.c.notice == notice.notice)).one_or_none()
    if known is not None:
        if known.digest == notice.digest:
            return None
        raise NoticeConflict(
            f"Another notice is known as {notice.notice}, and consents may refer to it.",
            "Give the changed notice a name of its own.",
        )
    body = {"notice": notice.notice, "digest": notice.digest}
    entry = log.append(conn, "notice.added", body, time=time)
    row = {"id": next_id(conn, notices), **body, "document": notice.document, "entry": entry}
    conn.execute(insert(notices).values(row))
    return entry


def every(conn: Connection) -> list[Notice]:
    """All notices, in the order in which they were added."""
    documents = conn.execute(select(notices.c.document).order_by(notices.c.entry)).scalars()
    return [Notice.from_document(document) for document in documents]


def find(conn: Connection, name: str) -> Notice:
    """A notice by its name or digest. Raises NoticeUnknown (E412)."""
    for notice in every(conn):
        if name in {notice.notice, notice.digest}:
            return notice
    raise NoticeUnknown(
        "There is no such notice.",
        "`concordat consent notice list` shows them, `concordat consent notice add` adds one.",
    )
