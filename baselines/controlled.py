"""Trains and loads a controlled diffusion baseline: pre-stages, then the control.

The last stage is that of FaithDiff's variants (faithdiff/train/variants.py): the same loss, number
of updates, crops, noise and timesteps, drawn from the same keys. So what differs between
a row of the tables and another is the design and what it trains.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from baselines.checkpoint import About, read_config, read_weights, save
from baselines.design import Design
from faithdiff.config import Rate, Restore, Sampling, Section, digest, parse
from faithdiff.errors import RunError
from faithdiff.methods.method import Denoiser, Method, Restorer, Study
from faithdiff.models.objective import distance, prediction_target
from faithdiff.models.prior import Prior, load_prior
from faithdiff.models.repeatable import allow_tf32, compute_repeatably
from faithdiff.models.weights import DTYPES, module_digest
from faithdiff.restore.captions import with_captions
from faithdiff.restore.restorer import DiffusionRestorer
from faithdiff.study import seeds
from faithdiff.study.plain import Json
from faithdiff.study.provenance import folder_digest
from faithdiff.study.records import Cost
from faithdiff.train.cache import Batch, Cache
from faithdiff.train.engine import Trained
from faithdiff.train.log import LogRow
from faithdiff.train.loop import Job, train
from faithdiff.train.spent import measure

Loss = Callable[[int, int], Tensor]
AnyDesign = TypeVar("AnyDesign", bound=Design)
CONTROL = "control"  # phase of the last stage


class ControlledSettings(Section):
    """What the settings of every controlled diffusion baseline hold."""

    learning_rate: Rate  # of the last stage; its batches are those of `training`
    budget: Rate = 1.0  # of the last stage, times the updates of stage 2
    rates: Rate = 1.0  # of the last stage, times `learning_rate`
    sampling: Sampling = Sampling()


@dataclass
class ControlledTraining:
    """One repetition of a training: the frozen prior, the data, and the log of what was done."""

    study: Study
    name: str
    seed: int
    settings: ControlledSettings
    state: Path
    prior: Prior
    cache: Cache
    before: str  # digest of the prior
    log: list[LogRow] = field(default_factory=list)

    @classmethod
    def start(
        cls, study: Study, name: str, seed: int, settings: ControlledSettings, state: Path
    ) -> ControlledTraining:
        profile = study.profile
        compute_repeatably(profile)
        allow_tf32(study.profile)
        prior = load_prior(study.prior_folder).to(profile.device)
        cache = Cache(study.layout.train_cache, prior, profile.data.scale, profile.training)
        # Frozen is a flag that any library may turn: the bytes are compared when all is trained.
        before = module_digest(*prior.modules())
        return cls(study, name, seed, settings, state, prior, cache, before)

    def batch(self, phase: str, step: int, micro: int) -> Batch:
        """A micro-batch of a pre-stage, from the same data as every other training's."""
        key = (self.name, phase, self.seed, step, micro)
        return self.cache.batch(*key, master=self.study.profile.seed)

    def run(self, phase: str, model: nn.Module, loss: Loss, steps: int, rate: float) -> None:
        """Train one module, leave it frozen with the weights that count, and add to the log."""
        config = self.study.profile.training
        model.requires_grad_(True).train()
        job = Job(
            name=f"{self.name} {phase}",
            model=model,
            groups=[Trained.whole(model, rate)],
            loss=loss,
            steps=steps,
            optimiser=config.optimiser,
            micro_batches=config.micro_batches,
            images=config.batch_size,
            ema_decay=config.ema_decay,
            precision=config.precision,
            state=self.state / f"{phase}.pt",
            identity=self._identity(phase, model),
            log_every=config.log_every,
            checkpoint_every=config.checkpoint_every,
        )
        # As the variants: where averaged weights are the model, they are it in each stage, so that
        # the next one trains on what will be used.
        averaged = train(job)
        if config.weights == "ema":
            assert averaged is not None
            model.load_state_dict(averaged.state_dict())
        model.requires_grad_(False).eval()
        self.log += job.log

    def control(self, design: Design, batch: Callable[[int, int], Batch] | None = None) -> None:
        """The last stage: train ``design.control`` to denoise.

        Args:
            batch: Draws the micro-batch of an update; the variants' own where it is None.
        """
        profile = self.study.profile
        draw = batch or self.shared_batch

        def loss(step: int, micro: int) -> Tensor:
            return self.denoising_loss(design, draw(step, micro))

        steps = round(self.settings.budget * profile.training.stage2_steps)
        rate = self.settings.rates * self.settings.learning_rate
        self.run(CONTROL, design.control, loss, steps, rate)

    def shared_batch(self, step: int, micro: int) -> Batch:
        """The micro-batch that every variant of this repetition sees in this update of stage 2."""
        profile = self.study.profile
        # The variants have spent these updates on stage 1, which a control has no part for.
        step += profile.training.stage1_steps
        return self.cache.batch(self.seed, step, micro, master=profile.seed)

    def denoising_loss(self, design: Design, batch: Batch) -> Tensor:
        """Mean distance between prediction and target, as in every variant."""
        scheduler = self.prior.scheduler
        noisy = scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
        with torch.no_grad():  # the pre-stages are frozen: no activations need be kept for them
            seen = design.see(batch.lq)
        prediction = design(noisy, batch.timesteps, seen, batch.prompt, batch.time_ids)
        target = prediction_target(scheduler, batch.latents, batch.noise, batch.timesteps)
        return distance(prediction, target, self.study.profile.training.loss)

    def check_frozen(self) -> None:
        """Prove that no weight of the prior changed by one bit.

        Raises:
            RunError: One did.
        """
        if module_digest(*self.prior.modules()) != self.before:
            raise RunError(f"{self.name}: the frozen prior changed during training")

    def _identity(self, phase: str, model: nn.Module) -> str:
        profile = self.study.profile
        # Rows that differ by their sampler alone share the training, and its state to resume from.
        settings = self.settings.model_dump(mode="json", exclude={"sampling"})
        return digest(
            phase, settings, profile.training.decisive(), profile.seed, self.seed, self.before,
            module_digest(model), [row["loss"] for row in self.log],
        )  # fmt: skip


class ControlledMethod(Method, Generic[AnyDesign]):
    """A conditioning design of another paper on the study's frozen prior.

    Raises:
        ConfigError: `settings` do not fit the schema of the design.
    """

    trained = True
    denoises = True
    name: ClassVar[str]
    schema: ClassVar[type[ControlledSettings]]
    config: ControlledSettings

    def __init__(self, settings: dict[str, Json], where: str) -> None:
        self.config = parse(settings, self.schema, where)
        self.where = where

    @abstractmethod
    def build(self, prior: Prior, study: Study, about: About | None) -> AnyDesign:
        """Build the untrained design; `about` is what :meth:`about` said when it was trained."""

    @abstractmethod
    def pretrain(self, design: AnyDesign, training: ControlledTraining) -> None:
        """Run the pre-stages, which train ``design.front``."""

    def train_control(self, design: AnyDesign, training: ControlledTraining) -> None:
        """Run the last stage, which trains ``design.control``."""
        training.control(design)

    def about(self, design: AnyDesign) -> About:
        """What must be known beside the settings to build the design again."""
        return {}

    def parts(self, design: AnyDesign) -> dict[str, nn.Module]:
        """What is trained, by name."""
        return {**dict(design.front.named_children()), **dict(design.control.named_children())}

    def train(self, study: Study, seed: int, folder: Path, state: Path) -> Cost:
        """Write ``model.safetensors``, ``config.json`` and ``training.csv``."""
        training = ControlledTraining.start(study, self.name, seed, self.config, state)
        design = self._build(study, training.prior, seed, None)
        self.pretrain(design, training)
        pre = {row["phase"] for row in training.log}
        self.train_control(design, training)
        training.check_frozen()
        about = {"format": f"faithdiff.{self.name}/1", **self.about(design)}
        save(design.state_dict(), about, training.log, folder)
        networks: list[nn.Module] = [design, *training.prior.modules()]
        return measure(self.parts(design), networks, training.log, pre)

    def load(self, study: Study, folder: Path) -> Restorer:
        """Read the weights that :meth:`train` wrote.

        Raises:
            CheckpointError: They are missing, corrupted, or of another shape.
        """
        profile, sampling = study.profile, self.config.sampling
        design = self._load(study, folder, DTYPES[profile.restore.precision])
        restorer = controlled_restorer(design, profile.restore, profile.data.scale, sampling)
        return with_captions(study, folder, sampling, restorer)

    def denoiser(self, study: Study, folder: Path) -> Denoiser:
        return self._load(study, folder, DTYPES[study.profile.restore.precision]).denoiser()

    def untrained(self, study: Study, prior: Prior) -> Denoiser | None:
        design = self.build(prior.freeze(), study, None).requires_grad_(False)
        design.control.requires_grad_(True)
        design.to(prior.unet.device)
        return Denoiser(torch.no_grad()(design.see), design)

    def settings(self, study: Study) -> dict[str, Json]:
        restore = study.profile.restore.decisive()
        own = self.config.model_dump(mode="json")
        return {"restore": restore, "own": own, "prior": folder_digest(study.prior_folder)}

    def _load(self, study: Study, folder: Path, dtype: torch.dtype) -> AnyDesign:
        name = folder.parent.name
        prior = load_prior(study.prior_folder, dtype).to(study.profile.device)
        # Seed 0 for each: every weight that is drawn is overwritten by the checkpoint's.
        design = self._build(study, prior, 0, read_config(folder, name))
        design.convert(dtype)
        design.load_state_dict(read_weights(folder, design.state_dict(), name))
        return design.eval().requires_grad_(False)

    def _build(self, study: Study, prior: Prior, seed: int, about: About | None) -> AnyDesign:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.seed(study.profile.seed, self.name, "init", seed))
            return self.build(prior, study, about).to(study.profile.device)


def controlled_restorer(
    design: Design, config: Restore, scale: int, sampling: Sampling
) -> DiffusionRestorer:
    """A trained design in the sampler that FaithDiff and its variants go through.

    What FaithDiff's released code does by accident is no part of another paper's design.
    """
    config = config.model_copy(update={"as_released": False})
    if config.compile:
        design.compile_control()
    return DiffusionRestorer(
        design.prior, design.denoiser(), config, scale, sampling, design.tile_encoders
    )
