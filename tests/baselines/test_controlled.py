"""The controlled diffusion baselines: designs of other papers on the study's own frozen prior."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from baselines.controlled import (
    ControlledMethod,
    ControlledTraining,
    controlled_restorer,
    module_digest,
)
from baselines.design import Design
from baselines.diffbir import DiffBIR, DiffBIRDesign, RestorationModule, flatness
from baselines.seesr import SeeSRDesign, words
from baselines.supir import SUPIRDesign, mode, with_negatives
from faithdiff.config import Profile, Restore, Sampling, parse
from faithdiff.data.datasets import read_index
from faithdiff.errors import CheckpointError, ConfigError, RunError
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.models.faithdiff import build as build_faithdiff
from faithdiff.models.faithdiff import load as load_faithdiff
from faithdiff.models.prior import load_prior
from faithdiff.models.seen import Seen
from faithdiff.models.text import Prompt
from faithdiff.restore.enlarge import enlarge
from faithdiff.restore.faithdiff_restorer import FaithDiffRestorer
from faithdiff.restore.run import describe, restore_job
from faithdiff.restore.schedule import clean_latents, prediction_of
from faithdiff.score.costs import cost_table
from faithdiff.score.heldout import heldout_job, heldout_losses
from faithdiff.study import seeds
from faithdiff.study.provenance import folder_digest
from faithdiff.train.cache import Batch, Cache
from faithdiff.train.run import run_job

METHODS = ["diffbir", "supir", "seesr"]
SCALE = 4
IDENTITY = {"identity_start": True}


@pytest.fixture(scope="session")
def checkpoints(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every controlled baseline trained once, in a copy of the built study."""
    root = tmp_path_factory.mktemp("controlled") / "study"
    shutil.copytree(built, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        study = Study.load(Path("config/test.yaml"))
        for name in METHODS:
            train(study, name)
    return root / "checkpoints"


@pytest.fixture
def trained(study: Study, checkpoints: Path) -> Study:
    """The study with every controlled baseline trained; the test may change it."""
    shutil.copytree(checkpoints, "checkpoints", dirs_exist_ok=True)
    return study


def train(study: Study, name: str, seed: int = 0) -> None:
    method = find_method(study, name)
    folder = study.layout.checkpoint(name, seed)
    run_job(study, name, seed, folder, lambda out, state: method.train(study, seed, out, state))


def changed(study: Study, name: str, **settings: Any) -> Study:
    """The study with other settings of a baseline."""
    config = study.profile.baselines[name]
    config = config.model_copy(update={"settings": {**config.settings, **settings}})
    baselines = {**study.profile.baselines, name: config}
    return replace(study, profile=study.profile.model_copy(update={"baselines": baselines}))


def method_of(study: Study, name: str) -> ControlledMethod:
    method = find_method(study, name)
    assert isinstance(method, ControlledMethod)
    return method


def training_of(study: Study, name: str) -> ControlledTraining:
    method = method_of(study, name)
    return ControlledTraining.start(study, name, 0, method.config, Path("state"))


def untrained(study: Study, name: str, **settings: Any) -> Design:
    method = method_of(changed(study, name, **settings), name)
    prior = load_prior(study.prior_folder)
    return method._build(study, prior, 0, None).eval().requires_grad_(False)


def loaded(study: Study, name: str, restore: dict[str, Any] | None = None, **switches: Any) -> Any:
    """The trained restorer with other settings of the sampler."""
    config = study.profile.restore.model_copy(update=restore or {})
    study = replace(study, profile=study.profile.model_copy(update={"restore": config}))
    study = changed(study, name, sampling=switches)
    return method_of(study, name).load(study, study.layout.checkpoint(name, 0))


def random_images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=seeds.torch_generator(0, "controlled", *shape))


def batch_of(study: Study) -> Batch:
    prior, profile = load_prior(study.prior_folder), study.profile
    cache = Cache(study.layout.train_cache, prior, profile.data.scale, profile.training)
    return cache.batch(0, master=0)


def weights(folder: Path) -> dict[str, Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# --- The designs --------------------------------------------------------------------------------


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


def test_supir_decodes_what_it_restored_once_per_image(study: Study) -> None:
    design = untrained(study, "supir")
    images = random_images(2, 3, 16, 16) * 2 - 1
    seen, other = design.see(images[:1]), design.see(images[1:])
    decoded: list[Tensor] = []
    design.prior.vae.decoder.register_forward_hook(lambda *args: decoded.append(args[2]))
    image = design.restored(seen)
    design.guidance(seen)  # asks for the same image
    assert torch.equal(design.restored(seen), image) and len(decoded) == 1
    assert not torch.equal(design.restored(other), image) and len(decoded) == 2


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


# --- Training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_training_again_gives_the_same_bytes(trained: Study, name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        before = torch.get_rng_state()
        method_of(trained, name).train(trained, 0, Path("again"), Path("state"))
        assert torch.equal(torch.get_rng_state(), before)
    folder = trained.layout.checkpoint(name, 0)
    assert same(weights(Path("again")), weights(folder))
    assert Path("again/config.json").read_bytes() == (folder / "config.json").read_bytes()
    method_of(trained, name).train(trained, 1, Path("other"), Path("state"))
    assert not same(weights(Path("other")), weights(folder))


@pytest.mark.parametrize("phase", ["first", "last"])
@pytest.mark.parametrize("name", METHODS)
def test_a_killed_training_ends_with_the_same_weights(
    trained: Study, name: str, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(fatal: int | None) -> Callable[..., None]:
        plain = ControlledTraining.run

        def run(
            self: ControlledTraining, title: str, model: Any, loss: Any, steps: int, rate: float
        ) -> None:
            chosen = "control" if phase == "last" else first_phase(trained, name)
            kill = fatal is not None and title == chosen

            def watched(step: int, micro: int) -> Tensor:
                if kill and step == fatal:
                    raise KeyboardInterrupt
                calls.append(f"{title} {step}")
                return loss(step, micro)

            plain(self, title, model, watched, steps, rate)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(ControlledTraining, "run", counted(2))
        with pytest.raises(KeyboardInterrupt):
            method_of(trained, name).train(trained, 0, Path("out"), Path("state"))
    assert not Path("out").exists()
    calls.clear()
    monkeypatch.setattr(ControlledTraining, "run", counted(None))
    method_of(trained, name).train(trained, 0, Path("out"), Path("state"))
    title = "control" if phase == "last" else first_phase(trained, name)
    assert f"{title} 2" in calls and f"{title} 1" not in calls, "nothing was resumed"
    assert same(weights(Path("out")), weights(trained.layout.checkpoint(name, 0)))


def first_phase(study: Study, name: str) -> str:
    log = pd.read_csv(study.layout.checkpoint(name, 0) / "training.csv")
    return str(log["phase"].iloc[0]).removeprefix(f"{name} ")


@pytest.mark.parametrize("name", METHODS)
def test_the_cost_is_recorded_in_the_run(trained: Study, name: str) -> None:
    folder = trained.layout.checkpoint(name, 0)
    cost = json.loads((folder / "run.json").read_text(encoding="utf-8"))["cost"]
    tensors = weights(folder)
    buffers = sum(t.numel() for k, t in tensors.items() if re.search(r"index|mask|threshold", k))
    trained_count = sum(count for part, count in cost["parts"].items() if part != "tagger")
    assert trained_count == sum(t.numel() for t in tensors.values()) - buffers
    prior = load_prior(trained.prior_folder)
    untouched = sum(p.numel() for module in prior.modules() for p in module.parameters())
    assert cost["total"] >= untouched + trained_count
    log = pd.read_csv(folder / "training.csv")
    assert cost["updates"] == trained.profile.training.stage2_steps
    assert cost["pre_updates"] + cost["updates"] == len(log)  # one row per update in this profile
    assert cost["pre_updates"] > 0 and cost["seconds"] > 0


# --- Restoring ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(13, 21), (1, 16)])
@pytest.mark.parametrize("name", METHODS)
def test_any_size_is_restored_alike_each_time(
    trained: Study, name: str, size: tuple[int, int]
) -> None:
    lq = random_images(1, 3, *size)
    before = torch.get_rng_state()
    restored = loaded(trained, name).restore(lq, ["a hill"], [1])
    assert torch.equal(torch.get_rng_state(), before)
    assert restored.shape == (1, 3, SCALE * size[0], SCALE * size[1])
    assert 0 <= restored.min() < restored.max() <= 1
    assert torch.equal(loaded(trained, name).restore(lq, ["a hill"], [1]), restored)
    assert not torch.allclose(loaded(trained, name).restore(lq, ["a hill"], [2]), restored)


@pytest.mark.parametrize("name", METHODS)
def test_an_image_does_not_depend_on_its_batch(trained: Study, name: str) -> None:
    restorer = loaded(trained, name, {"guidance_scale": 3.0})
    lq, captions, numbers = random_images(3, 3, 12, 16), ["a hill", "", "a house"], [5, 6, 7]
    together = restorer.restore(lq, captions, numbers)
    for row in range(3):
        one = slice(row, row + 1)
        alone = restorer.restore(lq[one], captions[one], numbers[one])
        assert torch.allclose(alone[0], together[row], atol=1e-5)
    turned = restorer.restore(lq.flip(0), captions[::-1], numbers[::-1]).flip(0)
    assert torch.allclose(turned, together, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_tiles_see_their_own_part(trained: Study, name: str) -> None:
    lq = random_images(1, 3, 20, 24)
    whole = loaded(trained, name, {"tile": 64}).restore(lq, ["a"], [1])
    tiled = loaded(trained, name, {"tile": 16, "tile_stride": 8}).restore(lq, ["a"], [1])
    assert tiled.shape == whole.shape
    # Borders of tiles and the reach of attention differ; a part that is out of place would not.
    assert (tiled - whole).abs().mean() < 0.1 * (whole - whole.flip(3)).abs().mean()


@pytest.mark.parametrize("name", METHODS)
def test_the_held_out_loss_is_that_of_a_denoiser(trained: Study, name: str) -> None:
    method = find_method(trained, name)
    heldout_job(trained, method, name, 0)
    file = trained.layout.restored(name, 0) / "heldout.csv"
    first = file.read_bytes()
    heldout_job(trained, method, name, 0)
    assert file.read_bytes() == first
    table = pd.read_csv(file)
    assert set(table["method"]) == {name} and table["value"].between(0, 100).all()


@pytest.mark.parametrize("name", METHODS)
def test_the_held_out_loss_is_taken_in_the_precision_of_the_profile(
    study: Study, name: str
) -> None:
    # What pre-stages see is in float32, and the control takes 16 bits alone.
    dataset, level = next(iter(study.profile.data.test)), study.profile.data.levels[0]
    image = read_index(study.layout.dataset(dataset))["name"][0]
    hq, lq = study.layout.dataset(dataset) / "hq", study.layout.lq(dataset, level)
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        prior = load_prior(study.prior_folder, dtype)
        design = method_of(study, name)._build(study, prior, 0, None).eval()
        design.convert(dtype)
        files = (hq / f"{image}.png", lq / f"{image}.png")
        noise = [torch.Generator().manual_seed(0)]
        losses += heldout_losses(study, design.denoiser(), prior, *files, "a hill", [500], noise)
    assert losses[1] == pytest.approx(losses[0], rel=0.05) and losses[0] != losses[1]


class AsDesign(Design):
    """A FaithDiff model in the shape of a design."""

    def __init__(self, study: Study) -> None:
        model = load_faithdiff(study.layout.checkpoint("faithdiff", 0))
        super().__init__(load_prior(study.prior_folder, unet=model.unet))
        self.model = model

    def see(self, lq: Tensor) -> Seen:
        return Seen(self.model.lq_encoder(lq), image=lq)

    def restored(self, seen: Seen) -> Tensor:
        assert seen.image is not None
        return seen.image

    def forward(
        self, noisy: Tensor, timesteps: Tensor, seen: Seen, prompt: Prompt, time_ids: Tensor
    ) -> Tensor:
        return self.model(noisy, timesteps, seen.map, prompt, time_ids)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scheduler": "euler", "guidance_scale": 3.0, "negative_prompt": "noise"},
        {"start_point": "noise", "color_fix": "adain", "guidance_scale": 1.0},
        {"tile": 16, "tile_stride": 8},
    ],
)
def test_the_sampler_is_that_of_faithdiff_to_the_bit(
    study: Study, settings: dict[str, Any]
) -> None:
    config = parse({**study.profile.restore.model_dump(), **settings}, Restore, "restore")
    model = load_faithdiff(study.layout.checkpoint("faithdiff", 0))
    reference = FaithDiffRestorer(model, load_prior(study.prior_folder), config, SCALE)
    ours = controlled_restorer(AsDesign(study), config, SCALE, Sampling())
    lq = random_images(2, 3, 18, 20)
    arguments = lq, ["a hill", ""], [1, 2]
    assert torch.equal(ours.restore(*arguments), reference.restore(*arguments))


SCHEDULES: list[dict[str, Any]] = [
    {},
    {"scheduler": "euler", "guidance_scale": 3.0, "negative_prompt": "noise"},
    {"start_point": "noise", "steps": 3, "tile": 16, "tile_stride": 8, "tile_batch": 3},
]


@pytest.mark.parametrize("settings", SCHEDULES)
def test_designs_differ_by_their_conditioning_alone(study: Study, settings: dict[str, Any]) -> None:
    """Where what they add is still zero, all of them restore the picture of the bare prior."""
    config = parse({**study.profile.restore.model_dump(), **settings}, Restore, "restore")
    prior = load_prior(study.prior_folder)
    model = build_faithdiff(prior, study.profile.recipes["released"], study.profile.alignment)
    restorers = [FaithDiffRestorer(model.eval(), prior, config, SCALE)]
    for name, start in (("diffbir", {}), ("supir", IDENTITY), ("seesr", IDENTITY)):
        design = untrained(study, name, **start)
        given = Sampling(captions="given")  # SeeSR would read its own off the image
        restorers.append(controlled_restorer(design, config, SCALE, given))
    lq = random_images(2, 3, 18, 20)
    first, *others = [each.restore(lq, ["a hill", ""], [1, 2]) for each in restorers]
    assert all(torch.equal(each, first) for each in others)


@pytest.mark.parametrize("setting", [{"precision": "bf16"}, {"vae_tile": 32}])
@pytest.mark.parametrize("name", METHODS)
def test_precision_and_vae_tiles_are_those_of_the_profile(
    trained: Study, name: str, setting: dict[str, Any]
) -> None:
    lq = random_images(1, 3, 16, 16)
    plain, other = (loaded(trained, name, each).restore(lq, ["a"], [1]) for each in ({}, setting))
    assert other.dtype == torch.float32
    assert 0 < (plain - other).abs().mean() < 0.1


def test_networks_compute_in_the_precision_of_the_profile(trained: Study) -> None:
    designs = [
        method_of(trained, name)._load(
            trained, trained.layout.checkpoint(name, 0), dtype=torch.bfloat16
        )
        for name in METHODS
    ]
    for design in designs:
        low = [design.prior.unet, design.prior.vae, design.control]
        assert {p.dtype for part in low for p in part.parameters()} == {torch.bfloat16}
        assert {p.dtype for p in design.front.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", METHODS)
def test_tiles_share_a_pass(trained: Study, name: str) -> None:
    tiled = {"tile": 16, "tile_stride": 8}
    lq, passes = random_images(1, 3, 20, 24), []
    restored = []
    for count in (1, 4):
        restorer = loaded(trained, name, {**tiled, "tile_batch": count})
        unet = restorer._sampler.prior.unet
        unet.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
        restored.append(restorer.restore(lq, ["a"], [1]))
        if count == 4:
            assert restorer.save_memory() == "tiles in one UNet pass: 2 at most"
    assert torch.allclose(*restored, atol=1e-4)
    assert max(passes) == 4 * min(passes)


@pytest.mark.parametrize("name", METHODS)
def test_what_runs_in_every_step_is_compiled(
    trained: Study, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module: compiled.append(type(module).__name__)
    )
    loaded(trained, name, {"compile": True})
    assert sorted(compiled) == ["ControlNetModel", "UNet2DConditionModel"]
    compiled.clear()
    loaded(trained, name)
    assert not compiled


def test_switches_change_what_they_name(trained: Study) -> None:
    lq = random_images(1, 3, 16, 16)
    switches: list[dict[str, Any]] = [
        {},
        {"guidance_scale": 4.0, "negative_prompt": "noise"},
        {"start_point": "noise"},
        {"start_point": "restored"},
        {"start_timestep": 999},
        {"color_reference": "restored"},
        {"restoration_guidance": 0.5},
    ]
    images = [loaded(trained, "diffbir", **each).restore(lq, ["a"], [1]) for each in switches]
    for i, image in enumerate(images):
        for other in images[:i]:
            assert not torch.allclose(image, other, atol=1e-6)


def test_euler_is_ddim_in_other_units(trained: Study) -> None:
    """Without noise of its own DDIM is Euler's step in units of the noise level."""
    lq = random_images(1, 3, 16, 16)
    ddim, euler = (
        loaded(trained, "diffbir", scheduler=kind).restore(lq, ["a"], [1])
        for kind in ("ddim", "euler")
    )
    assert torch.allclose(ddim, euler, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_clean_latents_and_predictions_are_inverse(study: Study, kind: str) -> None:
    scheduler = load_prior(study.prior_folder).scheduler
    alpha = scheduler.alphas_cumprod[300]
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    noisy = scheduler.add_noise(clean, noise, torch.tensor([300]))
    velocity = scheduler.get_velocity(clean, noise, torch.tensor([300]))
    prediction = noise if kind == "epsilon" else velocity
    assert torch.allclose(clean_latents(prediction, noisy, alpha, kind), clean, atol=1e-5)
    assert torch.allclose(prediction_of(clean, noisy, alpha, kind), prediction, atol=1e-5)


def test_restoration_guidance_of_diffbir_nears_the_restored_image(trained: Study) -> None:
    method = method_of(trained, "diffbir")
    folder = trained.layout.checkpoint("diffbir", 0)
    design = method._load(trained, folder, torch.float32)
    assert isinstance(design, DiffBIRDesign)
    with torch.no_grad():
        seen = design.see(random_images(1, 3, 32, 32) * 2 - 1)
        image, guide = design.restored(seen), design.guidance(seen)
        weight = flatness(image)
        clean = torch.randn(seen.map.shape, generator=torch.Generator().manual_seed(0))
        distances = [
            float((weight * (design.prior.decode(guided) - image).square()).sum())
            for guided in (clean, guide(clean, 0.01, 1.0))
        ]
    assert distances[1] < distances[0]


def test_edges_weigh_less_than_flat_areas() -> None:
    image = torch.zeros(1, 3, 16, 16)
    image[..., 8:] = 1
    weight = flatness(image)
    assert weight.shape == (1, 1, 16, 16)
    assert weight[..., 0].min() == 1 and weight[..., 8].max() < 0.01


# --- Refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_missing_weights_say_how_to_make_them(study: Study, name: str) -> None:
    folder = study.layout.checkpoint(name, 0)
    with pytest.raises(CheckpointError, match=f"faithdiff train --method {name}"):
        find_method(study, name).load(study, folder)


@pytest.mark.parametrize("name", METHODS)
def test_corrupted_weights_are_refused(trained: Study, name: str) -> None:
    file = trained.layout.checkpoint(name, 0) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        find_method(trained, name).load(trained, file.parent)


@pytest.mark.parametrize("name", METHODS)
def test_misspelt_settings_and_switches_name_their_path(study: Study, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"test.yaml: baselines.{name}.settings: ratee: "):
        find_method(changed(study, name, ratee=1), name)
    with pytest.raises(ConfigError, match=rf"baselines.{name}.settings: sampling.stepps: "):
        find_method(changed(study, name, sampling={"stepps": 1}), name)


def test_a_baseline_that_denoises_must_say_so(study: Study) -> None:
    config = study.profile.baselines["diffbir"].model_copy(update={"denoises": False})
    profile = study.profile.model_copy(update={"baselines": {"diffbir": config}})
    with pytest.raises(ConfigError, match=r"baselines.diffbir.denoises: must be true"):
        find_method(replace(study, profile=profile), "diffbir")


def test_this_file_tests_every_controlled_design(study: Study) -> None:
    assert [name for name, b in study.profile.baselines.items() if b.denoises] == METHODS
    assert DiffBIR.trained and RestorationModule


def test_a_row_of_another_sampler_restores_with_the_same_weights(trained: Study) -> None:
    folder = trained.layout.checkpoint(trained.profile.checkpoint_of("supir-own"), 0)
    common, own = (find_method(trained, name) for name in ("supir", "supir-own"))
    lq, captions = random_images(1, 3, 16, 16), ["a house"]
    restored = [method.load(trained, folder).restore(lq, captions, [1]) for method in (common, own)]
    assert not torch.equal(*restored)
    assert describe(trained, own, "supir-own", folder)["weights"] == folder_digest(folder)
    restore_job(trained, own, "supir-own", 0)
    costs = cost_table(without_others(trained), trained.layout).set_index("method")
    for column in ("trained_parameters", "pre_updates", "updates"):
        assert costs.loc["supir-own", column] == costs.loc["supir", column] > 0


def test_captions_are_read_off_by_the_method_that_is_asked(trained: Study) -> None:
    values = ["none", "given", "seesr"]
    curve = {"setting": "captions", "methods": ["faithdiff", "seesr"], "values": values}
    plain = {**trained.profile.model_dump(mode="json"), "curves": {"captions": curve}}
    study = replace(trained, profile=Profile.model_validate(plain))
    lq, words = random_images(1, 3, 16, 16), ["a house"]

    def restored(name: str, captions: list[str]) -> Tensor:
        folder = study.layout.checkpoint(study.profile.checkpoint_of(name), 0)
        return find_method(study, name).load(study, folder).restore(lq, captions, [1])

    # SeeSR ignores what it is told unless it is told so, and then no longer reads the image.
    assert torch.equal(restored("seesr", words), restored("seesr-captions-seesr", ["other"]))
    assert not torch.equal(restored("seesr-captions-given", words), restored("seesr", words))
    extractor = method_of(study, "seesr").denoiser(study, study.layout.checkpoint("seesr", 0))
    enlarged = enlarge(lq, study.profile.data.scale) * 2 - 1
    tags = extractor.captions(extractor.see(enlarged), words)
    assert torch.equal(restored("faithdiff-captions-seesr", words), restored("faithdiff", tags))
    assert torch.equal(restored("faithdiff-captions-none", words), restored("faithdiff", [""]))
    row = "faithdiff-captions-seesr"
    identity = describe(
        study, find_method(study, row), row, study.layout.checkpoint("faithdiff", 0)
    )
    assert identity["captioner"] == folder_digest(study.layout.checkpoint("seesr", 0))


def without_others(study: Study) -> Any:
    """The profile with the two rows of SUPIR alone, both restored."""
    restore_job(study, find_method(study, "supir"), "supir", 0)
    baselines = {name: study.profile.baselines[name] for name in ("supir", "supir-own")}
    return study.profile.model_copy(update={"baselines": baselines, "variants": {}})


def test_a_missing_checkpoint_of_another_row_names_what_makes_it(study: Study) -> None:
    with pytest.raises(CheckpointError, match=r"faithdiff train .*--method supir --seed 0"):
        restore_job(study, find_method(study, "supir-own"), "supir-own", 0)
