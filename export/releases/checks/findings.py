"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Findings:
    """Of one check.

    Attributes:
        faults: a sentence each; none where all is well.
        notes: what is not as it should be, and no fault of a file.
        records, files, lines: how many were checked.
        signed: how many records bear a signature.
    """

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    records: int = 0
    files: int = 0
    lines: int = 0
    signed: int = 0
