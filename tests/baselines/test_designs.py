"""The designs of other papers: how they start, what they see, what is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from shared.designs import METHODS, changed, loaded, method_of, random_images, untrained
from torch import Tensor

from baselines.controlled import ControlledTraining, module_digest
from baselines.design import Design
from baselines.seesr import SeeSRDesign, words
from baselines.supir import SUPIRDesign, mode, with_negatives
from faithdiff.data.datasets import read_index
from faithdiff.errors import ConfigError, RunError
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.models.prior import load_prior
from faithdiff.train.cache import Batch, Cache


def training_of(study: Study, name: str) -> ControlledTraining:
    method = method_of(study, name)
    return ControlledTraining.start(study, name, 0, method.config, Path("state"))


def batch_of(study: Study) -> Batch:
    prior, profile = load_prior(study.prior_folder), study.profile
    cache = Cache(study.layout.train_cache, prior, profile.data.scale, profile.training)
    return cache.batch(0, master=0)


@torch.no_grad()
def drift(design: Design, batch: Batch) -> float:
    """How far an untrained design predicts from its prior, relative to the prediction."""
    noisy = design.prior.scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
    seen = design.see(batch.lq)
    found = design(noisy, batch.timesteps, seen, batch.prompt, batch.time_ids)
    bare = load_prior(Path("checkpoints/test/prior")).unet(
        noisy,
        batch.timesteps,
        batch.prompt.hidden,
        added_cond_kwargs={"text_embeds": batch.prompt.pooled, "time_ids": batch.time_ids},
    )
    return float((found - bare.sample).norm() / bare.sample.norm())


def test_diffbir_starts_exactly_as_its_prior(study: Study) -> None:
    assert drift(untrained(study, "diffbir"), batch_of(study)) == 0.0


@pytest.mark.parametrize("name", ["supir", "seesr"])
def test_published_starts_are_not_the_prior_and_their_ablations_are(
    study: Study, name: str
) -> None:
    batch = batch_of(study)
    assert drift(untrained(study, name, identity_start=True), batch) == 0.0
    assert drift(untrained(study, name, identity_start=False), batch) > 0.01


def test_supir_of_no_strength_and_seesr_without_image_attention_are_the_prior(
    study: Study,
) -> None:
    supir, seesr = untrained(study, "supir"), untrained(study, "seesr")
    assert isinstance(supir, SUPIRDesign) and isinstance(seesr, SeeSRDesign)
    supir.strength, seesr.image_attention = 0.0, False
    assert drift(supir, batch_of(study)) == drift(seesr, batch_of(study)) == 0.0


def test_supirs_connectors_take_the_skip_that_the_decoder_consumes(study: Study) -> None:
    """Their control features then have the size and the width of the skip."""
    design = untrained(study, "supir")
    assert isinstance(design, SUPIRDesign)
    shapes: dict[int, tuple[torch.Size, torch.Size]] = {}
    for index, site in enumerate(design.connectors.sites):
        site.register_forward_hook(
            lambda _, given, __, i=index: shapes.update({i: (given[1].shape, given[2].shape)})
        )
    drift(design, batch_of(study))
    assert sorted(shapes) == list(range(design.connectors.skips))
    assert all(skip == control for skip, control in shapes.values())


def test_supir_decodes_what_it_restored_once_per_image(study: Study) -> None:
    design = untrained(study, "supir")
    assert isinstance(design, SUPIRDesign)
    images = random_images(2, 3, 16, 16) * 2 - 1
    seen, other = design.see(images[:1]), design.see(images[1:])
    decoded: list[Tensor] = []
    design.prior.vae.decoder.register_forward_hook(lambda *args: decoded.append(args[2]))
    image = design.restored(seen)
    design.guidance(seen)  # asks for the same image
    assert torch.equal(design.restored(seen), image) and len(decoded) == 1
    assert not torch.equal(design.restored(other), image) and len(decoded) == 2


def test_images_of_bad_quality_are_targets_with_their_words(study: Study) -> None:
    prior, batch = load_prior(study.prior_folder), batch_of(study)
    bad = prior.encode_text(["low quality"])
    chosen = torch.tensor([True, False])
    mixed = with_negatives(prior, batch, chosen, bad)
    assert torch.equal(mixed.latents[1], batch.latents[1])
    assert torch.equal(mixed.prompt.hidden[1], batch.prompt.hidden[1])
    assert torch.equal(mixed.prompt.pooled[0], bad.pooled[0])
    with torch.no_grad():
        expected = prior.vae.encode(batch.lq).latent_dist.mean * prior.vae.config.scaling_factor
    assert torch.allclose(mixed.latents[0], expected[0])
    assert with_negatives(prior, batch, ~chosen & chosen, bad) is batch


def test_restoration_guidance_of_supir_pulls_most_at_the_first_step(study: Study) -> None:
    design = untrained(study, "supir")
    seen = design.see(random_images(1, 3, 16, 16) * 2 - 1)
    anchor = mode(design.prior, design.prior.vae, design.restored(seen))
    guide, clean = design.guidance(seen), anchor + 1
    pulled = [(clean - guide(clean, 4.0, ratio)).mean() for ratio in (1.0, 0.5, 0.1)]
    assert pulled == pytest.approx([1, 0.5**4, 0.1**4], abs=1e-6)


def test_tags_are_words_of_the_captions_and_survive_in_the_checkpoint(trained: Study) -> None:
    folder = trained.layout.checkpoint("seesr", 0)
    tags = json.loads((folder / "config.json").read_text(encoding="utf-8"))["tags"]
    captions = list(read_index(trained.layout.dataset("train"))["caption"])
    assert 0 < len(tags) <= 8
    for tag in tags:
        assert 0.1 <= sum(tag in words(caption) for caption in captions) / len(captions) <= 0.9
    design = method_of(trained, "seesr")._load(trained, folder, torch.float32)
    assert isinstance(design, SeeSRDesign)
    assert design.extractor.tags == tags
    assert design.extractor.threshold.unique().numel() > 1
    high, low = torch.full((1, len(tags)), 99.0), torch.full((1, len(tags)), -99.0)
    assert design.extractor.say(torch.cat([high, low])) == [", ".join(tags), ""]


def test_words_of_a_caption_are_found_once_for_all_tags(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def found(caption: str) -> set[str]:
        asked.append(caption)
        return words(caption)

    monkeypatch.setattr("baselines.seesr.words", found)
    extractor = untrained(study, "seesr").extractor
    asked.clear()
    tags = extractor.tags
    assert len(tags) > 1
    truth = extractor.truth([tags[0], f"{tags[1]} and {tags[0]}"])
    assert asked == [tags[0], f"{tags[1]} and {tags[0]}"]
    assert truth[:, :2].tolist() == [[1, 0], [1, 1]]


def test_seesr_denoises_by_its_tags_and_not_by_captions(trained: Study) -> None:
    lq, restorer = random_images(1, 3, 16, 16), loaded(trained, "seesr")
    one, other = (restorer.restore(lq, [caption], [1]) for caption in ("a hill", "a red house"))
    assert torch.equal(one, other)
    one, other = (
        loaded(trained, "supir").restore(lq, [caption], [1])
        for caption in ("a hill", "a red house")
    )
    assert not torch.equal(one, other)


def test_no_word_in_the_range_is_said(study: Study) -> None:
    narrow = changed(study, "seesr", tag_range=[0.999, 0.9999])
    with pytest.raises(ConfigError, match=r"seesr.settings.tag_range: no word is in .* widen it"):
        find_method(narrow, "seesr").train(narrow, 0, Path("out"), Path("state"))


def test_the_restoration_module_starts_as_the_identity_at_any_size(study: Study) -> None:
    design = untrained(study, "diffbir")
    for size in ((16, 16), (20, 52), (2, 6)):
        images = random_images(1, 3, *size) * 2 - 1
        assert torch.equal(design.front["restoration_module"](images), images)


@pytest.mark.parametrize("name", METHODS)
def test_training_moves_what_it_should_and_no_bit_of_the_prior(study: Study, name: str) -> None:
    training = training_of(study, name)
    method = method_of(study, name)
    design = method._build(study, training.prior, 0, None)
    before = {part: module_digest(getattr(design, part)) for part in ("front", "control")}
    frozen = module_digest(*training.prior.modules())
    method.pretrain(design, training)
    assert module_digest(design.front) != before["front"]
    assert module_digest(design.control) == before["control"]
    front = module_digest(design.front)
    method.train_control(design, training)
    assert module_digest(design.front) == front
    assert module_digest(design.control) != before["control"]
    assert module_digest(*training.prior.modules()) == frozen
    training.check_frozen()


def test_a_prior_that_changed_is_noticed(study: Study) -> None:
    training = training_of(study, "diffbir")
    training.prior.unet.conv_in.bias[0] += 1
    with pytest.raises(RunError, match="diffbir: the frozen prior changed during training"):
        training.check_frozen()


@pytest.mark.parametrize("name", METHODS)
def test_every_trained_weight_of_the_control_gets_a_gradient(study: Study, name: str) -> None:
    """Zero convolutions stand between some weights and the loss until they have moved."""
    training = training_of(study, name)
    method = method_of(study, name)
    design = method._build(study, training.prior, 0, None)
    method.pretrain(design, training)
    method.train_control(design, training)
    design.control.requires_grad_(True)
    training.denoising_loss(design, training.shared_batch(0, 0)).backward()
    dead = [n for n, p in design.control.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead


@pytest.mark.parametrize("name", METHODS)
def test_the_last_stage_sees_the_batches_of_the_variants(
    study: Study, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batches(trained: str) -> list[Batch]:
        drawn: list[Batch] = []
        plain = Cache.batch

        def batch(cache: Cache, *key: str | int, master: int) -> Batch:
            found = plain(cache, *key, master=master)
            if key[:1] == (0,):  # the seed: pre-stages have keys of their own
                drawn.append(found)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(Cache, "batch", batch)
            find_method(study, trained).train(study, 0, Path("out", trained), Path("state"))
        return drawn

    ours, theirs = batches(name), batches("faithdiff")
    assert len(ours) == len(theirs) == 2 * study.profile.training.stage2_steps
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.lq, other.lq) and torch.equal(one.noise, other.noise)
        assert torch.equal(one.timesteps, other.timesteps)
