"""The audit that the page shows: these results against those of the commit before them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from faithdiff.audit.report import Audit, Request, audit
from faithdiff.audit.sections import AuditSection, sections
from faithdiff.errors import UserError


class MovedImage(TypedDict):
    """An image of the explorer, and the method that restores it otherwise than before."""

    dataset: str
    level: str
    image: str
    method: str


@dataclass(frozen=True)
class Audited:
    """An audit as the page prints it, or why there is none.

    Attributes:
        movers: Images that moved most, for the explorer.
    """

    title: str
    reason: str = ""
    sections: Sequence[AuditSection] = ()
    movers: list[MovedImage] = field(default_factory=list)

    @staticmethod
    def source(png: bytes) -> str:
        """A picture as the address of itself."""
        return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def audited(profile: str, root: Path) -> Audited:
    """Audit the results of the working tree against the last other ones that were committed."""
    try:
        found = audit(Request(profile=profile), root)
        if found.old.scores.equals(found.new.scores):
            # Already committed: what changed is what that commit changed.
            before = f"{found.old.revision.name}~1"
            found = audit(Request(old=before, profile=profile), root)
    except UserError as error:
        return Audited("Against the results before", reason=str(error))
    title = f"{found.old.title} → {found.new.title}"
    return Audited(title, "", sections(found, only_changed=True), _movers(found))


def _movers(found: Audit) -> list[MovedImage]:
    return [
        {"dataset": m.dataset, "level": m.level, "image": m.image, "method": m.method}
        for m in found.movers
        if all(m.sha256)
    ]
