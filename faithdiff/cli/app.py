"""The application, and the options and helpers of all groups of commands.

Each module beside this one is a group and a section of ``faithdiff --help``, named by its first
line. Heavy imports happen inside the command that needs them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import typer
from typer.core import TyperGroup

from faithdiff.errors import UserError
from faithdiff.methods.method import Study
from faithdiff.study.gpus import lease

SECTIONS = ("study", "results", "models", "pictures", "external")  # modules beside this one


class Sections(TyperGroup):
    """Lists commands by the module that defines them, a section each."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; refuse words of its line that would be taken for something else.

        Raises:
            UserError: Names the word, and how to write it.
        """
        name, command, words = super().resolve_command(ctx, args)
        _check_words(command, words)
        return name, command, words

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each module; a group of commands is listed where its commands are."""
        rows: dict[str, list[tuple[str, str]]] = {name: [] for name in SECTIONS}
        for name in self.list_commands(ctx):
            command: Any = self.commands[name]
            inside = command if command.callback else next(iter(command.commands.values()))
            module = inside.callback.__module__.rpartition(".")[2]
            rows[module].append((name, command.get_short_help_str(80)))
        for section, listed in rows.items():
            title = str(sys.modules[f"faithdiff.cli.{section}"].__doc__).splitlines()[0]
            with formatter.section(title.rstrip(".")):
                formatter.write_dl(listed)


def _check_words(command: Any, words: list[str]) -> None:
    hints = get_type_hints(command.callback) if command.callback else {}
    options = [param for param in command.params if param.param_type_name == "option"]
    paths = {
        flag
        for each in options
        if Path in (hint := hints.get(each.name), *get_args(hint))
        for flag in each.opts
    }
    # What may be empty: `--caption ""`.
    texts = {flag for each in options if not each.is_flag for flag in each.opts} - paths
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        if word == "--":
            break
        _check_profile(command, word, after)
        if word.startswith("-") and Path(word).exists():
            raise UserError(f"{word}: is taken for an option; the file of this name is ./{word}")
        # `Path("")` is the current folder: `--output "$OUT"` would write there without OUT.
        if (not word and before not in texts) or word in {f"{flag}=" for flag in paths}:
            where = word[:-1] or (before if before in paths else command.name)
            raise UserError(
                f"{where}: has an empty word, as of a shell variable without a value; the current "
                "folder is called ."
            )


def _check_profile(command: Any, word: str, after: str) -> None:
    """Refuse the option by which other commands take a profile, and say that of this command."""
    flags = {flag for each in command.params for flag in each.opts}
    option, equals, value = word.partition("=")
    # Its name, of whatever else means a profile: config/lab.yaml, or profile=lab of snakemake.
    name = Path((value if equals else after).removeprefix("profile=")).stem
    name = name if re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) else "mini"
    profile, config = f"--profile {name}", f"--config config/{name}.yaml"
    way = {"--config": profile, "-c": profile, "--profile": config}.get(option)
    if way and option not in flags and way.split()[0] in flags:
        raise UserError(f"{option}: is no option of faithdiff {command.name}; give {way}")


app = typer.Typer(
    name="faithdiff",
    cls=Sections,
    help="The FaithDiff reproduction suite: each step of the study, and restoration of your own "
    "pictures. `snakemake --cores all` runs the whole study.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

baseline = typer.Typer(
    help="External methods: official code, and commands of your own.",
    epilog="Example: faithdiff baseline check diffbir --config config/released.yaml",
    no_args_is_help=True,
)
method_app = typer.Typer(
    help="The contract that every method keeps, yours included (docs/add-a-method.md).",
    epilog="Example: faithdiff method check bicubic",
    no_args_is_help=True,
)
app.add_typer(baseline, name="baseline")
app.add_typer(method_app, name="method")

Config = Annotated[Path, typer.Option("--config", "-c", help="Profile to read.")]
Method = Annotated[str, typer.Option(help="A key of `variants` or `baselines` in the profile.")]
Seed = Annotated[int, typer.Option(min=0, help="Repetition of the training.")]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", metavar="K/N", help="Work on shard K of N; without it, collect all."),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="MINUTES",
        envvar="FAITHDIFF_TIME_LIMIT",  # the workflow's way: a limit is no part of a rule's command
        help="Save the state and stop before then, with exit code 75.",
    ),
]
MINI = Path("config/mini.yaml")
TableFormat = Literal["latex", "markdown", "csv", "html"]
ReportFormat = Literal["terminal", "markdown", "json", "html"]


def one_of(name: str, allowed: list[str], flag: str) -> str:
    """Return the name if it is allowed.

    Raises:
        UserError: Names the flag and what is allowed.
    """
    if name not in allowed:
        raise UserError(f"{flag}: {name!r} is not one of {', '.join(allowed)}")
    return name


def use_gpus(study: Study, count: int = 1) -> None:
    """Take GPUs for what follows, where the profile computes on them."""
    if study.profile.device == "cuda":
        lease(count)


def say(files: list[Path]) -> None:
    """Print the files that a command wrote."""
    for file in files:
        print(file)
