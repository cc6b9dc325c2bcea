"""Which code a result hangs on: the import closures of the workflow's rules, at a revision.

Rules name the modules they run in ``code_digest(...)`` of their `params`; closures and digests are
those of :mod:`faithdiff.provenance`, computed on the files of a commit instead of the disk.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from faithdiff.audit.git import Commit, Git
from faithdiff.provenance import PACKAGES, imported, stripped

WORKFLOW = "workflow"
# Rules after the scores: they print numbers and make none.
AFTER_SCORES = {"tables", "figures", "manifest", "version"}
_RULE = re.compile(r"(?m)^rule (\w+):\n((?:[ \t].*\n|\n)*)")
_DIGEST = re.compile(r"code_digest\(([^#]*?)\)(?:,|\n)", re.DOTALL)
_MODULE = re.compile(r'"([\w.]+)"')


@dataclass
class Code:
    """The modules of the suite at one revision, by their source."""

    sources: Mapping[str, bytes]  # path -> content
    _trees: dict[str, ast.Module | None] = field(default_factory=dict)
    _digests: dict[str, str] = field(default_factory=dict)

    def path(self, module: str) -> str | None:
        """The file of a module, None where the revision has none."""
        stem = module.replace(".", "/")
        files = (f"{stem}.py", f"{stem}/__init__.py")
        return next((file for file in files if file in self.sources), None)

    def closure(self, modules: Iterable[str]) -> set[str]:
        """Modules reachable from these; those that the revision lacks are left out."""
        found: set[str] = set()
        queue = list(modules)
        while queue:
            name = queue.pop()
            if name not in found and name.startswith(PACKAGES) and self.path(name):
                found.add(name)
                tree = self._tree(name)
                queue.extend(imported(tree) if tree is not None else ())
        return found

    def digest(self, module: str) -> str:
        """What a module does, as text without comments and docstrings; empty where it is not."""
        if module not in self._digests:
            self._digests[module] = self._digest(module)
        return self._digests[module]

    def _digest(self, module: str) -> str:
        path = self.path(module)
        tree = self._tree(module)
        if path is None:
            return ""
        return stripped(tree) if tree is not None else repr(self.sources[path])

    def _tree(self, module: str) -> ast.Module | None:
        """The syntax tree; None for a file that this Python cannot read."""
        if module not in self._trees:
            path = self.path(module)
            try:
                self._trees[module] = ast.parse(self.sources[path]) if path else None
            except SyntaxError:
                self._trees[module] = None
        return self._trees[module]


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


def code_change(git: Git, old: str, new: str, baselines: Mapping[str, str]) -> CodeChange:
    """Compare the code of every rule between two commits.

    Args:
        git: The repository.
        old: A commit, `new` likewise.
        baselines: Module of each baseline by its name, for rules whose code depends on it.
    """
    before, after = (_read(git, commit) for commit in (old, new))
    closures: dict[tuple[str, str], set[str]] = {}
    for code, rules in (before, after):
        for key, modules in _by_method(rules, baselines).items():
            closures.setdefault(key, set()).update(code.closure(modules))
    changed = {
        name
        for name in set().union(*closures.values())
        if before[0].digest(name) != after[0].digest(name)
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
    rules: Mapping[str, tuple[set[str], bool]], baselines: Mapping[str, str]
) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for rule, (modules, per_method) in rules.items():
        if per_method:
            found |= {(rule, name): modules | {module} for name, module in baselines.items()}
        else:
            found[rule, ""] = modules
    return found
