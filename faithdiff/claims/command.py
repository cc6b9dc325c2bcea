"""What the verb `claims` does: read, judge, write."""

from __future__ import annotations

from pathlib import Path

from faithdiff.claims.evaluate import ClaimsReport, evaluate
from faithdiff.claims.render import to_json, to_markdown
from faithdiff.claims.schema import CLAIMS, load_claims
from faithdiff.config import Profile
from faithdiff.errors import UserError
from faithdiff.report.scores import load_scores
from faithdiff.study.files import write_text_atomic
from faithdiff.study.layout import Layout
from faithdiff.study.manifest import Manifest
from faithdiff.study.restored import RestoredSet


def write_claims(
    profile: Profile, layout: Layout, file: Path = CLAIMS
) -> tuple[ClaimsReport, list[Path]]:
    """Judge the claims and write ``results/<profile>/claims.{json,md}``.

    Raises:
        UserError: Claims, scores or manifest cannot be read.
    """
    scores = load_scores(layout.results / "scores.csv", layout.profile)
    report = evaluate(load_claims(file), scores, profile, gpus_of_restorations(layout))
    texts = {"claims.json": to_json(report), "claims.md": to_markdown(report)}
    paths = [layout.results / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text_atomic(text, path)
    return report, paths


def gpus_of_restorations(layout: Layout) -> list[str]:
    """GPUs of the machines that restored, by the restored sets or, without them, the manifest.

    Not from ``manifest.json`` alone: it is written after the claims, whose hash it holds.
    """
    files = sorted(Path("restored", layout.profile).glob("*/seed*/*/*/manifest.json"))
    manifest = layout.results / "manifest.json"
    try:
        if files:
            # Of all its shards: where several machines made a set, any of them may have the GPU.
            machines = [made for file in files for made in RestoredSet.read(file).machines]
            return [gpu for machine in machines if machine for gpu in machine.gpus]
        return Manifest.read(manifest).gpus if manifest.is_file() else []
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error}); make it again") from None
