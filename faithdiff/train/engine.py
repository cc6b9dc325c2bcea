"""From the loss of a micro-batch to new weights: precision, sums over processes, AdamW.

The passes may run in bf16 or fp16; weights, gradients and the optimiser's moments are float32.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.optim.optimizer import StateDict

from faithdiff.config import Optimiser
from faithdiff.models.weights import DTYPES
from faithdiff.train.processes import Processes

SMALLEST_SCALE = 1.0  # of the fp16 loss: below it, halving it further has stopped to help


@dataclass(frozen=True)
class Trained:
    """Parameters that share a learning rate: a parameter group of AdamW."""

    parameters: list[nn.Parameter]
    learning_rate: float

    @classmethod
    def whole(cls, module: nn.Module, learning_rate: float) -> Trained:
        """All parameters of a module."""
        return cls(list(module.parameters()), learning_rate)


class AdamWSettings(TypedDict):
    """Keyword arguments of AdamW."""

    betas: tuple[float, float]
    eps: float
    weight_decay: float
    fused: bool


class Engine:
    """Turns the losses of an update into a step of AdamW.

    Args:
        shard_optimiser: Each process keeps the moments of its share of the parameters.
        sharded: The parameters are shards themselves (:mod:`faithdiff.train.sharding`).

    Attributes:
        parameters: All that are trained.
        overflowed: fp16 gradients were infinite until the loss scale was used up.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: list[Trained],
        config: Optimiser,
        precision: str,
        processes: Processes,
        shard_optimiser: bool,
        sharded: bool = False,
    ) -> None:
        self._names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
        self.parameters: list[nn.Parameter] = [p for group in groups for p in group.parameters]
        self._rates = [group.learning_rate for group in groups]
        self._config = config
        self._precision = precision
        self._processes = processes
        self._sharded = sharded
        self.device = self.parameters[0].device
        self._fused = self.device.type == "cuda"
        settings: AdamWSettings = {
            "betas": config.betas,
            "eps": config.eps,
            "weight_decay": config.weight_decay,
            # One kernel for all parameters: no second copy of them while it runs.
            "fused": self._fused,
        }
        plain = [{"params": group.parameters, "lr": group.learning_rate} for group in groups]
        self.optimiser: torch.optim.Optimizer
        if shard_optimiser and processes.count > 1 and not sharded:
            from torch.distributed.optim import ZeroRedundancyOptimizer

            # Every process steps its share of the parameters and sends it to the others.
            self.optimiser = ZeroRedundancyOptimizer(plain, torch.optim.AdamW, **settings)
        else:
            self.optimiser = torch.optim.AdamW(plain, **settings)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")

    @property
    def overflowed(self) -> bool:
        return self._scaler.is_enabled() and self._scaler.get_scale() < SMALLEST_SCALE

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        # Autocast, where the released code casts the weights themselves to fp16 and leaves float32
        # copies to DeepSpeed: the same products in 16 bits, but norms and losses stay in float32.
        low = self._precision != "fp32"
        dtype = DTYPES[self._precision] if low else None
        # Its cache would keep the whole model in 16 bits until the end of the pass.
        return torch.autocast(self.device.type, dtype, low, cache_enabled=not self._sharded)

    def backward(self, loss: Tensor) -> None:
        self._scaler.scale(loss).backward()

    def update(self, rate: float) -> float:
        """Sum the gradients over the processes, clip them, and step.

        Args:
            rate: Share of each group's learning rate.

        Returns:
            The learning rate of the last group.
        """
        # Set from the number of the update, not by torch's schedulers: these count their own calls,
        # and would be one more thing to save and to bring back in step.
        for group, full in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = full * rate
        # Summed first, then clipped: the norm is that of the whole batch, whatever the processes.
        # In fp16 they are summed as they are scaled, so that an overflow in one is infinite in all,
        # and all leave out the same update.
        if not self._sharded:  # else each backward pass has summed and sharded its own
            self._processes.add_gradients(self.parameters)
        # Without this the norm would be of the scaled gradients, and clip every one of them.
        self._scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.parameters, self._config.max_grad_norm)
        self._scaler.step(self.optimiser)  # leaves the weights alone after an overflow
        self._scaler.update()
        # To None, not to zero: a parameter that has no gradient in the next update must not be
        # moved by AdamW's moments and weight decay.
        self.optimiser.zero_grad(set_to_none=True)
        return float(self.optimiser.param_groups[-1]["lr"])

    def moments(self) -> dict[str, Tensor]:
        """The optimiser's tensors that this process keeps, as ``<parameter>.<field>``."""
        return {
            f"{self._names[parameter]}.{field}": tensor
            for parameter, fields in self._own.state.items()
            for field, tensor in fields.items()
        }

    def blank_moments(self, saved: Container[str]) -> dict[str, Tensor]:
        """Make room for those of the saved tensors that this process keeps, to be filled.

        Args:
            saved: Names as in :meth:`moments`. A parameter that never had a gradient has none.
        """
        for parameter in (p for group in self._own.param_groups for p in group["params"]):
            step = torch.zeros((), device=self.device if self._fused else "cpu")
            blank = {"step": step, "exp_avg": parameter, "exp_avg_sq": parameter}
            fields = [f for f in blank if f"{self._names[parameter]}.{f}" in saved]
            if fields:
                self._own.state[parameter] = {f: torch.zeros_like(blank[f]) for f in fields}
        return self.moments()

    @property
    def _own(self) -> torch.optim.Optimizer:
        """The optimiser of the parameters that this process steps."""
        own: torch.optim.Optimizer = getattr(self.optimiser, "optim", self.optimiser)
        return own

    def scale(self) -> StateDict:
        """The state of fp16's loss scale."""
        return self._scaler.state_dict()

    def set_scale(self, state: StateDict) -> None:
        self._scaler.load_state_dict(state)
