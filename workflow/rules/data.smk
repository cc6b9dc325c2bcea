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


# One process for all levels: its start-up costs more than the images.
rule degrade:
    input:
        index=layout.dataset("{dataset}") / "index.csv",
    output:
        [layout.lq("{dataset}", level) / "degradation.jsonl" for level in profile.data.levels],
    log:
        LOGS / "degrade" / "{dataset}.log",
    benchmark:
        LOGS / "benchmarks" / "degrade" / "{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(profile.data.test),
    params:
        code=code_digest("faithdiff.degrade.dataset"),
        config=degradation_digest(*profile.data.levels),
    threads: 1
    resources:
        mem_mb=2000,
    shell:
        verb(f"degrade --dataset {{wildcards.dataset}} {level_options(*profile.data.levels)}")


rule degrade_train:
    input:
        index=layout.dataset("train") / "index.csv",
    output:
        log=layout.lq("train", profile.data.train_level) / "degradation.jsonl",
    log:
        LOGS / "degrade" / "train.log",
    benchmark:
        LOGS / "benchmarks" / "degrade" / "train.tsv"
    params:
        code=code_digest("faithdiff.degrade.dataset"),
        config=degradation_digest(profile.data.train_level),
    threads: 1
    resources:
        mem_mb=2000,
    shell:
        verb(f"degrade --dataset train {level_options(profile.data.train_level)}")
