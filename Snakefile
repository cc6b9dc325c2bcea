# The whole study of one profile: snakemake --cores all
# Another profile: snakemake --cores all --config profile=lab
from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


include: "workflow/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/prior.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/baselines.smk"
include: "workflow/rules/restore.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/version.smk"


rule all:
    default_target: True
    input:
        layout.results / "manifest.json",
        layout.results / "report" / PAGE,
        # results/ is in git: without these a fresh clone would have nothing to train.
        rules.collect.input,
        # Snakemake does not miss a file between two that are there: a table that somebody deleted
        # would stay away.
        rules.collect.output,
        rules.tables.output,
        rules.figures.output,
        rules.claims.output,
        LOGS / "version.json",
    localrule: True
