"""Which command makes a file of the study again, told from its place (see `layout`).

The command makes that file and those beside it, and nothing that depends on them: where the bytes
come out as before, snakemake has nothing to do afterwards. Commands are named here and not taken
from the table of rules: all that reads a file would import it, and an edit of the table would then
make the whole study again.
"""

from __future__ import annotations

from pathlib import Path

REAL = "real"  # as faithdiff.config has it, which would be a heavy import here


def command_for(file: Path) -> str:
    """The command that makes a file, or the folder of a checkpoint, again."""
    parts = _parts(file)
    (top, profile), rest = (*parts, "", "")[:2], parts[2:]
    verb, options = "", ""
    if top == "data" and rest:
        verb, options = _data(*rest)
    elif top == "checkpoints" and rest:
        verb, options = _checkpoint(*rest)
    elif top == "restored" and len(rest) > 1:
        verb, options = _restored(*rest)
    elif top == "results":
        verb, options = _RESULTS.get(rest[0] if rest else "", ""), ""
    if not verb:
        return f"snakemake --cores all --config profile={profile or 'mini'}"
    return f"faithdiff {verb} --config config/{profile}.yaml{options}"


_RESULTS = {"tables": "tables", "figures": "figures", "report": "report"} | {
    **dict.fromkeys(("scores.csv", "summary.json", "training.csv", "cost.csv"), "collect"),
    **dict.fromkeys(("claims.json", "claims.md"), "claims"),
    "manifest.json": "manifest",
}


def _parts(file: Path) -> tuple[str, ...]:
    here = Path.cwd()
    return (file.relative_to(here) if file.is_absolute() and here in file.parents else file).parts


def _data(dataset: str, *rest: str) -> tuple[str, str]:
    came_degraded = rest[1:2] == (REAL,) and rest[-1].endswith(".png")
    if rest[:1] == ("lq",) and len(rest) > 1 and not came_degraded:
        verb = "caption" if rest[-1].startswith("captions.csv") else "degrade"
        return verb, f" --dataset {dataset} --level {rest[1]}"
    if rest and rest[0].startswith("cache."):
        return "cache", ""
    return "prepare", f" --dataset {dataset}"


def _checkpoint(name: str, *rest: str) -> tuple[str, str]:
    if name == "prior":
        return "train-prior", ""
    seed = f" --seed {rest[0].removeprefix('seed')}" if rest else ""
    if name.startswith("stage1-"):
        return "pretrain", f" --recipe {name.removeprefix('stage1-')}{seed}"
    return "train", f" --method {name}{seed}"


def _restored(method: str, seed: str, *rest: str) -> tuple[str, str]:
    options = f" --method {method} --seed {seed.removeprefix('seed')}"
    first = rest[0] if rest else ""
    verb = {"scores.csv": "score", "heldout.csv": "heldout"}.get(
        first.removesuffix(".sha256"), "restore-sets"
    )
    return verb, options
