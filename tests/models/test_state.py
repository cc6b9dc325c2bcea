"""Files of weights as people have them: wrapped, sharded, half-downloaded, or of something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from shared.official_model import UNET
from torch import Tensor

from faithdiff.errors import CheckpointError
from faithdiff.models.official import import_official
from faithdiff.models.prior import load_prior
from faithdiff.models.state import read_state, what_holds
from faithdiff.models.weights import read_shapes


def tensors() -> dict[str, Tensor]:
    return {"conv_in.weight": torch.arange(6.0), "spatial_ch_projs.bias": torch.ones(3)}


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == tensors().keys() and all(
        torch.equal(found[key].float(), tensor) for key, tensor in tensors().items()
    )


def before(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in tensors().items()}


OPTIMISER = {"state": {0: {"step": torch.zeros(())}}, "param_groups": [{"lr": 1e-4}]}
OTHERS = {"params": {key: tensor + 1 for key, tensor in tensors().items()}, "iter": 7}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tensors(), ""),
        ({"params_ema": tensors(), **OTHERS}, "takes what it has under ['params_ema']"),
        ({"state_dict": tensors(), "optimizer": OPTIMISER, "epoch": 3}, "under ['state_dict']"),
        ({"model": {"state_dict": tensors()}}, "under ['model']['state_dict']"),
        ({"weights": tensors()}, "under ['weights']"),
        (before("module."), "takes its tensors without 'module.' before their names"),
        ({"state_dict": before("module._orig_mod.")}, "without 'module._orig_mod.' before"),
    ],
)
def test_what_wraps_the_tensors_is_taken_off_and_told(
    tmp_path: Path, content: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "a.bin")
    assert same(read_state(tmp_path / "a.bin"))
    out = capsys.readouterr().out
    assert said in out and bool(out) == bool(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"first": tensors(), "second": tensors()}, r"holds several models \(first, second\)"),
        ({"epoch": 3, "optimizer": OPTIMISER}, "is not a state dict.*: it has epoch, optimizer"),
        ([torch.zeros(1)], "is not a state dict of named tensors$"),
        (
            {"a": torch.zeros(4).to(torch.float8_e4m3fn)},
            r"a has numbers of 8 bits \(torch\.float8_e4m3fn\): a quantised model",
        ),
    ],
)
def test_what_cannot_be_told_apart_or_used_is_refused(
    tmp_path: Path, content: Any, said: str
) -> None:
    torch.save(content, tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match=rf"a\.bin: {said}"):
        read_state(tmp_path / "a.bin")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_file_is_read_by_its_content_in_any_precision(
    tmp_path: Path, dtype: torch.dtype, suffix: str
) -> None:
    half = {key: tensor.to(dtype) for key, tensor in tensors().items()}
    file = tmp_path / f"a.{suffix}"
    torch.save(half, file) if suffix == "safetensors" else save_file(half, file)  # the other one
    found = read_state(file)
    assert same(found) and {tensor.dtype for tensor in found.values()} == {dtype}


def shards(folder: Path) -> list[Path]:
    files = [folder / f"model-{n:05}-of-00002.safetensors" for n in (1, 2)]
    for file, (key, tensor) in zip(files, tensors().items(), strict=True):
        save_file({key: tensor}, file)
    places = dict(zip(tensors(), (file.name for file in files), strict=True))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    return [*files, index]


@pytest.mark.parametrize("given", [0, 1, 2])
def test_a_shard_or_the_index_stands_for_the_model(tmp_path: Path, given: int) -> None:
    assert same(read_state(shards(tmp_path)[given]))


@pytest.mark.parametrize("given", [0, 2])
def test_a_shard_that_is_not_there_is_named(tmp_path: Path, given: int) -> None:
    files = shards(tmp_path)
    files[1].unlink()
    with pytest.raises(CheckpointError, match=r"\(model-00002-of-00002\.safetensors\); fetch"):
        read_state(files[given])
    with pytest.raises(CheckpointError, match=r"index\.json: names 2 files, and 1 are not there"):
        read_shapes(tmp_path)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_half_downloaded_file_is_told_so(tmp_path: Path, suffix: str, share: float) -> None:
    file, state = tmp_path / f"a.{suffix}", {"a": torch.zeros(4000)}
    save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"truncated or corrupted: .*a download that did not"):
        read_state(file)


@pytest.mark.parametrize("dangling", [True, False])
def test_links_of_a_cache_are_followed_and_those_without_a_file_told(
    tmp_path: Path, dangling: bool
) -> None:
    (tmp_path / "blobs").mkdir()
    blob = tmp_path / "blobs" / "3f9a"
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    if not dangling:
        save_file(tensors(), blob)
        assert same(read_state(link)) and read_shapes(tmp_path).keys() == tensors().keys()
        return
    for read in (lambda: read_state(link), lambda: read_shapes(tmp_path)):
        with pytest.raises(CheckpointError, match=r"model\.safetensors: is a link that leads now"):
            read()


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"GGUF\3\0\0\0" + bytes(99), "is a quantised model"), (b"<html>", "is no safetensors file")],
)
def test_other_files_are_told_for_what_they_are(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        read_state(tmp_path / "a.safetensors")


def test_of_a_folder_the_file_is_named_that_may_be_meant(tmp_path: Path) -> None:
    shards(tmp_path)
    with pytest.raises(CheckpointError, match=r"is a folder; give the file in it, such as .*index"):
        read_state(tmp_path)


MODELS = {
    "lora_unet_down_blocks_0_proj.lora_up.weight": "a LoRA",
    "unet.down_blocks.0.attn.to_q.lora_A.weight": "a LoRA",
    "model.diffusion_model.input_blocks.0.0.weight": "a whole Stable Diffusion model in one file",
    "controlnet_cond_embedding.conv_in.weight": "a ControlNet",
    "body.0.rdb1.conv1.weight": "a Real-ESRGAN",
    "text_model.embeddings.position_embedding.weight": "a text encoder",
    "decoder.conv_in.weight": "a VAE",
    "double_blocks.0.img_attn.qkv.weight": "a transformer",
    "down_blocks.0.resnets.0.conv1.weight": "the UNet of a diffusion model alone",
    "something.else": "",
}


@pytest.mark.parametrize(("name", "said"), MODELS.items())
def test_another_model_is_told_by_the_names_of_its_tensors(name: str, said: str) -> None:
    assert what_holds([name]).startswith(said) and bool(what_holds([name])) == bool(said)


def test_importing_another_model_says_what_it_is_and_what_is_wanted(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(UNET), encoding="utf-8")
    save_file({"a.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "style.safetensors")
    with pytest.raises(CheckpointError, match=r"looks like a LoRA, .*; wanted is FaithDiff\.bin"):
        import_official(tmp_path / "style.safetensors", config)


def test_what_is_given_in_place_of_a_prior_is_told(tmp_path: Path) -> None:
    cache = tmp_path / "models--me--model"
    (cache / "snapshots" / "abc" / "vae").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"is not the prior itself; give .*snapshots/abc$"):
        load_prior(cache)
    save_file(tensors(), tmp_path / "sd_xl.safetensors")
    with pytest.raises(CheckpointError, match=r"is a file; a prior is a folder.*from_single_file"):
        load_prior(tmp_path / "sd_xl.safetensors")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no \.safetensors file, only diffusion_pytorch"):
        read_shapes(tmp_path / "unet")
