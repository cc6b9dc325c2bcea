"""Restoring with the controlled designs: sizes, batches, tiles, samplers, precision."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from shared.designs import METHODS, loaded, method_of, random_images, untrained
from torch import Tensor

from baselines.controlled import controlled_restorer
from baselines.design import Design
from baselines.diffbir import DiffBIRDesign, flatness
from faithdiff.config import Restore, Sampling, parse
from faithdiff.data.datasets import read_index
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.models.faithdiff import build as build_faithdiff
from faithdiff.models.faithdiff import load as load_faithdiff
from faithdiff.models.prior import load_prior
from faithdiff.models.seen import Seen
from faithdiff.models.text import Prompt
from faithdiff.restore.faithdiff_restorer import FaithDiffRestorer
from faithdiff.restore.schedule import clean_latents, prediction_of
from faithdiff.score.heldout import heldout_job, heldout_losses

SCALE = 4
IDENTITY = {"identity_start": True}


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
