"""One cell of a printed table: its rows, its statistics, and everything that made it."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml
from pydantic import JsonValue

from faithdiff.audit.explain_costs import COSTS, cost_facts, cost_rows, is_cost
from faithdiff.audit.match import resolve
from faithdiff.audit.recorded import RecordedCell, RecordedTable
from faithdiff.audit.records import json_text
from faithdiff.audit.results import Results, columns_of, load_results
from faithdiff.audit.revision import SCORES, find_revision
from faithdiff.audit.sections import AuditSection
from faithdiff.errors import UserError
from faithdiff.score.protocols import MetricDefinition
from faithdiff.study.manifest import DataHashes

Facts = list[tuple[str, str]]
SHOWN = ("image", "seed", "dataset", "level", "value", "status", "restored_sha256")


@dataclass(frozen=True)
class Explanation:
    """A cell and what is behind it.

    Attributes:
        cell: Its record in ``tables/<table>.cells.json``.
        rows: The lines of ``scores.csv``, or of ``cost.csv``, that it averages.
        facts: What made it: name and value.
        commands: What makes it again.
    """

    table: str
    cell: RecordedCell
    rows: pd.DataFrame
    facts: Facts
    commands: list[str]


def explain(
    table: str, words: Sequence[str], profile: str, revision: str, root: Path
) -> Explanation:
    """Find a cell and everything behind it.

    Args:
        table: Name of the table.
        words: Method and metric by name or label, then level, dataset or name of the block, in
            any order and case.
        profile: Whose results.
        revision: A revision of git, a folder, or ``.`` for the working tree.
        root: Root of the suite.

    Raises:
        UserError: No cell fits, or several do; or the table does not fit ``scores.csv``.
    """
    results = load_results(find_revision(revision, profile, root), profile)
    table = "real" if table == "realworld" else table  # the name of its file
    if table not in results.tables:
        there = ", ".join(sorted(results.tables)) or "none"
        raise UserError(f"table {table!r}: {results.title} has: {there}")
    content = results.tables[table]
    try:
        cell = _find(list(content.cells.values()), words, results, root)
    except UserError as error:
        # A metric that nobody measured has no column; the table says how to get it.
        raise UserError(f"{error}. {content.unmeasured}".rstrip(". ")) from None
    return explain_cell(results, table, cell, root)


def explain_cell(results: Results, table: str, cell: RecordedCell, root: Path) -> Explanation:
    """Everything behind a cell of ``tables/<table>.cells.json``.

    Raises:
        UserError: The table does not fit ``scores.csv``.
    """
    content, facts = results.tables[table], _origin(results)
    if is_cost(content):
        rows = cost_rows(results, cell)
        facts += cost_facts(results, cell, rows) + _weight_facts(results, cell)
    else:
        rows = _rows(results, content, cell)
        _check(cell, rows, table, results)
        facts += _protocol_facts(results, cell, rows, root)
        facts += _weight_facts(results, cell) + _data_facts(results, cell)
    if results.stale:
        facts.append(("note", "manifest.json describes another scores.csv"))
    return Explanation(table, cell, rows, facts, _commands(results, cell, table))


def _find(
    cells: list[RecordedCell], words: Sequence[str], results: Results, root: Path
) -> RecordedCell:
    if len(words) < 2:
        raise UserError("name a method and a metric, e.g.: faithdiff explain main FaithDiff PSNR")
    methods = {cell.method: cell.label for cell in cells}
    columns = columns_of([results], root)
    metrics = {cell.metric: columns[cell.column].label for cell in cells}
    (method,) = resolve(words[:1], methods, "method")
    (metric,) = resolve(words[1:2], metrics, "metric")
    own = [cell for cell in cells if (cell.method, cell.metric) == (method, metric)]
    wanted = {word.casefold() for word in words[2:]}
    fitting = [cell for cell in own if wanted <= _names(cell)]
    # "I" names a level, and is also part of "I, II": a block of exactly this name wins.
    exact = [cell for cell in fitting if cell.block.casefold() in wanted]
    found = exact or fitting
    if len(found) == 1 or (found and not wanted and "all levels" in _names(found[0])):
        return found[0]
    blocks = "; ".join(cell.block for cell in (found or own))
    said = " ".join(words[2:]) or "nothing more was said"
    raise UserError(f"{method}, {metric}: {said}: name one of these blocks: {blocks}")


def _names(cell: RecordedCell) -> set[str]:
    """Words that a cell answers to: its sets, levels and block, where they name it alone."""
    names = [cell.block, *cell.datasets, *cell.levels]
    if len(cell.levels) > 1:
        names = [cell.block, *cell.datasets]
    return {name.casefold() for name in names}


def _rows(results: Results, content: RecordedTable, cell: RecordedCell) -> pd.DataFrame:
    scores = results.scores
    own = scores[
        (scores["method"] == cell.method)
        & (scores["metric"] == cell.metric)
        & (scores["protocol"] == cell.protocol)
        & scores["dataset"].isin(cell.datasets)
        & scores["level"].isin(cell.levels)
    ]
    names = content.images.get(f"{cell.protocol}/{cell.metric}", {})
    listed = {(*place.split("/", 1), image) for place, images in names.items() for image in images}
    # By the list that the table itself wrote, and not by all rows that fit: images that were added
    # to the scores after it was printed are not behind its number.
    places = list(own[["dataset", "level", "image"]].itertuples(index=False, name=None))
    return own.iloc[[i for i, place in enumerate(places) if place in listed]]


def _check(cell: RecordedCell, rows: pd.DataFrame, table: str, results: Results) -> None:
    if cell.mean is None:
        return
    # Computed again before anything is explained: rows that do not give the printed mean explain
    # nothing, however well they look.
    mean = rows.groupby(["dataset", "picture"])["value"].mean().mean()
    if not math.isclose(mean, cell.mean, rel_tol=1e-9, abs_tol=1e-12):
        raise UserError(
            f"{results.title}: table {table} says {cell.mean!r}, scores.csv {mean!r}: it "
            "was rendered from other scores; render it again with: faithdiff tables"
        )


def _origin(results: Results) -> Facts:
    facts = [("results of", results.title)]
    if results.made.commit:
        dirty = " with uncommitted changes" if results.made.dirty else ""
        facts.append(("code commit", f"{results.made.commit}{dirty}"))
    return facts


def _data_facts(results: Results, cell: RecordedCell) -> Facts:
    facts = []
    for dataset in cell.datasets:
        data = results.made.data.get(dataset, DataHashes())
        facts.append((f"data {dataset}", f"index.csv sha256 {data.index or 'not known'}"))
        for level in cell.levels:
            log = data.degradation.get(level, "not known")
            facts.append((f"degradation {dataset}, {level}", f"degradation.jsonl sha256 {log}"))
    return facts


def _protocol_facts(results: Results, cell: RecordedCell, rows: pd.DataFrame, root: Path) -> Facts:
    digests = ", ".join(sorted(set(rows["protocol_sha256"]))) or "no rows"
    facts = [("protocol", f"{cell.protocol}, digest {digests}")]
    definition = _definition(results, cell)
    if definition is None:
        return facts
    said = json.dumps(definition.computation(), ensure_ascii=False)
    facts.append(("defined as", said))
    # Read for the few metrics with weights of their own, not for each of hundreds of cells.
    listed = _hashes(root) if definition.artifacts else {}
    for name in definition.artifacts:
        sha = listed.get(name)
        facts.append((f"metric weights {name}", f"sha256 {sha or 'recorded on first fetch'}"))
    return facts


def _definition(results: Results, cell: RecordedCell) -> MetricDefinition | None:
    """The metric's definition at this revision; None where the revision has no protocols."""
    file = results.config.score.protocols_file
    content = results.revision.read(file) if file else None
    if content is None:
        return None
    found = _protocols(content).get(cell.protocol, {}).get("metrics", {}).get(cell.metric)
    return MetricDefinition.model_validate(found) if found is not None else None


@functools.lru_cache(maxsize=4)  # a page explains hundreds of cells by the same file
def _protocols(content: bytes) -> dict[str, dict[str, dict[str, dict[str, JsonValue]]]]:
    return yaml.safe_load(content)["protocols"]


def _hashes(root: Path) -> dict[str, str | None]:
    """sha256 of the metric weights that ``config/artifacts.yaml`` lists."""
    from faithdiff.data.artifacts import ARTIFACTS_FILE

    return _listed(root / ARTIFACTS_FILE, (root / ARTIFACTS_FILE).read_bytes())


@functools.lru_cache(maxsize=4)
def _listed(file: Path, _content: bytes) -> dict[str, str | None]:
    from faithdiff.data.artifacts import load_artifacts

    return {name: each.sha256 for name, each in load_artifacts(file).items()}


def _weight_facts(results: Results, cell: RecordedCell) -> Facts:
    made, config = results.made, results.config
    variant = config.variants.get(cell.method)
    facts = []
    if config.samples_from_prior(cell.method) and made.prior is not None:
        facts.append(("prior", f"{made.prior.folder}, weights sha256 {made.prior.weights}"))
    for seed in cell.seeds:
        owners = [config.checkpoint_of(cell.method)]
        if variant is not None and variant.pretrain:
            owners.insert(0, f"stage1-{variant.recipe}")
        for owner in owners:
            if run := made.checkpoints.get(f"{owner}/seed{seed}"):
                text = f"sha256 {run.weights}, trained at {str(run.commit)[:9]}"
                facts.append((f"weights {owner}/seed{seed}", text))
    return facts


def _commands(results: Results, cell: RecordedCell, table: str) -> list[str]:
    """What makes the cell again: its own steps, or the whole study at the same code."""
    file = f"--config config/{results.profile}.yaml"
    made, config = results.made.commit, results.config
    variant, baseline = config.variants.get(cell.method), config.baselines.get(cell.method)
    owner = config.checkpoint_of(cell.method)
    steps = []
    for seed in cell.seeds:
        if variant is not None and variant.pretrain:
            steps.append(f"faithdiff pretrain --recipe {variant.recipe} --seed {seed} {file}")
        if baseline is None or baseline.trained or baseline.checkpoint_of:
            steps.append(f"faithdiff train --method {owner} --seed {seed} {file}")
        own = f"--method {cell.method} --seed {seed} {file}"
        steps += [f"faithdiff {verb} {own}" for verb in ("restore-sets", "score")]
    target = f"results/{results.profile}/tables/{table}.cells.json"
    # Two ways: snakemake makes what is missing and no more; the single steps show what a cell is
    # made of, and can be pasted one by one.
    whole = [f"snakemake --cores all --config profile={results.profile} -- {target}"]
    last = [f"faithdiff {verb} {file}" for verb in ("collect", "tables")]
    return [
        "The table, and everything that is missing: "
        + " && ".join([f"git checkout {made}"] * bool(made) + whole),
        "Only this cell, if the datasets are prepared: " + " && ".join(steps + last),
    ]


def explanation_sections(found: Explanation) -> list[AuditSection]:
    """The explanation as sections."""
    cell, of_scores = found.cell, "status" in found.rows
    better = "higher" if cell.higher_is_better else "lower"
    seeds = ", ".join(map(str, cell.seeds)) or "none"
    pictures = f" ({cell.pictures} source pictures)" if cell.pictures else ""
    images = f"n = {cell.n} of {cell.expected} images{pictures}, " if of_scores else ""
    lines = [
        f"{cell.label} ({cell.method}), {cell.metric}@{cell.protocol}, "
        f"{cell.block}: printed as {cell.printed or '(nothing)'}, status {cell.status}",
        f"{images}seeds {seeds}; {better} is better",
    ]
    if cell.mean is not None:
        interval = f", 95% interval [{cell.low!r}, {cell.high!r}]" if of_scores else ""
        lines.append(f"mean {cell.mean!r}{interval}")
    lines += cell.reasons
    if cell.compared_with:
        lines.append(
            f"difference to {cell.compared_with}: {cell.difference!r} "
            f"[{cell.difference_low!r}, {cell.difference_high!r}], p {cell.p!r}, after "
            f"Holm {cell.p_holm!r}: {'' if cell.significant else 'not '}significant"
        )
    names = list(SHOWN if of_scores else found.rows.columns)
    rows = [
        tuple(_shown(name, value) for name, value in zip(names, line, strict=True))
        for line in found.rows[names].itertuples(index=False)
    ]
    file = SCORES if of_scores else COSTS
    return [
        AuditSection(f"{found.table}: {cell.label}, {cell.metric}, {cell.block}", lines),
        AuditSection("Made from", head=("what", "value"), rows=[*found.facts]),
        AuditSection("Made again by", found.commands),
        AuditSection(f"Rows of {file} ({len(rows)})", head=tuple(names), rows=rows),
    ]


def _shown(name: str, value: str | float) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return str(value)[:12] if name == "restored_sha256" else str(value)


def explanation_json(found: Explanation) -> str:
    """The explanation as JSON, with every row whole."""
    content: dict[str, object] = {
        "table": found.table,
        "cell": found.cell.plain(),
        "made_from": dict(found.facts),
        "commands": found.commands,
        "rows": found.rows.to_dict("records"),
    }
    return json_text(content)
