"""How fast the sampler is at a model's real size, against the released way of running it.

Weights are drawn at random: time and memory do not depend on them. The reference is the released
loop: one tile at a time, a guidance pair per UNet pass; batching tiles must give the same latents.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, JsonValue
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from faithdiff import compat  # noqa: F401  (must precede diffusers' models)

# isort: split
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    EulerDiscreteScheduler,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from faithdiff.config import TextEncoder
from faithdiff.errors import CheckpointError, UserError
from faithdiff.models.alignment import Alignment
from faithdiff.models.faithdiff import FaithDiff
from faithdiff.models.lq_encoder import LQEncoder
from faithdiff.models.prior import Prior
from faithdiff.models.text import build_tokenizer
from faithdiff.models.vae import PatchAutoencoderKL
from faithdiff.models.weights import DTYPES
from faithdiff.planning.gpu_check_page import PEAKS
from faithdiff.restore.pipeline import FaithDiffPipeline
from faithdiff.restore.tiling import tiles
from faithdiff.study import seeds
from faithdiff.study.provenance import hardware

JsonObject = dict[str, JsonValue]
UPSCALE = 4


@dataclass(frozen=True)
class BenchSettings:
    """What is timed: `sides` of the result in pixels, tiles in latent pixels."""

    base: Path
    sides: tuple[int, ...]
    steps: int
    tile: int
    tile_batch: int
    device: str
    precision: str
    compiled: bool


@dataclass(frozen=True)
class Timing:
    """One measurement; `error` is the largest difference from the loop's latents."""

    side: int
    way: str
    seconds: float
    memory_gib: float | None
    tflops: float
    error: float


def run(settings: BenchSettings) -> None:
    """Measure and print a Markdown table.

    Raises:
        UserError: There is no such device, or too little memory on it.
        CheckpointError: The folder has no config of a part.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: there is no GPU here; give --device cpu and a small --base")
    machine = hardware()
    name = (
        (machine["gpus"] or [machine["processor"]])[0]
        if settings.device == "cuda"
        else (f"{machine['processor']}, {torch.get_num_threads()} threads")
    )
    peak = next((value for card, value in PEAKS.items() if card in name), None)
    print(
        f"{settings.base}: random weights, {settings.precision}, {settings.steps} steps, guidance "
        f"5, tiles of {settings.tile} on {name}, torch {machine['torch']}\n\n"
        "| result | way | s/image | times the loop | peak GiB | TFLOP/s | of peak | differs by |\n"
        "|---|---|---:|---:|---:|---:|---:|---:|",
        flush=True,
    )
    loops: dict[int, float] = {}
    for result in _measure(settings):
        loop = loops.setdefault(result.side, result.seconds)
        memory = "" if result.memory_gib is None else f"{result.memory_gib:.1f}"
        share = "" if peak is None else f"{result.tflops / peak:.0%}"
        print(
            f"| {result.side} px | {result.way} | {result.seconds:.2f} "
            f"| {loop / result.seconds:.2f} | {memory} | {result.tflops:.3g} | {share} "
            f"| {result.error:.1e} |",
            flush=True,
        )


def build(base: Path, device: str, dtype: torch.dtype) -> FaithDiffPipeline:
    """Build a pipeline of the sizes in a folder's configs, with random weights."""
    prior, model = random_model(base, device)
    scheduler = EulerDiscreteScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    )
    frozen = model.eval().requires_grad_(False)
    pipeline = FaithDiffPipeline.from_parts(prior.freeze(), frozen, scheduler).to(device, dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def random_model(base: Path, device: str) -> tuple[Prior, FaithDiff]:
    """Draw prior and model of the sizes in a folder's configs, in float32."""
    folders = ["text_encoder", *(["text_encoder_2"] if (base / "text_encoder_2").is_dir() else [])]
    text = [_config(base, folder) for folder in folders]
    vae_config, unet_config = _config(base, "vae"), _config(base, "unet")
    vae_class = PatchAutoencoderKL if "patch_size" in vae_config else AutoencoderKL
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.seed(0, "bench", "weights"))
        with torch.device(device):
            vae = vae_class.from_config(vae_config)
            unet = UNet2DConditionModel.from_config(unet_config)
            # One layer of each text encoder: captions are encoded once, outside the loop.
            encoders = [
                CLIPTextModelWithProjection(CLIPTextConfig(**{**c, "num_hidden_layers": 1}))
                for c in text
            ]
            encoder = LQEncoder.from_vae(vae, "penultimate")
            alignment = Alignment(encoder.channels, unet.config.block_out_channels[0])
            torch.nn.init.normal_(alignment.project.weight, std=0.01)
    tokenizer = build_tokenizer(["a photograph"], _vocabulary(text[0]))
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    prior = Prior(vae, unet, encoders, [tokenizer] * len(encoders), scheduler)
    return prior, FaithDiff(unet, encoder, alignment)


def _measure(settings: BenchSettings) -> Iterator[Timing]:
    dtype = DTYPES[settings.precision]
    pipeline = build(settings.base, settings.device, dtype)
    flops = _flops(settings)
    many = settings.tile_batch
    ways = [("loop, one tile", 1, False), (f"{many} tiles", many, False)]
    if settings.compiled:
        ways.append((f"{many} tiles, compiled", many, True))
    wanted: dict[int, Tensor] = {}
    for way, batch, compiled in ways:
        if compiled:
            pipeline.unet.compile()
        for side in settings.sides:
            factor = pipeline._prior.factor
            parts = len(tiles(side // factor, side // factor, settings.tile, settings.tile // 2))
            _sample(pipeline, settings, side, batch, steps=2)  # warms up, and compiles
            latents, seconds, memory = _timed(pipeline, settings, side, batch)
            exact = wanted.setdefault(side, latents)
            error = (latents - exact).abs().max().item()
            done = flops * parts * settings.steps / seconds / 1e12
            yield Timing(side, way, seconds, memory, done, error)


def _timed(
    pipeline: FaithDiffPipeline, settings: BenchSettings, side: int, batch: int
) -> tuple[Tensor, float, float | None]:
    on_gpu = settings.device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    begun = time.perf_counter()
    try:
        latents = _sample(pipeline, settings, side, batch, settings.steps)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{side} px with {batch} tiles at once does not fit: {error}. Give a smaller "
            "--tile-batch or --side, or a shorter --precision"
        ) from None
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    return latents, seconds, torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None


def _sample(
    pipeline: FaithDiffPipeline, settings: BenchSettings, side: int, batch: int, steps: int
) -> Tensor:
    """Everything but decoding: LQ encoder, VAE encoder and the denoising loop."""
    generator = seeds.torch_generator(0, "bench", "image", side)
    small = torch.rand((1, 3, side // UPSCALE, side // UPSCALE), generator=generator)
    (latents,) = pipeline(
        small,
        "a photograph",
        upscale=UPSCALE,
        num_inference_steps=steps,
        generator=generator,
        tile_size=settings.tile,
        tile_stride=settings.tile // 2,
        tile_batch_size=batch,
        output_type="latent",
        return_dict=False,
    )
    assert isinstance(latents, Tensor)
    return latents.float().cpu()


def _flops(settings: BenchSettings) -> int:
    """FLOPs of one tile's guidance pair, counted on tensors without memory."""
    config, text = _config(settings.base, "unet"), 77
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
        noisy = torch.empty(2, unet.config.in_channels, settings.tile, settings.tile)
        hidden = torch.empty(2, text, unet.config.cross_attention_dim)
        ids = torch.empty(2, 6)
        added = unet.config.projection_class_embeddings_input_dim
        pooled = torch.empty(2, added - 6 * unet.config.addition_time_embed_dim)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(noisy, 1, hidden, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids})
    return int(counter.get_total_flops())


class _TextConfig(BaseModel):
    """Of a text encoder's config, what decides its shapes."""

    vocab_size: int
    max_position_embeddings: int
    hidden_size: int
    num_attention_heads: int


def _vocabulary(config: JsonObject) -> TextEncoder:
    """What :func:`build_tokenizer` reads; a few words are enough."""
    sizes = _TextConfig.model_validate(config)
    return TextEncoder(
        vocabulary=min(300, sizes.vocab_size),
        length=sizes.max_position_embeddings,
        width=sizes.hidden_size,
        layers=1,
        heads=sizes.num_attention_heads,
    )


def _config(base: Path, part: str) -> JsonObject:
    file = base / part / "config.json"
    try:
        config: JsonObject = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from None
    return config
