"""What one update of a training costs, counted on tensors without memory (PyTorch's meta device).

Operations of the forward pass are counted by `torch.utils.flop_counter`, a multiplication and an
addition as two. A backward pass takes as many again for the gradient of what enters a module, and
as many again for the gradient of its weights. Weights, gradients and optimiser are exact;
activations are an estimate: the tensors that autograd keeps, at the width of the precision.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F

from faithdiff import compat

# isort: split
from diffusers import AutoencoderKL, ModelMixin, UNet2DConditionModel
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from faithdiff.config import Group, Profile, Stage1, Training
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.models.faithdiff import FaithDiff, build
from faithdiff.models.prior import Prior, build_unet
from faithdiff.models.text import Prompt
from faithdiff.models.vae import PatchAutoencoderKL
from faithdiff.train.processes import total_bytes
from faithdiff.train.sharding import gathered
from faithdiff.train.spent import parameters

compat.patch()
META = torch.device("meta")
Part = TypeVar("Part", bound=ModelMixin)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Forward:
    """One forward pass of a micro-batch.

    Attributes:
        flops: Counted operations.
        kept: Bytes that autograd keeps in float32, every activation kept.
        checkpointed: The same with gradient checkpointing: what enters each checkpointed block,
            and the largest of them while it is computed again.
    """

    flops: float
    kept: float
    checkpointed: float


@dataclass(frozen=True)
class PhaseCost:
    """What an optimisation trains, and its cost.

    Attributes:
        trained: Parameters with a gradient.
        parameters: All parameters on the device.
        flops: Of one image, forward and backward, recomputation left out.
        recomputed: Operations that gradient checkpointing adds for one image.
        activations: Estimated bytes for one micro-batch.
        gathered: Parameters that a process holds whole at once where the model is sharded.
    """

    trained: int
    parameters: int
    flops: float
    recomputed: float
    activations: float
    gathered: int


class Costs:
    """Costs of the trainings of one profile; what several of them share is counted once."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.prior = meta_prior(profile)
        self._models: dict[str, FaithDiff] = {}
        self._phases: dict[tuple[str, tuple[Group, ...], str], PhaseCost] = {}
        self._encoders: dict[str, Forward] = {}
        self._unet = self._unet_alone()  # before a model attaches its alignment to it

    @property
    def _config(self) -> Training:
        return self.profile.training

    def model(self, recipe: Stage1) -> FaithDiff:
        """The model of a recipe without memory; to be looked at, not changed."""
        key = recipe.model_dump_json()
        if key not in self._models:
            with META:
                prior = replace(self.prior, unet=copy.deepcopy(self.prior.unet))
                self._models[key] = build(prior, recipe, self.profile.alignment)
        return self._models[key]

    def phase(
        self, recipe: Stage1, groups: Iterable[Group], objective: str = "denoising"
    ) -> PhaseCost:
        """Cost of one optimisation of a recipe that trains some groups."""
        key = (recipe.model_dump_json(), tuple(groups), objective)
        if key not in self._phases:
            self._phases[key] = self._phase(recipe, *key[1:])
        return self._phases[key]

    def _phase(self, recipe: Stage1, groups: tuple[Group, ...], objective: str) -> PhaseCost:
        model = self.model(recipe)
        sizes = {
            name: parameters(model.group(name)) for name in ("lq_encoder", "alignment", "unet")
        }
        encoder = self._encoder(recipe.features, model)
        if objective == "feature-matching":  # a frozen copy of the encoder is the teacher
            passes = [(encoder, True, True), (encoder, False, False)]
            held = sizes["lq_encoder"]
        else:
            alignment = _forward(model.alignment, *self._alignment_inputs(model))
            learns = "lq_encoder" in groups
            # The UNet comes last, so gradients for the others pass through all of it.
            passes = [
                (encoder, learns, learns),
                (alignment, "alignment" in groups, learns or "alignment" in groups),
                (self._unet, "unet" in groups, True),
            ]
            held = 0
        images = self._config.micro_batch
        # Counted in float32. In 16 bits the activations that count most, of convolutions and
        # attention, take half; the norms that stay wide are few.
        narrow = 4 if self._config.precision == "fp32" else 2
        checkpointing = self._config.gradient_checkpointing
        graph = [part for part, _, passed in passes if passed]
        return PhaseCost(
            trained=sum(sizes[name] for name in groups),
            parameters=sum(sizes.values()) + held,
            # Forward once, once more for each gradient: of the weights, and of what came in.
            flops=sum(p.flops * (1 + w + g) for p, w, g in passes) / images,
            recomputed=sum(p.flops for p in graph) / images if checkpointing else 0.0,
            activations=sum(p.checkpointed if checkpointing else p.kept for p in graph)
            * narrow
            / 4,
            gathered=max(gathered(part) for part in model.children()),
        )

    def images(self) -> Tensor:
        """A micro-batch of images ``(B, 3, crop, crop)`` without memory."""
        return self._empty(3, self._config.crop, self._config.crop)

    def noisy(self) -> tuple[Tensor, Tensor, Prompt, Tensor]:
        """A micro-batch of noisy latents, timesteps, prompt and time ids without memory."""
        config = self.prior.unet.config
        length = self.profile.prior.text_encoder.length
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        prompt = Prompt(self._empty(length, config.cross_attention_dim), self._empty(pooled))
        timesteps = torch.zeros(self._config.micro_batch, dtype=torch.long, device=META)
        return self._latents(config.in_channels), timesteps, prompt, self._empty(6)

    def _unet_alone(self) -> Forward:
        latents, timesteps, prompt, time_ids = self.noisy()
        conditions = {"text_embeds": prompt.pooled, "time_ids": time_ids}
        return _forward(
            self.prior.unet, latents, timesteps, prompt.hidden, added_cond_kwargs=conditions
        )

    def _encoder(self, features: str, model: FaithDiff) -> Forward:
        if features not in self._encoders:
            self._encoders[features] = _forward(model.lq_encoder, self.images())
        return self._encoders[features]

    def _alignment_inputs(self, model: FaithDiff) -> tuple[Tensor, Tensor]:
        width = model.unet.config.block_out_channels[0]
        return self._latents(width), self._latents(model.lq_encoder.channels)

    def _latents(self, channels: int) -> Tensor:
        side = self._config.crop // self.prior.factor
        return self._empty(channels, side, side)

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(self._config.micro_batch, *shape, device=META)


def last_stage(study: Study, name: str) -> float | None:
    """Counted operations of a method's last stage, all its updates; None if nothing is counted.

    Of a variant, all phases; of a controlled baseline, the training of its control.
    """
    profile, training = study.profile, study.profile.training
    costs = Costs(profile)
    if name in profile.variants:
        variant = profile.variants[name]
        if variant.weights is not None:
            return None
        recipe, updates = profile.recipes[variant.recipe], profile.phase_updates(name)
        phases = zip(updates, variant.phases, strict=True)
        flops = (count * costs.phase(recipe, p.train, p.objective).flops for count, p in phases)
        return sum(flops) * training.batch_size
    with META:
        model = find_method(study, name).untrained(study, costs.prior)
    if model is None:
        return None
    noisy, timesteps, prompt, time_ids = costs.noisy()
    # The backward pass is counted and not estimated here: which parts of a design have gradients is
    # its own business, and autograd knows it.
    with FlopCounterMode(display=False) as counter, _Fused():
        model.predict(
            noisy, timesteps, model.see(costs.images()), prompt, time_ids
        ).sum().backward()
    flops_of_update = counter.get_total_flops() * training.micro_batches
    return float(flops_of_update) * profile.control_updates(name)


def meta_prior(profile: Profile) -> Prior:
    """VAE and UNet without memory: by the prior's own config files, or by the profile's shapes."""
    folder = profile.prior.path if profile.prior.source == "shipped" else None
    with META:
        if folder is not None and (folder / "unet" / "config.json").is_file():
            vae = _from_folder(_vae_class(folder), folder / "vae")
            unet = _from_folder(UNet2DConditionModel, folder / "unet")
        else:
            vae, unet = _vae(profile), build_unet(profile.prior)
    return Prior(vae, unet, [], [], None)


def _vae_class(folder: Path) -> type[AutoencoderKL]:
    config = AutoencoderKL.load_config(folder / "vae", local_files_only=True)
    return PatchAutoencoderKL if "patch_size" in config else AutoencoderKL


def _from_folder(cls: type[Part], folder: Path) -> Part:
    return cls.from_config(cls.load_config(folder, local_files_only=True))


def _vae(profile: Profile) -> AutoencoderKL:
    shape = profile.prior.vae
    sizes: dict[str, int | tuple[int, ...]] = {
        "latent_channels": shape.latent_channels,
        "block_out_channels": tuple(shape.block_out_channels),
        "layers_per_block": shape.layers_per_block,
    }
    if shape.patch_size > 1:
        return PatchAutoencoderKL(patch_size=shape.patch_size, **sizes)
    levels = len(shape.block_out_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        **sizes,
    )


class _Fused(TorchFunctionMode):
    """Attention as a GPU computes it: its table of weights is never kept."""

    def __torch_function__(
        self,
        function: Callable[..., Tensor],
        types: tuple[type, ...],
        args: tuple[Tensor, ...] = (),
        kwargs: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        if function is F.scaled_dot_product_attention and (kwargs or {}).get("attn_mask") is None:
            return torch.ops.aten._scaled_dot_product_flash_attention(*args[:3])[0]
        return function(*args, **(kwargs or {}))


def _forward(module: ModelMixin, *inputs: Tensor, **named: Mapping[str, Tensor]) -> Forward:
    """Count a forward pass of a module on the meta device."""
    module.requires_grad_(True).train()
    # Autograd also keeps weights for the backward pass, but no copies: they are counted elsewhere.
    weights = {id(parameter) for parameter in module.parameters()}
    # nn.MultiheadAttention escapes the mode above: leave out its table over all positions.
    positions = inputs[0].shape[-2:].numel()
    table = (positions, positions)
    blocks: list[tuple[float, float]] = []  # what enters a checkpointed block, what it keeps

    def keeping(work: Callable[[], Result]) -> tuple[Result, float]:
        kept: list[Tensor] = []

        def pack(tensor: Tensor) -> Tensor:
            if id(tensor) not in weights and tensor.shape[-2:] != table:
                kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = work()
        return result, float(total_bytes({id(tensor): tensor for tensor in kept}.values()))

    def block(part: Callable[..., Result], *args: Tensor | None) -> Result:
        entering = total_bytes([arg for arg in args if isinstance(arg, Tensor)])
        result, kept = keeping(lambda: part(*args))
        blocks.append((float(entering), kept))
        return result

    checkpoints = getattr(module, "_supports_gradient_checkpointing", False)
    if checkpoints:
        module.enable_gradient_checkpointing(block)
    try:
        with FlopCounterMode(display=False) as counter, _Fused():
            _, between = keeping(lambda: module(*inputs, **named))
    finally:
        if checkpoints:
            module.disable_gradient_checkpointing()
    inside = sum(kept for _, kept in blocks)
    entering, largest = sum(size for size, _ in blocks), max([k for _, k in blocks], default=0.0)
    return Forward(counter.get_total_flops(), between + inside, between + entering + largest)
