"""Why results changed: the differences that can explain it, and where in the run they enter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pandas as pd

from faithdiff.audit.code import ChangedRule, code_change
from faithdiff.audit.differences import Difference, manifest_differences, methods_of, reach
from faithdiff.audit.git import Commit, Git
from faithdiff.audit.results import Results
from faithdiff.study.rules import BY_NAME, RULES, makes_scores

VARIANTS = "variants"  # all of FaithDiff's, which run the same code
KINDS = ("data", "degradation", "weights", "config", "code", "packages", "hardware", "seeds")
VARIANT_MODULE = "faithdiff.train.variants"
T = TypeVar("T", int, tuple[int, int])


@dataclass(frozen=True)
class Why:
    """What can explain the change of the scores.

    Attributes:
        changed: Methods with a changed value.
        entry: Where the change enters the run, in sentences.
        differences: In the order of ``KINDS``; first those that can explain the change.
        commits: Commits between the two that touched the changed modules, newest first.
        unknown: What could not be compared, and why.
    """

    changed: tuple[str, ...]
    entry: tuple[str, ...]
    differences: tuple[Difference, ...]
    commits: tuple[Commit, ...]
    unknown: tuple[str, ...]
    kinds: tuple[str, ...] = field(default=KINDS)

    @property
    def explaining(self) -> list[Difference]:
        """Differences that can change a score of a method that did change."""
        return [each for each in self.differences if self.touches(each)]

    def touches(self, difference: Difference) -> bool:
        """Whether a difference can explain a change that there is."""
        reached = difference.methods is None or bool(difference.methods & set(self.changed))
        return difference.can_explain and reached and bool(self.changed)

    @property
    def statement(self) -> str:
        """The finding in one sentence."""
        kinds = [kind for kind in self.kinds if any(d.kind == kind for d in self.explaining)]
        if not self.changed:
            return "No value changed, so there is nothing to explain."
        rest = f" Not compared: {'; '.join(self.unknown)}." if self.unknown else ""
        if kinds:
            return f"Possible explanations: {', '.join(kinds)}.{rest}"
        same = [kind for kind in self.kinds if not any(u.startswith(kind) for u in self.unknown)]
        if not same:
            return f"Nothing that could explain it was compared.{rest}"
        listed = ", ".join(same[:-1]) + f" and {same[-1]}" if len(same) > 1 else same[0]
        return f"Nothing differs that can explain it: {listed} are the same.{rest}"


def explain_change(old: Results, new: Results, rows: pd.DataFrame, git: Git) -> Why:
    """Gather everything that differs behind two sets of scores.

    Args:
        old: One revision, `new` the other.
        rows: From :func:`faithdiff.audit.match.match_rows`.
        git: The repository whose history holds the code of both.
    """
    methods, entry = _entry(rows)
    # Everything that differs, before anything is judged: a reader may know better what matters.
    found = manifest_differences(old, new)
    unknown = list(_unknown(old, new))
    rules, commits, code_unknown = _code(old, new, git)
    unknown += code_unknown
    found += rules
    ordered = sorted(found, key=lambda each: KINDS.index(each.kind))
    why = Why(methods, entry, (), tuple(commits), tuple(unknown))
    return replace(why, differences=tuple(sorted(ordered, key=lambda d: not why.touches(d))))


def _entry(rows: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Methods that changed, and whether their pictures did or only the scoring of them."""
    both = rows[rows["side"] == "both"]
    # Two values that are both missing are equal, which NaN is not to itself.
    moved = (both["value_old"] != both["value_new"]) & ~(
        both["value_old"].isna() & both["value_new"].isna()
    )
    picture = both["restored_sha256_old"] != both["restored_sha256_new"]
    # A restored image that is another file counts, even where every score of it came out equal.
    changed = both[moved | picture]
    methods = tuple(sorted(changed["method"].astype(str).unique()))
    return methods, tuple(_sentences(both, moved, picture))


def _sentences(both: pd.DataFrame, moved: pd.Series, picture: pd.Series) -> Iterator[str]:
    # Each image once: it has a row for every metric and protocol.
    image = ["method", "seed", "dataset", "level", "image"]
    seen = both["restored_sha256_new"] != ""
    total = both.loc[seen, image].drop_duplicates()["method"].astype(str).value_counts().to_dict()
    pictures = both.loc[seen & picture, image].drop_duplicates()
    remade = pictures["method"].astype(str).value_counts().to_dict()
    rescored = both.loc[seen & moved & ~picture, "method"].astype(str).value_counts().to_dict()
    for (count, of), names in _alike({str(name): (n, total[name]) for name, n in remade.items()}):
        yield (
            f"{names}: {count} of {of} restored images{_each(names)} are other files, so the "
            "change enters before scoring."
        )
    for count, names in _alike({str(name): n for name, n in rescored.items()}):
        yield (
            f"{names}: {count} values{_each(names)} changed although the restored image is the "
            "same file, so scoring changed."
        )


def _alike(values: dict[str, T]) -> Iterator[tuple[T, str]]:
    """Values with the names that share them."""
    names: dict[T, list[str]] = {}
    for name in sorted(values):
        names.setdefault(values[name], []).append(str(name))
    for value, sharing in names.items():
        yield value, ", ".join(sharing)


def _each(names: str) -> str:
    return " each" if "," in names else ""


def _unknown(old: Results, new: Results) -> Iterator[str]:
    for name, side in (("OLD", old), ("NEW", new)):
        if not side.manifest:
            for kind in KINDS:
                if kind != "code":
                    yield f"{kind} ({name} has no manifest.json)"
        elif side.stale:
            yield f"everything ({name}: manifest.json describes another scores.csv)"


def _code(old: Results, new: Results, git: Git) -> tuple[list[Difference], list[Commit], list[str]]:
    commits, unknown = [], []
    # What cannot be compared is told apart from what is the same: silence would read as equal.
    for name, side in (("OLD", old), ("NEW", new)):
        sha = side.made.commit
        if not sha:
            unknown.append(f"code ({name} does not say which commit made it)")
        elif git.find(sha) is None:
            unknown.append(f"code ({name} was made at {sha[:9]}, which this clone does not have)")
        else:
            commits.append(sha)
        if side.made.dirty:
            unknown.append(f"code ({name} was made with uncommitted changes on {str(sha)[:9]})")
    # The same commit on both sides: equal code, unless a side had changes that git never saw.
    if len(set(commits)) < 2:
        return [], [], unknown
    changed = code_change(git, commits[0], commits[1], _methods(old, new))
    rules = [_rule(rule, commits, old, new) for rule in changed.rules]
    return rules, changed.commits, unknown


def _methods(*sides: Results) -> dict[str, dict[str, str]]:
    """Which module each method adds to the rules that run methods."""
    sharded = any(side.config.shards > 1 for side in sides)
    found: dict[str, dict[str, str]] = {}
    for rule in RULES:
        # Without shards such a rule never ran, and with them it runs the code of the whole rule.
        if rule.by_method and (sharded or not rule.name.endswith("_shard")):
            found[rule.name] = _modules(methods_of(rule, *sides), sides)
    return found


def _modules(methods: Iterable[str], sides: Iterable[Results]) -> dict[str, str]:
    """The module of each method; all variants have one, and are named together."""
    found: dict[str, str] = {}
    variants, names = {*_variants(sides)}, {*methods}
    if names & variants:
        found[VARIANTS] = VARIANT_MODULE
    for side in sides:
        for name, baseline in side.config.baselines.items():
            if name in names:
                found[name] = baseline.implementation.partition(":")[0]
    return found


def _rule(rule: ChangedRule, commits: list[str], old: Results, new: Results) -> Difference:
    # A shipped prior was trained by nobody here, so the code that trains one made nothing.
    silent = not makes_scores(rule.rule) or (rule.rule == "train_prior" and _shipped(old, new))
    return Difference(
        "code",
        f"rule {rule.name}",
        commits[0][:9],
        commits[1][:9],
        _runs(rule, old, new),
        not silent,
        f"{', '.join(rule.modules)}" + ("; affects no score" if silent else ""),
    )


def _runs(rule: ChangedRule, *sides: Results) -> frozenset[str] | None:
    """Methods that a rule runs for; None for all."""
    known = BY_NAME.get(rule.rule)
    if known is None:  # an older or newer table has rules that this one has not
        return None
    if rule.method == VARIANTS:
        names = frozenset(_variants(sides))
    elif rule.method:
        names = frozenset([rule.method])
    elif known.methods == "all":
        return None
    else:
        names = methods_of(known, *sides)
    return reach(known, names, *sides)


def _variants(sides: Iterable[Results]) -> list[str]:
    return [name for side in sides for name in side.config.variants]


def _shipped(*sides: Results) -> bool:
    return all(side.config.prior.source == "shipped" for side in sides)
