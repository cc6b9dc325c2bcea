"""The command line: one verb for each rule of the workflow, and a few for people.

Heavy imports happen inside the command that needs them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from faithdiff.errors import FaithDiffError, UserError
from faithdiff.methods import Study

app = typer.Typer(
    name="faithdiff",
    help="The FaithDiff reproduction suite: each step of the study, and restoration of your own "
    "pictures. `snakemake --cores all` runs the whole study.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Config = Annotated[Path, typer.Option("--config", "-c", help="Profile to read.")]
Method = Annotated[str, typer.Option(help="A key of `variants` or `baselines` in the profile.")]
Seed = Annotated[int, typer.Option(help="Repetition of the training.")]
MINI = Path("config/mini.yaml")


@app.command(epilog="Example: faithdiff prepare --dataset Photos")
def prepare(
    dataset: Annotated[str, typer.Option(help="A test set of the profile, `train` or `prior`.")],
    config: Config = MINI,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Write the HQ images of a data set and their index."""
    from faithdiff.data.datasets import prepare_dataset

    study = Study.load(config)
    data = study.profile.data
    sets = {**data.test, "train": data.train, "prior": study.profile.prior.training.data}
    folder = study.layout.dataset(_known(dataset, list(sets), "--dataset"))
    prepare_dataset(sets[dataset], dataset, study.profile.seed, folder, workers)


@app.command(epilog="Example: faithdiff degrade --dataset Photos --level II --level III")
def degrade(
    dataset: Annotated[str, typer.Option(help="A prepared data set.")],
    level: Annotated[list[str], typer.Option(help="A level of config/levels.yaml; repeatable.")],
    config: Config = MINI,
) -> None:
    """Make the LQ images of a data set at each level, and the log of every parameter drawn."""
    from faithdiff.degrade.dataset import degrade_dataset
    from faithdiff.degrade.levels import load_choices

    study = Study.load(config)
    levels = load_choices(study.profile.data.levels_file)
    folder = study.layout.dataset(dataset)
    for name in [_known(name, list(levels), "--level") for name in level]:
        degrade_dataset(
            folder / "hq",
            folder / "index.csv",
            name,
            levels[name],
            study.profile.data.scale,
            study.profile.seed,
            dataset,
            study.layout.lq(dataset, name),
        )


@app.command(epilog="Example: faithdiff train-prior --config config/mini.yaml")
def train_prior(config: Config = MINI) -> None:
    """Train the small prior from its prepared data set (`faithdiff prepare --dataset prior`)."""
    from faithdiff.train import prior
    from faithdiff.train.run import run_job

    study = Study.load(config)
    run_job(
        study,
        "prior",
        0,
        study.layout.trained_prior,
        lambda out, state: prior.train_prior_job(study, out, state),
    )


@app.command(epilog="Example: faithdiff ship-prior --target prior/mini")
def ship_prior(
    target: Annotated[Path, typer.Option(help="Folder that receives the half-precision prior.")],
    config: Config = MINI,
) -> None:
    """Write a trained prior in half precision, with its hash and training curve, for shipping."""
    from faithdiff.train import prior

    prior.ship(Study.load(config), target)


@app.command(epilog="Example: faithdiff prior-card --picture docs/prior.png")
def prior_card(
    picture: Annotated[Path, typer.Option(help="Panels to draw (PNG).")],
    config: Config = MINI,
) -> None:
    """Measure a prior before and after its training, on the prepared test sets."""
    from faithdiff.train.prior_card import write_card

    typer.echo(write_card(Study.load(config), picture), nl=False)


@app.command(epilog="Example: faithdiff cache")
def cache(config: Config = MINI) -> None:
    """Encode the training set once: HQ latents, text embeddings, LQ pixels."""
    from faithdiff.models.prior import load_prior
    from faithdiff.train.cache import write_cache
    from faithdiff.train.pairs import load_pairs

    study = Study.load(config)
    pairs = load_pairs(study.layout, study.profile.data.train_level)
    write_cache(pairs, load_prior(study.prior_folder), study.layout.train_cache)


@app.command(epilog="Example: faithdiff pretrain --recipe released --seed 0")
def pretrain(
    recipe: Annotated[str, typer.Option(help="A key of `recipes` in the profile.")],
    seed: Seed = 0,
    config: Config = MINI,
) -> None:
    """Stage 1: train the alignment of a recipe on a frozen encoder and a frozen prior."""
    from faithdiff.train import variants
    from faithdiff.train.run import run_job

    study = Study.load(config)
    folder = study.layout.stage1(_known(recipe, list(study.profile.recipes), "--recipe"), seed)
    run_job(
        study,
        f"stage1-{recipe}",
        seed,
        folder,
        lambda out, state: variants.pretrain(study, recipe, seed, out, state),
    )


@app.command(epilog="Example: faithdiff train --method frozen --seed 0")
def train(method: Method, seed: Seed = 0, config: Config = MINI) -> None:
    """Train a FaithDiff variant (stage 2) or a baseline; resumes after a kill."""
    from faithdiff.registry import find_method
    from faithdiff.train.run import run_job

    study = Study.load(config)
    found = find_method(study, _known(method, study.profile.trained, "--method"))
    folder = study.layout.checkpoint(method, seed)
    run_job(study, method, seed, folder, lambda out, state: found.train(study, seed, out, state))


@app.command(
    "import",
    epilog="Example: faithdiff import --weights weights/FaithDiff.bin "
    "--unet-config prior/RealVisXL_V4.0/unet/config.json --out faithdiff-released",
)
def import_(
    weights: Annotated[Path, typer.Option(help="The official single file (.bin, .safetensors).")],
    unet_config: Annotated[Path, typer.Option(help="config.json of the base model's UNet.")],
    out: Annotated[Path, typer.Option(help="Folder for unet/ lq_encoder/ alignment/.")],
    prior: Annotated[
        Path | None, typer.Option(help="The base model's folder: makes OUT a whole pipeline.")
    ] = None,
) -> None:
    """Read official weights, with every tensor accounted for; nothing is skipped."""
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
    typer.echo(f"{out}: {count:,} parameters of {weights}")


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
    typer.echo(f"{out}: {out.stat().st_size / 1e6:,.1f} MB")


@app.command(epilog="Example: faithdiff restore-sets --method faithdiff --seed 0")
def restore_sets(method: Method, seed: Seed = 0, config: Config = MINI) -> None:
    """Restore every test set and level with a method; resumes at the image.

    Of a denoiser also the held-out loss: it needs the same model and the same images.
    """
    from faithdiff.registry import find_method
    from faithdiff.restore.run import restore_job

    study = Study.load(config)
    restore_job(study, find_method(study, method), method, seed)
    if method in study.profile.denoisers:
        heldout(method, seed, config)


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


@app.command(epilog="Example: faithdiff heldout --method frozen --seed 0")
def heldout(method: Method, seed: Seed = 0, config: Config = MINI) -> None:
    """Measure the held-out denoising loss of a method on the study's prior."""
    from faithdiff.registry import find_method
    from faithdiff.score.heldout import heldout_job

    study = Study.load(config)
    found = find_method(study, _known(method, study.profile.denoisers, "--method"))
    heldout_job(study, found, method, seed)


@app.command(epilog="Example: faithdiff score --method frozen --seed 0")
def score(method: Method, seed: Seed = 0, config: Config = MINI) -> None:
    """Score the restored images of a method under every protocol of the profile."""
    from faithdiff.score.run import score_job

    study = Study.load(config)
    known = _known(method, list(study.profile.methods), "--method")
    score_job(study.profile, study.layout, known, seed)


@app.command(epilog="Example: faithdiff collect")
def collect(config: Config = MINI) -> None:
    """Collect all scores of the study into results/<profile>/scores.csv."""
    from faithdiff.score.collect import collect as run

    study = Study.load(config)
    run(study.profile, study.layout)


@app.command(epilog="Example: faithdiff tables")
def tables(config: Config = MINI) -> None:
    """Render the tables from scores.csv: Markdown, LaTeX, CSV."""
    from faithdiff.report.tables import write_tables

    study = Study.load(config)
    _say(write_tables(study.profile, study.layout))


@app.command(epilog="Example: faithdiff figures")
def figures(config: Config = MINI) -> None:
    """Render the figures: PNG and PDF."""
    from faithdiff.report.figures import write_figures

    study = Study.load(config)
    _say(write_figures(study.profile, study.layout))


@app.command(epilog="Example: faithdiff manifest")
def manifest(config: Config = MINI) -> None:
    """Write results/<profile>/manifest.json: what made these results."""
    from faithdiff.report.manifest import write_manifest

    write_manifest(Study.load(config))


@app.command(epilog="Example: faithdiff deviations > docs/deviations.md")
def deviations(
    config: Config = MINI,
    paper: Annotated[Path, typer.Option(help="Profile with the published settings.")] = Path(
        "config/paper.yaml"
    ),
) -> None:
    """Print how a profile's settings differ from the published ones, and why."""
    from faithdiff.report.deviations import deviation_table

    typer.echo(deviation_table(config, paper), nl=False)


@app.command(epilog="Example: faithdiff fetch --weights lpips --weights musiq")
def fetch(
    weights: Annotated[
        list[str] | None, typer.Option(help="Metrics whose weights to fetch; default: all.")
    ] = None,
    config: Config = MINI,
) -> None:
    """Download the weights of the learned metrics; the only verb that uses the network."""
    from faithdiff.data.artifacts import fetch_all
    from faithdiff.score.protocols import weights_needed

    profile = Study.load(config).profile
    fetch_all(weights_needed(profile, metrics=weights or None), profile.score.weights)


@app.command(epilog="Example: faithdiff bench --config config/mini.yaml")
def bench(config: Config = MINI) -> None:
    """Time degradation, training, restoration, scoring and start-up on this machine."""
    from faithdiff.bench import run

    run(Study.load(config))


@app.command(epilog="Example: faithdiff version-study")
def version_study(
    stamp: Annotated[Path, typer.Option(help="File that says what was recorded.")],
    config: Config = MINI,
) -> None:
    """Record data, checkpoints, restorations and results of the run in dvc.lock."""
    from faithdiff.versioning import version_study as run

    run(Study.load(config).profile.profile, Path(), stamp)


@app.command(epilog="Example: faithdiff pull --remote shared")
def pull(
    stamp: Annotated[Path | None, typer.Option(help="File that says what was pulled.")] = None,
    remote: Annotated[str | None, typer.Option(help="DVC remote; default: its default.")] = None,
    config: Config = MINI,
) -> None:
    """Fetch the data behind the committed results; then snakemake has nothing to do."""
    from faithdiff.versioning import pull_study

    profile = Study.load(config).profile.profile
    pull_study(profile, Path(), stamp or Path("logs", profile, "version.json"), remote)


def _known(name: str, allowed: list[str], flag: str) -> str:
    if name not in allowed:
        raise UserError(f"{flag}: {name!r} is not one of {', '.join(allowed)}")
    return name


def _say(files: list[Path]) -> None:
    for file in files:
        typer.echo(file)


def main() -> None:
    """Run the command line; a user's error exits with 2, a failed run with 1."""
    try:
        app()
    except FaithDiffError as error:
        print(f"faithdiff: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
