"""Weights: fetch, import, export, the small prior."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from faithdiff.cli.app import (
    MINI,
    Config,
    app,
    one_of,
)
from faithdiff.config import Dataset, PackageSet, parts_of
from faithdiff.errors import UserError
from faithdiff.methods.method import Study


@app.command(epilog="Example: faithdiff fetch --profile released")
def fetch(
    weights: Annotated[
        list[str] | None, typer.Option(help="Metrics whose weights to fetch; default: all.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Fetch all models and image sets of this profile.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Fetch the weights of this official baseline.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Fetch the photographs of Debian packages in this dataset.")
    ] = None,
    config: Config = MINI,
) -> None:
    """Download metric weights, or all that a profile, a baseline or a dataset needs.

    It resumes, verifies and unpacks, and lists what you must fetch by hand and where to put it.
    Only this command and `faithdiff baseline prepare` use the network.
    """
    from faithdiff.data.artifacts import ARTIFACTS_FILE, load_artifacts, needed_by
    from faithdiff.data.fetch import fetch_all
    from faithdiff.score.protocols import load_protocols, weights_needed

    if dataset is not None and (weights or baseline):
        raise UserError("--dataset fetches photographs alone; give no --weights and no --baseline")
    if profile is not None and weights:
        raise UserError("--profile fetches everything, --weights a part of it; give one of them")
    if profile is not None:
        config = Path("config", f"{profile}.yaml")
    study = Study.load(config)
    read = study.profile
    if dataset is not None:
        chosen = read.datasets[one_of(dataset, list(read.datasets), "--dataset")]
        if not _fetch_photographs([chosen]):
            print(f"{dataset}: has no photographs of Debian packages, nothing to fetch")
        return
    if baseline is not None:
        from faithdiff.methods.external.prepare import artifacts_of

        wanted = artifacts_of(study, baseline)
    elif profile is None:
        protocols = load_protocols(read.score.protocols_file)
        for metric in weights or ():
            for name in read.score.protocols:
                one_of(metric, list(protocols[name].metrics), "--weights")
        wanted = weights_needed(read, metrics=weights or None)
    else:
        wanted = needed_by(profile, load_artifacts(ARTIFACTS_FILE))
    fetch_all(wanted, read.score.weights)
    if profile is not None:
        _fetch_photographs(read.used_datasets.values())


def _fetch_photographs(datasets: Iterable[Dataset]) -> bool:
    """Bring the photographs of Debian packages in datasets; whether there are any in them."""
    from faithdiff.data.packages import fetch_photographs
    from faithdiff.data.photographs import photographs_of

    parts = [part for dataset in datasets for part in parts_of(dataset).values()]
    found = [photo for p in parts if isinstance(p, PackageSet) for photo in photographs_of(p)]
    if found:
        # All at once: photographs for training and for validation lie in the same packages.
        fetch_photographs(dict.fromkeys(found))
    return bool(found)


@app.command(
    "import",
    epilog="Example: faithdiff import --weights weights/FaithDiff.bin "
    "--unet-config weights/RealVisXL_V4.0/unet/config.json --out faithdiff-released",
)
def import_(
    weights: Annotated[Path, typer.Option(help="The official single file (.bin, .safetensors).")],
    unet_config: Annotated[Path, typer.Option(help="config.json of the base model's UNet.")],
    out: Annotated[Path, typer.Option(help="Folder for unet/ lq_encoder/ alignment/.")],
    prior: Annotated[
        Path | None, typer.Option(help="Folder of the base model; makes OUT a complete pipeline.")
    ] = None,
) -> None:
    """Convert official weights; every tensor of the file is accounted for."""
    from faithdiff.models.official import import_official
    from faithdiff.restore.pipeline import save_pipeline

    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: is not empty; give another folder, or delete it first")
    model = import_official(weights, unet_config)
    if prior is None:
        model.save(out)
    else:
        save_pipeline(model, prior, out)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{out}: {count:,} parameters of {weights}")


@app.command(
    epilog="Example: faithdiff export --checkpoint checkpoints/paper/faithdiff/seed0 "
    "--out FaithDiff.bin"
)
def export(
    checkpoint: Annotated[Path, typer.Option(help="Folder that `faithdiff train` wrote.")],
    out: Annotated[Path, typer.Option(help="File to write: .bin, or .safetensors.")],
) -> None:
    """Write a checkpoint as one file with the official names and shapes."""
    from faithdiff.models.official import export_official

    export_official(checkpoint, out)
    print(f"{out}: {out.stat().st_size / 1e6:,.1f} MB")


@app.command(epilog="Example: faithdiff ship-prior --target prior/mini")
def ship_prior(
    target: Annotated[Path, typer.Option(help="Folder that receives the half-precision prior.")],
    config: Config = MINI,
) -> None:
    """Write a trained prior in half precision, with its checksum and training curve."""
    from faithdiff.train import prior

    prior.ship(Study.load(config), target)


@app.command(epilog="Example: faithdiff prior-card --picture docs/prior.png")
def prior_card(
    picture: Annotated[Path, typer.Option(help="Panels to draw (PNG).")],
    earlier: Annotated[
        Path | None, typer.Option(help="Folder of another prior, to set beside it.")
    ] = None,
    config: Config = MINI,
) -> None:
    """Measure a prior before and after its training, on the prepared test sets."""
    from faithdiff.train.prior_card import write_card

    print(write_card(Study.load(config), picture, earlier), end="")


@app.command(
    epilog="Example: faithdiff bench-sampler --base config/sdxl --side 1024 --side 2048 "
    "--device cuda --precision fp16 --tile 128 --compile"
)
def bench_sampler(
    base: Annotated[Path, typer.Option(help="Folder with the configs of vae, unet, ...")] = Path(
        "prior/mini"
    ),
    side: Annotated[
        list[int] | None, typer.Option(help="Side of the result in pixels; repeatable.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 20,
    tile: Annotated[int, typer.Option(min=2, help="Latent pixels; the stride is half.")] = 64,
    tile_batch: Annotated[int, typer.Option(min=1, help="Tiles in one UNet pass.")] = 4,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Also time the compiled UNet.")
    ] = False,
) -> None:
    """Time the sampler with random weights against the one-tile loop of the released code."""
    from faithdiff.planning.bench_sampler import BenchSettings, run

    one_of(device, ["cpu", "cuda"], "--device")
    one_of(precision, ["fp32", "bf16", "fp16"], "--precision")
    sides = tuple(side or [512])
    run(BenchSettings(base, sides, steps, tile, tile_batch, device, precision, compiled))
