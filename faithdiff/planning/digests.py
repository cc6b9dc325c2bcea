"""What decides the result of a job beside its input files: its code and its settings, as digests.

Snakemake compares them with those of the job that wrote a file, and runs the job again where they
differ. Which they are says the table of rules (:mod:`faithdiff.study.rules`); here they are looked
up in a study, narrowed to what the one job reads.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from faithdiff.config import Baseline, digest
from faithdiff.config.section import Hashed
from faithdiff.data.outside import contents, files_in
from faithdiff.degrade.levels import load_choices
from faithdiff.planning.code_digests import code_digest
from faithdiff.score.protocols import definitions_of
from faithdiff.study.provenance import folder_digest
from faithdiff.study.rules import BY_NAME, NAMING, Rule, makes_scores

if TYPE_CHECKING:
    from faithdiff.methods.method import Study


def describes(study: Study, dataset: str) -> bool:
    """Whether a model captions the HQ images of a dataset while it is prepared.

    Test images are captioned by what a user would have, the LQ image: a rule of its own.
    """
    profile = study.profile
    return dataset not in profile.data.test and profile.datasets[dataset].asks


class Digests:
    """The digests of the jobs of a study."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.profile = study.profile
        self.levels = load_choices(study.profile.data.levels_file)

    def code(self, rule: str, method: str | None = None) -> str:
        """Digest of the code that a job runs.

        Args:
            method: The method that the job is about, if it is about one.
        """
        found = BY_NAME[rule]
        own: tuple[str, ...] = ()
        if found.by_method and method is not None:
            own = (self.profile.methods[method].implementation.partition(":")[0],)
        return code_digest(*found.modules, *own)

    def settings(self, rule: str, wildcards: Mapping[str, str]) -> str:
        """Digest of the settings that decide the result of a job.

        Args:
            wildcards: What the job is about: `dataset`, `method` or `recipe`; others are ignored.
        """
        found = BY_NAME[rule]
        read = found.settings(wildcards.get("method") in self.profile.on_prior)
        return digest({setting: self._value(found, setting, wildcards) for setting in read})

    @functools.cached_property
    def prior(self) -> str:
        """Identity of the prior that the study starts from, read once for all jobs."""
        if self.profile.prior.source == "train":
            return digest(self.profile.prior, self.profile.seed)
        # By its files, not its settings: of a shipped prior these say how it was made elsewhere.
        files = contents(files_in(self.profile.prior.path))
        return folder_digest(self.profile.prior.path, files.get)

    def _value(self, rule: Rule, setting: str, job: Mapping[str, str]) -> Hashed:
        """What a job reads of a setting: less than its section, where the section says more."""
        profile, dataset, method = self.profile, job.get("dataset", ""), job.get("method")
        data = profile.data
        match setting:
            case "data.test.*" | "data.train" | "prior.training.data" if dataset:
                sets = {"data.train": "train", "prior.training.data": "prior"}
                mine = dataset in data.test if setting not in sets else dataset == sets[setting]
                return profile.datasets[dataset] if mine else None
            # HQ images are cut to a multiple of the scale only where LQ images are made of them.
            case "data.scale" if rule.name == "prepare_dataset":
                return data.multiple_of(dataset)
            case "data.scale":
                return [data.scale_of(name) for name in ([dataset] if dataset else data.test)]
            case "captioner" if rule.name == "prepare_dataset":
                return profile.captioner.decisive() if describes(self.study, dataset) else None
            case "captioner":
                return profile.captioner.decisive()
            # By what the levels do, not by their names: those are in the command.
            case "data.levels":
                return [self.levels[name] for name in data.levels]
            case "data.train_level":
                return self.levels[data.train_level]
            case "training":
                return profile.training.decisive()
            case "prior":
                return self.prior
            case "score":
                return self._metrics(printed=not makes_scores(rule.name))
            case "recipes.*":
                return profile.recipes[job.get("recipe") or profile.variants[str(method)].recipe]
            case "variants.*" if method:
                variant = profile.variants[method]
                return variant.model_dump(mode="json", exclude=set(NAMING))
            case "baselines.*" | "baselines.*.settings" if method:
                return self._baseline(method, sampled=setting == "baselines.*")
        return self._section(setting.removesuffix("*").removesuffix("."))

    def _section(self, path: str) -> Hashed:
        """The part of the profile at a dotted path; the whole of it at none."""
        found: Hashed = self.profile
        for key in filter(None, path.split(".")):
            found = getattr(found, key)
        return found

    def _baseline(self, method: str, sampled: bool) -> Hashed:
        """Settings of a baseline; those of its sampler only where it restores."""
        # A user's own method is judged by its outputs or its command (`outside` of a job), and a
        # variant by the checkpoint that its settings made.
        if not isinstance(self.profile.baselines.get(method), Baseline):
            return None
        settings = self.profile.settings_of(method)
        return {key: value for key, value in settings.items() if sampled or key != "sampling"}

    def _metrics(self, printed: bool) -> Hashed:
        """How the metrics are computed; with labels, units and decimals, where they are printed."""
        found = definitions_of(self.profile).items()
        return [[*key, each if printed else each.computation()] for key, each in found]
