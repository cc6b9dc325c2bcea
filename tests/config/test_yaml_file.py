"""YAML is read as it looks, and what leaves a doubt is refused with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared import ROOT

from faithdiff.config import Section, load_yaml, parse
from faithdiff.config.yaml_file import (
    Layer,
    Layers,
    check_own_name,
    dump_yaml,
    plain_value,
    read_yaml,
)
from faithdiff.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("true", True),
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("2020-13-45", "2020-13-45"),
        ("1_000", "1_000"),
        ("0o17", 15),
        ("0x1F", 31),
        ("0", 0),
        ("null", None),
        ("~", None),
        ("'null'", "null"),
    ],
)
def test_plain_values_are_what_they_look_like(text: str, value: Any) -> None:
    assert read_yaml(f"a: {text}", "own.yaml") == {"a": value}
    if "'" not in text:
        assert plain_value(text, "") == value


def test_every_shipped_file_means_the_same_to_readers_of_yaml_1_1() -> None:
    for file in (*ROOT.glob("config/*.yaml"), *ROOT.glob("baselines/official/*.yaml")):
        text = file.read_text(encoding="utf-8")
        assert read_yaml(text, str(file)) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "restore: {steps: 3}\nseed: 1\nrestore: {tile: 8}\n",
            "own.yaml: the key 'restore' is already in line 1; remove one, line 3, column 1",
        ),
        (
            "variants:\n  concat: {a: 1}\n  frozen: {a: 1}\n  concat: {a: 2}\n",
            "own.yaml: the key 'concat' is already in line 2; remove one, line 4, column 3",
        ),
        ("a: {b: 1, b: 1}", "own.yaml: the key 'b' is already in line 1; remove one, line 1"),
        ("a:\nb: 1\n", "own.yaml: the key 'a' has no value; give it one, or remove the line"),
        ("seed: 010", "own.yaml: 010 is octal to some readers and decimal to others; remove the"),
        ("a: [1, 2", "own.yaml: is not valid YAML: expected "),
    ],
)
def test_doubts_are_refused_with_their_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "own.yaml")
    assert str(caught.value).startswith(message)


def test_a_key_beside_a_merged_one_is_no_repetition() -> None:
    text = "base: &b {x: 1, y: 2}\nother: {<<: *b, y: 3}\n"
    assert read_yaml(text, "")["other"] == {"x": 1, "y": 3}


class _Numbers(Section):
    count: int
    share: float = 0.0
    on: bool = False
    many: list[int] | None = None


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"count": True}, "count: must be a number, not true"),
        ({"count": "3"}, "count: must be a number, not the text '3'; write it without quotes"),
        ({"count": 3, "share": "0.5"}, "share: must be a number, not the text '0.5'"),
        ({"count": 3, "many": [0, False]}, "many[1]: must be a number, not false"),
        ({"count": 3, "many": 0}, "many: must be a list, such as [0], not 0"),
    ],
)
def test_a_truth_value_or_a_text_is_no_number(given_: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(given_, _Numbers, "own.yaml")
    assert str(caught.value).startswith(f"own.yaml: {message}")


def test_the_words_of_yaml_1_1_still_switch(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("count: 3.0\non: yes\n", encoding="utf-8")
    assert load_yaml(file, _Numbers) == _Numbers(count=3, on=True)


def test_null_removes_what_is_inherited_and_nothing_else(tmp_path: Path) -> None:
    for name, text in {
        "a": "names: {one: 1, two: 2, three: 3}\n",
        "b": "extends: a.yaml\nnames: {one: null}\n",
        "c": "extends: b.yaml\nnames: {one: null, two: null, thre: null}\n",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    assert Layers.read(tmp_path / "c.yaml").merged() == {"names": {"three": 3, "thre": None}}


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (
            "[a.yaml, b.yaml]",
            "own.yaml: extends: must name one file beside this one, not ['a.yaml'",
        ),
        ("null", "own.yaml: extends: must name one file beside this one, not None"),
        ("base", "own.yaml: extends: did you mean base.yaml?"),
        ("config/base.yaml", "own.yaml: extends: did you mean base.yaml? (beside this file)"),
    ],
)
def test_what_a_file_extends_is_one_file(tmp_path: Path, base: str, message: str) -> None:
    (tmp_path / "base.yaml").write_text("a: 1\n", encoding="utf-8")
    file = tmp_path / "own.yaml"
    file.write_text(f"extends: {base}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        Layers.read(file)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")


def test_an_empty_group_that_removes_nothing_is_refused(tmp_path: Path) -> None:
    for name, text in {
        "a": "names: {one: 1}\nnone: {}\n",
        "b": "extends: a.yaml\nnames: {}\nnone: {}\n",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"b\.yaml: names: \{\} changes nothing.*\(one\)"):
        Layers.read(tmp_path / "b.yaml").merged()
    assert Layers.read(tmp_path / "a.yaml").merged() == {"names": {"one": 1}, "none": {}}


TEXT = st.text(max_size=9)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(TEXT, PLAIN, max_size=3))
def test_what_is_written_is_read_again(data: Any) -> None:
    assert read_yaml(dump_yaml({"a": data}), "") == {"a": data}


@pytest.mark.parametrize("text", ["\x85", "a\u2028b", "\u2029 c", "\x85\n"])
def test_line_breaks_beyond_ascii_are_kept(text: str) -> None:
    for data in ([text], {text: text}):
        assert read_yaml(dump_yaml(data), "") == data


@pytest.mark.parametrize("text", ["1e3", "no", "010", "2024-01-31", "1:30", "null", "0o7"])
def test_texts_that_look_like_values_are_written_in_quotes(text: str) -> None:
    for read in (yaml.safe_load(dump_yaml([text])), read_yaml(dump_yaml([text]), "")):
        assert read == [text]


def test_a_layer_over_a_file_counts_first_and_names_itself(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("a: {b: 1, c: 2}\n", encoding="utf-8")
    layers = Layers.read(file).below(Layer(Path("--config"), {"a": {"b": 3}}))
    assert layers.merged() == {"a": {"b": 3, "c": 2}}
    assert layers.origin(("a", "b")) == Path("--config")
    assert layers.origin(("a", "c")) == file


# --- Whose results it would write -----------------------------------------------------------------


@pytest.mark.parametrize("own", ["", "profile: mini\n"])
def test_a_profile_with_the_name_of_another_is_refused(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    mini, mine = Path("config/mini.yaml"), Path("mine.yaml")
    mini.write_text("profile: mini\n", encoding="utf-8")
    mine.write_text(f"extends: config/mini.yaml\n{own}", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        check_own_name(mine, "mini")
    assert str(caught.value) == (
        "mine.yaml: profile: 'mini' is the name of config/mini.yaml, whose checkpoints and results "
        "it would write over; give it a name of its own, such as profile: mine"
    )
    check_own_name(mine, "mine")
    check_own_name(mini, "mini")


def test_a_copy_that_kept_the_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    for name in ("mini", "copy"):
        Path("config", f"{name}.yaml").write_text("profile: mini\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"profile: 'mini' is the name of config/mini\.yaml"):
        check_own_name(Path("config/copy.yaml"), "mini")


def test_an_empty_file_is_told_what_it_needs(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("# nothing yet\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"own\.yaml: is empty; .* `extends: mini\.yaml`"):
        Layers.read(file)
