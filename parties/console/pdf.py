"""A register as PDF, for whoever files paper."""

import io
import json
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.pdfmetrics import registerFont
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from parties.console import words
from parties.console.originals import item

# One of the fonts that every reader of PDF has for Chinese; it has Latin letters, too.
_FONT = "STSong-Light"
registerFont(UnicodeCIDFont(_FONT))

_TEXT = ParagraphStyle("text", fontName=_FONT, fontSize=9, leading=12, wordWrap="CJK")
_HEAD = ParagraphStyle("head", parent=_TEXT, fontSize=14, leading=18, spaceAfter=4 * mm)
_PART = ParagraphStyle("part", parent=_TEXT, fontSize=11, leading=14, spaceBefore=4 * mm)
_GRID = TableStyle(
    [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 0), (-1, -1), 0.25, "#888888"),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
    ]
)


def register(data: bytes, language: str) -> bytes:
    """A register that was written as JSON: an entry after the other, item by item."""
    said = json.loads(data)

    def paragraph(text: Any, style: ParagraphStyle = _TEXT) -> Paragraph:
        return Paragraph(escape(str(text)), style)

    title = words.say(language, f"register.{said['register']}")
    as_of = words.say(language, "exports.as_of", name=said["institution"], time=said["as_of"])
    parts: list[Any] = [paragraph(title, _HEAD), paragraph(as_of)]
    if not said["entries"]:
        parts.append(paragraph(words.say(language, "exports.empty")))
    for entry in said["entries"]:
        (_, first), *items = entry.items()
        parts += [paragraph(item(language, first), _PART), Spacer(1, 2 * mm)]
        rows = [[*map(paragraph, _said(language, *one))] for one in items]
        parts.append(Table(rows, colWidths=[62 * mm, 112 * mm], style=_GRID))
    file = io.BytesIO()
    document = SimpleDocTemplate(
        file,
        pagesize=A4,
        title=title,
        author=said["institution"],
        leftMargin=18 * mm,
        rightMargin=18 * mm,
    )
    document.build(parts, onFirstPage=_number, onLaterPages=_number)
    return file.getvalue()


def _said(language: str, name: str, value: Any) -> tuple[str, str]:
    """An item and its value; what is missing is a list of items."""
    values = str(value).split("; ") if name == "missing" else [str(value)]
    return item(language, name), "; ".join(item(language, one) for one in values)


def _number(canvas: Any, document: Any) -> None:
    canvas.setFont(_FONT, 8)
    canvas.drawRightString(A4[0] - 18 * mm, 10 * mm, str(document.page))
