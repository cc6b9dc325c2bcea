"""What --config and --configfile of a call of snakemake change: all of it, or a refusal."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from shared import CONFIG
from shared.whole import copy_suite, run
from snakemake.cli import parse_config

from faithdiff.config import digest, load_profile
from faithdiff.errors import ConfigError
from faithdiff.methods.method import Study
from faithdiff.planning.overrides import Asked, asked_for


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(CONFIG, tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(*entries: str, files: tuple[str, ...] = ()) -> Asked:
    """As Snakemake hands over its options; it leaves what stands in brackets a text."""
    return asked_for(parse_config(list(entries)), [Path(file).absolute() for file in files])


def refusal(*entries: str, files: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        ask(*entries, files=files)
    return str(caught.value)


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_without_options_it_is_the_default_profile() -> None:
    asked = ask()
    assert asked.study == Study.load(Path("config/mini.yaml"))
    assert (asked.text, asked.note, asked.time_limit) == (None, None, None)
    assert ask("profile=lab", "time_limit=90").study == Study.load(Path("config/lab.yaml"))
    assert ask("time_limit=90").time_limit == 90


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            ["profil=lab"],
            "--config: profil: unknown key; did you mean 'profile'? (allowed: profile",
        ),
        (["shard=2"], "--config: shard: unknown key; did you mean 'shards'?"),
        (["profile=labb"], "profile=labb: there is no config/labb.yaml; did you mean 'lab'?"),
        (
            ["profile=config/lab.yaml"],
            "profile=config/lab.yaml: there is no config/config/lab.yaml.yaml; did you mean 'lab'?",
        ),
        (["extends=lab.yaml"], "--config: extends: unknown key"),
        (["training={stepz: 3}"], "--config: training.stepz: unknown key"),
        (["seeds=[0, 0]"], "--config: seeds: 0 is listed 2 times"),
        (["seeds=0"], "--config: seeds: must be a list, such as [0], not 0"),
        (["variants={seperate: null}"], "--config: variants.seperate: null removes"),
        (["training={crop: 064}"], "--config training: 064 is octal to some"),
        (["seeds="], "--config seeds=: has no value"),
        (["time_limit=soon"], "--config time_limit=soon: must be a number of minutes"),
        (["name=a b", "seed=3"], "--config name: profile: must match pattern"),
        (["name=2025_01", "seed=3"], "--config name=202501: was read as a number"),
        (["name=True", "seed=3"], "--config name=True: was read as a number or a truth value"),
        (["name=lab", "seed=3"], "config/lab.yaml: is there and has other settings"),
        (["name=mini", "seed=3"], "config/mini.yaml: is there and has other settings"),
    ],
)
def test_what_cannot_be_meant_is_refused(entries: list[str], message: str) -> None:
    assert refusal(*entries).startswith(message)


@pytest.mark.parametrize(
    ("entry", "path", "value"),
    [
        ("seeds=[0,1,2]", "seeds", [0, 1, 2]),
        ("seed=7", "seed", 7),
        ("device=cuda", "device", "cuda"),
        ("training={optimiser: {eps: 1e-7}}", "training.optimiser.eps", 1e-7),
        ("restore={compile: true, negative_prompt: '12'}", "restore.compile", True),
        ("variants={separate: null}", "variants.separate", None),
    ],
)
def test_any_key_is_overridden_and_has_the_type_that_it_would_have_in_a_file(
    entry: str, path: str, value: Any
) -> None:
    if "separate" in entry:
        entry = "variants={separate: null, concat: null}"
        report = "report={ablation: [faithdiff, frozen]}"
        asked = ask(entry, report)
    elif "negative_prompt" in entry:
        assert "negative_prompt: must be a valid string" in refusal(entry)
        asked = ask("restore={compile: true}")
    else:
        asked = ask(entry)
    found: Any = asked.study.profile.model_dump()
    for part in path.split("."):
        found = found.get(part)
    assert found == value and type(found) is type(value)


def test_a_study_with_overrides_has_a_name_and_a_file_of_its_own() -> None:
    asked = ask("seeds=[0,1]")
    name = asked.study.profile.profile
    assert name.startswith("mini-seeds-") and asked.study.file == Path(f"config/{name}.yaml")
    assert asked.study.layout.results == Path("results", name)
    assert asked.note is not None and f"results/{name}/" in asked.note
    assert not asked.study.file.exists()  # a plan writes nothing
    asked.write()
    assert Study.load(asked.study.file) == asked.study  # what the jobs read
    again = ask("seeds=[0,1]")
    assert again.study == asked.study and again.text is None
    assert ask(f"profile={name}").study == asked.study
    assert ask("seeds=[0,1,2]").study.profile.profile != name


def test_the_order_of_the_options_names_no_other_study() -> None:
    one, two = ask("seed=7", "seeds=[0,1]"), ask("seeds=[0,1]", "seed=7")
    assert one.study == two.study
    one.write()
    assert ask("seeds=[0,1]", "seed=7").text is None


def test_the_name_can_be_chosen() -> None:
    asked = ask("profile=test", "name=three", "seeds=[0,1,2]")
    asked.write()
    assert load_profile(Path("config/three.yaml")).seeds == [0, 1, 2]
    assert "other settings" in refusal("profile=test", "name=three", "seeds=[0,1]")


def test_what_is_as_in_the_profile_is_no_override() -> None:
    assert ask("seeds=[0]", "training={crop: 64}").study == Study.load(Path("config/mini.yaml"))


def test_overrides_take_part_in_the_digests() -> None:
    mini, asked = ask().study.profile, ask("training={stage2_steps: 130}").study.profile
    assert digest(mini.training) != digest(asked.training)
    assert digest(mini.restore) == digest(asked.restore)


def test_the_keys_of_a_file_override_and_the_command_line_overrides_these() -> None:
    file = write("over.yaml", "profile: test\nseeds: [4]\ntraining: {crop: 16, batch_size: 2}\n")
    profile = ask("seeds=[5]", "training={crop: 48}", files=(file,)).study.profile
    test = load_profile(Path("config/test.yaml"))
    assert (profile.seeds, profile.training.crop, profile.training.batch_size) == ([5], 48, 2)
    assert profile.data == test.data
    other = write("other.yaml", "seeds: [6]\n")
    assert ask(files=(file, other)).study.profile.seeds == [6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shard: 2\n", "over.yaml: shard: unknown key; did you mean 'shards'?"),
        ("seeds: [1]\nseeds: [2]\n", "over.yaml: the key 'seeds' is already in line 1"),
        ("restore: {steps: 2}\n", "over.yaml: restore.steps: 2 steps are too few"),
        ("- 1\n", "over.yaml: must be a group of keys"),
        (
            "extends: config/mini.yaml\nprofile: mine\n",
            "over.yaml: is a profile, since it extends config/mini.yaml; put it at "
            "config/mine.yaml and run: snakemake --config profile=mine",
        ),
    ],
)
def test_a_file_is_held_to_the_same(text: str, message: str) -> None:
    assert refusal(files=(write("over.yaml", text),)).startswith(message)


@pytest.mark.parametrize("name", ["mini", "lab", "released"])
def test_a_profile_given_as_configfile_is_that_profile(name: str) -> None:
    asked = ask(files=(f"config/{name}.yaml",))
    assert asked.study == Study.load(Path(f"config/{name}.yaml")) and asked.text is None


@pytest.mark.slow
def test_the_jobs_get_the_overridden_profile(tmp_path: Path) -> None:
    folder = copy_suite(tmp_path / "suite")
    said = run(folder, "seeds=[0,1]", "name=two", "-n", "-p")
    assert "its results go to results/two/" in said
    assert "--method faithdiff --seed 1 --config config/two.yaml" in said
    assert "config/test.yaml 2>&1" not in said
    assert not (folder / "config/two.yaml").exists()
    index = "data/two/Scenes/index.csv"
    run(folder, "seeds=[0,1]", "name=two", "--", index)
    assert (folder / "config/two.yaml").is_file() and (folder / index).is_file()
    assert "Nothing to be done" in run(folder, "seeds=[0,1]", "name=two", "--", index)
    assert "Nothing to be done" in run(folder, "--", index, profile="two")
