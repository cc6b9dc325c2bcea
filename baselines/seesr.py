"""SeeSR (Wu et al., CVPR 2024), controlled: semantic prompts that survive the degradation.

The pre-stage makes a degradation-aware prompt extractor (DAPE): a tagger of clean images, and a
copy of it that learns to say the same of their LQ versions. It gives a soft prompt (embeddings of
the image and its parts) and a hard one (tags, which stand in place of a caption). The last stage is
a ControlNet on the LQ pixels; behind every text cross-attention of ControlNet and frozen UNet
stands a second transformer block that attends to the soft prompt (RCA).

It does not start as its prior, and that is the published design: the second blocks start at random.
``identity_start: true`` is the ablation in which their last projections start at zero. What differs
from the published system, besides size and the study's own data:

- The tagger is not RAM, which knows thousands of classes from millions of images: it is the VAE's
  encoder with a small head, and its tags are the words of the training captions.
- The degradation-aware copy is trained whole, where RAM gets low-rank updates.
- A tag is given where its probability is above the quantile at which the clean training images get
  it as often as their captions have it; RAM's thresholds are set by hand.
- Words of good and bad quality are not added. The start from the noised LQ latent, which the paper
  proposes, is that of every method here (`restore.start_point`).
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from baselines.checkpoint import About
from baselines.controlled import ControlledMethod, ControlledSettings, ControlledTraining
from baselines.design import Design, control_encoder, zero
from faithdiff import compat as compat  # before diffusers

# isort: split
from diffusers import Transformer2DModel
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding

from faithdiff.config import Positive, Probability, Rate
from faithdiff.errors import ConfigError
from faithdiff.methods.method import Study
from faithdiff.models.lq_encoder import LQEncoder
from faithdiff.models.prior import Prior
from faithdiff.models.seen import Seen
from faithdiff.models.text import Prompt
from faithdiff.study import seeds
from faithdiff.train.cache import Batch, PixelRows, to_signed
from faithdiff.train.pairs import corners, crops, find_pairs, mirror, mirrored, pick

Hook = Callable[[nn.Module, object, tuple[Tensor, ...]], tuple[Tensor, ...]]
TAGS_AT_ONCE = 64  # whose thresholds are taken together
STEM = (16, 32, 96, 256)  # widths of the stem as released, one for each halving and one more


class SeeSRSettings(ControlledSettings):
    """``baselines.seesr.settings``; published values in brackets."""

    tagger_steps: Positive  # updates of the tagger of clean images [RAM, pre-trained]
    extractor_steps: Positive  # updates of its degradation-aware copy [20,000]
    extractor_learning_rate: Rate  # of both [1e-4]
    tags: Positive  # at most, the most frequent words [4585]
    tag_range: tuple[Probability, Probability]  # share of captions that a tag may be in
    grid: Positive  # parts of the soft prompt each way [12]
    caption_dropout: Probability  # of the tags of a training image [0.5]
    identity_start: bool  # false is the published design

    @model_validator(mode="after")
    def _tags_in_range(self) -> SeeSRSettings:
        if self.tag_range[0] > self.tag_range[1]:
            low, high = self.tag_range
            raise ValueError(f"tag_range: {low:g} is larger than {high:g}")
        return self


class SeeSR(ControlledMethod["SeeSRDesign"]):
    """Trains and loads the controlled SeeSR."""

    name = "seesr"
    schema = SeeSRSettings
    config: SeeSRSettings
    tagger: Extractor  # the teacher: needed while training, not to restore

    def build(self, prior: Prior, study: Study, about: About | None) -> SeeSRDesign:
        tags = about["tags"] if about else self._tags(study)
        extractor = Extractor(prior, tags, self.config.grid, study.profile.training.crop)
        return SeeSRDesign(prior, extractor, self.config.identity_start)

    def about(self, design: SeeSRDesign) -> About:
        return {"tags": design.extractor.tags}

    def parts(self, design: SeeSRDesign) -> dict[str, nn.Module]:
        return {"tagger": self.tagger, **super().parts(design)}

    def _tags(self, study: Study) -> list[str]:
        """The vocabulary: frequent words of the training captions, without the commonest."""
        captions = find_pairs(study.layout, study.profile.data.train_level).captions
        low, high = (share * len(captions) for share in self.config.tag_range)
        counts = Counter(word for caption in captions for word in words(caption))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        tags = [word for word in ranked if low <= counts[word] <= high][: self.config.tags]
        if not tags:
            raise ConfigError(
                f"{self.where}.tag_range: no word is in {low:g} to {high:g} of the "
                f"{len(captions)} training captions; widen it"
            )
        return tags

    def pretrain(self, design: SeeSRDesign, training: ControlledTraining) -> None:
        """The tagger by the words of the captions, then its copy by what the tagger says."""
        study, config = training.study, self.config
        captions = find_pairs(study.layout, study.profile.data.train_level).captions
        views = Views(PixelRows(study.layout.train_cache), study, training.seed)
        extractor = design.extractor
        tagger = self.tagger = copy.deepcopy(extractor)

        def tagging(step: int, micro: int) -> Tensor:
            rows, hq, _ = views.draw("tagger", step, micro)
            truth = extractor.truth([captions[row] for row in rows.tolist()])
            return F.binary_cross_entropy_with_logits(tagger(hq)[1], truth.to(hq))

        training.run("tagger", tagger, tagging, config.tagger_steps, config.extractor_learning_rate)
        extractor.load_state_dict(tagger.state_dict())

        def distillation(step: int, micro: int) -> Tensor:
            _, hq, lq = views.draw("extractor", step, micro)
            with torch.no_grad():
                tokens, logits = tagger(hq)
            found, said = extractor(lq)
            same = F.binary_cross_entropy_with_logits(said, logits.sigmoid())
            # Relative to the spread of the tokens: nothing fixes their scale here, and it would
            # otherwise decide how the two terms weigh.
            return F.mse_loss(found, tokens) / tokens.var() + same

        training.run(
            "extractor", extractor, distillation,
            config.extractor_steps, config.extractor_learning_rate,
        )  # fmt: skip
        extractor.threshold.copy_(_thresholds(tagger, views, captions, training.state / "logits"))
        tagger.threshold.copy_(extractor.threshold)

    def train_control(self, design: SeeSRDesign, training: ControlledTraining) -> None:
        """The last stage: tags of the clean crop by the tagger, soft prompts of the LQ crop."""

        def batch(step: int, micro: int) -> Batch:
            shared = training.shared_batch(step, micro)
            # Tags of the clean crop while training, of the LQ image while testing: as published.
            with torch.no_grad():
                tags = self.tagger.say(self.tagger(shared.hq)[1])
            generator = seeds.torch_generator(
                training.study.profile.seed, "seesr", "dropout", training.seed, step, micro
            )
            dropped = torch.rand(len(tags), generator=generator) < self.config.caption_dropout
            said = ["" if drop else tag for drop, tag in zip(dropped.tolist(), tags, strict=True)]
            return replace(shared, prompt=design.prior.encode_text(said))

        training.control(design, batch)


def words(caption: str) -> set[str]:
    """Words of a caption, in lower case and of three letters or more."""
    return set(re.findall(r"[a-z]{3,}", caption.lower()))


class Views:
    """Views of the training pairs at the size of a crop: whole images shrunk, and crops."""

    def __init__(self, pixels: PixelRows, study: Study, seed: int) -> None:
        profile = study.profile
        self.pixels, self.scale, self.size = pixels, profile.data.scale, profile.training.crop
        self.batch, self.device = profile.training.micro_batch, profile.device
        self.flip = profile.training.flip
        self.key = (profile.seed, "seesr", "views", seed)

    def draw(self, phase: str, step: int, micro: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, and HQ and LQ views ``(B, 3, size, size)`` in [-1, 1]; crops in odd updates."""
        generator = seeds.torch_generator(*self.key, phase, step, micro)
        rows = pick(len(self.pixels), self.batch, generator)
        hq, lq = self.pixels.hq(rows), self.pixels.lq(rows)
        if step % 2:
            side = self.size // self.scale
            corner = corners(min(lq.shape[-2:]), side, len(rows), generator)
            hq, lq = crops(hq, self.scale * corner, self.size), crops(lq, corner, side)
        flipped = mirrored(self.flip, len(rows), *self.key, phase, step, micro)
        return rows, self._view(mirror(hq, flipped)), self._view(mirror(lq, flipped))

    def whole(self) -> Iterator[Tensor]:
        """All HQ images, shrunk, in batches."""
        for rows in torch.arange(len(self.pixels)).split(self.batch):
            yield self._view(self.pixels.hq(rows))

    def _view(self, images: Tensor) -> Tensor:
        return resized(to_signed(images).to(self.device), self.size)


@torch.no_grad()
def _thresholds(tagger: Extractor, views: Views, captions: list[str], file: Path) -> Tensor:
    """Logits above which the clean training images get each tag as often as their captions do.

    Args:
        file: Holds the logits of all images for the time being: with thousands of tags they may be
            larger than the memory.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(captions), len(tagger.tags))
    said = np.memmap(file, np.float32, "w+", shape=shape)
    counts, first = torch.zeros(shape[1], dtype=torch.int64), 0
    for view in views.whole():
        part = slice(first, first + len(view))
        said[part] = tagger(view)[1].cpu().numpy()
        counts += tagger.truth(captions[part]).sum(0).long()
        first = part.stop
    share, limits = (counts / shape[0]).tolist(), []
    for start in range(0, shape[1], TAGS_AT_ONCE):
        part = slice(start, start + TAGS_AT_ONCE)
        columns = torch.from_numpy(said[:, part].copy()).T
        limits += [
            float(torch.quantile(column, 1 - p))
            for column, p in zip(columns, share[part], strict=True)
        ]
    del said
    file.unlink()
    return torch.tensor(limits)


def resized(images: Tensor, size: int) -> Tensor:
    """Images ``(B, 3, size, size)``, whatever size and shape they had."""
    return F.interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp(-1, 1)


class Extractor(nn.Module):
    """Soft and hard prompts of images; the tagger and its degradation-aware copy are two of it."""

    threshold: Tensor

    def __init__(self, prior: Prior, tags: list[str], grid: int, size: int) -> None:
        super().__init__()
        self.tags, self.grid, self.size = tags, grid, size
        self.trunk = LQEncoder.from_vae(prior.vae, "penultimate")
        self.width = self.trunk.channels
        self.norm = nn.LayerNorm(self.width)
        self.head = nn.Sequential(
            nn.Linear(self.width, 2 * self.width), nn.SiLU(), nn.Linear(2 * self.width, len(tags))
        )
        self.register_buffer("threshold", torch.zeros(len(tags)))  # of the logits

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``(B, 1 + grid², D)``, the image first and then its parts, and tag logits."""
        features = self.trunk(resized(images, self.size))
        parts = F.adaptive_avg_pool2d(features, self.grid).flatten(2).transpose(1, 2)
        tokens = self.norm(torch.cat([parts.mean(1, keepdim=True), parts], 1))
        # A tag may be said of any part: the strongest says it.
        return tokens, self.head(tokens).amax(1)

    def say(self, logits: Tensor) -> list[str]:
        """The tags above their thresholds, in the order of the vocabulary."""
        above = (logits > self.threshold).tolist()
        return [", ".join(t for t, on in zip(self.tags, row, strict=True) if on) for row in above]

    def truth(self, captions: list[str]) -> Tensor:
        """Which tags are words of each caption: ``(N, T)`` of 0 and 1."""
        said = [words(caption) for caption in captions]
        return torch.tensor([[float(tag in each) for tag in self.tags] for each in said])


class SeeSRDesign(Design):
    """`front` is the extractor, `control` the ControlNet and all image attention.

    Attributes:
        image_attention: False leaves the second blocks out.
    """

    image_attention = True

    def __init__(self, prior: Prior, extractor: Extractor, identity_start: bool) -> None:
        super().__init__(prior)
        self.front = nn.ModuleDict({"extractor": extractor})
        halvings = prior.factor.bit_length() - 1
        stem = ControlNetConditioningEmbedding(
            prior.unet.config.block_out_channels[0], 3, STEM[: halvings + 1]
        )
        encoder = control_encoder(prior.unet, nn.Sequential(nn.PixelShuffle(prior.factor), stem))
        # In the frozen UNet as well as in the control: the published RCA blocks are in both.
        sites = [*_attentions(prior.unet), *_attentions(encoder)]
        added = nn.ModuleList(_second(site, extractor.width, identity_start) for site in sites)
        self.control = nn.ModuleDict({"control_encoder": encoder, "image_attention": added})
        self._tokens: Tensor | None = None  # of the pass under way
        for index, site in enumerate(sites):
            site.register_forward_hook(self._attend(index))

    @property
    def extractor(self) -> Extractor:
        """The degradation-aware one."""
        found = self.front["extractor"]
        assert isinstance(found, Extractor)
        return found

    def see(self, lq: Tensor) -> Seen:
        """Pixels in [0, 1], unshuffled to the size of the latents, and the soft prompt."""
        # The stem shuffles them back: a map at the size of the latents is what tiles can cut.
        pixels = F.pixel_unshuffle(lq / 2 + 0.5, self.prior.factor)
        return Seen(pixels, self.extractor(lq)[0], lq)

    def captions(self, seen: Seen, known: list[str]) -> list[str]:
        """Tags of the LQ images; captions are not looked at."""
        assert seen.image is not None
        return self.extractor.say(self.extractor(seen.image)[1])

    def restored(self, seen: Seen) -> Tensor:
        """The enlarged LQ image itself: no pre-stage restores."""
        assert seen.image is not None
        return seen.image

    def forward(
        self, noisy: Tensor, timesteps: Tensor, seen: Seen, prompt: Prompt, time_ids: Tensor
    ) -> Tensor:
        self._tokens = seen.tokens
        try:
            down, middle = self.encode(noisy, timesteps, seen, prompt, time_ids)
            return self.denoise(noisy, timesteps, prompt, time_ids, down, middle)
        finally:
            self._tokens = None

    def _attend(self, index: int) -> Hook:
        # A function, not a bound method: copying the control (averaged weights) must not copy us.
        def hook(_: nn.Module, __: object, output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            assert self._tokens is not None, "call the design, not its UNet"
            if not self.image_attention:
                return output
            second = self.control["image_attention"].get_submodule(str(index))
            attended: tuple[Tensor, ...] = second(
                output[0], encoder_hidden_states=self._tokens, return_dict=False
            )
            return attended

        return hook


def _attentions(network: nn.Module) -> list[Transformer2DModel]:
    """The text cross-attention blocks of a UNet or ControlNet."""
    return [module for module in network.modules() if isinstance(module, Transformer2DModel)]


def _second(site: Transformer2DModel, tokens: int, identity_start: bool) -> Transformer2DModel:
    """A block of the shape of another that attends to `tokens` channels, at random weights."""
    heads = site.transformer_blocks[0].attn1.heads
    second = Transformer2DModel(
        heads,
        site.inner_dim // heads,
        site.in_channels,
        num_layers=len(site.transformer_blocks),
        norm_num_groups=site.norm.num_groups,
        cross_attention_dim=tokens,
        use_linear_projection=site.use_linear_projection,
    )
    if identity_start:
        zero(second.proj_out)
    return second
