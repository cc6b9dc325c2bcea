"""Networks: what enters the alignment, what it mixes, its start, and corrupted checkpoints."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from shared import ROOT
from torch import Tensor, nn

from faithdiff.config import Stage1
from faithdiff.errors import CheckpointError
from faithdiff.methods.method import Study
from faithdiff.models.alignment import Alignment, TransformerBlock
from faithdiff.models.faithdiff import FaithDiff, build, load
from faithdiff.models.lq_encoder import LQEncoder
from faithdiff.models.objective import distance, time_ids
from faithdiff.models.prior import Prior, load_prior
from faithdiff.models.text import Prompt

WEIGHTS = "diffusion_pytorch_model.safetensors"
SIZE = 32  # pixels of test images


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def prior(study: Study) -> Prior:
    return load_prior(study.layout.trained_prior)


@pytest.fixture
def fresh(study: Study, prior: Prior) -> FaithDiff:
    """An untrained model of the recipe `released`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(prior, study.profile.recipes["released"], study.profile.alignment)


@pytest.fixture
def trained(study: Study) -> FaithDiff:
    return load(study.layout.checkpoint("faithdiff", 0))


class Input:
    """One call of a model on `count` images."""

    def __init__(self, model: FaithDiff, prior: Prior, count: int = 2) -> None:
        side = SIZE // prior.factor
        self.images = _random(count, 3, SIZE, SIZE).clamp(-1, 1)
        self.noisy = _random(count, prior.vae.config.latent_channels, side, side, seed=1)
        self.timesteps = torch.arange(count) * 300 + 100
        self.features = model.lq_encoder(self.images)
        self.prompt: Prompt = prior.encode_text(["a red house", ""][:count])
        self.ids = time_ids((SIZE, SIZE), torch.zeros(count, 2), (SIZE, SIZE))

    def predict(self, model: FaithDiff) -> Tensor:
        return model(self.noisy, self.timesteps, self.features, self.prompt, self.ids)


# --- LQ encoder ---------------------------------------------------------------------------------


def test_features_are_the_output_of_the_mid_block(prior: Prior) -> None:
    images, seen = _random(2, 3, SIZE, SIZE), []
    handle = prior.vae.encoder.mid_block.register_forward_hook(lambda *args: seen.append(args[2]))
    moments = prior.encode_moments(images)
    handle.remove()
    features = LQEncoder.from_vae(prior.vae, "penultimate")(images)
    assert torch.equal(features, seen[0])
    assert features.shape[1] == prior.vae.config.block_out_channels[-1]
    assert features.shape[2:] == moments.shape[2:]


def test_moments_are_those_of_the_vae(prior: Prior) -> None:
    images = _random(2, 3, SIZE, SIZE)
    encoder = LQEncoder.from_vae(prior.vae, "moments")
    assert torch.equal(encoder(images), prior.encode_moments(images))
    assert encoder.channels == 2 * prior.vae.config.latent_channels


def test_the_encoder_is_a_copy(prior: Prior) -> None:
    encoder = LQEncoder.from_vae(prior.vae, "penultimate")
    before = prior.vae.encoder.conv_in.weight.clone()
    with torch.no_grad():
        encoder.encoder.conv_in.weight.add_(1)
    assert torch.equal(prior.vae.encoder.conv_in.weight, before)


# --- Alignment ----------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["group", "standardise"])
@pytest.mark.parametrize("kind", ["transformer", "concat"])
def test_a_fresh_alignment_is_the_identity(kind: str, norm: str) -> None:
    alignment = Alignment(32, 16, kind=kind, norm=norm, heads=4)
    x, features = _random(2, 16, 4, 6), _random(2, 32, 4, 6, seed=1)
    assert torch.equal(alignment(x, features), x)
    assert not any(parameter.any() for parameter in alignment.project.parameters())
    embedded = any(parameter.any() for parameter in alignment.condition.conv_out.parameters())
    assert embedded == (kind == "concat")  # two zeros in a row would never learn


def test_only_the_projection_has_a_gradient_at_first(fresh: FaithDiff, prior: Prior) -> None:
    fresh.requires_grad_(True).train()
    Input(fresh, prior).predict(fresh).square().mean().backward()
    moved = {
        name
        for name, parameter in fresh.alignment.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert moved == {"project.weight", "project.bias"}
    assert fresh.unet.conv_in.weight.grad.any()


def _blocks(attention: str) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blocks = nn.Sequential(*(TransformerBlock(16, 4, 2, attention) for _ in range(2)))
        for block in blocks:  # they start at zero, which would hide what mixes
            nn.init.normal_(block.attn.in_proj_bias)
            nn.init.normal_(block.attn.out_proj.bias)
    return blocks


def _touched(blocks: nn.Module, sample: int, position: int) -> set[tuple[int, int]]:
    """(sample, position) of the outputs that one changed input token changes."""
    tokens = _random(3, 5, 16)
    other = tokens.clone()
    other[sample, position] = _random(16, seed=1)
    with torch.no_grad():
        changed = (blocks(tokens) - blocks(other)).abs().amax(-1) > 1e-6
    return {(row, column) for row, column in changed.nonzero().tolist()}


def test_released_attention_mixes_the_images_of_a_training_batch() -> None:
    # Pinned behaviour of the released code: its attention runs over the batch axis.
    touched = _touched(_blocks("released").train(), sample=0, position=3)
    assert touched == {(sample, 3) for sample in range(3)}


def test_released_attention_keeps_images_apart_in_evaluation() -> None:
    assert _touched(_blocks("released").eval(), sample=0, position=3) == {(0, 3)}


def test_released_evaluation_is_the_attention_over_equal_images() -> None:
    blocks = _blocks("released")
    copies = _random(1, 5, 16).expand(4, 5, 16)
    with torch.no_grad():
        difference = blocks.train()(copies) - blocks.eval()(copies)
    assert difference.abs().max() < 1e-6


@pytest.mark.parametrize("training", [True, False])
def test_spatial_attention_mixes_positions_and_no_images(training: bool) -> None:
    touched = _touched(_blocks("spatial").train(training), sample=1, position=3)
    assert touched == {(1, position) for position in range(5)}


# --- FaithDiff ----------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["released", "spatial"])
@pytest.mark.parametrize("channels", [32, 8])
def test_a_guidance_pair_is_aligned_once_to_the_same_bits(attention: str, channels: int) -> None:
    alignment = Alignment(channels, 16, attention=attention, heads=4).eval().requires_grad_(False)
    torch.nn.init.normal_(alignment.project.weight)
    x = torch.cat([_random(2, 16, 8, 8)] * 2).to(memory_format=torch.channels_last)
    features, seen = _random(2, channels, 8, 8, seed=1), []
    alignment.transformer.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    pair, once = alignment(x, torch.cat([features] * 2)), alignment(x, features)
    assert seen == [4, 2]
    assert torch.equal(once, pair)
    assert once.stride() == pair.stride()  # the UNet's convolutions choose their kernels by it


@pytest.mark.parametrize("features", ["penultimate", "moments"])
@pytest.mark.parametrize(
    ("alignment", "attention"),
    [("transformer", "released"), ("transformer", "spatial"), ("concat", "released")],
)
def test_untrained_it_predicts_exactly_as_the_prior(
    study: Study, prior: Prior, features: str, alignment: str, attention: str
) -> None:
    bare = copy.deepcopy(prior.unet)
    recipe = Stage1(features=features, alignment=alignment, attention=attention)
    model = build(prior, recipe, study.profile.alignment).eval()
    call = Input(model, prior)
    conditions = {"text_embeds": call.prompt.pooled, "time_ids": call.ids}
    with torch.no_grad():
        expected = bare(
            call.noisy, call.timesteps, call.prompt.hidden, added_cond_kwargs=conditions
        ).sample
        assert torch.equal(call.predict(model), expected)


def test_trained_it_sees_the_lq_image(trained: FaithDiff, prior: Prior) -> None:
    call = Input(trained, prior)
    before = call.predict(trained)
    call.features = trained.lq_encoder(-call.images)
    assert not torch.allclose(call.predict(trained), before, atol=1e-6)


def test_a_copy_uses_its_own_alignment(trained: FaithDiff, prior: Prior) -> None:
    # Averaged weights are a deep copy; its UNet must not call the alignment of the original.
    call = Input(trained, prior)
    expected = call.predict(trained)
    twin = copy.deepcopy(trained)
    with torch.no_grad():
        twin.alignment.project.bias.add_(1)
    assert not torch.allclose(call.predict(twin), expected, atol=1e-4)
    assert torch.equal(call.predict(trained), expected)


def test_a_saved_model_predicts_the_same(trained: FaithDiff, prior: Prior, tmp_path: Path) -> None:
    trained.save(tmp_path)
    call = Input(trained, prior)
    assert torch.equal(call.predict(load(tmp_path)), call.predict(trained))


def test_a_saved_prior_computes_the_same(prior: Prior, tmp_path: Path) -> None:
    prior.save(tmp_path)
    again, images = load_prior(tmp_path), _random(1, 3, SIZE, SIZE)
    moments = prior.encode_moments(images)
    latents = prior.sample_latents(moments, torch.zeros_like(moments[:, ::2]))
    assert torch.equal(again.encode_moments(images), moments)
    assert torch.equal(again.decode(latents), prior.decode(latents))
    assert torch.equal(again.encode_text(["a hill"]).pooled, prior.encode_text(["a hill"]).pooled)
    assert again.factor == prior.factor


# --- Full size ----------------------------------------------------------------------------------


def test_captions_beyond_the_tokens_are_said_once_and_not_without_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    prior = load_prior(ROOT / "prior/mini")
    start = " and ".join(f"a {colour} car" for colour in ("red", "blue", "green") * 3)
    one, other = f"{start} by the sea {start}", f"{start} by the sea and another"
    cut = prior.encode_text([one, one, "a red car"])
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert re.match(
        r'caption cut: "a red car .*" has \d+ tokens, 32 are read: it ends after "', said
    )
    prior.encode_text([one])
    assert capsys.readouterr().out == ""
    torch.testing.assert_close(prior.encode_text([other]).pooled, cut.pooled[:1])
    assert "caption cut" in capsys.readouterr().out
    prior.encode_text([f"{start} number {n} {start}" for n in range(20)])
    assert capsys.readouterr().out.splitlines()[-1].endswith("; others that are cut are not named")
    prior.encode_text([f"{start} {start}"])
    assert capsys.readouterr().out == ""


def _sdxl_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=128,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(320, 640, 1280),
        layers_per_block=2,
        cross_attention_dim=2048,
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_full_size_has_the_released_parameter_counts() -> None:
    with torch.device("meta"):
        model = FaithDiff(_sdxl_unet(), LQEncoder(), Alignment(512, 320))
    counts = {name: _count(module) for name, module in model.named_children()}
    parts = {name: _count(module) for name, module in model.alignment.named_children()}
    assert counts == {
        "unet": 2_567_463_684,
        "lq_encoder": 34_125_696,
        "alignment": 10_608_512,
    }
    assert parts == {"condition": 3_835_712, "transformer": 6_567_680, "project": 205_120}
    assert len(model.lq_encoder.state_dict()) == 102
    assert len(model.state_dict()) == 1_814  # of the released file


# --- Corrupted checkpoints ------------------------------------------------------------------------


@pytest.fixture
def checkpoint(study: Study) -> Path:
    return study.layout.checkpoint("faithdiff", 0)


def _rewrite(file: Path, **changes: Tensor | None) -> None:
    tensors = load_file(file)
    for key, value in changes.items():
        key = key.replace("__", ".")
        if value is None:
            del tensors[key]
        else:
            tensors[key] = value
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        ({"project__weight": torch.zeros(3, 5)}, r"\(3, 5\)", r"\(32, 64\)"),
        ({"project__weight": None}, "none", r"\(32, 64\)"),
        ({"project__extra": torch.zeros(7)}, r"\(7,\)", "none"),
    ],
    ids=["wrong shape", "missing", "left over"],
)
def test_a_tensor_that_does_not_fit_is_named(
    checkpoint: Path, change: dict[str, Tensor | None], found: str, expected: str
) -> None:
    _rewrite(checkpoint / "alignment" / WEIGHTS, **change)
    key = next(iter(change)).replace("__", r"\.")
    with pytest.raises(
        CheckpointError, match=rf"alignment: {key}: shape {found} found, {expected} expected"
    ):
        load(checkpoint)


@pytest.mark.parametrize("keep", [0, 6, 300, 0.9])
@pytest.mark.parametrize("part", ["unet", "lq_encoder", "alignment"])
def test_truncated_weights_are_refused(checkpoint: Path, part: str, keep: float) -> None:
    file = checkpoint / part / WEIGHTS
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=rf"{part}/{WEIGHTS}: is corrupted or truncated"):
        load(checkpoint)


def test_a_missing_part_is_named(checkpoint: Path) -> None:
    (checkpoint / "lq_encoder" / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"lq_encoder: holds no \.safetensors file"):
        load(checkpoint)


@pytest.mark.parametrize("text", ["{", '{"width": "wide", "feature_channels": 32}', "{}"])
def test_a_corrupted_config_is_named(checkpoint: Path, text: str) -> None:
    (checkpoint / "alignment" / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="alignment: cannot be loaded"):
        load(checkpoint)


def test_weights_of_another_config_are_refused(checkpoint: Path) -> None:
    file = checkpoint / "alignment" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "mlp_ratio": 3}))
    with pytest.raises(CheckpointError, match=r"c_fc\.bias: shape \(128,\) found, \(192,\) exp"):
        load(checkpoint)


def test_a_prior_without_a_tensor_is_refused(study: Study) -> None:
    # diffusers itself would fill the gap with random numbers.
    _rewrite(study.layout.trained_prior / "vae" / WEIGHTS, encoder__conv_in__bias=None)
    with pytest.raises(CheckpointError, match=r"vae: encoder\.conv_in\.bias: shape none found"):
        load_prior(study.layout.trained_prior)


def test_a_text_encoder_without_a_tensor_is_refused(study: Study) -> None:
    file = study.layout.trained_prior / "text_encoder" / "model.safetensors"
    _rewrite(file, text_projection__weight=None)
    with pytest.raises(CheckpointError, match=r"text_encoder: .*text_projection\.weight"):
        load_prior(study.layout.trained_prior)


def test_an_incomplete_prior_is_named(study: Study) -> None:
    (study.layout.trained_prior / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(CheckpointError, match="is not a complete prior"):
        load_prior(study.layout.trained_prior)


@pytest.mark.parametrize("kind", ["transformer", "concat"])
def test_lq_features_reach_the_output_after_a_few_updates(kind: str) -> None:
    torch.manual_seed(0)
    alignment = Alignment(feature_channels=8, width=8, kind=kind, norm="standardise", heads=2)
    optimiser = torch.optim.SGD(alignment.parameters(), lr=0.1)
    x, features = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    for _ in range(3):
        (alignment(x, features) - features).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    with torch.no_grad():
        assert not torch.equal(alignment(x, features), alignment(x, -features))


def test_the_loss_is_a_float32_mean_whatever_the_precision_of_the_passes() -> None:
    """In float16 the square of an error of 1e-4 is zero."""
    prediction = torch.full((1, 4, 8, 8), 1e-4, dtype=torch.float16)
    target = torch.zeros(1, 4, 8, 8)
    for kind, power in (("l1", 1), ("mse", 2)):
        found = distance(prediction, target.half(), kind)  # type: ignore[arg-type]
        assert found.dtype == torch.float32
        assert float(found) == pytest.approx(float(prediction[0, 0, 0, 0]) ** power)
