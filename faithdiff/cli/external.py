"""External methods, and the contract that every method keeps."""

from __future__ import annotations

from typing import Annotated

import typer

from faithdiff.cli.app import (
    MINI,
    Config,
    Seed,
    baseline,
    method_app,
)
from faithdiff.methods.method import Study


@baseline.command(
    "prepare", epilog="Example: faithdiff baseline prepare diffbir --config config/released.yaml"
)
def baseline_prepare(
    name: Annotated[str, typer.Argument(help="A baseline of the profile.")], config: Config = MINI
) -> None:
    """Clone the pinned code of a baseline and make its environment; uses the network."""
    from faithdiff.methods.external.prepare import prepare as run

    print(run(Study.load(config), name), end="")


@baseline.command(
    "check", epilog="Example: faithdiff baseline check seesr --config config/released.yaml"
)
def baseline_check(
    name: Annotated[str, typer.Argument(help="A baseline of the profile.")], config: Config = MINI
) -> None:
    """List what is missing for a run: environment, weights, GPU memory, accepted licence."""
    from faithdiff.methods.external.prepare import check

    print(check(Study.load(config), name), end="")


@method_app.command("check", epilog="Example: faithdiff method check mymethod")
def method_check(
    name: Annotated[str, typer.Argument(help="A method of the profile.")],
    config: Config = MINI,
    seed: Seed = 0,
    size: Annotated[int, typer.Option(min=8, help="Side of the test images, LQ pixels.")] = 24,
) -> None:
    """Run the contract test-suite on a method: shape, range, names, determinism, resume, refusals.

    Exit code 0: it keeps the contract, 1: it does not, 2: it cannot run yet.
    """
    from faithdiff.restore.contract import check_method, kept, table

    findings = check_method(Study.load(config), name, seed, size)
    print(table(name, findings), end="")
    raise typer.Exit(0 if kept(findings) else 1)
