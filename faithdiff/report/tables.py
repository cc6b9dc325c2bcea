"""The tables, as pure functions of the scores.

Main (paper Table 1): per test set and level, methods by metrics; bold only where the best is
significantly better than the runner-up. Real (paper Table 2): the same on real-world sets, which
have no HQ images and so no-reference metrics alone. Ablation (paper Tables 5 and 6): variants by
metrics over all test images, each with its paired difference to the first row.
:mod:`faithdiff.report.render` prints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from faithdiff.config import REAL, Profile
from faithdiff.errors import UserError
from faithdiff.report.cells import HELD_OUT, Block, Cell, Column, Row, Table
from faithdiff.report.costs import cost_table, load_costs
from faithdiff.report.curves import curve_table
from faithdiff.report.draft import Draft, out_of_reach
from faithdiff.report.groups import budgeted, contenders, grouped, in_groups
from faithdiff.report.measured import measured_columns
from faithdiff.report.published import PAPER, published_for
from faithdiff.report.render import write_table
from faithdiff.report.scores import load_scores
from faithdiff.score.protocols import choose, load_protocols
from faithdiff.study.layout import Layout

__all__ = [
    "ablation_table",
    "load_scores",
    "main_table",
    "metric_columns",
    "real_table",
    "write_tables",
]


def main_table(
    scores: pd.DataFrame, profile: Profile, protocol: str = "", paper: Path = PAPER
) -> Table:
    """Build the table of ``report.main`` by metrics, for each test set and level.

    Args:
        scores: As :func:`load_scores` returns them.
        profile: Gives rows, columns, labels and the master seed of the resampling.
        protocol: Name of the metric protocol; that of the profile where empty.
        paper: Folder of the published numbers.
    """
    blocks = [
        Block(dataset, f"Level {level}", (dataset,), (level,))
        for dataset in profile.data.with_hq
        for level in profile.data.levels
    ]
    columns = metric_columns(profile, protocol)
    return _leaders("main", scores, profile, columns, blocks, paper)


def real_table(
    scores: pd.DataFrame, profile: Profile, protocol: str = "", paper: Path = PAPER
) -> Table:
    """Build the table of ``report.main`` by no-reference metrics, for each real-world test set.

    Arguments as in :func:`main_table`.

    Raises:
        UserError: Every metric of the profile needs an HQ image.
    """
    blocks = [Block(name, "real-world", (name,), (REAL,)) for name in profile.data.real]
    columns = metric_columns(profile, protocol, reference=False)
    if not columns:
        raise UserError(
            f"score.metrics: all need an HQ image, and {', '.join(profile.data.real)} has none; "
            "add a no-reference metric, such as musiq, or remove the set"
        )
    return _leaders("real", scores, profile, columns, blocks, paper)


def _leaders(
    name: str,
    scores: pd.DataFrame,
    profile: Profile,
    wanted: list[Column],
    blocks: list[Block],
    paper: Path,
) -> Table:
    """Means with the best and the runner-up marked; no cell of it is compared with another set."""
    methods = in_groups(profile, profile.report.main)
    sets = {dataset for block in blocks for dataset in block.datasets}
    protocol = wanted[0].protocol
    published = [
        published_for(block.datasets[0], block.levels[0], protocol, paper) for block in blocks
    ]
    # A column that only the paper fills still belongs: dropping it would hide what is published.
    quoted = {name for block in published for values in block.values() for name in values}
    columns, unmeasured = measured_columns(scores, wanted, methods, sets, quoted)
    draft = Draft(name, scores, profile, columns, blocks, methods)
    # Bold among equals: a system that was trained longer on more data wins for that reason, and a
    # bold number would be read as a better design.
    among = contenders(profile, methods)
    draft.compare_leaders(among)
    draft.compare_with_reference()
    found = [
        _with_published(block, rows, columns)
        for block, rows in zip(grouped(draft.finish(), profile), published, strict=True)
    ]
    rule = draft.rule("comparisons of the table")
    apart = len(among) < len(methods)
    caption = (
        f"Means over source pictures, whose crops are averaged ({draft.counts()}), protocol "
        f"{protocol}. Bold: best{' of the controlled rows' if apart else ''}, and significantly "
        f"better than the runner-up, judged by {rule}. "
        "Underlined: the runner-up, or both leaders where the difference is not significant. "
        f"{'Rows whose mean prints the same get the same mark. ' if draft.shared_marks else ''}"
        f"{_APART if apart else ''}{_starred(draft)}{_surrogates(columns)}"
        f"{equal_images(scores, profile, methods, sets)}"
        f"{_comparability(any(published)) if name == 'main' else _REAL_NOTE}"
    )
    return replace(draft.table(caption, found, differences=False), unmeasured=unmeasured)


def ablation_table(scores: pd.DataFrame, profile: Profile, protocol: str = "") -> Table:
    """Build the table of ``report.ablation`` by held-out loss and metrics, over all test sets.

    The first block averages each image over the levels; the others show the levels. Each cell
    after the first row carries its paired difference to the first row.
    """
    datasets, levels = tuple(profile.data.with_hq), tuple(profile.data.levels)
    # The levels together first: that is where most pictures stand behind a difference. Single
    # levels are shown for the pattern and share the correction of the table.
    blocks = [Block("All levels", "", datasets, levels)]
    blocks += [Block(f"Level {level}", "", datasets, (level,)) for level in levels]
    methods = profile.report.ablation
    wanted = metric_columns(profile, protocol)
    # The loss first: it has the noise fixed and no sampler in between, so it separates designs that
    # images of a short training cannot.
    columns, unmeasured = measured_columns(scores, [HELD_OUT, *wanted], methods, datasets)
    draft = Draft("ablation", scores, profile, columns, blocks, methods)
    draft.compare_with_first()
    rows = budgeted(grouped(draft.finish(), profile), profile)
    budgets = any(row.updates is not None for row in rows[0].rows)
    first = profile.methods[profile.report.ablation[0]].label
    caption = (
        f"Means over the source pictures of {' and '.join(datasets)}, whose crops and levels are "
        f"averaged ({draft.counts()}), protocol {wanted[0].protocol}; held-out loss: denoising "
        "loss with fixed noise, mean over the timesteps that the common sampler visits. "
        f"Beside each mean: paired difference to {first} with its 95% interval. "
        f"*: statistically significant, judged by {draft.rule('differences of the table')}. "
        f"{'Updates: of the whole training. ' * budgets}"
        f"{_surrogates(columns)}{equal_images(scores, profile, methods, set(datasets))}"
        f"{_comparability(False)}"
    )
    return replace(draft.table(caption, rows, differences=True), unmeasured=unmeasured)


def metric_columns(profile: Profile, protocol: str = "", reference: bool = True) -> list[Column]:
    """Return the metrics of the profile under a protocol, in the profile's order.

    Args:
        profile: Names the metrics.
        protocol: That of the profile where empty.
        reference: False: only metrics that need no HQ image.
    """
    name = protocol or profile.report.protocol
    protocols = load_protocols(profile.score.protocols_file)
    definitions = choose(protocols, [name], profile.score.metrics)
    return [
        Column(metric, name, each.label, each.unit, each.decimals, each.higher_is_better)
        for (_, metric), each in definitions.items()
        if reference or not each.needs_reference
    ]


_APART = (
    "The other rows are left out of this: published systems were trained longer on other data, "
    "and interpolation is not trained. "
)


def _starred(draft: Draft) -> str:
    """Say what a star means, where the rows are compared with a reference."""
    if not draft.against:
        return ""
    label = draft.profile.methods[draft.profile.reference].label
    rivals = max(Counter((block, column) for block, _, column in draft.against).values())
    few = out_of_reach(draft.against, draft.profile.report.bootstrap, rivals)
    return (
        f"*: significantly different from {label} by the same rule, corrected over the {rivals} "
        f"rivals of the column{few}. "
    )


def _surrogates(columns: Sequence[Column]) -> str:
    """Say which metric is a surrogate, so that nobody takes it for LPIPS."""
    found = any(column.metric.startswith("st-lpips") for column in columns)
    return "ST-LPIPS is a surrogate for LPIPS, with weights of its own. " * found


# dB; pyiqa adds 1e-8 to the mean squared error, so PSNR ends at 80. A pixel or two of a large image
# may differ above this, which makes the value no better.
_LIMIT = 79.99


def equal_images(
    scores: pd.DataFrame, profile: Profile, methods: Sequence[str], datasets: set[str]
) -> str:
    """Say which means hold the PSNR of images equal to their HQ image, which is no measurement."""
    capped = scores[
        (scores["metric"] == "psnr")
        & (scores["status"] == "ok")
        & (scores["value"] >= _LIMIT)
        & scores["method"].isin(methods)
        & scores["dataset"].isin(datasets)
    ]
    if capped.empty:
        return ""
    images = capped.drop_duplicates(["method", "dataset", "level", "image"])
    counts = ", ".join(
        f"{n} of {profile.methods[str(method)].label}"
        for method, n in images.groupby("method", sort=True).size().items()
    )
    return (
        "PSNR is infinite where an image equals its HQ image; its code gives 80 dB there "
        f"({counts}), so means with such images say little. "
    )


_REAL_NOTE = "The paper's numbers on real-world sets were not found (results/paper)."


def _comparability(published: bool) -> str:
    if published:
        return (
            "Published rows are quoted from results/paper; their levels and protocol are assumed "
            "to be those of this table."
        )
    return (
        "The paper's numbers are not comparable with these: other images, other degradations, "
        "another scale."
    )


def _with_published(
    block: Block, published: dict[str, dict[str, float]], columns: Sequence[Column]
) -> Block:
    rows = tuple(
        Row(
            "",
            f"{method} (published)",
            tuple(
                Cell("published", mean=values[column.metric])
                if column.metric in values
                else Cell("not run")
                for column in columns
            ),
            "quoted",
        )
        for method, values in published.items()
    )
    return replace(block, rows=block.rows + rows)


def write_tables(profile: Profile, layout: Layout) -> list[Path]:
    """Write ``results/<profile>/tables/{main,real,ablation,cost}.{md,tex,csv,cells.json}``.

    There is no table `real` without a real-world test set; each of the profile's curves has a
    table ``curve-<name>``.

    Raises:
        UserError: ``scores.csv`` or ``cost.csv`` is missing or corrupted.
    """
    scores = load_scores(layout.results / "scores.csv", layout.profile)
    tables = [_TABLES[name](scores, profile) for name in profile.tables if name in _TABLES]
    columns = metric_columns(profile)
    tables += [curve_table(scores, profile, name, columns) for name in profile.curves]
    tables.append(cost_table(load_costs(layout.results / "cost.csv"), profile))
    return [path for table in tables for path in write_table(table, layout.results / "tables")]


_TABLES: Mapping[str, Callable[[pd.DataFrame, Profile], Table]] = {
    "main": main_table,
    "real": real_table,
    "ablation": ablation_table,
}
