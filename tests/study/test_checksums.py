"""Checksums of what was written: any JSON, any table, any row comes back, and a change is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faithdiff.errors import CorruptedError
from faithdiff.study.checksums import (
    append_row,
    check_file,
    check_summed,
    checksum_fits,
    read_checked,
    read_rows,
    sum_file,
    with_checksum,
    write_summed,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
records = st.dictionaries(st.text().filter(lambda key: key not in ("checksum", "sealed")), values)
fields = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\x1f")), min_size=1
)
on_disk = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@on_disk
@given(records)
def test_any_record_is_read_as_it_was_written(tmp_path: Path, record: dict[str, object]) -> None:
    file = tmp_path / "record.json"
    file.write_text(json.dumps(with_checksum(record)), encoding="utf-8")
    found = read_checked(file)
    assert found.pop("checksum")
    assert json.dumps(found) == json.dumps(record)


@given(records, st.text(), values)
def test_any_change_of_a_record_is_noticed(
    record: dict[str, object], key: str, value: object
) -> None:
    whole = with_checksum(record)
    changed = {**whole, key: value}
    same = json.dumps(changed, sort_keys=True) == json.dumps(whole, sort_keys=True)
    if key not in ("checksum", "sealed"):
        assert checksum_fits(changed) == same
    assert checksum_fits(dict(reversed(whole.items())))  # the order of keys says nothing


def test_a_record_without_a_checksum_is_taken_as_it_is() -> None:
    assert checksum_fits({"written": "by a person"})


@on_disk
@given(st.lists(fields, min_size=1, max_size=4), st.data())
def test_rows_survive_and_a_torn_end_costs_the_last(
    tmp_path: Path, rows: list[list[str]], data: st.DataObject
) -> None:
    file = tmp_path / "rows.csv"
    file.unlink(missing_ok=True)
    for row in rows:
        append_row(row, file)
    assert list(read_rows(file)) == rows
    content = file.read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    file.write_bytes(content[: data.draw(st.integers(last, len(content) - 1))])
    assert list(read_rows(file)) == rows[:-1]
    append_row(["next"], file)  # begins a line of its own
    assert list(read_rows(file)) == [*rows[:-1], ["next"]]


def test_a_row_that_changed_on_disk_counts_as_not_there(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    for row in (["a", "1.5"], ["b", "2.5"], ["c", "3.5"]):
        append_row(row, file)
    file.write_text(file.read_text().replace("2.5", "9.5"))
    assert list(read_rows(file)) == [["a", "1.5"], ["c", "3.5"]]


def test_a_table_or_its_hash_that_changed_is_named_with_its_command(tmp_path: Path) -> None:
    file = tmp_path / "index.csv"
    write_summed("name\na\n", file)
    check_summed(file)
    for changed in (file, sum_file(file)):
        kept = changed.read_bytes()
        changed.write_bytes(b"0" + kept[1:])
        with pytest.raises(CorruptedError, match=r"index\.csv: is corrupted: .*make it again with"):
            check_summed(file)
        changed.write_bytes(kept)
    sum_file(file).unlink()
    check_summed(file)  # as a person wrote it


def test_a_file_that_is_gone_is_missing_and_one_without_a_hash_is_not_asked(tmp_path: Path) -> None:
    check_file(tmp_path / "gone", None)
    check_file(tmp_path / "gone", "")
    with pytest.raises(CorruptedError, match=r"gone: is missing; make it again with"):
        check_file(tmp_path / "gone", "0" * 64)
