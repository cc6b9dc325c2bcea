"""Sections of the training of FaithDiff, its variants and the controlled baselines."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from faithdiff.config.models import Optimiser
from faithdiff.config.section import Group, Natural, Positive, Precision, Probability, Rate, Section
from faithdiff.study.plain import JsonObject


class Phase(Section):
    """One optimisation of stage 2: what it trains, and towards what."""

    train: Annotated[list[Group], Field(min_length=1)]
    objective: Literal["denoising", "feature-matching"] = "denoising"


class LearningRates(Section):
    lq_encoder: Rate
    alignment: Rate
    unet: Rate


class HeldOut(Section):
    """The held-out denoising loss: fixed noise, at the timesteps that the common sampler visits."""

    # Timesteps that it does not visit, for the figure of the loss over t.
    curve: list[Natural] = Field(default_factory=list)
    images: Positive  # per test set and level


OPERATIONAL = {  # settings of `training` that change where and how fast it runs, not its result
    "processes",
    "channels_last",
    "shard_model",
    "shard_optimiser",
    "launcher",
    "prefetch",
    "validation_every",
}


class Training(Section):
    loss: Literal["l1", "mse"]
    crop: Positive  # pixels of the HQ crop
    batch_size: Positive  # images per update
    micro_batch: Positive  # images per forward pass; mixed by `attention: released`
    stage1_steps: Natural
    stage1_learning_rate: Rate
    stage2_steps: Positive
    learning_rates: LearningRates
    optimiser: Optimiser
    noise_offset: Annotated[float, Field(ge=0)]
    text_dropout: Probability
    flip: bool = False  # mirror each crop left to right with probability 1/2
    ema_decay: Probability
    weights: Literal["raw", "ema"]  # which of the two is the trained model
    precision: Precision  # of the passes; weights and their sums are float32
    tf32: bool = False  # float32 products on a GPU with 10 bits of mantissa
    channels_last: bool = (
        False  # on a GPU, weights of convolutions in NHWC order; equal to rounding
    )
    gradient_checkpointing: bool
    processes: Positive  # one for each device; the micro-batches of an update are dealt to them
    shard_optimiser: bool  # each process keeps the moments of its share of the parameters (ZeRO-1)
    # Each keeps its share of weights, gradients, moments and average as well (FSDP2).
    shard_model: bool = False
    launcher: list[str]  # arguments for `accelerate launch`, beside the number of processes
    prefetch: Natural  # batches drawn ahead by a thread
    heldout: HeldOut
    log_every: Positive
    checkpoint_every: Positive
    validation_every: Natural  # updates between grids of restored test images; 0: none

    @property
    def micro_batches(self) -> int:
        """Forward passes of one update, over all processes."""
        return self.batch_size // self.micro_batch

    def decisive(self) -> JsonObject:
        """The settings that decide the weights: without those of where and how fast they run."""
        return self.model_dump(mode="json", exclude=OPERATIONAL)

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> Training:
        if self.batch_size % self.micro_batch:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch {self.micro_batch}"
            )
        if self.weights == "ema" and self.ema_decay == 1:
            raise ValueError(
                "ema_decay: 1 keeps the weights of the start; give less, or weights: raw"
            )
        if self.shard_model and self.validation_every:
            raise ValueError(
                "shard_model: true leaves no process the whole model that validation_every draws "
                "pictures with; set validation_every: 0"
            )
        if self.shard_model and self.channels_last:
            raise ValueError(
                "channels_last: true reorders weights, and shard_model: true (FSDP2) takes them in "
                "their own order only; set one of them to false"
            )
        if self.micro_batches % self.processes:
            raise ValueError(
                f"processes {self.processes} do not divide the {self.micro_batches} micro-batches "
                "of an update (batch_size / micro_batch): some would wait for the others"
            )
        return self
