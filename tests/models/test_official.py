"""The official weights and sampler: format, numbers, and the pipeline that serves them.

Golden figures were made with the official code (JyChen9811/FaithDiff @ f11af6c, on the CPU, its
VAE posterior fed with our noise) on the weights that tests/shared/official_model.py draws.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from shared.official_model import official_state, save_base_model
from torch import Tensor

from faithdiff import cli
from faithdiff.errors import CheckpointError
from faithdiff.methods.method import Study
from faithdiff.models.alignment import Alignment
from faithdiff.models.faithdiff import FaithDiff
from faithdiff.models.lq_encoder import LQEncoder
from faithdiff.models.official import (
    export_official,
    import_official,
    official_name,
    our_name,
    read_state,
)
from faithdiff.models.text import Prompt
from faithdiff.restore.pipeline import FaithDiffPipeline
from faithdiff.study import seeds

SDXL_UNET = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model's folder, with the official file beside it."""
    folder = tmp_path_factory.mktemp("base")
    save_base_model(folder)
    torch.save(official_state(), folder / "FaithDiff.bin")
    return folder


@pytest.fixture(scope="module")
def pipeline(base: Path, tmp_path_factory: pytest.TempPathFactory) -> FaithDiffPipeline:
    folder = tmp_path_factory.mktemp("made") / "pipeline"
    config = base / "unet" / "config.json"
    cli.import_(base / "FaithDiff.bin", config, folder, prior=base)
    loaded = FaithDiffPipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def _golden(name: str, *shape: int) -> Tensor:
    return torch.randn(shape, generator=seeds.torch_generator(0, "golden", name))


def _lq(height: int, width: int) -> Image.Image:
    generator = seeds.numpy_rng(0, "golden", "lq", height)
    small = (generator.random((height // 4 + 1, width // 4 + 1, 3)) * 255).astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


# --- The full size, without a byte of weights ---------------------------------------------------


def test_the_model_at_full_size_has_the_official_tensors() -> None:
    with torch.device("meta"):
        parts = (UNet2DConditionModel(**SDXL_UNET), LQEncoder(), Alignment(512, 320))
        model = FaithDiff(*parts)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [2_567_463_684, 34_125_696, 10_608_512]
    lines = sorted(
        f"{official_name(key)}\t{'x'.join(map(str, tensor.shape))}"
        for key, tensor in model.state_dict().items()
    )
    assert len(lines) == 1814
    # Names and shapes of the official class's state dict, sorted, one a line.
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert digest == "298cd10654821341026490728f03b210a70a1bac49d6db4b7bcd7bf46c7a15a0"
    assert all(
        official_name(our_name(line.split("\t")[0])) == line.split("\t")[0] for line in lines
    )


# --- The file -----------------------------------------------------------------------------------


def _import(base: Path, state: dict[str, Any], folder: Path) -> FaithDiff:
    torch.save(state, folder / "weights.bin")
    return import_official(folder / "weights.bin", base / "unet" / "config.json")


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_import_and_export_give_the_same_tensors(
    base: Path, tmp_path: Path, suffix: str, dtype: torch.dtype
) -> None:
    state = {key: tensor.to(dtype) for key, tensor in official_state().items()}
    source, again = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    save_file(state, source) if suffix == ".safetensors" else torch.save(state, source)
    cli.import_(source, base / "unet" / "config.json", tmp_path / "checkpoint")
    cli.export(tmp_path / "checkpoint", again)
    found = read_state(again)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[k], state[k]) and found[k].dtype == dtype for k in state)


def test_every_wrong_tensor_is_counted(base: Path, tmp_path: Path) -> None:
    state = official_state()
    del state["spatial_ch_projs.bias"]
    state["conv_in.weight"] = torch.zeros(320, 9, 3, 3)
    state["agg_net.0.weight"] = torch.zeros(2)
    with pytest.raises(CheckpointError) as error:
        _import(base, state, tmp_path)
    assert str(error.value).splitlines()[1:] == [
        "1 tensor missing:",
        "  spatial_ch_projs.bias (320,)",
        "1 tensor unexpected:",
        "  agg_net.0.weight (2,)",
        "1 tensor of another shape:",
        "  conv_in.weight: (320, 9, 3, 3) found, (320, 4, 3, 3) expected",
    ]


@pytest.mark.parametrize(
    "prefix",
    ["denoise_encoder.", "condition_embedding.", "information_transformer_layes.1.", "up_blocks."],
)
def test_an_absent_part_is_refused(base: Path, tmp_path: Path, prefix: str) -> None:
    """The official loader would go on with fresh weights in its place."""
    state = official_state()
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(prefix)}
    with pytest.raises(CheckpointError, match=f"{len(state) - len(kept)} tensors missing"):
        _import(base, kept, tmp_path)


def test_a_config_of_another_unet_is_refused(base: Path, tmp_path: Path) -> None:
    config = (base / "unet" / "config.json").read_text(encoding="utf-8")
    wider = config.replace('"cross_attention_dim": 48', '"cross_attention_dim": 64')
    (tmp_path / "config.json").write_text(wider, encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"attn2\.to_k\.weight: \(320, 48\) found, \(320, 64\)"
    ):
        import_official(base / "FaithDiff.bin", tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"block_out_channels": [320, 640]}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="no model can be built"):
        import_official(base / "FaithDiff.bin", tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="not the config of a UNet2DConditionModel"):
        import_official(base / "FaithDiff.bin", tmp_path / "config.json")


class _Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return (Path.write_text, (Path("exploded"), "x"))


def test_a_pickle_that_would_run_code_is_not_run(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in (("torch.bin", None), ("plain.bin", pickle.dumps(_Bomb()))):
        if content is None:
            torch.save({"a": _Bomb()}, name)
        else:
            Path(name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            import_official(Path(name), base / "unet" / "config.json")
    assert not Path("exploded").exists()


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_a_truncated_file_is_refused(base: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"cut{suffix}"
    state = {"a": torch.zeros(1000)}
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="truncated or corrupted"):
        import_official(file, base / "unet" / "config.json")


def test_a_variant_that_the_format_cannot_express_is_refused(study: Study) -> None:
    with pytest.raises(CheckpointError, match="patch_size is 2, norm is 'standardise'"):
        export_official(study.layout.checkpoint("faithdiff", 0), Path("x.bin"))
    assert not Path("x.bin").exists()


# --- The numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0], [1]])
def test_noise_predictions_are_the_official_ones_in_any_batch(
    base: Path, pipeline: FaithDiffPipeline, rows: list[int]
) -> None:
    model = import_official(base / "FaithDiff.bin", base / "unet" / "config.json")
    golden = torch.tensor(
        [
            [-1.02775, 0.818606, 0.746202, -0.062256],
            [-0.395266, -0.189504, 1.176707, 0.580224],
            [-0.701445, 0.061476, -0.170227, -0.289229],
        ]
    )
    with torch.no_grad():
        features = model.lq_encoder(_golden("images", 3, 3, 64, 64).clamp(-1, 1)[rows])
        prediction = model(
            _golden("latents", 3, 4, 8, 8)[rows],
            torch.tensor([10, 500, 999])[rows],
            features,
            Prompt(_golden("hidden", 3, 7, 48)[rows], _golden("pooled", 3, 32)[rows]),
            100 * _golden("ids", 3, 6)[rows],
        )
    assert torch.allclose(prediction[:, :, 3, 4], golden[rows], atol=2e-5)


@pytest.mark.parametrize("tile_batch", [1, 4])
@pytest.mark.parametrize(
    ("size", "settings", "mean", "pixels"),
    [
        (
            (8, 12),
            {"start_point": "lq", "color_fix": "none"},
            (133.503, 156.641, 127.559),
            [[132, 152, 130], [50, 211, 178], [195, 79, 124], [88, 255, 34]],
        ),
        (
            (21, 26),  # 2 x 3 tiles, and sides that the latent factor does not divide
            {"start_point": "lq", "color_fix": "adain"},
            (107.224, 129.951, 113.623),
            [[77, 87, 123], [158, 99, 182], [122, 64, 45], [80, 127, 89]],
        ),
        (
            (21, 26),
            {"start_point": "noise", "color_fix": "wavelet"},
            (107.034, 129.764, 112.796),
            [[35, 151, 170], [155, 112, 170], [165, 55, 65], [62, 125, 101]],
        ),
    ],
)
def test_the_sampler_is_the_official_one(
    pipeline: FaithDiffPipeline,
    size: tuple[int, int],
    settings: dict[str, str],
    mean: tuple[float, ...],
    pixels: list[list[int]],
    tile_batch: int,
) -> None:
    restored = pipeline(
        _lq(*size),
        "a red house",
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(5),
        tile_size=8,
        tile_stride=4,
        tile_batch_size=tile_batch,
        as_released=True,
        **settings,
    ).images[0]
    array = np.asarray(restored).astype(int)
    height, width = array.shape[:2]
    assert (height, width) == (4 * size[0], 4 * size[1])
    assert np.allclose(array.mean((0, 1)), mean, atol=0.02)
    found = [array[i * height // 4, i * width // 4].tolist() for i in range(4)]
    assert np.abs(np.array(found) - np.array(pixels)).max() <= 1


# --- The pipeline -------------------------------------------------------------------------------


def _restored(pipeline: FaithDiffPipeline, **settings: Any) -> Any:
    given = {
        "image": _lq(10, 12),
        "num_inference_steps": 3,
        "generator": torch.Generator().manual_seed(1),
        "output_type": "pt",
        **settings,
    }
    return pipeline(**given).images


def test_output_types_agree(pipeline: FaithDiffPipeline) -> None:
    tensor = _restored(pipeline)
    assert tensor.shape == (1, 3, 40, 48) and tensor.min() >= 0 and tensor.max() <= 1
    array = _restored(pipeline, output_type="np")
    assert np.array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
    picture = _restored(pipeline, output_type="pil")[0]
    assert np.array_equal(np.asarray(picture), (array[0] * 255).round().astype(np.uint8))
    assert _restored(pipeline, output_type="latent").shape == (1, 4, 5, 6)
    as_tensor = torch.from_numpy(np.array(_lq(10, 12))).permute(2, 0, 1)[None] / 255
    assert torch.equal(_restored(pipeline, image=as_tensor), tensor)


def test_images_of_a_batch_are_those_restored_alone(pipeline: FaithDiffPipeline) -> None:
    pictures = [_lq(10, 12), _lq(10, 12).rotate(180)]
    prompts = ["a cat", ""]

    def noise(*numbers: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(number) for number in numbers]

    tiled: dict[str, Any] = {"tile_size": 4, "tile_stride": 2, "tile_batch_size": 3}
    both = _restored(pipeline, image=pictures, prompt=prompts, generator=noise(1, 2), **tiled)
    for row in range(2):
        alone = _restored(
            pipeline, image=pictures[row], prompt=prompts[row], generator=noise(row + 1), **tiled
        )
        assert torch.allclose(both[row], alone[0], atol=1e-4)


def test_callbacks_see_and_change_the_latents(pipeline: FaithDiffPipeline) -> None:
    seen: list[int] = []

    def callback(_: Any, step: int, timestep: Tensor, values: dict[str, Tensor]) -> dict[str, Any]:
        seen.append(step)
        return {"latents": torch.zeros_like(values["latents"])}

    changed = _restored(pipeline, callback_on_step_end=callback, color_fix="none")
    assert seen == [0, 1, 2]
    zero = pipeline.vae.decode(torch.zeros(1, 4, 5, 6)).sample
    assert torch.allclose(changed, (zero / 2 + 0.5).clamp(0, 1), atol=1e-5)
    with pytest.raises(ValueError, match="noise_pred"):
        _restored(pipeline, callback_on_step_end_tensor_inputs=["noise_pred"])


@pytest.mark.parametrize("field", ["prompt", "generator"])
def test_as_many_prompts_and_generators_as_images(pipeline: FaithDiffPipeline, field: str) -> None:
    three = {"prompt": ["a", "b", "c"], "generator": [torch.Generator() for _ in range(3)]}
    with pytest.raises(ValueError, match=f"{field}: 3 given for 2 images"):
        _restored(pipeline, image=[_lq(10, 12), _lq(10, 12)], **{field: three[field]})


def test_a_setting_that_does_not_exist_is_refused(pipeline: FaithDiffPipeline) -> None:
    with pytest.raises(ValueError, match="tile_sise"):
        _restored(pipeline, tile_sise=64)
    with pytest.raises(ValueError, match="color_fix"):
        _restored(pipeline, color_fix="sepia")


def test_bf16_comes_near(pipeline: FaithDiffPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    rough = FaithDiffPipeline.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    rough.set_progress_bar_config(disable=True)
    assert rough.unet.dtype == rough.lq_encoder.dtype == rough.vae.dtype == torch.bfloat16
    exact, near = _restored(pipeline), _restored(rough)
    assert 0 < (exact - near).abs().mean() < 0.05


def test_fp16_keeps_a_vae_that_overflows_in_fp32(
    pipeline: FaithDiffPipeline, tmp_path: Path
) -> None:
    pipeline.save_pretrained(tmp_path)
    config = tmp_path / "vae" / "config.json"
    for upcast, dtype in (("true", torch.float32), ("false", torch.float16)):
        text = config.read_text(encoding="utf-8")
        swapped = {"true": "false", "false": "true"}[upcast]
        config.write_text(
            text.replace(f'"force_upcast": {swapped}', f'"force_upcast": {upcast}'), "utf-8"
        )
        half = FaithDiffPipeline.from_pretrained(tmp_path, torch_dtype=torch.float16)
        assert (half.unet.dtype, half.vae.dtype) == (torch.float16, dtype)


def test_tiled_encoding_and_decoding_come_near(pipeline: FaithDiffPipeline) -> None:
    image, whole = _lq(24, 24), None
    try:
        whole = _restored(pipeline, image=image, color_fix="none")
        pipeline.enable_vae_tiling(64)
        tiled = _restored(pipeline, image=image, color_fix="none")
    finally:
        pipeline.disable_vae_tiling()
    assert 0 < (whole - tiled).abs().mean() < 0.1
    assert torch.equal(_restored(pipeline, image=image, color_fix="none"), whole)


def test_a_corrupted_pipeline_folder_is_refused(
    pipeline: FaithDiffPipeline, tmp_path: Path
) -> None:
    pipeline.save_pretrained(tmp_path)
    file = tmp_path / "alignment" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="alignment"):
        FaithDiffPipeline.from_pretrained(tmp_path)


def test_a_unet_takes_one_alignment(pipeline: FaithDiffPipeline) -> None:
    pipeline.alignment.attach(pipeline.unet)  # again: changes nothing
    assert len(pipeline.unet.conv_in._forward_hooks) == 1
    with pytest.raises(ValueError, match="has an alignment already"):
        Alignment(512, 320).attach(pipeline.unet)
