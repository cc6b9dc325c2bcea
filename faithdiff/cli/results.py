"""Results: tables, explanations, comparisons and checks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from faithdiff.cli.app import (
    MINI,
    Config,
    ReportFormat,
    TableFormat,
    app,
    one_of,
    say,
)
from faithdiff.errors import UserError
from faithdiff.methods.method import Study


@app.command(epilog="Example: faithdiff tables")
def tables(config: Config = MINI) -> None:
    """Render the tables from scores.csv: Markdown, LaTeX, CSV."""
    from faithdiff.report.tables import write_tables

    study = Study.load(config)
    say(write_tables(study.profile, study.layout))


@app.command(epilog="Example: faithdiff table main --format latex --published")
def table(
    name: Annotated[str, typer.Argument(help="main, realworld, ablation, cost or curve-<name>.")],
    form: Annotated[TableFormat, typer.Option("--format", help="Output format.")] = "markdown",
    published: Annotated[
        bool, typer.Option("--published", help="Published, ours and difference side by side.")
    ] = False,
    protocol: Annotated[
        str, typer.Option(help="Definition of the metrics; default: the profile's.")
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option(help="File to write instead of printing; .cells.json maps cells to rows."),
    ] = None,
    config: Config = MINI,
) -> None:
    """Print a table in the layout of the paper, with n, protocol and commit in its caption."""
    from faithdiff.audit.command import deliver
    from faithdiff.report.printed import print_table

    study = Study.load(config)
    if protocol:
        one_of(protocol, study.profile.score.protocols, "--protocol")
    printed = print_table(name, study.profile, study.layout, form, published, protocol)
    cells = output.with_suffix(".cells.json") if output is not None else None
    if output is not None and output.exists() and cells is not None and not cells.exists():
        raise UserError(
            f"{output}: is there already, and no {cells.name} beside it says that this command "
            "wrote it; give another --output, or remove it"
        )
    deliver(printed.text, output, lambda said: print(said, end=""))
    if cells is not None:
        deliver(printed.cells, cells, print)


@app.command(epilog="Example: faithdiff figures")
def figures(config: Config = MINI) -> None:
    """Render the figures: PNG and PDF."""
    from faithdiff.report.figures import write_figures

    study = Study.load(config)
    say(write_figures(study))


@app.command(epilog="Example: faithdiff claims")
def claims(
    config: Config = MINI,
    file: Annotated[Path, typer.Option("--claims", help="The claims.")] = Path(
        "config/claims.yaml"
    ),
) -> None:
    """Test the paper's claims on scores.csv and write one verdict for each."""
    from faithdiff.claims.command import write_claims
    from faithdiff.claims.render import counts

    study = Study.load(config)
    report, files = write_claims(study.profile, study.layout, file)
    say(files)
    for verdict, count in counts(report).items():
        print(f"{count:4d} {verdict}")


@app.command(epilog="Example: faithdiff manifest")
def manifest(config: Config = MINI) -> None:
    """Write results/<profile>/manifest.json: where the results come from."""
    from faithdiff.report.manifest import write_manifest

    write_manifest(Study.load(config))


@app.command(epilog="Example: faithdiff report")
def report(config: Config = MINI) -> None:
    """Write the report page, results/<profile>/report/index.html."""
    from faithdiff.page.build import write_page

    say([write_page(Study.load(config), Path())])


@app.command(epilog="Example: faithdiff deviations > docs/deviations.md")
def deviations(
    config: Config = MINI,
    paper: Annotated[Path, typer.Option(help="Profile with the published settings.")] = Path(
        "config/paper.yaml"
    ),
) -> None:
    """Print how a profile's settings differ from the published ones, and why."""
    from faithdiff.report.deviations import deviation_table

    print(deviation_table(config, paper), end="")


@app.command(epilog="Example: faithdiff explain main FaithDiff PSNR II Photos")
def explain(
    table: Annotated[str, typer.Argument(help="main, realworld, ablation, cost or curve-<name>.")],
    words: Annotated[
        list[str], typer.Argument(help="Method, metric, then level and dataset, or the block.")
    ],
    profile: Annotated[str, typer.Option(help="Profile of the results.")] = "mini",
    revision: Annotated[str, typer.Option(help="Commit, tag, branch or folder.")] = ".",
    form: Annotated[ReportFormat, typer.Option("--format", help="Output format.")] = "terminal",
) -> None:
    """Print everything behind a number of a table: rows, statistics, weights, data, commands."""
    from faithdiff.audit.command import run_explain

    print(run_explain(table, words, profile, revision, Path(), form), end="")


@app.command(epilog="Example: faithdiff audit HEAD~3 HEAD --metric PSNR --tolerance 0.05")
def audit(
    old: Annotated[
        str,
        typer.Argument(
            help="Commit, tag, branch or folder; default: the last commit that changed the results."
        ),
    ] = "",
    new: Annotated[str, typer.Argument(help="The same, or `.` for the working tree.")] = "",
    profile: Annotated[str, typer.Option(help="Profile of the results.")] = "mini",
    method: Annotated[list[str] | None, typer.Option(help="Name or label; repeatable.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Name or label; repeatable.")] = None,
    protocol: Annotated[
        list[str] | None, typer.Option(help="Repeatable; `all`; default: those of the tables.")
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(help="Accepted loss: 0.05, 1%, psnr=0.1, lpips=2%; repeatable."),
    ] = None,
    only_changed: Annotated[bool, typer.Option(help="Leave out unchanged cells.")] = False,
    history: Annotated[
        int | None,
        typer.Option(min=1, help="Instead: show the last N commits that changed the results."),
    ] = None,
    form: Annotated[
        ReportFormat, typer.Option("--format", help="Markdown fits a pull request comment.")
    ] = "terminal",
    output: Annotated[Path | None, typer.Option(help="File to write instead of printing.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder for crops or the plot.")] = None,
) -> None:
    """Compare the results of two revisions, without a checkout; nothing is run again.

    Exit code 0: no regression, 1: a regression beyond the tolerance, 2: cannot compare.
    """
    from dataclasses import replace

    from faithdiff.audit.command import check_output, deliver, run_audit, run_history
    from faithdiff.audit.report import Request
    from faithdiff.audit.tolerance import parse_tolerance

    check_output(output)
    request = Request(
        old,
        new,
        profile,
        tuple(method or ()),
        tuple(metric or ()),
        tuple(protocol or ()),
        parse_tolerance(tolerance or ()),
    )
    if history is not None:
        # One name is where the history ends.
        until = replace(request, old="", new=new or old)
        text, code = run_history(until, history, Path(), form, only_changed, pictures)
    else:
        text, code = run_audit(request, Path(), form, only_changed, pictures)
    deliver(text, output, lambda said: print(said, end=""))
    raise typer.Exit(code)


@app.command(epilog="Example: faithdiff verify --repair")
def verify(
    config: Config = MINI,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove corrupted files; snakemake makes them again.")
    ] = False,
) -> None:
    """Check every file of a study against the checksum recorded when it was made.

    It also reports pictures of your own folders that changed since the dataset was prepared.
    Exit code 0: no corrupted file is left; 1: a corrupted or changed file is still there.
    """
    from faithdiff.tracking.verify import repair as remove
    from faithdiff.tracking.verify import verify as run

    study = Study.load(config)
    report = run(study)
    for said in [*(finding.message for finding in report.findings), *report.skipped]:
        print(said)
    changed = sum(each.changed for each in report.findings)
    also = f", {changed} changed since prepared" if changed else ""
    print(f"{report.checked} checked, {len(report.findings) - changed} corrupted{also}")
    if repair:
        for path in remove(report):
            print(f"removed {path}")
        again = f"snakemake --cores all --config profile={study.profile.profile}"
        if report.findings:
            print(f"make it again with: {again}")
    left = [each for each in report.findings if not repair or not each.remove]
    raise typer.Exit(1 if left else 0)


@app.command(epilog="Example: faithdiff version-study")
def version_study(
    stamp: Annotated[Path, typer.Option(help="File that lists what was recorded.")],
    config: Config = MINI,
) -> None:
    """Record data, checkpoints, restorations and results of the run in dvc.lock."""
    from faithdiff.tracking.dvc import version_study as run

    run(Study.load(config).profile.profile, Path(), stamp)


@app.command(epilog="Example: faithdiff pull --remote shared")
def pull(
    stamp: Annotated[Path | None, typer.Option(help="File that lists what was pulled.")] = None,
    remote: Annotated[
        str | None, typer.Option(help="DVC remote; default: the default remote.")
    ] = None,
    config: Config = MINI,
) -> None:
    """Fetch the data of the committed results with DVC, so that nothing has to be run again."""
    from faithdiff.tracking.dvc import pull_study

    profile = Study.load(config).profile.profile
    pull_study(profile, Path(), stamp or Path("logs", profile, "version.json"), remote)
