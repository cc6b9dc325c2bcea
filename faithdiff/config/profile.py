"""A whole profile: its sections, and what they say together."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from faithdiff.config.curves import expanded
from faithdiff.config.data import MIN_SIDE, Data, Dataset
from faithdiff.config.methods import (
    AnyBaseline,
    Baseline,
    Curve,
    OwnOutputs,
    Restore,
    Sampling,
    Variant,
)
from faithdiff.config.models import AlignmentSettings, Captioner, PriorSettings, Stage1
from faithdiff.config.section import Name, Natural, Positive, Section
from faithdiff.config.training import Training
from faithdiff.study.plain import JsonObject


class Score(Section):
    protocols_file: Path
    protocols: Annotated[list[Name], Field(min_length=1)]
    metrics: Annotated[list[str], Field(min_length=1)]
    weights: Path  # folder of metric weights, see config/artifacts.yaml


class ReportSettings(Section):
    protocol: Name  # of the tables and figures
    main: Annotated[list[Name], Field(min_length=1)]  # rows of the main table
    ablation: Annotated[list[Name], Field(min_length=1)]  # first row is the reference
    reference: Name | None = None  # that each row of `main` is tested against; default: that one
    bootstrap: Positive  # resamples
    panel_images: Natural  # rows of the qualitative figure per test set; 0: no figure shows images


class Profile(Section):
    """A whole profile, as resolved: see ``config/mini.yaml`` for what each key does."""

    profile: Name
    seed: Natural
    seeds: Annotated[list[Natural], Field(min_length=1)]
    device: Literal["cpu", "cuda"]
    deterministic: bool = True
    shards: Annotated[int, Field(ge=1)] = 1  # changes where images are made, not what they are
    data: Data
    prior: PriorSettings
    alignment: AlignmentSettings
    recipes: Annotated[dict[Name, Stage1], Field(min_length=1)]
    variants: dict[Name, Variant]
    training: Training
    baselines: dict[Name, AnyBaseline]
    restore: Restore
    captioner: Captioner = Captioner()  # older checkpoints do not know it
    score: Score
    report: ReportSettings
    # Further rows: methods at other values of one setting.
    curves: dict[Name, Curve] = Field(default_factory=dict)
    # Dotted path of a setting -> why it is not the paper's.
    deviations: dict[str, str] = Field(default_factory=dict)

    @property
    def datasets(self) -> dict[str, Dataset]:
        """Every dataset by name: the test sets, `train` and `prior`."""
        return {**self.data.test, "train": self.data.train, "prior": self.prior.training.data}

    @property
    def used_datasets(self) -> dict[str, Dataset]:
        """The datasets that jobs read: `train` and `prior` only where something is trained."""
        trains = {"train": self.learns, "prior": self.prior.source == "train"}
        return {name: each for name, each in self.datasets.items() if trains.get(name, True)}

    def least_side(self, dataset: str) -> int:
        """Pixels that each side of a set's images needs for what is made of them."""
        if dataset == "prior":
            training = self.prior.training
            return max(training.vae.crop, training.unet.crop)
        if dataset != "train":
            return 1 if self.data.is_real(dataset) else MIN_SIDE
        baselines = [method.settings.get("crop") for method in self.baselines.values()]
        crops = [self.training.crop, *(crop for crop in baselines if isinstance(crop, int))]
        return max([MIN_SIDE, *(crops if self.learns else [])])

    @property
    def trained(self) -> list[str]:
        """Names of the methods that must be trained before they restore."""
        baselines = [name for name, baseline in self.baselines.items() if baseline.trained]
        return [*baselines, *self.variants]

    @property
    def pretrained(self) -> list[str]:
        """Names of the recipes whose stage 1 is trained."""
        used = [v.recipe for v in self.variants.values() if v.pretrain and v.weights is None]
        return sorted(set(used))

    @property
    def learns(self) -> bool:
        """Whether anything is trained; a study of imported weights needs no training set."""
        baselines = any(baseline.trained for baseline in self.baselines.values())
        return baselines or any(variant.weights is None for variant in self.variants.values())

    @property
    def denoisers(self) -> list[str]:
        """Names of the methods that have a held-out denoising loss."""
        baselines = [name for name, baseline in self.baselines.items() if baseline.denoises]
        return [*baselines, *self.variants]

    @property
    def compared(self) -> list[str]:
        """Names of the methods whose held-out denoising loss is measured.

        All denoisers, unless the only one has imported weights: its loss stands beside no other.
        """
        found = self.denoisers
        alone = len(found) == 1 and found[0] in self.variants
        return [] if alone and self.variants[found[0]].weights is not None else found

    @property
    def on_prior(self) -> list[str]:
        """Names of the methods that sample from the prior: denoisers, and their other samplers."""
        again = [name for name, baseline in self.baselines.items() if baseline.checkpoint_of]
        return [*self.denoisers, *again]

    def checkpoint_of(self, method: str) -> str:
        """The method whose checkpoint a method restores with: itself, but for another sampler."""
        baseline = self.baselines.get(method)
        return (baseline.checkpoint_of if baseline else None) or method

    def settings_of(self, baseline: str) -> JsonObject:
        """Settings of a baseline, with those of the one whose checkpoint it takes."""
        own = self.baselines[baseline]
        shared = self.baselines.get(own.checkpoint_of or "")
        return {**(shared.settings if shared else {}), **own.settings}

    def sampling_of(self, method: str) -> Sampling:
        """Where the sampling of a method departs from `restore`.

        Nowhere where its settings do not fit: its own class says what is wrong with them.
        """
        settings = self.settings_of(method) if method in self.baselines else {}
        try:
            return Sampling.model_validate(settings.get("sampling") or {})
        except ValidationError:
            return Sampling()

    def factor_of(self, method: str, setting: Literal["budget", "rates"]) -> float:
        """What multiplies the updates, or the learning rates, of a method's training."""
        if method in self.variants:
            variant = self.variants[method]
            return variant.budget if setting == "budget" else variant.rates
        factor = self.settings_of(method).get(setting)
        return float(factor) if isinstance(factor, int | float) else 1.0

    def captioner_of(self, method: str) -> str | None:
        """The method whose captions a method restores by, if they are another's."""
        return self.sampling_of(method).captioner

    def phase_updates(self, variant: str) -> list[int]:
        """Updates of each phase of stage 2: equal shares of what stage 1 leaves of the budget."""
        chosen, training = self.variants[variant], self.training
        total = round(chosen.budget * (training.stage1_steps + training.stage2_steps))
        rest = total - (training.stage1_steps if chosen.pretrain else 0)
        share, more = divmod(rest, len(chosen.phases))
        return [share + (number < more) for number in range(len(chosen.phases))]

    def updates_of(self, method: str) -> int | None:
        """All updates of a method's training, pre-stages included; None if nothing trains it."""
        method = self.checkpoint_of(method)
        if method in self.variants:
            variant = self.variants[method]
            first = self.training.stage1_steps if variant.pretrain else 0
            return None if variant.weights else first + sum(self.phase_updates(method))
        baseline = self.baselines[method]
        if not baseline.trained:
            return None
        stages = {k: v for k, v in baseline.settings.items() if k.endswith("_steps")}
        own = sum(steps for steps in stages.values() if isinstance(steps, int))
        return own + (self.control_updates(method) if baseline.denoises else 0)

    def control_updates(self, baseline: str) -> int:
        """Updates of the last stage of a controlled diffusion baseline."""
        return round(self.factor_of(baseline, "budget") * self.training.stage2_steps)

    def gpus_to_restore(self, method: str) -> int:
        """GPUs that restoring with a method takes: none for given images and interpolation."""
        baseline = self.baselines.get(method)
        computes = not isinstance(baseline, OwnOutputs)
        if isinstance(baseline, Baseline):
            computes = bool(baseline.published or baseline.trained or baseline.checkpoint_of)
        return int(computes and self.device == "cuda")

    @property
    def published(self) -> list[str]:
        """Names of the systems that their authors trained."""
        return [n for n, b in self.baselines.items() if isinstance(b, Baseline) and b.published]

    @property
    def methods(self) -> dict[str, AnyBaseline | Variant]:
        """Every method by name, in table order."""
        return {**self.baselines, **self.variants}

    @property
    def curve_rows(self) -> set[str]:
        """Names of the methods that stand on a curve beside the one that they repeat."""
        return {row for c in self.curves.values() for rows in c.rows.values() for row in rows}

    @property
    def reference(self) -> str:
        """The method that every row of the main table is tested against."""
        return self.report.reference or self.report.ablation[0]

    @property
    def tables(self) -> list[str]:
        """Names of the tables of the report."""
        curves = [f"curve-{name}" for name in self.curves]
        return ["main", *(["real"] if self.data.real else []), "ablation", *curves, "cost"]

    @model_validator(mode="before")
    @classmethod
    def _with_rows_of_curves(cls, data: object) -> object:
        return expanded(data)

    @model_validator(mode="after")
    def _names_exist(self) -> Profile:
        if both := set(self.baselines) & set(self.variants):
            raise ValueError(f"variants and baselines share the names {sorted(both)}")
        for name, variant in self.variants.items():
            _known(f"variants.{name}.recipe", variant.recipe, self.recipes)
            if not variant.weights and min(self.phase_updates(name)) < 1:
                raise ValueError(
                    f"variants.{name}.budget: leaves a phase of stage 2 without updates"
                )
        for name, curve in self.curves.items():
            for method in curve.methods:
                _known(f"curves.{name}.methods", method, self.trained)
        for name, baseline in self.baselines.items():
            if baseline.checkpoint_of is not None:
                _known(f"baselines.{name}.checkpoint_of", baseline.checkpoint_of, self.trained)
            if (captioner := self.captioner_of(name)) is not None:
                where = f"baselines.{name}.settings.sampling.captions"
                _known(where, captioner, ["none", "given", *self.denoisers])
        for table in ("main", "ablation"):
            for name in getattr(self.report, table):
                _known(f"report.{table}", name, self.methods)
        _known("report.reference", self.reference, self.methods)
        _known("report.protocol", self.report.protocol, self.score.protocols)
        return self


def _known(where: str, name: str, allowed: Collection[str]) -> None:
    if name not in allowed:
        raise ValueError(f"{where}: {name!r} is not one of {', '.join(allowed)}")
