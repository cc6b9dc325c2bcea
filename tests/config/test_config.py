"""Profiles: what ships parses, and what does not fit is met with one line that can be acted on."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shared import CONFIG

from faithdiff.config import (
    FolderSet,
    PhotoSet,
    Profile,
    SceneSet,
    digest,
    load_profile,
    load_yaml,
    parse,
    parts_of,
)
from faithdiff.errors import ConfigError
from faithdiff.planning.overrides import HEADER

MINIS = ("mini", "mini-seeds", "mini-curves", "mini-rates", "mini-sampler")
PROFILES = (*MINIS, "test", "lab", "released", "paper")
MINI = yaml.safe_load((CONFIG / "mini.yaml").read_text(encoding="utf-8"))
BATCH = MINI["training"]["batch_size"]


def changed(path: str, value: Any) -> dict[str, Any]:
    """The content of mini.yaml with one value in another place or of another kind."""
    data = copy.deepcopy(MINI)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    node: Any = data
    for part in parents:
        node = node[part]
    node[last] = value
    return data


def message_of(data: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(data, Profile, "mini.yaml")
    return str(caught.value)


@pytest.mark.parametrize("name", PROFILES)
def test_shipped_profiles_parse(name: str) -> None:
    profile = load_profile(CONFIG / f"{name}.yaml")
    assert profile.profile == name
    assert set(profile.report.main + profile.report.ablation) <= set(profile.methods)


def test_every_yaml_with_a_profile_is_tested() -> None:
    found = {
        file.stem
        for file in CONFIG.glob("*.yaml")
        if "profile" in yaml.safe_load(text := file.read_text(encoding="utf-8"))
        and not text.startswith(HEADER)  # left by a call with overrides
    }
    assert found == set(PROFILES)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        # unknown keys: at the top, nested, in a list, in a dataset of a named source, in a dict
        ("trainning", 1, "trainning: unknown key; did you mean 'training'? (allowed: profile, "),
        (
            "training/batchsize",
            8,
            "training.batchsize: unknown key; did you mean 'batch_size'? (allowed: loss, crop, ",
        ),
        (
            "variants/separate/phases/1/trian",
            ["unet"],
            "variants.separate.phases[1].trian: unknown key; did you mean 'train'? "
            "(allowed: train, objective)",
        ),
        (
            "data/test/Photos/cuont",
            3,
            "data.test.Photos.cuont: unknown key; did you mean 'count'? "
            "(allowed: source, count, size)",
        ),
        (
            "alignment/zzz",
            1,
            "alignment.zzz: unknown key (allowed: norm, blocks, heads, mlp_ratio)",
        ),
        # values
        (
            "recipes/concat/alignment",
            "concatt",
            "recipes.concat.alignment: 'concatt' is not one of 'transformer', 'concat'",
        ),
        (
            "variants/separate/phases/1/train/0",
            "alinment",
            "variants.separate.phases[1].train[0]: 'alinment' is not one of "
            "'lq_encoder', 'alignment', 'unet'",
        ),
        (
            "data/test/Photos/source",
            "photoz",
            "data.test.Photos.source: 'photoz' is not one of 'scenes', 'photos', 'packages', "
            "'folder', 'mixture'",
        ),
        ("data/test/Photos", {"count": 3}, "data.test.Photos.source: is missing"),
        ("data/test/Photos", 5, "data.test.Photos: must be a group of keys, not 5"),
        ("training", "fast", "training: must be a group of keys, not 'fast'"),
        ("training/crop", "big", "training.crop: must be a valid integer, not 'big'"),
        ("training/crop", 0, "training.crop: must be greater than or equal to 1, not 0"),
        ("data/levels", [], "data.levels: must have at least 1 entry, and has none"),
        ("training/optimiser/betas", [0.9], "training.optimiser.betas[1]: is missing"),
        (
            "data/test/my set",
            MINI["data"]["test"]["Photos"],
            "data.test.my set: must match pattern",
        ),
        # values that do not fit one another
        (
            "training/micro_batch",
            3,
            f"training: batch_size {BATCH} is not a multiple of micro_batch 3",
        ),
        (
            "restore/tile_stride",
            999,
            f"restore: tile_stride 999 is larger than tile {MINI['restore']['tile']}",
        ),
        (
            "variants/concat/recipe",
            "none",
            "variants.concat.recipe: 'none' is not one of released, spatial, moments, concat",
        ),
        (
            "report/main",
            ["swinir"],
            "report.main: 'swinir' is not one of bicubic, realesrgan-x4plus, ",
        ),
        ("report/protocol", "rgb", "report.protocol: 'rgb' is not one of ycbcr, faithdiff-repo"),
    ],
)
def test_one_line_names_the_place_and_what_is_allowed(path: str, value: Any, message: str) -> None:
    lines = message_of(changed(path, value)).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"mini.yaml: {message}")


def test_a_missing_key_is_named() -> None:
    data = copy.deepcopy(MINI)
    del data["training"]["optimiser"]["betas"]
    assert message_of(data) == "mini.yaml: training.optimiser.betas: is missing"


def test_all_errors_are_told_at_once() -> None:
    data = changed("device", "tpu")
    data["seeds"] = []
    assert [line.split(": ")[1] for line in message_of(data).splitlines()] == ["seeds", "device"]


def test_two_methods_of_one_name_are_refused() -> None:
    data = changed("baselines/concat", MINI["baselines"]["bicubic"])
    assert message_of(data) == "mini.yaml: variants and baselines share the names ['concat']"


def test_long_values_are_shortened() -> None:
    assert len(message_of(changed("seeds", "7" * 500))) < 100


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_extends_fills_in_and_a_null_removes(tmp_path: Path) -> None:
    base = CONFIG / "mini.yaml"
    file = write(
        tmp_path,
        "own.yaml",
        f"extends: {base}\nprofile: own\ntraining: {{crop: 32}}\nvariants: {{separate: null}}\n"
        "report: {ablation: [faithdiff]}\nprior: {source: train, unet: {head_dim: 16}}\n",
    )
    mini, own = load_profile(base), load_profile(file)
    assert own.training == mini.training.model_copy(update={"crop": 32})
    assert set(mini.variants) - set(own.variants) == {"separate"}
    assert (own.prior.source, own.prior.unet.head_dim) == ("train", 16)
    assert own.prior.vae == mini.prior.vae


def test_a_data_set_of_another_source_replaces_the_inherited_one(tmp_path: Path) -> None:
    text = (
        f"extends: {CONFIG / 'mini.yaml'}\n"
        "data: {test: {Photos: {source: folder, path: my/pictures}, Scenes: {count: 5}}}\n"
    )
    test = load_profile(write(tmp_path, "own.yaml", text)).data.test
    assert test["Photos"] == FolderSet(source="folder", path=Path("my/pictures"))
    inherited = load_profile(CONFIG / "mini.yaml").data.test
    assert isinstance(inherited["Photos"], PhotoSet)
    assert isinstance(inherited["Scenes"], SceneSet)
    assert test["Scenes"] == inherited["Scenes"].model_copy(update={"count": 5})


def test_the_prior_may_learn_from_a_mixture(tmp_path: Path) -> None:
    text = f"""extends: {CONFIG / "mini.yaml"}
prior:
  source: train
  training:
    data:
      source: mixture
      parts:
        scenes: {{source: scenes, count: 3000, size: 256}}
        photographs: {{source: packages, size: 256, crops: 12}}
    held_out: []
    unet: {{validation_every: 0}}
"""
    data = load_profile(write(tmp_path, "own.yaml", text)).prior.training.data
    assert [part.source for part in parts_of(data).values()] == ["scenes", "packages"]
    scenes = load_profile(CONFIG / "lab.yaml").prior.training.data
    assert isinstance(scenes, SceneSet) and parts_of(scenes) == {"": scenes}
    small = text.replace("packages, size: 256", "packages, size: 48")
    with pytest.raises(ConfigError, match="64 px do not fit the images, which have 48 px"):
        load_profile(write(tmp_path, "small.yaml", small))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("reduction", [8, 1.3], "reduction: 8 is larger than 1.3"),
        ("reduction", [0.5, 2], "crops would be enlarged"),
        ("detail", [9, 3], "detail: 9 is larger than 3"),
    ],
)
def test_ranges_of_photographs_are_in_order(field: str, value: list[float], said: str) -> None:
    data = {"source": "packages", "size": 256, "crops": 4, field: value}
    assert said in message_of(changed("prior/training/data", data))


def test_an_error_names_the_file_that_it_is_in(tmp_path: Path) -> None:
    base = write(tmp_path, "base.yaml", yaml.safe_dump(changed("device", "tpu")))
    file = write(tmp_path, "own.yaml", "extends: base.yaml\nrestore: {stepz: 3}\n")
    with pytest.raises(ConfigError) as caught:
        load_profile(file)
    first, second = str(caught.value).splitlines()
    assert first == f"{base}: device: 'tpu' is not one of 'cpu', 'cuda'"
    assert second.startswith(f"{file}: restore.stepz: unknown key; did you mean 'steps'?")


@pytest.mark.parametrize("chain", [("a",), ("a", "b"), ("a", "b", "c")])
def test_files_that_extend_one_another_in_a_circle(tmp_path: Path, chain: tuple[str, ...]) -> None:
    for name, following in zip(chain, (*chain[1:], chain[0]), strict=True):
        write(tmp_path, f"{name}.yaml", f"extends: {following}.yaml\n")
    with pytest.raises(ConfigError, match=r"a\.yaml extends .*a\.yaml: a circle"):
        load_profile(tmp_path / "a.yaml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read \(No such file"):
        load_profile(tmp_path / "none.yaml")
    file = write(tmp_path, "own.yaml", "extends: gone.yaml\n")
    with pytest.raises(
        ConfigError, match=r"gone\.yaml \(extended by .*own\.yaml\): cannot be read"
    ):
        load_profile(file)
    with pytest.raises(
        ConfigError, match=r"own\.yaml: is not valid YAML: expected .*, line 1, column 9$"
    ):
        load_profile(write(tmp_path, "own.yaml", "a: [1, 2"))
    with pytest.raises(ConfigError, match=r"own\.yaml: is empty; a profile names another with"):
        load_profile(write(tmp_path, "own.yaml", ""))


def test_sections_are_immutable() -> None:
    profile = load_profile(CONFIG / "mini.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        profile.training.crop = 32


def test_equal_settings_have_equal_digests() -> None:
    profile = load_profile(CONFIG / "mini.yaml")
    again = parse(dict(reversed(list(MINI.items()))), Profile, "mini.yaml")
    assert digest(profile) == digest(again) == digest(profile.model_dump(mode="json"))
    assert digest(profile.training, profile.seed) != digest(profile.seed, profile.training)
    assert digest("1") != digest(1)


def test_a_digest_is_the_same_on_every_machine() -> None:
    assert digest({"b": [1, 2.5], "a": "ü"}, None) == "51260cd5dc1909cd"


@settings(deadline=None, max_examples=15)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "crop": st.integers(1, 512),
            "stage2_steps": st.integers(1, 10**6),
            "text_dropout": st.floats(0, 1),
            "weights": st.sampled_from(["raw", "ema"]),
        },
    )
)
def test_a_digest_changes_exactly_with_the_settings(changes: dict[str, Any]) -> None:
    base = parse(MINI, Profile, "mini.yaml").training
    other = type(base).model_validate(base.model_dump() | changes)
    assert (digest(base) == digest(other)) == (base == other)


def test_other_files_use_the_same_reader(tmp_path: Path) -> None:
    """`load_yaml` serves levels, protocols and artifacts too: any model, the same messages."""
    file = write(tmp_path, "set.yaml", "source: scenes\ncount: 3\nsiez: 4\n")
    with pytest.raises(ConfigError) as caught:
        load_yaml(file, SceneSet)
    assert str(caught.value).splitlines() == [
        f"{file}: size: is missing",
        f"{file}: siez: unknown key; did you mean 'size'? (allowed: source, count, size, textured)",
    ]


def test_every_variant_of_one_budget_has_the_same_updates() -> None:
    profile = load_profile(CONFIG / "mini-seeds.yaml")
    training = profile.training
    both = training.stage1_steps + training.stage2_steps
    assert {name: profile.updates_of(name) for name in profile.variants} == {
        name: 2 * both if name == "separate-long" else both for name in profile.variants
    }
    assert profile.phase_updates("no-pretrain") == [both]  # the updates of the stage that it lacks
    assert profile.phase_updates("separate") == [training.stage2_steps // 2] * 2


def test_updates_of_baselines_count_what_comes_before() -> None:
    profile = load_profile(CONFIG / "mini.yaml")
    settings = profile.baselines["supir"].settings
    assert profile.updates_of("supir") == settings["encoder_steps"] + profile.training.stage2_steps
    assert profile.updates_of("supir-own") == profile.updates_of("supir")
    assert profile.updates_of("bicubic") is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("variants/separate/budget", 0.15, "variants.separate.budget: leaves a phase"),
        (
            "baselines/supir-own/checkpoint_of",
            "suprr",
            "baselines.supir-own.checkpoint_of: 'suprr'",
        ),
        (
            "baselines/supir-own/checkpoint_of",
            "bicubic",
            "'bicubic' is not one of realesrgan, diff",
        ),
    ],
)
def test_budgets_and_checkpoints_that_cannot_be(path: str, value: Any, message: str) -> None:
    assert message in message_of(changed(path, value))


def test_a_row_under_another_sampler_has_the_settings_of_its_design() -> None:
    profile = load_profile(CONFIG / "mini.yaml")
    own, common = profile.settings_of("supir-own"), profile.settings_of("supir")
    assert {key for key in own if own[key] != common[key]} == {"sampling"}
    assert profile.checkpoint_of("supir-own") == "supir" and "supir-own" in profile.on_prior
    assert "supir-own" not in profile.denoisers  # its loss is that of the same weights


def test_a_profile_in_another_encoding_is_refused_with_the_way_out(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_bytes("profile: café\n".encode("cp1252"))
    with pytest.raises(ConfigError, match=r"own\.yaml: is not UTF-8 .* line 1.*iconv"):
        load_profile(file)
