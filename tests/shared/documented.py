"""The commands of README, docs/ and ``faithdiff --help``, as a reader would copy them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer

from faithdiff import cli
from shared import ROOT

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{p.name}" for p in sorted(ROOT.glob("docs/*.md"))),
]
TOOLS = ("faithdiff", "snakemake", "make", "dvc", "git", "pytest", "python")


@dataclass(frozen=True)
class Command:
    """One command line, and the page that has it."""

    page: str
    line: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line)


def in_blocks() -> list[Command]:
    """The commands of the code blocks of every page, and the examples of ``--help``."""
    found = [Command(page, line) for page in PAGES for line in _block_lines(page)]
    found += [Command("--help", line) for line in _examples(program())]
    return list({each.line: each for each in found}.values())


def in_text() -> list[Command]:
    """The commands inside of sentences."""
    return [
        Command(page, found)
        for page in PAGES
        for found in re.findall(r"`(faithdiff [^`]+)`", (ROOT / page).read_text(encoding="utf-8"))
    ]


def program() -> Any:
    """``faithdiff`` with its commands and their options."""
    return typer.main.get_command(cli.app)


def _block_lines(page: str) -> Iterator[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines() if kind in ("", "bash", "sh") else []
        for line in lines:
            plain = re.sub(r"\s+#.*", "", line.removeprefix("$ ")).strip()
            for each in plain.split(" && "):
                # A command, not the first column of what one prints.
                if re.match(rf"({'|'.join(TOOLS)}) (?! )", each):
                    yield re.sub(r" {2,}", " ", each)


def _examples(command: Any) -> Iterator[str]:
    for line in (command.epilog or "").splitlines():
        if line.startswith("Example: "):
            yield line.removeprefix("Example: ").partition(" > ")[0]
    for below in getattr(command, "commands", {}).values():
        yield from _examples(below)
