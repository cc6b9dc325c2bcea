"""``claims.json``: what it holds, written by :mod:`render` and read by the report page."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationError

from faithdiff.claims.measure import Role
from faithdiff.claims.schema import Kind
from faithdiff.claims.verdict import Verdict
from faithdiff.errors import UserError
from faithdiff.study.files import left_by_git
from faithdiff.study.plain import JsonObject
from faithdiff.study.records import Record


def _of_today(verdict: object) -> object:
    """Results of before 2026-12 say proxy where we say surrogate."""
    return verdict.replace("by a proxy", "by a surrogate") if isinstance(verdict, str) else verdict


RecordedVerdict = Annotated[Verdict, BeforeValidator(_of_today)]


class ContrastRecord(Record):
    """The verdict of one contrast, and the updates of the trainings behind it, by label."""

    contrast: str
    verdict: RecordedVerdict
    updates: dict[str, int | None]


class MeasuredRecord(Record):
    """One metric of one contrast; the fields are in the order in which the file has them.

    None where there is no number: JSON has no NaN.
    """

    contrast: str
    metric: str
    protocol: str
    label: str
    role: Role
    speaks_for: tuple[str, ...]
    printed: str | None
    window: tuple[float | None, float | None]
    matters: float | None
    budgets: str = ""
    n: int
    seeds: tuple[int, ...]
    value: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    per_seed: tuple[float, ...]
    reason: str
    text: str
    verdict: RecordedVerdict | None


class ClaimRecord(Record):
    """A claim as ``config/claims.yaml`` states it, with all that was found."""

    id: str
    kind: Kind
    statement: str
    source: JsonObject
    protocol: str
    data: JsonObject
    expect: list[JsonObject]
    verdict: RecordedVerdict
    because: tuple[str, ...]
    settle: tuple[str, ...]
    second: RecordedVerdict | None = None
    contrasts: list[ContrastRecord] = Field(default_factory=list)
    measured: list[MeasuredRecord]


class ClaimsRecord(Record):
    """The whole file; `verdicts` says how many claims have each verdict."""

    profile: str
    scores: str
    confidence: float
    alpha: float
    tests: int
    unmeasured: str = ""
    verdicts: dict[RecordedVerdict, int]
    claims: list[ClaimRecord]


def read_claims(content: bytes, name: str) -> ClaimsRecord:
    """Read the bytes of a ``claims.json``.

    Args:
        name: What an error calls the file.

    Raises:
        UserError: It is not what `faithdiff claims` wrote.
    """
    try:
        return ClaimsRecord.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        what = ": ".join([*map(str, first["loc"]), first["msg"]])
        said = left_by_git(content, name) or (
            f"is corrupted, or was edited ({what}); write it again with: faithdiff claims"
        )
        raise UserError(f"{name}: {said}") from None
