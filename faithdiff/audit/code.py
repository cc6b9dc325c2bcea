"""Which code a result hangs on: the import closures of the workflow's rules, at a revision.

Rules and their modules are those of the table of that revision; closures and digests are those of
:mod:`faithdiff.study.provenance`, computed on the files of a commit instead of the disk.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from faithdiff.audit.git import Commit, Git
from faithdiff.study import rules
from faithdiff.study.provenance import PACKAGES, imported, stripped
from faithdiff.study.rules import RULES, Rule, read_rules

TABLE = f"{rules.__name__.replace('.', '/')}.py"
Methods = Mapping[str, Mapping[str, str]]  # rule -> method -> module


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
        methods: Module of each method by its name, for each rule whose code depends on it; a rule
            whose table asks for one and that is not named here ran for none.
    """
    before, after = (_read(git, commit) for commit in (old, new))
    closures: dict[tuple[str, str], set[str]] = {}
    # What either table names: a rule, or a module of it, may be new or gone.
    for code, table in (before, after):
        for key, modules in _by_method(table, methods).items():
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


def _read(git: Git, commit: str) -> tuple[Code, tuple[Rule, ...]]:
    """The modules of a commit and its table of rules."""
    files = git.read_all(commit, *PACKAGES)
    code = Code({path: content for path, content in files.items() if path.endswith(".py")})
    # Before there was a table, the workflow named modules in the middle of Snakemake's syntax. To
    # guess them from there is worse than today's: a module that the commit lacks is left out of
    # its closure, and counts as changed where the other commit has it.
    source = code.sources.get(TABLE)
    return code, (read_rules(source) if source is not None else None) or RULES


def _by_method(table: Iterable[Rule], methods: Methods) -> dict[tuple[str, str], set[str]]:
    """The modules that each rule names, for each method where they depend on it."""
    found: dict[tuple[str, str], set[str]] = {}
    for rule in table:
        if not rule.by_method:
            found[rule.name, ""] = {*rule.modules}
        for name, module in methods.get(rule.name, {}).items() if rule.by_method else ():
            found[rule.name, name] = {*rule.modules, module}
    return found
