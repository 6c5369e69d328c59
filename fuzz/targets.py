"""Every target, by name."""

from fuzz import calls, documents, evidence, frames, kernels, notes, receipts, tables
from fuzz.target import Setup

TARGETS: dict[str, Setup] = {
    **frames.TARGETS,
    **kernels.TARGETS,
    **notes.TARGETS,
    **documents.TARGETS,
    **receipts.TARGETS,
    **tables.TARGETS,
    **calls.TARGETS,
    **evidence.TARGETS,
}
