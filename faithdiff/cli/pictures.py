"""Your own pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from faithdiff.cli.app import (
    app,
)


@app.command(
    epilog="Example: faithdiff restore --checkpoint checkpoints/mini/faithdiff/seed0 "
    "holiday.jpg scans/ --output restored-holiday"
)
def restore(
    inputs: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    checkpoint: Annotated[Path, typer.Option(help="Folder that `faithdiff train` wrote.")],
    output: Annotated[Path, typer.Option(help="Folder for the restored images (PNG).")],
    caption: Annotated[str, typer.Option(help="What the pictures show.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps.")] = None,
    guidance: Annotated[float | None, typer.Option(min=1, help="Guidance scale.")] = None,
) -> None:
    """Restore your own pictures, whole and of any size, with a trained checkpoint."""
    from faithdiff.restore.pictures import restore_pictures

    changes = {"steps": steps, "guidance_scale": guidance}
    changes = {key: value for key, value in changes.items() if value is not None}
    restore_pictures(checkpoint, inputs, output, caption, seed, changes)
