"""Which code a result hangs on: the import closures of the workflow's rules, at a revision.

Rules name the modules they run in ``code_digest(...)`` of their `params`; closures and digests are
those of :mod:`faithdiff.study.provenance`, computed on the files of a commit instead of the disk.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from faithdiff.audit.git import Commit, Git
from faithdiff.study.provenance import PACKAGES, imported, stripped

WORKFLOW = "workflow"
# Rules after the scores: they print numbers and make none.
AFTER_SCORES = {"tables", "figures", "claims", "manifest", "report", "version"}
Methods = Mapping[str, Mapping[str, str]]  # rule -> method -> module
_RULE = re.compile(r"(?m)^rule (\w+):\n((?:[ \t].*\n|\n)*)")
_DIGEST = re.compile(r"code_digest\(([^#]*?)\)(?:,|\n)", re.DOTALL)
_MODULE = re.compile(r'"([\w.]+)"')


@dataclass(frozen=True)
class Code:
    """The modules of the suite at one revision, by their source."""

    sources: Mapping[str, bytes]  # path -> content

    def path(self, module: str) -> str | None:
        """The file of a module, None where the revision has none."""
        stem = module.replace(".", "/")
        files = (f"{stem}.py", f"{stem}/__init__.py")
        return next((file for file in files if file in self.sources), None)

    def source(self, module: str) -> bytes | None:
        """The content of a module, None where the revision has none."""
        path = self.path(module)
        return self.sources[path] if path else None

    def closure(self, modules: Iterable[str]) -> set[str]:
        """Modules reachable from these; those that the revision lacks are left out."""
        found: set[str] = set()
        queue = list(modules)
        while queue:
            name = queue.pop()
            source = self.source(name) if name.startswith(PACKAGES) else None
            if source is not None and name not in found:
                found.add(name)
                queue.extend(_imports(source))
        return found


def same_code(before: bytes | None, after: bytes | None) -> bool:
    """Whether two sources do the same: equal but for comments, docstrings and layout."""
    if before == after:
        return True
    if before is None or after is None:
        return False
    trees = _parsed(before), _parsed(after)
    return None not in trees and len({stripped(tree) for tree in trees if tree}) == 1


# By content: most files are equal in both revisions, and are then read once.
@functools.cache
def _imports(source: bytes) -> frozenset[str]:
    tree = _parsed(source)
    return frozenset(imported(tree)) if tree is not None else frozenset()


def _parsed(source: bytes) -> ast.Module | None:
    """The syntax tree; None for a file that this Python cannot read."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return None


@dataclass(frozen=True)
class ChangedRule:
    """A rule whose code does something else now."""

    rule: str
    modules: tuple[str, ...]
    method: str = ""  # where the rule runs other code for each method

    @property
    def name(self) -> str:
        """Rule, and method where it depends on it."""
        return f"{self.rule} ({self.method})" if self.method else self.rule


@dataclass(frozen=True)
class CodeChange:
    """What changed in the code between two commits, and which commits did it."""

    rules: list[ChangedRule]
    commits: list[Commit]


def code_change(git: Git, old: str, new: str, methods: Methods) -> CodeChange:
    """Compare the code of every rule between two commits.

    Args:
        git: The repository.
        old: A commit, `new` likewise.
        methods: Module of each method by its name, for each rule whose code depends on it.
    """
    before, after = (_read(git, commit) for commit in (old, new))
    closures: dict[tuple[str, str], set[str]] = {}
    for code, rules in (before, after):
        for key, modules in _by_method(rules, methods).items():
            closures.setdefault(key, set()).update(code.closure(modules))
    changed = {
        name
        for name in set().union(*closures.values())
        if not same_code(before[0].source(name), after[0].source(name))
    }
    found = [
        ChangedRule(rule, tuple(sorted(modules & changed)), method)
        for (rule, method), modules in closures.items()
        if modules & changed
    ]
    files = {path for code, _ in (before, after) for name in changed if (path := code.path(name))}
    commits = git.log(f"{old}..{new}", paths=sorted(files)) if files else []
    return CodeChange(found, commits)


def _read(git: Git, commit: str) -> tuple[Code, dict[str, tuple[set[str], bool]]]:
    files = git.read_all(commit, *PACKAGES, WORKFLOW)
    text = "\n".join(
        content.decode(errors="replace")
        for path, content in sorted(files.items())
        if path.endswith(".smk")
    )
    return Code({path: c for path, c in files.items() if path.endswith(".py")}), rule_modules(text)


def rule_modules(text: str) -> dict[str, tuple[set[str], bool]]:
    """Read from the workflow which modules each rule runs: ``rule -> (modules, by method)``."""
    found = {}
    for rule, body in _RULE.findall(text + "\n"):
        if match := _DIGEST.search(body):
            inside = match.group(1)
            found[rule] = set(_MODULE.findall(inside)), "method_module(" in inside
    return found


def _by_method(
    rules: Mapping[str, tuple[set[str], bool]], methods: Methods
) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for rule, (modules, per_method) in rules.items():
        if per_method:
            chosen = methods.get(rule, {})
            found |= {(rule, name): modules | {module} for name, module in chosen.items()}
        else:
            found[rule, ""] = modules
    return found
