"""What the verb `claims` does: read, judge, write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from faithdiff.claims.evaluate import Report, evaluate
from faithdiff.claims.render import to_json, to_markdown
from faithdiff.claims.schema import CLAIMS, load_claims
from faithdiff.config import Profile
from faithdiff.errors import UserError
from faithdiff.report.scores import load_scores
from faithdiff.study.files import write_text_atomic
from faithdiff.study.layout import Layout


def write_claims(
    profile: Profile, layout: Layout, file: Path = CLAIMS
) -> tuple[Report, list[Path]]:
    """Judge the claims and write ``results/<profile>/claims.{json,md}``.

    Raises:
        UserError: Claims, scores or manifest cannot be read.
    """
    scores = load_scores(layout.results / "scores.csv")
    report = evaluate(load_claims(file), scores, profile, _machines(layout))
    texts = {"claims.json": to_json(report), "claims.md": to_markdown(report)}
    paths = [layout.results / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text_atomic(text, path)
    return report, paths


def _machines(layout: Layout) -> dict[str, Any]:
    """Machines that restored, from the manifests of the restorations or of the results.

    Not from ``manifest.json`` alone: it is written after the claims, whose hash it holds.
    """
    made: list[dict[str, Any]] = []
    for file in sorted(Path("restored", layout.profile).glob("*/seed*/*/*/manifest.json")):
        made.append({"hardware": _read(file).get("hardware")})
    return {"machines": made} if made else _read(layout.results / "manifest.json")


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}); make it again") from None
    return content if isinstance(content, dict) else {}
