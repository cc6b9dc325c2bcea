"""Your own pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from faithdiff.cli.app import (
    app,
)
from faithdiff.errors import UserError

Tile = Annotated[
    str | None,
    typer.Option(metavar="N|auto", help="Tiles of the UNet, latent pixels, half overlapping."),
]
VaeTile = Annotated[
    str | None,
    typer.Option(metavar="N|auto", help="Tiles of the VAE, pixels; 0: whole images. [auto]"),
]


@app.command(
    epilog="Example: faithdiff restore --checkpoint checkpoints/mini/faithdiff/seed0 "
    "holiday.jpg scans/ --output restored-holiday"
)
def restore(
    inputs: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    checkpoint: Annotated[Path, typer.Option(help="Folder that `faithdiff train` wrote.")],
    output: Annotated[Path, typer.Option(help="Folder for the restored images (PNG).")],
    scale: Annotated[
        Literal["1", "2", "4", "8", "16"] | None,
        typer.Option(help="Times larger; 8 and 16 with --progressive. Default: as trained."),
    ] = None,
    progressive: Annotated[
        bool, typer.Option("--progressive", help="Enlarge in several passes of two.")
    ] = False,
    caption: Annotated[
        str,
        typer.Option(
            metavar="TEXT|file|llava",
            help="What the pictures show; file: as <picture>.txt, .json or captions.csv say; "
            "llava: as LLaVA says.",
        ),
    ] = "",
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Sampling steps.")] = None,
    guidance: Annotated[float | None, typer.Option(min=1, help="Guidance scale.")] = None,
    start_point: Annotated[
        Literal["noise", "lq"] | None, typer.Option(help="Start from noise, or the noised picture.")
    ] = None,
    color_fix: Annotated[
        Literal["none", "adain", "wavelet"] | None,
        typer.Option(help="How the picture's colours are kept."),
    ] = None,
    tile: Tile = None,
    vae_tile: VaeTile = None,
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"] | None, typer.Option(help="Precision of the networks.")
    ] = None,
    offload: Annotated[
        bool,
        typer.Option("--offload", help="Keep each network on the GPU only while it computes."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the noise.")] = 0,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Write each picture beside its result, too.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace results of another checkpoint or settings."),
    ] = False,
) -> None:
    """Restore your own pictures, whole and of any size, with a trained checkpoint.

    Settings that you leave out are those that the checkpoint was made for.
    """
    changes = {
        "steps": steps,
        "guidance_scale": guidance,
        "start_point": start_point,
        "color_fix": color_fix,
        "precision": precision,
        **_tile("--tile", tile),
        "vae_tile": _number_or_auto("--vae-tile", vae_tile, (0, 64)),
    }
    from faithdiff.restore.choices import Choices
    from faithdiff.restore.pictures import restore_pictures

    choices = Choices(
        caption=caption,
        seed=seed,
        scale=int(scale) if scale else None,
        progressive=progressive,
        offload=offload,
        side_by_side=side_by_side,
        changes={key: value for key, value in changes.items() if value is not None},
        overwrite=overwrite,
    )
    restore_pictures(checkpoint, inputs, output, choices)


def _tile(option: str, given: str | None) -> dict[str, int | str | None]:
    size = _number_or_auto(option, given, (8,))
    stride = size // 2 if isinstance(size, int) else size
    return {"tile": size, "tile_stride": stride}


def _number_or_auto(option: str, given: str | None, least: tuple[int, ...]) -> int | str | None:
    """A number as it was typed, or ``auto``.

    Args:
        least: Numbers below the last of them are refused, but for those before it.
    """
    if given is None or given == "auto":
        return given
    number = int(given) if given.isdecimal() else -1
    if number < least[-1] and number not in least:
        known = " or ".join(str(each) for each in least)
        raise UserError(f"{option} {given}: give {known} or more, or auto")
    return number
