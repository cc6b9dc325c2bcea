"""What the page prints without a script: tables, claims, provenance."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from faithdiff.audit.explain_costs import hardware_text
from faithdiff.audit.recorded import RecordedCell
from faithdiff.audit.results import Columns, Results, columns_of
from faithdiff.claims.record import ClaimsRecord, read_claims
from faithdiff.report.cells import HELD_OUT, Column, header
from faithdiff.report.measured import counted
from faithdiff.study.manifest import Manifest

MARKS = {
    "best": "best",
    "second": "second",
    "tie": "one of two leaders, difference not significant",
}
ORDER = ("main", "real", "ablation", "cost")


@dataclass(frozen=True)
class Counts:
    """How much was measured.

    Attributes:
        metrics: Labels of the metrics that have a value, some with how many methods.
        unmeasured: Which have none, and how to get them; empty where nothing is missing.
    """

    methods: int
    images: int
    metrics: list[str]
    unmeasured: str


@dataclass(frozen=True)
class PageCell:
    """A cell as it is printed.

    Attributes:
        key: What `embedded` explains it by; empty for a quoted number, which nothing is behind.
        said: What a screen reader says instead of `text`, where the mark is all that tells.
        value: What its column is sorted by.
        difference: To the reference of the table, where it prints differences.
    """

    key: str
    text: str
    mark: str
    said: str
    value: float | None
    difference: str


@dataclass(frozen=True)
class PageRow:
    """A method in a block; None in `cells` where the block has no cell of the column."""

    block: str
    label: str
    group: str
    updates: int | None
    cells: list[PageCell | None]


@dataclass(frozen=True)
class PageTable:
    """A printed table; `budgets` says whether the updates of a training have a column."""

    name: str
    caption: str
    unmeasured: str
    notes: list[str]
    budgets: bool
    columns: list[str]
    blocks: list[str]
    rows: list[PageRow]


@dataclass(frozen=True)
class PageContent:
    """Everything that the page prints without a script, by the names that its template uses.

    Attributes:
        claims: None where they were not judged yet.
    """

    profile: str
    made: str
    counts: Counts
    stale: bool
    tables: list[PageTable]
    claims: ClaimsRecord | None
    provenance: list[tuple[str, str]]
    packages: list[tuple[str, str]]


def page_content(results: Results, root: Path) -> PageContent:
    """Everything that the page prints without a script."""
    columns = columns_of([results], root)
    made, scores = results.made, results.scores
    metrics, unmeasured = counted(scores, _metrics(results, columns))
    images = len(scores[["dataset", "image"]].drop_duplicates())
    return PageContent(
        profile=results.profile,
        made=f"{made.commit or 'not known'}{', with uncommitted changes' if made.dirty else ''}",
        counts=Counts(scores["method"].nunique(), images, metrics, unmeasured),
        stale=results.stale,
        tables=[_table(results, name, columns) for name in sorted(results.tables, key=_order)],
        claims=_claims(results),
        provenance=_provenance(made) if results.manifest else [NO_MANIFEST],
        packages=sorted(made.packages.items()),
    )


def _metrics(results: Results, columns: Columns) -> list[Column]:
    """The metrics that were asked for, under the protocol of the tables, in the profile's order."""
    pairs = results.scores[["metric", "protocol"]].drop_duplicates()
    found = [columns[p] for p in pairs.itertuples(index=False, name=None) if p in columns]
    config = results.config
    printed = config.report.protocol
    order = [*config.score.metrics, HELD_OUT.metric]
    # The held-out loss at single timesteps is for its figure, not one of the study's metrics.
    mine = [
        c
        for c in found
        if (c.protocol in (printed, HELD_OUT.protocol) or printed is None)
        and (c.metric in order or not config.score.metrics)
    ]
    return sorted(mine, key=lambda c: order.index(c.metric) if c.metric in order else len(order))


def _order(table: str) -> tuple[int, str]:
    return ORDER.index(table) if table in ORDER else len(ORDER), table


def _table(results: Results, name: str, columns: Columns) -> PageTable:
    """A table as rows of cells, each with the key that explains it."""
    table = results.tables[name]
    shown = list(dict.fromkeys(cell.column for cell in table.cells.values()))
    rows: dict[tuple[str, str], PageRow] = {}
    quoted = [("", cell) for cell in _quoted(results, name)]
    for key, cell in [*table.cells.items(), *quoted]:
        row = rows.setdefault(
            (cell.block, cell.label),
            PageRow(
                cell.block,
                cell.label,
                table.groups.get(cell.group, ""),
                cell.updates,
                [None] * len(shown),
            ),
        )
        if cell.column in shown:
            row.cells[shown.index(cell.column)] = _shown(f"{name}|{key}" if key else "", cell)
    blocks = list(dict.fromkeys(row.block for row in rows.values()))
    return PageTable(
        name=name,
        caption=table.caption,
        unmeasured=table.unmeasured,
        # What a method trains is in the explanations of its cells.
        notes=[note for note in table.notes if not note.startswith("trained: ")],
        budgets=any(row.updates is not None for row in rows.values()),
        columns=[header(columns[column]) for column in shown],
        blocks=blocks,
        rows=sorted(rows.values(), key=lambda row: blocks.index(row.block)),
    )


def _shown(key: str, cell: RecordedCell) -> PageCell:
    return PageCell(
        key=key,
        text=f"{cell.printed}{'*' if cell.against_significant else ''}",
        mark=cell.mark,
        said=f"{cell.printed}, {MARKS[cell.mark]}" if cell.mark else "",
        value=cell.mean,
        difference=_difference(cell),
    )


def _difference(cell: RecordedCell) -> str:
    """Paired difference to the table's reference, as the ablation prints it."""
    if cell.difference is None or cell.mark:
        return ""
    star = "*" if cell.significant else ""
    mean = cell.printed.partition(" ")[0]  # without its spread over trainings
    decimals = len(mean.partition(".")[2])
    return f"{cell.difference:+.{decimals}f}{star}".replace("-", "\N{MINUS SIGN}")


def _quoted(results: Results, name: str) -> list[RecordedCell]:
    """Numbers quoted from the paper, which have no rows behind them: only the CSV has them."""
    content = results.revision.read(f"results/{results.profile}/tables/{name}.csv")
    if content is None:
        return []
    return [
        RecordedCell(
            block=line["block"],
            datasets=tuple(line["datasets"].split(";")),
            levels=tuple(line["levels"].split(";")),
            method="",
            label=line["label"],
            group=line["group"],
            metric=line["metric"],
            protocol=line["protocol"],
            higher_is_better=line["higher_is_better"] == "True",
            printed=line["printed"],
            mean=float(line["mean"]),
        )
        for line in csv.DictReader(content.decode("utf-8").splitlines())
        if line["status"] == "published"
    ]


def _claims(results: Results) -> ClaimsRecord | None:
    path = f"results/{results.profile}/claims.json"
    content = results.revision.read(path)
    return read_claims(content, results.revision.place(path)) if content is not None else None


NO_MANIFEST = ("manifest.json", "missing: finish the run with snakemake --cores all")


def _provenance(made: Manifest) -> list[tuple[str, str]]:
    """Facts of the manifest as names and values."""
    parts = (made.seeds, made.prior, made.total)
    seeds, prior, total = ({} if part is None else part.plain() for part in parts)
    return [
        ("code", f"{made.commit}{' (dirty)' if made.dirty else ''}"),
        ("seeds", json.dumps(seeds)),
        ("prior", json.dumps(prior)),
        *(("machine", hardware_text(machine)) for machine in made.machines),
        *((f"cost: {name}", str(value)) for name, value in total.items()),
        *(
            (f"data {name}", f"{each.images} images, index.csv sha256 {each.index}")
            for name, each in made.data.items()
        ),
        *(
            (f"weights {name}", f"sha256 {run.weights}, trained at {run.commit}")
            for name, run in made.checkpoints.items()
        ),
        *((name, f"sha256 {sha}") for name, sha in made.results.items()),
    ]
