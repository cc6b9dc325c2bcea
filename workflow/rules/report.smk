# Tables and figures, pure functions of the scores and of what they cost; then the manifest of all.
rule tables:
    input:
        scores=layout.results / "scores.csv",
        cost=layout.results / "cost.csv",
    output:
        expand(
            layout.results / "tables" / "{table}.{kind}",
            table=profile.tables,
            kind=["md", "tex", "cells.json"],
        ),
        # Of the four kinds it is this one that `snakemake --report` can show as a table.
        shown=report(
            expand(layout.results / "tables" / "{table}.csv", table=profile.tables),
            caption="../report/tables.rst",
            category="Tables",
        ),
    log:
        LOGS / "tables" / "study.log",
    benchmark:
        LOGS / "benchmarks" / "tables" / "study.tsv"
    params:
        code=code_of("tables"),
        config=settings_of("tables"),
        published=read_outside(PAPER),
    threads: 1
    resources:
        mem_mb=needs("mem_mb", "tables"),
        runtime=needs("runtime", "tables"),
    shell:
        verb("tables")


rule figures:
    input:
        scores=layout.results / "scores.csv",
        training=layout.results / "training.csv",
    output:
        folder=report(
            directory(layout.results / "figures"),
            patterns=["{figure}.png"],
            caption="../report/figures.rst",
            category="Figures",
        ),
    log:
        LOGS / "figures" / "study.log",
    benchmark:
        LOGS / "benchmarks" / "figures" / "study.tsv"
    params:
        code=code_of("figures"),
        config=settings_of("figures"),
        published=read_outside(PAPER),
    threads: 1
    resources:
        mem_mb=needs("mem_mb", "figures"),
        runtime=needs("runtime", "figures"),
    shell:
        verb("figures")


# What the paper says, held against the scores.
rule claims:
    input:
        scores=layout.results / "scores.csv",
        claims=CLAIMS,
    output:
        claims=multiext(str(layout.results / "claims"), ".json", ".md"),
    log:
        LOGS / "claims" / "study.log",
    benchmark:
        LOGS / "benchmarks" / "claims" / "study.tsv"
    localrule: True  # seconds, as `collect`
    params:
        code=code_of("claims"),
        config=settings_of("claims"),
    threads: 1
    resources:
        mem_mb=needs("mem_mb", "claims"),
        runtime=needs("runtime", "claims"),
    shell:
        verb("claims")


rule manifest:
    input:
        scores=layout.results / "scores.csv",
        tables=rules.tables.output,
        claims=rules.claims.output,
        # By what they are drawn from: a folder has no checksum, and a copy may lose its time.
        figures=ancient(rules.figures.output.folder),
        training=layout.results / "training.csv",
    output:
        manifest=layout.results / "manifest.json",
    log:
        LOGS / "manifest.log",
    params:
        code=code_of("manifest"),
        config=settings_of("manifest"),
    threads: 1
    resources:
        mem_mb=needs("mem_mb", "manifest"),
        runtime=needs("runtime", "manifest"),
    shell:
        verb("manifest", measured=False)


# The page that shows it all; pictures are its own small copies.
rule report:
    input:
        manifest=rules.manifest.output.manifest,
        tables=rules.tables.output,
        claims=rules.claims.output,
        figures=ancient(rules.figures.output.folder),  # the manifest has the hash of each
    output:
        folder=directory(layout.results / "report"),
        page=layout.results / "report" / PAGE,
    log:
        LOGS / "report" / "study.log",
    benchmark:
        LOGS / "benchmarks" / "report" / "study.tsv"
    params:
        code=code_of("report"),
        config=settings_of("report"),
        page=page_digest(),
    threads: 1
    resources:
        mem_mb=needs("mem_mb", "report"),
        runtime=needs("runtime", "report"),
    shell:
        verb("report")
