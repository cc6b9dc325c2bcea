"""What stands between a method and its run: made, or named."""

from __future__ import annotations

import json

from faithdiff.data.artifacts import Artifact
from faithdiff.errors import UserError
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.study.files import write_text_atomic


def prepare(study: Study, name: str) -> str:
    """Get code and environment of a method, and leave a note of what they are.

    Returns:
        What is still missing, for the person who waits.
    """
    method = find_method(study, name)
    found = method.prepare(study)
    write_text_atomic(json.dumps(found, indent=1) + "\n", study.layout.prepared(name))
    return _report(name, method.needs(study))


def check(study: Study, name: str) -> str:
    """Say that a method can start.

    Raises:
        UserError: It cannot; says all that is missing, each with the way to get it.
    """
    problems = find_method(study, name).needs(study)
    if problems:
        raise UserError(_report(name, problems).rstrip())
    return _report(name, problems)


def artifacts_of(study: Study, name: str) -> list[Artifact]:
    """The weights from outside that a method reads."""
    return find_method(study, name).artifacts()


def _report(name: str, problems: list[str]) -> str:
    if not problems:
        return f"{name}: ready\n"
    return f"{name}: not ready\n" + "".join(f"  - {problem}\n" for problem in problems)
