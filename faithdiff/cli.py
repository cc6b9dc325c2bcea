"""The command line: one verb for each rule of the workflow, and a few for people.

Heavy imports happen inside the command that needs them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from faithdiff.errors import FaithDiffError, UserError
from faithdiff.files import of_surroundings
from faithdiff.methods import Study
from faithdiff.terminal import write_on_any_terminal

app = typer.Typer(
    name="faithdiff",
    help="The FaithDiff reproduction suite: each step of the study, and restoration of your own "
    "pictures. `snakemake --cores all` runs the whole study.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

baseline = typer.Typer(
    help="Methods that run outside of this process: official code, and commands of your own.",
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
Seed = Annotated[int, typer.Option(help="Repetition of the training.")]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", metavar="K/N", help="Every N-th image; left out: collect all."),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="MINUTES",
        envvar="FAITHDIFF_TIME_LIMIT",  # the workflow's way: a limit is no part of a rule's command
        help="Stop before it with a saved state and exit code 75.",
    ),
]
MINI = Path("config/mini.yaml")
TableFormat = Literal["latex", "markdown", "csv", "html"]
ReportFormat = Literal["terminal", "markdown", "json", "html"]


@app.command(epilog="Example: faithdiff prepare --dataset Photos")
def prepare(
    dataset: Annotated[str, typer.Option(help="A test set of the profile, `train` or `prior`.")],
    config: Config = MINI,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Write the HQ images of a data set and their index."""
    from faithdiff.data.datasets import prepare_dataset
    from faithdiff.models import captioning

    study = Study.load(config)
    sets = study.profile.datasets
    chosen = sets[_known(dataset, list(sets), "--dataset")]
    # Test images are captioned by what a user would have: the LQ image (faithdiff caption).
    ask = chosen.asks and dataset not in study.profile.data.test
    captioner = captioning.captioner(study.profile, study.layout) if ask else None
    folder = study.layout.dataset(dataset)
    multiple = study.profile.data.multiple_of(dataset)
    prepare_dataset(chosen, dataset, study.profile.seed, folder, workers, captioner, multiple)


@app.command(epilog="Example: faithdiff degrade --dataset Photos --level II --level III")
def degrade(
    dataset: Annotated[str, typer.Option(help="A prepared data set.")],
    level: Annotated[list[str], typer.Option(help="A level of config/levels.yaml; repeatable.")],
    config: Config = MINI,
) -> None:
    """Make the LQ images of a data set at each level, and the log of every parameter drawn.

    Sets of real-world images have one level, `real`: their images are logged as they are.
    """
    from faithdiff.degrade.dataset import degrade_dataset, log_real
    from faithdiff.degrade.levels import load_choices

    study = Study.load(config)
    data, folder = study.profile.data, study.layout.dataset(dataset)
    if data.is_real(dataset):
        for name in [_known(name, data.levels_of(dataset), "--level") for name in level]:
            log_real(folder / "index.csv", dataset, study.layout.lq(dataset, name))
        return
    levels = load_choices(data.levels_file)
    for name in [_known(name, list(levels), "--level") for name in level]:
        degrade_dataset(
            folder / "hq",
            folder / "index.csv",
            name,
            levels[name],
            data.scale_of(dataset),
            study.profile.seed,
            dataset,
            study.layout.lq(dataset, name),
        )


@app.command(epilog="Example: faithdiff caption --dataset RealDeg --level real")
def caption(
    dataset: Annotated[str, typer.Option(help="A test set that says `captions: llava`.")],
    level: Annotated[list[str], typer.Option(help="A level of the set; repeatable.")],
    config: Config = MINI,
) -> None:
    """Let a model describe the LQ images of a test set; no image is asked about twice."""
    from faithdiff.data.captions import write_captions
    from faithdiff.models.captioning import caption_level

    study = Study.load(config)
    data = study.profile.data
    asked = [name for name, chosen in data.test.items() if chosen.asks]
    if not asked:
        raise UserError(f"{config}: no test set says `captions: llava`")
    known = data.levels_of(_known(dataset, asked, "--dataset"))
    for name in [_known(name, known, "--level") for name in level]:
        captions = caption_level(study.profile, study.layout, dataset, name)
        write_captions(captions, study.layout.captions(dataset, name))


@app.command(epilog="Example: faithdiff train-prior --config config/mini.yaml")
def train_prior(config: Config = MINI, time_limit: TimeLimit = None) -> None:
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
        time_limit,
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

    print(write_card(Study.load(config), picture), end="")


@app.command(epilog="Example: faithdiff cache")
def cache(config: Config = MINI) -> None:
    """Encode the training set once: HQ latents, text embeddings, LQ pixels."""
    from faithdiff.models.prior import load_prior
    from faithdiff.provenance import folder_digest
    from faithdiff.train.encode import write_cache
    from faithdiff.train.pairs import find_pairs

    study = Study.load(config)
    pairs = find_pairs(study.layout, study.profile.data.train_level)
    prior = load_prior(study.prior_folder).to(study.profile.device)
    write_cache(pairs, prior, study.layout.train_cache, folder_digest(study.prior_folder))


@app.command(epilog="Example: faithdiff pretrain --recipe released --seed 0")
def pretrain(
    recipe: Annotated[str, typer.Option(help="A key of `recipes` in the profile.")],
    seed: Seed = 0,
    config: Config = MINI,
    time_limit: TimeLimit = None,
) -> None:
    """Stage 1: train the alignment of a recipe on a frozen encoder and a frozen prior."""
    from faithdiff.train import launch, variants
    from faithdiff.train.run import run_job

    study = Study.load(config)
    folder = study.layout.stage1(_known(recipe, list(study.profile.recipes), "--recipe"), seed)
    name = f"stage1-{recipe}"
    if launch.needed(study):
        verb = ["pretrain", "--recipe", recipe, "--seed", str(seed)]
        launch.launch(study, name, seed, verb, time_limit)
        return
    run_job(
        study,
        name,
        seed,
        folder,
        lambda out, state: variants.pretrain(study, recipe, seed, out, state),
        time_limit,
    )


@app.command(epilog="Example: faithdiff train --method frozen --seed 0")
def train(
    method: Method, seed: Seed = 0, config: Config = MINI, time_limit: TimeLimit = None
) -> None:
    """Train a FaithDiff variant (stage 2) or a baseline; resumes after a kill or a time limit."""
    from faithdiff.registry import find_method
    from faithdiff.train import launch
    from faithdiff.train.run import run_job

    study = Study.load(config)
    found = find_method(study, _known(method, study.profile.trained, "--method"))
    variant = study.profile.variants.get(method)
    if variant is not None and variant.weights is None and launch.needed(study):
        verb = ["train", "--method", method, "--seed", str(seed)]
        launch.launch(study, method, seed, verb, time_limit)
        return
    folder = study.layout.checkpoint(method, seed)
    run_job(
        study,
        method,
        seed,
        folder,
        lambda out, state: found.train(study, seed, out, state),
        time_limit,
    )


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


@app.command(epilog="Example: faithdiff restore-sets --method faithdiff --seed 0")
def restore_sets(
    method: Method, seed: Seed = 0, config: Config = MINI, shard: ShardOption = None
) -> None:
    """Restore every test set and level with a method; resumes at the image.

    Of a denoiser also the held-out loss: it needs the same model and the same images.
    """
    from faithdiff.registry import find_method
    from faithdiff.restore.run import restore_job, restore_shard
    from faithdiff.shards import Shard

    study = Study.load(config)
    found = find_method(study, method)
    if shard is not None:
        restore_shard(study, found, method, seed, Shard.parse(shard))
        return
    restore_job(study, found, method, seed)
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
def score(method: Method, seed: Seed = 0, config: Config = MINI, shard: ShardOption = None) -> None:
    """Score the restored images of a method under every protocol of the profile."""
    from faithdiff.score.run import score_job, score_shard
    from faithdiff.shards import Shard

    study = Study.load(config)
    known = _known(method, list(study.profile.methods), "--method")
    if shard is not None:
        score_shard(study.profile, study.layout, known, seed, Shard.parse(shard))
        return
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


@app.command(epilog="Example: faithdiff table main --format latex --published")
def table(
    name: Annotated[str, typer.Argument(help="main, realworld, ablation, cost or curve-<name>.")],
    form: Annotated[TableFormat, typer.Option("--format", help="How it is printed.")] = "markdown",
    published: Annotated[
        bool, typer.Option("--published", help="Published, ours and difference side by side.")
    ] = False,
    protocol: Annotated[str, typer.Option(help="Of the metrics; default: the profile's.")] = "",
    output: Annotated[
        Path | None,
        typer.Option(help="File to write instead of printing; .cells.json maps cells to rows."),
    ] = None,
    config: Config = MINI,
) -> None:
    """Print a table as the paper does, from scores.csv; caption with n, protocol and commit."""
    from faithdiff.audit.command import deliver
    from faithdiff.report.printed import print_table

    study = Study.load(config)
    if protocol:
        _known(protocol, study.profile.score.protocols, "--protocol")
    printed = print_table(name, study.profile, study.layout, form, published, protocol)
    deliver(printed.text, output, lambda said: print(said, end=""))
    if output is not None:
        deliver(printed.cells, output.with_suffix(".cells.json"), print)


@app.command(epilog="Example: faithdiff figures")
def figures(config: Config = MINI) -> None:
    """Render the figures: PNG and PDF."""
    from faithdiff.report.figures import write_figures

    study = Study.load(config)
    _say(write_figures(study))


@app.command(epilog="Example: faithdiff claims")
def claims(
    config: Config = MINI,
    file: Annotated[Path, typer.Option("--claims", help="What is claimed.")] = Path(
        "config/claims.yaml"
    ),
) -> None:
    """Test the paper's claims on scores.csv: a verdict each, and what would settle it."""
    from faithdiff.claims.command import write_claims
    from faithdiff.claims.render import counts

    study = Study.load(config)
    report, files = write_claims(study.profile, study.layout, file)
    _say(files)
    for verdict, count in counts(report).items():
        print(f"{count:4d} {verdict}")


@app.command(epilog="Example: faithdiff manifest")
def manifest(config: Config = MINI) -> None:
    """Write results/<profile>/manifest.json: what made these results."""
    from faithdiff.report.manifest import write_manifest

    write_manifest(Study.load(config))


@app.command(epilog="Example: faithdiff report")
def report(config: Config = MINI) -> None:
    """Write the report page: results/<profile>/report/index.html, which opens from disk."""
    from faithdiff.report.page.build import write_page

    _say([write_page(Study.load(config), Path())])


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


@app.command(epilog="Example: faithdiff fetch --profile released")
def fetch(
    weights: Annotated[
        list[str] | None, typer.Option(help="Metrics whose weights to fetch; default: all.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Fetch all that this profile needs: models, image sets.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Fetch the weights of this official baseline.")
    ] = None,
    config: Config = MINI,
) -> None:
    """Download metric weights, or all of a profile or of a baseline.

    Resumes, verifies, unpacks, and says what a person must fetch and where to put it. This
    and `faithdiff baseline prepare` are the only verbs that use the network.
    """
    from faithdiff.data.artifacts import ARTIFACTS_FILE, load_artifacts, needed_by
    from faithdiff.data.fetch import fetch_all
    from faithdiff.score.protocols import weights_needed

    if profile is not None and weights:
        raise UserError("--profile fetches everything, --weights a part of it; give one of them")
    if profile is not None:
        config = Path("config", f"{profile}.yaml")
    study = Study.load(config)
    read = study.profile
    if baseline is not None:
        from faithdiff.external.prepare import artifacts_of

        wanted = artifacts_of(study, baseline)
    elif profile is None:
        wanted = weights_needed(read, metrics=weights or None)
    else:
        wanted = needed_by(profile, load_artifacts(ARTIFACTS_FILE))
    fetch_all(wanted, read.score.weights)


@app.command(epilog="Example: faithdiff plan --config config/paper.yaml")
def plan(
    config: Config = MINI,
    tflops: Annotated[
        float | None, typer.Option(min=0.001, help="Of one device; default: measured here.")
    ] = None,
    utilisation: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of it that a training reaches.")
    ] = 0.4,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Of a cluster: adds GPU-hours, hours and disk on it.")
    ] = None,
) -> None:
    """Print what a profile will do before it starts: images, jobs, memory, disk, hours."""
    from faithdiff.plan import write_plan

    print(write_plan(config, tflops, utilisation, gpus), end="")


@app.command(epilog="Example: faithdiff bench --config config/mini.yaml")
def bench(config: Config = MINI) -> None:
    """Time degradation, training, restoration, scoring and start-up on this machine."""
    from faithdiff.bench import run

    run(Study.load(config))


@app.command(
    epilog="Example: faithdiff bench-sampler --base config/sdxl --side 1024 --side 2048 "
    "--device cuda --precision fp16 --tile 128 --compile"
)
def bench_sampler(
    base: Annotated[Path, typer.Option(help="Folder with the configs of vae, unet, ...")] = Path(
        "prior/mini"
    ),
    side: Annotated[
        list[int] | None, typer.Option(help="Pixels of the result; repeatable.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 20,
    tile: Annotated[int, typer.Option(min=2, help="Latent pixels; the stride is half.")] = 64,
    tile_batch: Annotated[int, typer.Option(min=1, help="Tiles in one UNet pass.")] = 4,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Time the compiled UNet, too.")
    ] = False,
) -> None:
    """Time the sampler with random weights against the one-tile loop of the released code."""
    from faithdiff.bench_sampler import Settings, run

    _known(device, ["cpu", "cuda"], "--device")
    _known(precision, ["fp32", "bf16", "fp16"], "--precision")
    sides = tuple(side or [512])
    run(Settings(base, sides, steps, tile, tile_batch, device, precision, compiled))


@app.command(epilog="Example: faithdiff audit HEAD~3 HEAD --metric PSNR --tolerance 0.05")
def audit(
    old: Annotated[
        str,
        typer.Argument(
            help="Commit, tag, branch or folder; default: the last commit that changed the results."
        ),
    ] = "",
    new: Annotated[str, typer.Argument(help="The same, or `.` for the working tree.")] = "",
    profile: Annotated[str, typer.Option(help="Whose results.")] = "mini",
    method: Annotated[list[str] | None, typer.Option(help="Name or label; repeatable.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Name or label; repeatable.")] = None,
    protocol: Annotated[
        list[str] | None, typer.Option(help="Repeatable; `all`; default: those of the tables.")
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(help="Loss that is accepted: 0.05, 1%, psnr=0.1, lpips=2%; repeatable."),
    ] = None,
    only_changed: Annotated[bool, typer.Option(help="Leave out what did not change.")] = False,
    history: Annotated[
        int | None,
        typer.Option(min=1, help="Instead: follow the last N commits that changed the results."),
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

    from faithdiff.audit.command import deliver, run_audit, run_history
    from faithdiff.audit.report import Request
    from faithdiff.audit.tolerance import parse_tolerance

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


@app.command(epilog="Example: faithdiff explain main FaithDiff LPIPS II Photos")
def explain(
    table: Annotated[str, typer.Argument(help="main, realworld, ablation, cost or curve-<name>.")],
    words: Annotated[
        list[str], typer.Argument(help="Method, metric, then level and data set, or the block.")
    ],
    profile: Annotated[str, typer.Option(help="Whose results.")] = "mini",
    revision: Annotated[str, typer.Option(help="Commit, tag, branch or folder.")] = ".",
    form: Annotated[ReportFormat, typer.Option("--format", help="How it is printed.")] = "terminal",
) -> None:
    """Print everything behind a number of a table: rows, statistics, weights, data, commands."""
    from faithdiff.audit.command import run_explain

    print(run_explain(table, words, profile, revision, Path(), form), end="")


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


@app.command(epilog="Example: faithdiff verify --repair")
def verify(
    config: Config = MINI,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove what is corrupted, so that snakemake makes it.")
    ] = False,
) -> None:
    """Check every file of a study against the hashes recorded when it was made.

    Pictures of your own folders, too: those that changed since a data set was prepared of them.
    Exit code 0: all is whole, or was removed; 1: a corrupted file or such a change is still there.
    """
    from faithdiff.verify import repair as remove
    from faithdiff.verify import verify as run

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


@baseline.command("prepare", epilog="Example: faithdiff baseline prepare diffbir")
def baseline_prepare(
    name: Annotated[str, typer.Argument(help="A baseline of the profile.")], config: Config = MINI
) -> None:
    """Clone the code of a baseline at its commit and make its environment; uses the network."""
    from faithdiff.external.prepare import prepare as run

    print(run(Study.load(config), name), end="")


@baseline.command("check", epilog="Example: faithdiff baseline check supir")
def baseline_check(
    name: Annotated[str, typer.Argument(help="A baseline of the profile.")], config: Config = MINI
) -> None:
    """Say what is missing before a long run: environment, weights, GPU memory, consent."""
    from faithdiff.external.prepare import check

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
    from faithdiff.contract import check_method, kept, table

    findings = check_method(Study.load(config), name, seed, size)
    print(table(name, findings), end="")
    raise typer.Exit(0 if kept(findings) else 1)


def _known(name: str, allowed: list[str], flag: str) -> str:
    if name not in allowed:
        raise UserError(f"{flag}: {name!r} is not one of {', '.join(allowed)}")
    return name


def _say(files: list[Path]) -> None:
    for file in files:
        print(file)


def main() -> None:
    """Run the command line; a user's error exits with 2, a failed run with 1, a pause with 75."""
    write_on_any_terminal(sys.stdout, sys.stderr)
    try:
        app()
    except FaithDiffError as error:
        stop(error)
    except OSError as error:
        if (found := of_surroundings(error)) is None:
            raise
        stop(found)


def stop(error: FaithDiffError) -> NoReturn:
    """Say what went wrong, without a traceback, and exit."""
    print(f"faithdiff: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
