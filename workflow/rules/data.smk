# HQ images, and their LQ versions at each level.
rule prepare_dataset:
    output:
        index=layout.dataset("{dataset}") / "index.csv",
    log:
        LOGS / "prepare_dataset" / "{dataset}.log",
    benchmark:
        LOGS / "benchmarks" / "prepare_dataset" / "{dataset}.tsv"
    params:
        code=code_digest("faithdiff.data.datasets"),
        config=lambda w: digest(DATASETS[w.dataset], profile.seed),
    threads: 1
    resources:
        mem_mb=2000,
    shell:
        verb("prepare --dataset {wildcards.dataset} --workers {threads}")


rule degrade:
    input:
        index=layout.dataset("{dataset}") / "index.csv",
    output:
        log=layout.lq("{dataset}", "{level}") / "degradation.jsonl",
    log:
        LOGS / "degrade" / "{dataset}-{level}.log",
    benchmark:
        LOGS / "benchmarks" / "degrade" / "{dataset}-{level}.tsv"
    params:
        code=code_digest("faithdiff.degrade.dataset"),
        config=lambda w: digest(levels[w.level], profile.data.scale, profile.seed),
    threads: 1
    resources:
        mem_mb=2000,
    shell:
        verb("degrade --dataset {wildcards.dataset} --level {wildcards.level}")
