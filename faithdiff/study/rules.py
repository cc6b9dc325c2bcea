"""The rules of the workflow in one table: what each does, which code it runs, what it reads.

The ``.smk`` files take digests and resources from it, `faithdiff plan` its jobs, `faithdiff audit`
what can explain a change. To add a rule, add it here and to ``workflow/rules``; tests compare the
two. Nothing that a rule runs before the scores may import this module: otherwise an edit of the
table would make the whole study again.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

Methods = Literal["all", "variants", "trained", "trained baselines", "denoisers", "others"]


@dataclass(frozen=True)
class Rule:
    """One rule of the workflow.

    Settings are dotted paths into a profile: a section stands for all below it, and ``*`` for the
    one that a job is about (its method, recipe or dataset).

    Attributes:
        purpose: What its jobs do, in a sentence.
        after: Rules whose outputs it reads; a job waits for those that concern it.
        modules: Modules whose import closure decides what it does.
        by_method: Whether the module of the method that a job is about decides, too.
        methods: The methods that it works for; `trained` are the variants and the trained
            baselines, `others` those without a held-out loss.
        reads: Settings that decide its result.
        reads_on_prior: Settings that decide it, too, where the method samples from the prior.
        resources: Whose entry of ``config/resources.yaml`` it takes; empty: its own.
    """

    name: str
    purpose: str
    after: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    by_method: bool = False
    methods: Methods = "all"
    reads: tuple[str, ...] = ()
    reads_on_prior: tuple[str, ...] = ()
    resources: str = ""

    def settings(self, on_prior: bool) -> tuple[str, ...]:
        """Settings that decide the result for a method."""
        return self.reads + (self.reads_on_prior if on_prior else ())


# Literals only, no names and no expressions: the audit reads this table from the source of old
# commits, and runs no code of theirs (`read_rules`).
RULES = (
    Rule(
        name="prepare_dataset",
        purpose="Write the HQ images of a dataset and their index.",
        modules=("faithdiff.data.datasets",),
        reads=(
            "data.test.*",
            "data.train",
            "prior.training.data",
            "data.scale",
            "captioner",
            "seed",
        ),
    ),
    Rule(
        name="degrade",
        purpose="Make the LQ images of a test set at every level.",
        after=("prepare_dataset",),
        modules=("faithdiff.degrade.dataset",),
        reads=("data.levels", "data.scale", "seed"),
    ),
    # Not a case of `degrade`: nothing is drawn, so no setting decides it.
    Rule(
        name="take_real",
        purpose="Record the images of a real-world set as its LQ images.",
        after=("prepare_dataset",),
        modules=("faithdiff.degrade.dataset",),
    ),
    Rule(
        name="caption",
        purpose="Caption the LQ images of a test set with a model.",
        after=("degrade", "take_real"),
        modules=("faithdiff.models.captioning",),
        reads=("captioner", "seed"),
    ),
    Rule(
        name="degrade_train",
        purpose="Make the LQ images of the training set.",
        after=("prepare_dataset",),
        modules=("faithdiff.degrade.dataset",),
        methods="trained",
        reads=("data.train_level", "data.scale", "seed"),
    ),
    Rule(
        name="train_prior",
        purpose="Train the small prior, if the profile does not use the shipped one.",
        after=("prepare_dataset",),
        modules=("faithdiff.train.prior",),
        methods="trained",
        reads=("prior", "seed"),
    ),
    Rule(
        name="cache_latents",
        purpose="Encode the training set once for all trainings.",
        after=("prepare_dataset", "degrade_train", "train_prior"),
        modules=("faithdiff.train.encode",),
        methods="trained",
        # Latents are the same in every precision. Captions are not: they are kept as the passes
        # would round them. In fp32 they would be a third of the file in `paper`.
        reads=("training.flip", "training.precision", "prior"),
    ),
    Rule(
        name="pretrain_alignment",
        purpose="Stage 1: train the alignment of a recipe.",
        after=("cache_latents", "train_prior", "prepare_dataset", "degrade"),
        modules=("faithdiff.train.run", "faithdiff.train.variants"),
        methods="variants",
        reads=("recipes.*", "alignment", "training", "seed", "prior"),
    ),
    Rule(
        name="train_variant",
        purpose="Stage 2: train FaithDiff or one of its variants, or import its weights.",
        after=("cache_latents", "train_prior", "pretrain_alignment", "prepare_dataset", "degrade"),
        modules=("faithdiff.train.run", "faithdiff.train.variants"),
        methods="variants",
        # Its stage 1 is an input, which changes with these; without one they must count here.
        reads=("variants.*", "recipes.*", "alignment", "training", "seed", "prior"),
    ),
    Rule(
        name="train_baseline",
        purpose="Train a baseline.",
        after=("degrade_train", "cache_latents", "train_prior"),
        modules=("faithdiff.train.run",),
        by_method=True,
        methods="trained baselines",
        # The prior of each: where nothing samples from it, its VAE is the perceptual loss.
        reads=(
            "baselines.*.settings",
            "training.optimiser",
            "training.flip",
            "training.tf32",
            "data.scale",
            "seed",
            "prior",
        ),
        reads_on_prior=("training",),
    ),
    # Without modules: what it fetches is pinned, and the pins are in its `outside` param.
    Rule(
        name="prepare_baseline",
        purpose="Get the code and the environment of an external method.",
        methods="others",
    ),
    Rule(
        name="restore_shard",
        purpose="Restore one shard of a method's images.",
        after=(
            "prepare_dataset",
            "degrade",
            "take_real",
            "caption",
            "train_variant",
            "train_baseline",
            "train_prior",
            "prepare_baseline",
        ),
        modules=("faithdiff.restore.run",),
        by_method=True,
        reads=("baselines.*", "data.scale", "seed"),
        reads_on_prior=("restore", "training.heldout", "training.loss", "prior"),
        # It may be a denoiser's, and those need most.
        resources="restore_denoiser",
    ),
    Rule(
        name="restore_baseline",
        purpose="Restore every test set and level with a method.",
        after=(
            "prepare_dataset",
            "degrade",
            "take_real",
            "caption",
            "train_variant",
            "train_baseline",
            "train_prior",
            "prepare_baseline",
            "restore_shard",
        ),
        modules=("faithdiff.restore.run",),
        by_method=True,
        methods="others",
        reads=("baselines.*", "data.scale", "seed"),
        reads_on_prior=("restore", "training.heldout", "training.loss", "prior"),
    ),
    Rule(
        name="restore_denoiser",
        purpose="Restore every test set and level with a denoiser, and measure its held-out loss.",
        after=(
            "prepare_dataset",
            "degrade",
            "take_real",
            "caption",
            "train_variant",
            "train_baseline",
            "train_prior",
            "restore_shard",
        ),
        modules=("faithdiff.restore.run", "faithdiff.score.heldout"),
        by_method=True,
        methods="denoisers",
        reads=("baselines.*", "data.scale", "seed"),
        reads_on_prior=("restore", "training.heldout", "training.loss", "prior"),
    ),
    Rule(
        name="score_shard",
        purpose="Score one shard of a method's images.",
        after=("prepare_dataset", "restore_baseline", "restore_denoiser"),
        modules=("faithdiff.score.run",),
        reads=("score",),
        resources="score",
    ),
    Rule(
        name="score",
        purpose="Score the restored images of a method under every protocol.",
        after=("prepare_dataset", "restore_baseline", "restore_denoiser", "score_shard"),
        modules=("faithdiff.score.run",),
        reads=("score",),
    ),
    Rule(
        name="collect",
        purpose="Collect all scores and held-out losses in one table.",
        after=("score", "restore_denoiser"),
        modules=("faithdiff.score.collect",),
    ),
    Rule(
        name="tables",
        purpose="Print the tables.",
        after=("collect",),
        modules=("faithdiff.report.tables",),
        # `training` is without where it runs, yet processes and device decide the GPU-hours.
        reads=(
            "report",
            "curves",
            "variants.*",
            "baselines.*",
            "training",
            "training.processes",
            "device",
            "score",
        ),
    ),
    Rule(
        name="figures",
        purpose="Draw the figures.",
        after=("collect",),
        modules=("faithdiff.report.figures",),
        # Of `restore`, the timesteps that the sampler visits are marked.
        reads=("report", "curves", "variants.*", "baselines.*", "training", "restore", "score"),
    ),
    Rule(
        name="claims",
        purpose="Compare the claims of the paper with the scores.",
        after=("collect",),
        modules=("faithdiff.claims.command",),
        reads=("report", "variants.*", "baselines.*", "training", "score"),
    ),
    Rule(
        name="manifest",
        purpose="Record what made the results: code, config, weights, packages, machines.",
        after=("collect", "tables", "figures", "claims"),
        modules=("faithdiff.report.manifest", "faithdiff.report.figures"),
        reads=("*", "score"),
    ),
    Rule(
        name="report",
        purpose="Write the report page.",
        # It shows pictures of restorations, too: the manifest has the checksum of each.
        after=("manifest", "tables", "figures", "claims"),
        modules=("faithdiff.page.build",),
        reads=("data.test.*", "data.levels", "variants.*", "baselines.*", "score"),
    ),
    Rule(
        name="version",
        purpose="Record all results with DVC.",
        after=("manifest", "report"),
        modules=("faithdiff.tracking.dvc",),
    ),
)
BY_NAME = {rule.name: rule for rule in RULES}
SCORES = "collect"  # the rule that writes the scores
# Fields of a method that say how it is printed: only rules after the scores read them.
NAMING = ("label", "published")
# In no digest, since a study is not made again for having moved to another machine. Yet numbers may
# differ there in their last digits, so they can explain a change.
MACHINE = ("device", "deterministic")


@functools.cache
def _before_scores() -> frozenset[str]:
    # Followed from the scores backwards, not listed: a list would have to be kept up to date.
    found: set[str] = set()
    queue = [SCORES]
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue += BY_NAME[name].after
    return frozenset(found)


def makes_scores(rule: str) -> bool:
    """Whether a rule can change a score: the scores wait for it. A rule unknown here may."""
    return rule in _before_scores() or rule not in BY_NAME


def covers(setting: str, path: str) -> bool:
    """Whether a setting of the table (``recipes.*``) holds the one at a path, or is part of it."""
    pairs = zip(setting.split("."), path.split("."), strict=False)
    return setting != "*" and all(wanted in ("*", found) for wanted, found in pairs)


def read_rules(source: bytes) -> tuple[Rule, ...] | None:
    """The table in the source of this module at another commit, read as data and not run.

    Fields that this version does not know are left out: an audit asks nothing of them.

    Returns:
        None where there is no table, or one that is no literal.
    """
    try:
        return tuple(_rules_in(ast.parse(source)))
    except (SyntaxError, ValueError, TypeError):
        return None


def _rules_in(tree: ast.Module) -> Iterator[Rule]:
    tables = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "RULES" for target in node.targets)
    ]
    # Keywords only: what stands without a name means another thing once a field is added.
    known = {field.name for field in fields(Rule)}
    if len(tables) != 1 or not isinstance(tables[0], ast.Tuple):
        raise ValueError("no table of rules")
    for entry in tables[0].elts:
        if not isinstance(entry, ast.Call):
            raise ValueError("an entry is no rule")
        said = {word.arg: ast.literal_eval(word.value) for word in entry.keywords}
        yield Rule(**{key: value for key, value in said.items() if key in known})
