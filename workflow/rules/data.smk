# HQ images, and their LQ versions at each level.
rule prepare_dataset:
    output:
        index=layout.dataset("{dataset}") / "index.csv",
    log:
        LOGS / "prepare_dataset" / "{dataset}.log",
    benchmark:
        LOGS / "benchmarks" / "prepare_dataset" / "{dataset}.tsv"
    params:
        code=code_of("prepare_dataset"),
        config=settings_of("prepare_dataset"),
        outside=lambda w: sources_of(w.dataset),
    threads: 1
    resources:
        gpu=lambda w: GPU * profile.captioner.processes if describes(study, w.dataset) else 0,
        mem_mb=needs("mem_mb", preparation),
        runtime=needs("runtime", preparation),
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
        dataset=one_of(profile.data.with_hq),
    params:
        code=code_of("degrade"),
        config=settings_of("degrade"),
    threads: 1
    resources:
        mem_mb=needs("mem_mb", "degrade"),
        runtime=needs("runtime", "degrade"),
    shell:
        verb(f"degrade --dataset {{wildcards.dataset}} {level_options(*profile.data.levels)}")


# Real-world images came degraded: they are logged, not changed.
rule take_real:
    input:
        index=layout.dataset("{dataset}") / "index.csv",
    output:
        log=layout.lq("{dataset}", REAL) / "degradation.jsonl",
    log:
        LOGS / "degrade" / "{dataset}.log",
    benchmark:
        LOGS / "benchmarks" / "degrade" / "{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(profile.data.real),
    localrule: True  # seconds: it hashes the images and writes a line for each
    params:
        code=code_of("take_real"),
    threads: 1
    resources:
        mem_mb=needs("mem_mb", "take_real"),
        runtime=needs("runtime", "take_real"),
    shell:
        verb(f"degrade --dataset {{wildcards.dataset}} {level_options(REAL)}")


# Test captions describe what a user would have: the LQ image.
rule caption:
    input:
        lq=layout.lq("{dataset}", "{level}") / "degradation.jsonl",
    output:
        captions=layout.captions("{dataset}", "{level}"),
    log:
        LOGS / "caption" / "{dataset}-{level}.log",
    benchmark:
        LOGS / "benchmarks" / "caption" / "{dataset}-{level}.tsv"
    wildcard_constraints:
        dataset=one_of(CAPTIONED),
    params:
        code=code_of("caption"),
        config=settings_of("caption"),
        outside=lambda w: captioner_files(clean=True),
    threads: 1
    resources:
        gpu=GPU * profile.captioner.processes,
        mem_mb=needs("mem_mb", "caption"),
        runtime=needs("runtime", "caption"),
    shell:
        verb("caption --dataset {wildcards.dataset} --level {wildcards.level}")


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
        code=code_of("degrade_train"),
        config=settings_of("degrade_train", dataset="train"),
    threads: 1
    resources:
        mem_mb=needs("mem_mb", "degrade_train"),
        runtime=needs("runtime", "degrade_train"),
    shell:
        verb(f"degrade --dataset train {level_options(profile.data.train_level)}")
