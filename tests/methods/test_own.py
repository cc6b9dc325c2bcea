"""The user's own method, through restoration, scores and tables: what fails is seen as failed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from shared import ROOT
from shared.pictures import picture, save
from shared.small_set import DATA, failed, save_lq

from faithdiff.data.images import read_image
from faithdiff.errors import ConfigError, FaithDiffError, ImageError, RunError, UserError
from faithdiff.methods.external import command as command_module
from faithdiff.methods.external import own
from faithdiff.methods.external.named import named_in
from faithdiff.methods.external.own import Command, Outputs
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.report.tables import load_scores, main_table
from faithdiff.restore.run import restore_job
from faithdiff.score.collect import collect
from faithdiff.score.run import score_job
from faithdiff.study.files import write_text_atomic

NAMES = ("one", "three.dots", "two words")
PAPER = ROOT / "results" / "paper"
SCALE = 2
SIDE = 24

# A method in a file of its own; each line of a plan, `name: what`, spoils one image.
SCRIPT = """
import sys, time
from pathlib import Path
from PIL import Image
lq, out, seed, plan = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path("plan.txt")
todo = dict(l.split(": ") for l in plan.read_text().splitlines()) if plan.exists() else {}
with plan.with_name("seen.txt").open("a") as seen:
    print(*sorted(f.stem for f in lq.iterdir()), seed, sep=",", file=seen)
for file in sorted(lq.iterdir()):
    what = todo.get(file.stem, "")
    if what == "skip":
        print("Error CUDA out of memory")
        continue
    if what == "crash":
        sys.exit("cannot go on")
    image = Image.open(file)
    size = (2 * image.width, 2 * image.height) if what != "size" else (7, 5)
    if what == "text":
        (out / file.name).write_text("no picture")
    elif what == "extra":
        image.resize(size).save(out / "stranger.png")
    else:
        image.resize(size).save(out / file.name)
    if what == "wait":
        time.sleep(60)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one prepared test set of three images at one level."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "config", "config")
    write_text_atomic(SCRIPT, Path("double.py"))
    return tmp_path


def study_with(method: dict[str, Any], names: tuple[str, ...] = NAMES) -> Study:
    """The study of a profile with `bicubic` and the given method."""
    profile = {
        "extends": "mini.yaml",
        "profile": "own",
        "data": {"scale": SCALE, **DATA},
        "baselines": {
            **dict.fromkeys(
                ("realesrgan-x4plus", "realesrgan", "diffbir", "supir", "supir-own", "seesr")
            ),
            "mine": {"label": "Mine", **method},
        },
        "score": {"metrics": ["psnr", "lpips"], "protocols": ["ycbcr"]},
        "report": {"main": ["bicubic", "mine"], "ablation": ["faithdiff", "frozen"]},
    }
    write_text_atomic(yaml.safe_dump(profile), Path("config/own.yaml"))
    study = Study.load(Path("config/own.yaml"))
    save_lq(study, names, SIDE)
    for number, name in enumerate(names):
        save(picture(number, SCALE * SIDE), study.layout.dataset("Set") / "hq" / f"{name}.png")
    return study


def with_command(**more: Any) -> Study:
    python = shlex.quote(sys.executable)
    return study_with({"command": f"{python} double.py {{lq}} {{out}} {{seed}}", **more})


def restore(study: Study) -> dict[str, Any]:
    """Restore with the method; the manifest."""
    restore_job(study, find_method(study, "mine"), "mine", 0)
    folder = study.layout.restoration("mine", 0, "Set", "II")
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def seen() -> list[str]:
    """What the script was called with: names and seed of each call."""
    return Path("seen.txt").read_text(encoding="utf-8").splitlines()


def give(study: Study, names: tuple[str, ...] = NAMES, folder: str = "mine/Set/II") -> Path:
    """A folder of right outputs, as a user's own method would leave it."""
    for number, name in enumerate(names):
        save(picture(number, SCALE * SIDE), Path(folder, f"{name}.png"))
    return Path(folder)


# --- Given outputs --------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["mine", "mine/{dataset}/{level}", "mine/{dataset}/II"])
def test_given_outputs_are_published_under_our_names(place: Path, pattern: str) -> None:
    study = study_with({"outputs": pattern})
    give(study)
    manifest = restore(study)
    assert set(manifest["images"]) == set(NAMES)
    assert failed(manifest) == {}
    for name in NAMES:
        target = study.layout.restoration("mine", 0, "Set", "II") / f"{name}.png"
        given = Path("mine/Set/II", f"{name}.png")
        assert read_image(target).tobytes() == read_image(given).tobytes()


def test_a_changed_output_is_taken_again_and_no_other(place: Path) -> None:
    study = study_with({"outputs": "mine"})
    folder = give(study)
    before = restore(study)["images"]
    save(picture(9, SCALE * SIDE), folder / "one.png")
    manifest = restore(study)
    assert manifest["made"] == 1
    changed = {n for n in NAMES if manifest["images"][n]["key"] != before[n]["key"]}
    assert changed == {"one"}
    assert restore(study)["made"] == 0


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda file: file.unlink(), "no image in mine/Set/II"),
        (lambda file: save(picture(0, 12), file), "size 12x12, not 48x48"),
        (lambda file: file.write_bytes(b"no picture"), "not an image"),
        (lambda file: file.write_bytes(file.read_bytes()[:200]), "cannot be read"),
    ],
)
def test_a_bad_output_fails_alone_and_is_seen_in_scores_and_table(
    place: Path, spoil: Callable[[Path], None], why: str
) -> None:
    study = study_with({"outputs": "mine"})
    spoil(give(study) / "one.png")
    reasons = failed(restore(study))
    assert set(reasons) == {"one"}
    assert why in reasons["one"]
    scores = scored(study)
    mine = scores[(scores["method"] == "mine") & (scores["metric"] == "psnr")]
    assert len(mine) == len(NAMES)
    status = dict(zip(mine["image"], mine["status"], strict=True))
    assert status["one"] == f"failed: {reasons['one']}"
    assert {status[name] for name in NAMES[1:]} == {"ok"}
    # Without its weights LPIPS is unavailable for every image, this one included.
    lpips = scores[(scores["method"] == "mine") & (scores["metric"] == "lpips")]
    assert lpips["status"].str.startswith("unavailable").all()
    summary = json.loads((study.layout.results / "summary.json").read_text(encoding="utf-8"))
    assert "mine" not in summary  # no mean over the two that are left
    table = main_table(scores, study.profile, paper=PAPER)
    row = next(row for row in table.blocks[0].rows if row.method == "mine")
    assert (row.cells[0].status, row.cells[0].usable, row.cells[0].expected) == ("failed", 2, 3)


def scored(study: Study) -> pd.DataFrame:
    """Scores of `bicubic` and of the method, as the tables read them."""
    restore_job(study, find_method(study, "bicubic"), "bicubic", 0)
    for name in ("bicubic", "mine"):
        score_job(study.profile, study.layout, name, 0)
    inside = study.profile.model_copy(update={"variants": {}})
    collect(inside, study.layout)
    return load_scores(study.layout.results / "scores.csv")


def test_an_output_that_was_mended_is_taken(place: Path) -> None:
    study = study_with({"outputs": "mine"})
    file = give(study) / "one.png"
    file.unlink()
    assert failed(restore(study))
    give(study)
    assert failed(restore(study)) == {}


def test_an_output_that_belongs_to_no_image_stops(place: Path) -> None:
    study = study_with({"outputs": "mine"})
    save(picture(0, SCALE * SIDE), give(study) / "cat.png")
    with pytest.raises(UserError, match=r"cat\.png belongs to no LQ image .*Set/lq/II; rename"):
        restore(study)


def test_an_empty_folder_of_outputs_stops(place: Path) -> None:
    study = study_with({"outputs": "mine"})
    with pytest.raises(UserError, match="holds no image; 3 are expected"):
        restore(study)
    assert find_method(study, "mine").needs(study) == ["mine/Set/II: no such folder"]  # type: ignore[attr-defined]


# --- Commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("per", "calls"), [("folder", 1), ("set", 1), ("image", 3)])
def test_a_command_restores_every_image(place: Path, per: str, calls: int) -> None:
    manifest = restore(with_command(per=per))
    assert failed(manifest) == {}
    assert manifest["made"] == 3
    assert (manifest["calls"], manifest["exit_codes"]) == (calls, [0])
    assert manifest["memory_gib"] > 0
    assert len(seen()) == calls


def test_one_seed_for_a_folder_and_one_for_each_image(place: Path) -> None:
    restore(with_command(per="image"))
    assert len({seed_of(line) for line in seen()}) == 3
    study = with_command(per="folder")
    restore(study)
    newest = max(study.layout.cache.glob("*/*.png"), key=lambda file: file.stat().st_mtime_ns)
    newest.unlink()
    restore(study)  # a call for one image alone, with the seed of the folder
    assert [line.count(",") for line in seen()[3:]] == [3, 1]
    assert seed_of(seen()[3]) == seed_of(seen()[4])


def seed_of(line: str) -> str:
    return line.rpartition(",")[2]


@pytest.mark.parametrize("per", ["folder", "image", "set"])
@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("skip", "no image, exit code 0: Error CUDA out of memory"),
        ("size", "size 7x5, not 48x48"),
        ("text", "not an image"),
    ],
)
def test_an_image_that_fails_is_a_failed_image(place: Path, per: str, what: str, why: str) -> None:
    write_text_atomic(f"one: {what}\n", Path("plan.txt"))
    reasons = failed(restore(with_command(per=per)))
    assert set(reasons) == {"one"}
    assert why in reasons["one"]


def test_a_command_that_stops_half_way_fails_the_rest_and_goes_on_later(place: Path) -> None:
    write_text_atomic("three.dots: crash\n", Path("plan.txt"))
    study = with_command()
    reasons = failed(restore(study))
    assert reasons == dict.fromkeys(NAMES[1:], "no image, exit code 1: cannot go on")
    Path("plan.txt").unlink()
    manifest = restore(study)
    assert (failed(manifest), manifest["made"]) == ({}, 2)
    assert seen()[1].startswith("three.dots,two words,")  # `one` was not asked for again


def test_outputs_of_a_killed_call_are_taken(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = with_command()
    task_run = command_module.run

    def killed(call: Any) -> Any:
        task_run(call)
        raise KeyboardInterrupt  # this process dies; what the command wrote stays

    write_text_atomic("two words: skip\n", Path("plan.txt"))
    with monkeypatch.context() as patch:
        patch.setattr(command_module, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            restore(study)
    Path("plan.txt").unlink()
    manifest = restore(study)
    assert (failed(manifest), manifest["made"]) == ({}, 3)
    assert seen()[1].startswith("two words,")


@pytest.mark.parametrize("per", ["folder", "image"])
def test_a_command_without_any_result_stops_with_its_log(place: Path, per: str) -> None:
    write_text_atomic("".join(f"{name}: crash\n" for name in NAMES), Path("plan.txt"))
    with pytest.raises(RunError, match=r"no image came out: .*cannot go on.*log\.txt"):
        restore(with_command(per=per))


def test_an_extra_output_stops_and_keeps_the_others(place: Path) -> None:
    write_text_atomic("two words: extra\n", Path("plan.txt"))
    study = with_command()
    with pytest.raises(RunError, match=r"stranger\.png belongs to no LQ image"):
        restore(study)
    assert len(list(study.layout.cache.glob("*/*.png"))) == 2


def test_a_changed_script_restores_again_and_a_second_run_does_nothing(place: Path) -> None:
    study = with_command()
    restore(study)
    assert restore(study)["made"] == 0
    write_text_atomic(SCRIPT + "\n# another version\n", Path("double.py"))
    assert restore(study)["made"] == 3


def test_a_changed_dependency_restores_again(place: Path) -> None:
    write_text_atomic("1", Path("weights/model.bin"))
    study = with_command(depends=["weights"])
    restore(study)
    write_text_atomic("2", Path("weights/model.bin"))
    assert restore(study)["made"] == 3
    shutil.rmtree("weights")
    with pytest.raises(UserError, match=r"baselines\.mine\.depends: weights is not there"):
        restore(study)


@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("bash -c 'python m.py {lq} {out} {scale} && echo done'", {"m.py", "beside.py"}),
        ("bash -c 'cd tools && python run.py {lq} {out}'", {"tools/run.py"}),
        ("""bash -c "bash -c 'python m.py {lq} {out}'" """, {"m.py", "beside.py"}),
        ("sh go.sh {lq} {out}", {"go.sh", "m.py", "beside.py"}),
        ("sh -c 'for f in {lq}/*.png; do python m.py $f;done; ls {out}'", {"m.py", "beside.py"}),
        ("""sh -c 'run "two words.py" --at=a.yaml {lq} {out}'""", {"two words.py", "a.yaml"}),
        ("python -m tools.run {lq} {out}", {"tools/run.py"}),
        ("./tool {lq} {out}", {"tool", "beside.py"}),
        ("./wrapper {lq} {out}", {"wrapper", "tools/run.py"}),
        # What the command writes changes with each run.
        ("sh -c 'python m.py {lq} {out} 2>log.txt | tee -a log.txt'", {"m.py", "beside.py"}),
    ],
)
def test_the_files_of_a_command_are_found_within_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, files: set[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("beside.py", "tools/run.py", "two words.py", "a.yaml", "log.txt"):
        write_text_atomic("", Path(name))
    write_text_atomic("import sys, torch, beside\n", Path("m.py"))
    write_text_atomic("#!/usr/bin/env python3\nimport beside\n", Path("tool"))
    write_text_atomic("#!/bin/bash\npython tools/run.py $1 $2\n", Path("wrapper"))
    write_text_atomic("# don't\npython m.py $1 $2\n", Path("go.sh"))
    named = named_in(command)
    assert set(map(str, named.files)) == files
    assert named.unseen == []


@pytest.mark.parametrize(
    ("words", "unseen"),
    [
        ("'python $HOME/m.py {lq} {out}'", "$HOME/m.py"),
        ("'python m.py {lq} {out} --weights w.pt'", "w.pt"),
        ("'python m.py {lq} {out} --weights=parts/'", "parts"),
    ],
)
def test_what_is_only_seemingly_a_file_is_asked_for(
    place: Path, capsys: pytest.CaptureFixture[str], words: str, unseen: str
) -> None:
    Path("parts").mkdir()
    write_text_atomic("", Path("m.py"))
    own._warn.cache_clear()
    study = study_with({"command": f"bash -c {words}"})
    find_method(study, "mine").state(study)
    said = capsys.readouterr().err
    assert f"baselines.mine.command: a change of {unseen} is not noticed" in said
    assert "list it under `depends`" in said
    write_text_atomic("", Path("elsewhere", Path(unseen).name))
    own._warn.cache_clear()
    study = study_with(
        {"command": f"bash -c {words}", "depends": [f"elsewhere/{Path(unseen).name}"]}
    )
    find_method(study, "mine").state(study)
    assert capsys.readouterr().err == ""


def test_settings_that_a_script_opens_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not taken: a script may write such a file, too."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.yaml", "lib/b.pth", "log.txt"):
        write_text_atomic("", Path(name))
    text = "import lib.c\nopen('a.yaml')\nopen('none.yaml')\nopen('log of today')\n"
    write_text_atomic(text, Path("m.py"))
    write_text_atomic("WEIGHTS = 'b.pth'\n", Path("lib/c.py"))
    assert sorted(named_in("python m.py {lq} {out}").unseen) == ["a.yaml", "b.pth"]
    assert named_in("python m.py {lq} {out} --config a.yaml").unseen == ["b.pth"]


def test_a_changed_script_within_quotes_restores_again(place: Path) -> None:
    python = shlex.quote(sys.executable)
    study = study_with({"command": f'bash -c "{python} double.py {{lq}} {{out}} 1 && echo done"'})
    assert restore(study)["made"] == 3
    before = find_method(study, "mine").state(study)
    write_text_atomic(SCRIPT + "\n# another version\n", Path("double.py"))
    assert find_method(study, "mine").state(study) != before
    assert restore(study)["made"] == 3


def test_a_plan_knows_given_outputs_by_what_they_hold(place: Path) -> None:
    study = study_with({"outputs": "mine"})
    file = give(study) / "one.png"
    before = find_method(study, "mine").state(study)
    os.utime(file, (1, 1))  # as in a copy
    assert find_method(study, "mine").state(study) == before
    file.write_bytes((file.parent / "two words.png").read_bytes())
    assert find_method(study, "mine").state(study) != before


def test_a_corrupted_lq_image_is_refused_by_name(place: Path) -> None:
    study = with_command()
    bad = study.layout.lq("Set", "II") / "one.png"
    bad.write_bytes(b"")
    with pytest.raises(ImageError, match=r"one\.png: the file is empty"):
        restore(study)


def test_a_program_that_is_not_there(place: Path) -> None:
    study = study_with({"command": "no-such-program {lq} {out}"})
    with pytest.raises(UserError, match="no-such-program: cannot be started"):
        restore(study)


def test_a_command_in_an_environment_of_its_own(place: Path) -> None:
    """A folder with bin/python; what the suite's own interpreter would import is out of reach."""
    own = Path("env/bin")
    own.mkdir(parents=True)
    (own / "python").symlink_to(sys.executable)
    (own / "mymodel").write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} double.py $@\n")
    (own / "mymodel").chmod(0o755)
    study = study_with(
        {"command": "mymodel {lq} {out} {seed}", "environment": "env"}, ("one", "two")
    )
    assert failed(restore(study)) == {}
    installed = Path("env/lib/python3.11/site-packages/somelib-1.0.dist-info")
    installed.mkdir(parents=True)
    assert restore(study)["made"] == 2  # other packages, so another result may come of it


def test_an_environment_that_is_not_made_says_how(place: Path) -> None:
    write_text_atomic("einops==0.7.0\n", Path("mine.txt"))
    study = study_with({"command": "python x.py {lq} {out}", "environment": "mine.txt"})
    with pytest.raises(UserError, match="faithdiff baseline prepare mine --config"):
        restore(study)


# --- Config ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"command": "run {lq}"}, r"baselines\.mine\.command: has no \{out\}"),
        ({"command": "run {lq} {out} {sed}"}, r"unknown placeholder \{sed\}; there are \{lq\}"),
        ({"command": "run {lq} {out} '"}, "No closing quotation"),
        ({"outputs": "x/{image}"}, r"baselines\.mine\.outputs: unknown placeholder \{image\}"),
    ],
)
def test_a_bad_section_is_told_by_its_place(
    place: Path, method: dict[str, Any], message: str
) -> None:
    study = study_with(method)
    with pytest.raises(ConfigError, match=message):
        find_method(study, "mine")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            {"command": "x", "outputs": "y"},
            r"baselines\.mine\.outputs: unknown key \(allowed: label, command, per",
        ),
        ({"outputs": "y", "per": "image"}, r"baselines\.mine\.per: unknown key"),
        ({"command": "x", "per": "imag"}, r"'imag' is not one of 'image', 'folder', 'set'"),
        ({}, r"baselines\.mine\.implementation: is missing"),
    ],
)
def test_a_section_is_closed(place: Path, method: dict[str, Any], message: str) -> None:
    with pytest.raises(FaithDiffError, match=message):
        study_with(method)


def test_both_kinds_come_from_the_registry(place: Path) -> None:
    assert isinstance(find_method(study_with({"outputs": "mine"}), "mine"), Outputs)
    assert isinstance(find_method(with_command(), "mine"), Command)
