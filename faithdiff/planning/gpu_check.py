"""Parity, speed and memory at full size on a GPU, in ten minutes: ``make gpu-check``.

Weights are random, so nothing is downloaded, and it runs in an environment that has only torch,
diffusers, transformers and safetensors beside what these bring and pydantic. ``SMALL=1`` runs the
same measurements on a CPU with small networks: a rehearsal, whose numbers say nothing.
"""

from __future__ import annotations

import argparse
import gc
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from faithdiff import compat  # noqa: F401  (must precede diffusers' models)

# isort: split
from faithdiff.config import Optimiser, load_profile
from faithdiff.errors import FaithDiffError
from faithdiff.models.faithdiff import FaithDiff, build
from faithdiff.models.objective import distance, prediction_target
from faithdiff.models.prior import Prior, build_prior
from faithdiff.models.repeatable import channels_first, channels_last
from faithdiff.models.text import Prompt, build_tokenizer
from faithdiff.models.weights import DTYPES
from faithdiff.planning import bench_sampler
from faithdiff.planning.gpu_check_page import Figure, Figures, machine, write
from faithdiff.restore.pipeline import FaithDiffPipeline
from faithdiff.study import seeds
from faithdiff.train.engine import Trained
from faithdiff.train.loop import Job, train

SCALE = 4
NHWC = ", channels_last"  # how a row with `channels_last: true` is named
STEPS = 20  # of an image; two and six are run, which gives the time of a step and of the rest
OPTIMISER = Optimiser(
    betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, max_grad_norm=1.0, warmup=1, hold=1.0
)


@dataclass(frozen=True)
class Extent:
    """What is measured: the real sizes, or small ones for a rehearsal on a CPU."""

    base: Path  # folder with configs
    device: str
    sides: tuple[int, ...]  # of the result, pixels
    tile: int  # latent pixels
    tile_batches: tuple[int, ...]
    tiles: tuple[int, ...]
    precisions: tuple[str, ...]
    crop: int  # of training, pixels
    micro_batches: tuple[int, ...]
    training: str  # precision of the passes
    lab: bool  # whether the networks of `lab` have their size
    seconds: float  # what the whole may take

    @property
    def backend(self) -> str:
        """Of torch.compile: a rehearsal compiles no code."""
        return "inductor" if self.device == "cuda" else "eager"


FULL = Extent(
    Path("config/sdxl"), "cuda", (1024, 2048), 128, (1, 2, 4, 9), (64, 96, 128), ("fp16", "bf16"),
    512, (1, 2, 4, 8), "bf16", True, 540.0,
)  # fmt: skip
SMALL = Extent(
    Path("prior/mini"), "cpu", (32, 64), 8, (1, 4), (6, 8), ("fp32", "bf16"),
    64, (1, 2), "bf16", False, 600.0,
)  # fmt: skip


class Check:
    """The measurements, each of which may find that time or memory is used up."""

    def __init__(self, sizes: Extent) -> None:
        self.sizes = sizes
        self.begun = time.monotonic()
        self.rows: list[Figure] = []
        self._flops: dict[tuple[int, int], float] = {}  # of a step, by side and tile

    def run(self) -> list[Figure]:
        """Everything, the most wanted first."""
        self._parity()
        # Training first, whose memory is the largest: what is left over by another fragments it.
        self._training()
        self._sampler()
        self._lab()
        return self.rows

    def _row(self, section: str, what: str, measure: Callable[[], Figure | None]) -> Figure | None:
        """Measure one row; say why not where it fails."""
        row: Figure | None = Figure(section, what)
        if time.monotonic() - self.begun > self.sizes.seconds:
            row = Figure(section, what, note="not measured: the time was used up")
        else:
            try:
                row = measure()
            except torch.OutOfMemoryError:
                row = Figure(section, what, note="does not fit into the memory of the card")
            # One failed kernel, or loss, must not cost the other figures.
            except (RuntimeError, FaithDiffError) as error:
                row = Figure(section, what, note=f"failed: {str(error).splitlines()[0][:120]}")
        if row is not None:
            self.rows.append(row)
            print(row, flush=True)
        self._free()
        return row

    def _free(self) -> None:
        gc.collect()
        if self.sizes.device == "cuda":
            torch.cuda.empty_cache()

    # --- Parity of GPU and CPU --------------------------------------------------------------------

    def _parity(self) -> None:
        """The small networks on both, in float32 and without TF32: equal up to rounding."""
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        wanted = _sample(bench_sampler.build(SMALL.base, "cpu", torch.float32), 64, 16, 1, 4)

        def measure(precision: str) -> Figure:
            pipeline = bench_sampler.build(SMALL.base, "cpu", torch.float32)
            pipeline.to(self.sizes.device, DTYPES[precision])
            got = _sample(pipeline, 64, 16, 1, 4)
            what = f"small model, {precision}, against the CPU in fp32"
            return Figure("parity", what, error=_difference(got, wanted))

        for precision in dict.fromkeys(("fp32", *self.sizes.precisions)):
            self._row("parity", precision, lambda: measure(precision))  # noqa: B023 - called at once
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True

    # --- The sampler ------------------------------------------------------------------------------

    def _sampler(self) -> None:
        """Images at every side and precision: the one-tile loop, tiles together, compiled."""
        sizes = self.sizes
        for precision in sizes.precisions:
            pipeline = bench_sampler.build(sizes.base, sizes.device, DTYPES[precision])
            pipeline.enable_vae_tiling()
            loops: dict[int, Figure | None] = {}
            exact: dict[int, Tensor] = {}
            for side in sizes.sides:
                loops[side] = self._image(pipeline, precision, side, sizes.tile, 1, "loop", exact)
                loop = loops[side]
                for batch in sizes.tile_batches[1:] if side == sizes.sides[-1] else ():
                    what = f"{batch} tiles"
                    self._image(pipeline, precision, side, sizes.tile, batch, what, exact, loop)
            if precision == sizes.precisions[0]:
                side = sizes.sides[0]
                channels_last(pipeline.unet)
                what, loop = f"loop{NHWC}", loops[side]
                self._image(pipeline, precision, side, sizes.tile, 1, what, exact, loop)
                channels_first(pipeline.unet)
                for tile in sizes.tiles[:-1]:
                    self._image(pipeline, precision, sizes.sides[-1], tile, 4, f"tile {tile}", {})
            pipeline.unet.compile(backend=sizes.backend)
            for side in sizes.sides:
                batch = 1 if side == sizes.sides[0] else 4
                what, loop = f"{'loop' if batch == 1 else '4 tiles'}, compiled", loops[side]
                self._image(pipeline, precision, side, sizes.tile, batch, what, exact, loop)
            del pipeline
            self._free()

    def _image(
        self,
        pipeline: FaithDiffPipeline,
        precision: str,
        side: int,
        tile: int,
        batch: int,
        way: str,
        exact: dict[int, Tensor],
        loop: Figure | None = None,
    ) -> Figure | None:
        what = f"{side} px, {precision}, {way}"

        def measure() -> Figure:
            latents = _sample(pipeline, side, tile, batch, 2)  # warms up, and compiles
            error = _difference(latents, exact.setdefault(side, latents))
            if (side, tile) not in self._flops:  # of the eager network: a compiled one hides them
                two, one = (
                    _counted(lambda: _sample(pipeline, side, tile, 1, steps))  # noqa: B023 - called at once
                    for steps in (2, 1)
                )
                self._flops[side, tile] = two - one
            flops = self._flops[side, tile]
            short, memory = self._timed(lambda: _restore(pipeline, side, tile, batch, 2))
            long, _ = self._timed(lambda: _restore(pipeline, side, tile, batch, 6))
            step = (long - short) / 4
            seconds = short + (STEPS - 2) * step
            row = Figure("sampler", what, seconds=seconds, memory_gib=memory, error=error)
            row = replace(row, tflops=flops / step / 1e12)
            return replace(row, times=loop.seconds / seconds) if loop and loop.seconds else row

        return self._row("sampler", what, measure)

    # --- Training ---------------------------------------------------------------------------------

    def _training(self) -> None:
        """Ten updates of stage 2 at one micro-batch, then a few at others."""
        sizes = self.sizes
        prior, model = bench_sampler.random_model(sizes.base, sizes.device)
        model.unet.enable_gradient_checkpointing()
        model.lq_encoder.enable_gradient_checkpointing()
        ten = sizes.micro_batches[len(sizes.micro_batches) // 2]
        orders = [(ten, ""), (ten, NHWC), *((m, "") for m in sizes.micro_batches if m != ten)]
        for micro, order in orders:
            updates = 10 if micro == ten else 3
            what = f"stage 2, {sizes.crop} px, {sizes.training}, micro-batch {micro}{order}"
            channels_last(model) if order else channels_first(model)
            self._row("training", what, lambda: self._updates(prior, model, what, micro, updates))  # noqa: B023

    def _lab(self) -> None:
        """Updates of the profile `lab`, or of the tests' where this is a rehearsal."""
        profile = load_profile(Path("config", "lab.yaml" if self.sizes.lab else "test.yaml"))
        config = profile.training

        def measure() -> Figure:
            tokenizer = build_tokenizer(["a photograph"], profile.prior.text_encoder)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                prior = build_prior(profile.prior, tokenizer)
                model = build(prior, profile.recipes["released"], profile.alignment)
            small = replace(self.sizes, crop=config.crop, training=config.precision)
            what = f"{profile.profile}: stage 2, {config.crop} px, batch {config.batch_size}"
            model.to(self.sizes.device)
            check = Check(small)
            return check._updates(prior, model, what, config.micro_batch, 10, config.micro_batches)

        self._row("training", profile.profile, measure)

    def _updates(
        self, prior: Prior, model: FaithDiff, what: str, micro: int, updates: int, parts: int = 1
    ) -> Figure:
        """Run updates of the training loop on random batches."""
        sizes = self.sizes
        model.train()
        batch = _batch(prior, model, sizes.crop, micro, sizes.device)
        begun: list[float] = []

        def loss(step: int, part: int) -> Tensor:
            if part == 0:
                self._synchronise()
                begun.append(time.perf_counter())
            return batch(step)

        groups = [
            Trained.whole(model.group(name), 1e-6) for name in ("lq_encoder", "alignment", "unet")
        ]
        job = Job(
            what, model, groups, loss, updates + 1, OPTIMISER, parts, parts * micro,
            precision=sizes.training,  # type: ignore[arg-type]
            checkpoint_every=updates + 2,
        )  # fmt: skip
        low = sizes.training != "fp32"
        with torch.no_grad(), torch.autocast(sizes.device, DTYPES[sizes.training], low):
            flops = 3 * parts * _counted(lambda: batch(0))  # backward: twice the forward
        self._reset_memory()
        train(job)
        self._synchronise()
        begun.append(time.perf_counter())
        seconds = (begun[-1] - begun[1]) / updates  # the first update is slower: kernels are chosen
        row = Figure("training", what, seconds=seconds, memory_gib=self._memory())
        rate = parts * micro / seconds
        return replace(row, images_per_second=rate, tflops=flops / seconds / 1e12)

    # --- Clock and memory -------------------------------------------------------------------------

    def _timed(self, call: Callable[[], object]) -> tuple[float, float | None]:
        self._reset_memory()
        self._synchronise()
        begun = time.perf_counter()
        call()
        self._synchronise()
        return time.perf_counter() - begun, self._memory()

    def _synchronise(self) -> None:
        if self.sizes.device == "cuda":
            torch.cuda.synchronize()

    def _reset_memory(self) -> None:
        if self.sizes.device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def _memory(self) -> float | None:
        used = self.sizes.device == "cuda"
        return torch.cuda.max_memory_allocated() / 2**30 if used else None


def _sample(pipeline: FaithDiffPipeline, side: int, tile: int, batch: int, steps: int) -> Tensor:
    """The latents of a random image."""
    return _call(pipeline, side, tile, batch, steps, "latent").float().cpu()


def _restore(pipeline: FaithDiffPipeline, side: int, tile: int, batch: int, steps: int) -> Tensor:
    """The image, decoded, too."""
    return _call(pipeline, side, tile, batch, steps, "pt")


def _call(
    pipeline: FaithDiffPipeline, side: int, tile: int, batch: int, steps: int, output: str
) -> Tensor:
    generator = seeds.torch_generator(0, "bench", "image", side)
    small = torch.rand((1, 3, side // SCALE, side // SCALE), generator=generator)
    found = pipeline(
        small,
        "a photograph",
        upscale=SCALE,
        generator=generator,
        output_type=output,
        return_dict=False,
        num_inference_steps=steps,
        tile_size=tile,
        tile_stride=tile // 2,
        tile_batch_size=batch,
    )
    assert isinstance(found, tuple)
    (image,) = found
    assert isinstance(image, Tensor)
    return image


def _batch(
    prior: Prior, model: FaithDiff, crop: int, count: int, device: str
) -> Callable[[int], Tensor]:
    """A random micro-batch on the device, and the loss of the training on it."""
    generator = torch.Generator().manual_seed(0)
    shape = model.unet.config
    pooled = shape.projection_class_embeddings_input_dim - 6 * shape.addition_time_embed_dim
    side = crop // prior.factor

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(device)

    lq = normal(count, 3, crop, crop).clamp(-1, 1)
    latents, noise = (normal(count, shape.in_channels, side, side) for _ in range(2))
    prompt = Prompt(normal(count, 77, shape.cross_attention_dim), normal(count, pooled))
    ids = torch.tensor([[crop, crop, 0, 0, crop, crop]] * count, device=device)

    def loss(step: int) -> Tensor:
        timesteps = torch.full((count,), (37 * step) % 1000, device=device)
        noisy = prior.scheduler.add_noise(latents, noise, timesteps)
        features = model.lq_encoder(lq)
        prediction = model(noisy, timesteps, features, prompt, ids)
        target = prediction_target(prior.scheduler, latents, noise, timesteps)
        return distance(prediction, target, "l1")

    return loss


def _counted(call: Callable[[], object]) -> float:
    """Operations of a call of eager networks."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def _difference(found: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference, as a share of that of what is wanted."""
    return float((found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


def _finite(rows: list[Figure]) -> Iterator[Figure]:
    """Without what JSON cannot say."""
    for row in rows:
        bad = row.error is not None and not math.isfinite(row.error)
        yield replace(row, error=None, note="not finite") if bad else row


def main() -> None:
    """Measure, and write the JSON file and the table of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="Small networks on the CPU.")
    parser.add_argument("--out", type=Path, help="JSON file; default: results/gpu-check.json.")
    parser.add_argument("--page", type=Path, help="Page with the table; default: full-size.md.")
    given = parser.parse_args()
    if not given.small and not torch.cuda.is_available():
        parser.exit(
            2, "gpu-check: torch sees no GPU here; rehearse it with: make gpu-check SMALL=1\n"
        )
    sizes = SMALL if given.small else FULL
    begun = time.monotonic()
    rows = [*_finite(Check(sizes).run())]
    report = Figures(machine(sizes.device, given.small), round(time.monotonic() - begun), rows)
    # A rehearsal must not take the place of figures.
    folder = Path("logs") if given.small else Path("results")
    page = given.page or (None if given.small else Path("docs/full-size.md"))
    write(report, given.out or folder / "gpu-check.json", page)


if __name__ == "__main__":
    main()
