"""The sampler beside diffusers' image-to-image pipeline, and the hot loops beside other ways.

At the size of the study's prior; the alignment's weights are drawn at random, as time does not
depend on them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faithdiff import compat  # noqa: F401  (must precede diffusers' models)

# isort: split
from diffusers import EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline

from faithdiff.config import Restore
from faithdiff.methods.method import Denoiser, Study
from faithdiff.models.alignment import Standardise, TransformerBlock
from faithdiff.models.faithdiff import FaithDiff, build
from faithdiff.models.objective import distance, time_ids
from faithdiff.models.prior import Prior, load_prior
from faithdiff.models.seen import Seen
from faithdiff.models.text import Prompt
from faithdiff.planning.peers.record import PEERS, WAYS, SideBySide, in_turns
from faithdiff.restore.faithdiff_restorer import FaithDiffRestorer
from faithdiff.restore.sampler import Sampler, SamplerSettings, caption_encoder
from faithdiff.study import seeds
from faithdiff.train.engine import Engine, Trained
from faithdiff.train.processes import ALONE

SIDE, SCALE = 128, 4  # of a restored image, as in `mini`
CAPTION = "a red house"
FOUND_SMALL = "measured, not taken: other bits for little"
OFF = "a setting, off in `mini`: other bits"


def samplers(study: Study, steps: int, repetitions: int) -> Iterator[SideBySide]:
    """Our sampling loop and diffusers' SDXL pipeline, on one UNet, with equal steps."""
    prior, model = _model(study, "released")
    restore = study.profile.restore
    settings = SamplerSettings.of(restore).model_copy(
        update={"num_inference_steps": steps, "start_timestep": 999, "color_fix": "none"}
    )
    lq = _lq(1)

    def sampled(denoiser: Denoiser) -> Callable[[], Tensor]:
        def work() -> Tensor:
            sampler = Sampler(prior, denoiser, _euler(prior), caption_encoder(prior))
            view = sampler.view(lq, SCALE, "cpu")
            latents = sampler.sample(view, [CAPTION], _generators(1), settings)
            return sampler.images(latents, view, settings)

        return work

    theirs = _image_to_image(prior, lq, steps, settings.guidance_scale)
    # The untrained alignment adds nothing, so that the UNet alone is what the pipeline runs, too.
    alone = Denoiser(
        lambda image: Seen(image[:, :1, :: prior.factor, :: prior.factor]), _plain(prior)
    )
    full = Denoiser(model.see, model.predict, sees_pairs_once=True)
    hook = next(iter(prior.unet.conv_in._forward_hooks))
    aligned = prior.unet.conv_in._forward_hooks[hook]

    def without(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """The alignment is taken off the UNet meanwhile."""

        def wrapped() -> Tensor:
            del prior.unet.conv_in._forward_hooks[hook]
            try:
                return work()
            finally:
                prior.unet.conv_in._forward_hooks[hook] = aligned

        return wrapped

    spent = in_turns([sampled(full), without(sampled(alone)), without(theirs)], repetitions)
    for ours, seconds, note in (
        ("our loop, the prior's UNet alone", spent[1], "the same networks, the same passes"),
        (
            "our loop, FaithDiff",
            spent[0],
            "ours also runs LQ encoder and alignment, which the pipeline has not",
        ),
    ):
        yield SideBySide(
            kind=PEERS,
            what=f"sample {SIDE} px, {steps} Euler steps with guidance, encoding and decoding",
            ours=ours,
            theirs="diffusers' StableDiffusionXLImg2ImgPipeline",
            ours_seconds=seconds,
            theirs_seconds=spent[2],
            agreement="other noise: not the same image",
            note=note,
        )


def _image_to_image(prior: Prior, lq: Tensor, steps: int, guidance: float) -> Callable[[], Tensor]:
    pipeline = StableDiffusionXLImg2ImgPipeline(
        prior.vae, None, None, None, None, prior.unet, _euler(prior),
        force_zeros_for_empty_prompt=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    enlarged = F.interpolate(lq, scale_factor=SCALE, mode="bicubic").clamp(0, 1)

    def work() -> Tensor:
        with torch.no_grad():
            positive, negative = (prior.encode_text([words]) for words in (CAPTION, ""))
        found: Tensor = pipeline(
            image=enlarged,
            strength=1.0,
            num_inference_steps=steps,
            guidance_scale=guidance,
            prompt_embeds=positive.hidden,
            pooled_prompt_embeds=positive.pooled,
            negative_prompt_embeds=negative.hidden,
            negative_pooled_prompt_embeds=negative.pooled,
            generator=_generators(1)[0],
            output_type="pt",
            return_dict=False,
        )[0]
        return found

    return work


def _plain(prior: Prior) -> Callable[[Tensor, Tensor, Seen, Prompt, Tensor], Tensor]:
    def predict(noisy: Tensor, timesteps: Tensor, _: Seen, prompt: Prompt, ids: Tensor) -> Tensor:
        added = {"text_embeds": prompt.pooled, "time_ids": ids}
        found: Tensor = prior.unet(
            noisy, timesteps, prompt.hidden, added_cond_kwargs=added, return_dict=False
        )[0]
        return found

    return predict


def _euler(prior: Prior) -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler.from_config(prior.scheduler.config, timestep_spacing="trailing")


def restoring(study: Study, repetitions: int) -> Iterator[SideBySide]:
    """Restoring an image as the study does, beside other ways of computing it."""
    config = study.profile.restore
    for recipe in ("released", "spatial"):
        prior, model = _model(study, recipe)
        ours = FaithDiffRestorer(model, prior, config, SCALE)
        twice = _aligning_twice(ours)
        what = f"restore an image, recipe {recipe}"
        yield _way(
            what, "alignment once for a guidance pair", "for both halves",
            partial(_restore, ours, 1), partial(_restore, twice, 1),
            "yes: as it is", repetitions,
        )  # fmt: skip
    prior, model = _model(study, "released")
    ours = FaithDiffRestorer(model, prior, config, SCALE)
    what = "restore an image, recipe released"

    def inference() -> Tensor:
        with torch.inference_mode():
            return _restore(ours, 1)

    yield _way(
        what, "no_grad", "inference_mode", lambda: _restore(ours, 1), inference,
        "not taken: no gain, and DiffBIR's guidance takes gradients of what is made in it",
        repetitions,
    )  # fmt: skip
    last = FaithDiffRestorer(_channels_last(model), prior, config, SCALE)
    yield _way(
        what, "contiguous weights", "channels_last weights",
        lambda: _restore(ours, 1), lambda: _restore(last, 1), FOUND_SMALL, repetitions,
    )  # fmt: skip
    half = _in_half(prior, model, config)
    yield _way(
        what, "float32", "bfloat16 (restore.precision)",
        lambda: _restore(ours, 1), lambda: _restore(half, 1), OFF, repetitions,
    )  # fmt: skip
    yield _way(
        "restore four images, recipe released", "one by one", "four at once (restore.batch_size)",
        lambda: torch.cat([_restore(ours, 1, number) for number in range(4)]),
        lambda: _restore(ours, 4), OFF, repetitions,
    )  # fmt: skip
    yield from _attention(repetitions)


def _attention(repetitions: int) -> Iterator[SideBySide]:
    block = TransformerBlock(128, 4, 2, "spatial").eval().requires_grad_(False)
    tokens = torch.randn(1, 1024, 128, generator=_generators(1)[0])

    def attend() -> Tensor:
        with torch.no_grad():
            return block._attend(tokens)

    def flash() -> Tensor:
        with torch.no_grad():
            joined = F.linear(tokens, block.attn.in_proj_weight, block.attn.in_proj_bias)
            parts = [part.unflatten(2, (4, 32)).transpose(1, 2) for part in joined.chunk(3, 2)]
            found = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
            return block.attn.out_proj(found.transpose(1, 2).flatten(2))

    yield _way(
        "spatial attention over 1,024 positions", "nn.MultiheadAttention",
        "scaled_dot_product_attention", attend, flash, FOUND_SMALL, 3 * repetitions,
    )  # fmt: skip


def training(study: Study, repetitions: int) -> Iterator[SideBySide]:
    """An update of stage 2 as the study does it, beside other ways of computing it."""
    _, model = _model(study, "released")
    fused, foreach, low = (copy.deepcopy(model) for _ in range(3))
    last = _channels_last(model)
    ways = (
        ("AdamW tensor by tensor", "fused AdamW", _update(study, fused, "fp32", fused=True),
         FOUND_SMALL),
        ("AdamW tensor by tensor", "foreach AdamW", _update(study, foreach, "fp32", foreach=True),
         "not taken: no gain on a CPU"),
        ("float32", "bfloat16 autocast (training.precision)", _update(study, low, "bf16"), OFF),
        ("contiguous weights", "channels_last weights", _update(study, last, "fp32"),
         FOUND_SMALL),
    )  # fmt: skip
    for as_it_is, other, work, taken in ways:
        # Beside a copy that has seen as many updates, so that equal bits stay comparable.
        beside = _update(study, copy.deepcopy(model), "fp32")
        yield _way("an update of stage 2", as_it_is, other, beside, work, taken, repetitions)


def _update(
    study: Study, model: FaithDiff, precision: str, fused: bool = False, foreach: bool = False
) -> Callable[[], Tensor]:
    """One update on a fixed made-up batch; gives the first weights of the UNet after it."""
    config, generator = study.profile.training, _generators(1)[0]
    model.requires_grad_(True).train()
    groups = [Trained.whole(part, 1e-4) for part in (model.lq_encoder, model.alignment, model.unet)]
    engine = Engine(model, groups, config.optimiser, precision, ALONE, False)
    for group in engine.optimiser.param_groups:
        group["fused"], group["foreach"] = fused, foreach
    count, side = config.micro_batch, config.crop // model.lq_encoder.factor
    images = torch.rand((count, 3, config.crop, config.crop), generator=generator) * 2 - 1
    noisy, target = torch.randn(2, count, 4, side, side, generator=generator)
    timesteps = torch.randint(1000, (count,), generator=generator)
    text, shape = model.unet.config, (count, 32)
    hidden = torch.randn((*shape, text.cross_attention_dim), generator=generator)
    width = text.projection_class_embeddings_input_dim - 6 * text.addition_time_embed_dim
    prompt = Prompt(hidden, torch.randn((count, width), generator=generator))
    ids = time_ids((256, 256), torch.zeros(count, 2), (config.crop, config.crop))

    def work() -> Tensor:
        with engine.autocast():
            prediction = model(noisy, timesteps, model.lq_encoder(images), prompt, ids)
            loss = distance(prediction, target, config.loss)
        engine.backward(loss)
        engine.update(1.0)
        return model.unet.conv_in.weight.detach().clone()

    return work


def _model(study: Study, recipe: str) -> tuple[Prior, FaithDiff]:
    prior = load_prior(study.prior_folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.seed(0, "peers", "weights"))
        model = build(prior, study.profile.recipes[recipe], study.profile.alignment)
        nn.init.normal_(model.alignment.project.weight, std=0.01)
    norm = model.alignment.condition.norm_in
    if isinstance(norm, Standardise):
        with torch.no_grad():
            norm.fit(model.lq_encoder(F.interpolate(_lq(4), scale_factor=SCALE) * 2 - 1))
    return prior, model.eval().requires_grad_(False)


def _channels_last(model: FaithDiff) -> FaithDiff:
    """A copy of a model with the channels of its convolutions' weights last in memory."""
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return other


def _in_half(prior: Prior, model: FaithDiff, config: Restore) -> FaithDiffRestorer:
    half = copy.deepcopy(model).to(torch.bfloat16)
    vae, text = (
        copy.deepcopy(part).to(torch.bfloat16) for part in (prior.vae, prior.text_encoders[0])
    )
    low = replace(prior, vae=vae, unet=half.unet, text_encoders=[text])
    return FaithDiffRestorer(half, low, config.model_copy(update={"precision": "bf16"}), SCALE)


def _aligning_twice(restorer: FaithDiffRestorer) -> FaithDiffRestorer:
    other = copy.copy(restorer)
    denoiser = replace(restorer._sampler.denoiser, sees_pairs_once=False)
    other._sampler = replace(restorer._sampler, denoiser=denoiser)
    return other


def _restore(restorer: FaithDiffRestorer, count: int, first: int = 0) -> Tensor:
    chosen = range(first, first + count)
    return restorer.restore(_lq(first + count)[first:], [CAPTION] * count, [*chosen])


def _lq(count: int) -> Tensor:
    """Made-up LQ images ``(count, 3, h, w)`` in [0, 1], laid out as images that were read."""
    size = (count, SIDE // SCALE, SIDE // SCALE, 3)
    return torch.rand(size, generator=_generators(1)[0]).permute(0, 3, 1, 2)


def _generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


@dataclass
class _Last:
    """Calls a way and keeps what it gave last."""

    work: Callable[[], Tensor]
    result: Tensor | None = None

    def __call__(self) -> None:
        self.result = self.work()


def _way(
    what: str,
    ours: str,
    theirs: str,
    our_work: Callable[[], Tensor],
    their_work: Callable[[], Tensor],
    taken: str,
    repetitions: int,
) -> SideBySide:
    both = _Last(our_work), _Last(their_work)
    spent = in_turns(both, repetitions)
    one, other = (last.result for last in both)
    assert one is not None and other is not None
    equal = torch.equal(one, other)
    differs = f"no, by {(one.float() - other.float()).abs().max().item():.1g}"
    return SideBySide(
        kind=WAYS,
        what=what,
        ours=ours,
        theirs=theirs,
        ours_seconds=spent[0],
        theirs_seconds=spent[1],
        agreement="yes" if equal else differs,
        note=taken,
    )
