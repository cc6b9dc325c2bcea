# Stage 1 once per recipe, then every variant and every baseline that is trained.
rule pretrain_alignment:
    input:
        cache=layout.train_cache,
        prior=prior_files(),
        pictures=validation_images(),
    output:
        folder=directory(layout.stage1("{recipe}", "{seed}")),
        run=layout.stage1("{recipe}", "{seed}") / RUN,
    log:
        LOGS / "pretrain_alignment" / "{recipe}-seed{seed}.log",
    benchmark:
        LOGS / "benchmarks" / "pretrain_alignment" / "{recipe}-seed{seed}.tsv"
    # What follows a training is long, too: trainings that start last leave cores idle at the end.
    priority: 2
    params:
        code=code_of("pretrain_alignment"),
        config=settings_of("pretrain_alignment"),
    threads: profile.training.processes
    resources:
        gpu=GPU * profile.training.processes,
        mem_mb=needs("mem_mb", "pretrain_alignment"),
        runtime=needs("runtime", "pretrain_alignment"),
    shell:
        verb("pretrain --recipe {wildcards.recipe} --seed {wildcards.seed}")


rule train_variant:
    input:
        cache=lambda w: [] if profile.variants[w.method].weights else layout.train_cache,
        prior=prior_files(),
        stage1=lambda w: (
            layout.stage1(profile.variants[w.method].recipe, w.seed) / RUN
            if profile.variants[w.method].pretrain and not profile.variants[w.method].weights
            else []
        ),
        pictures=validation_images(),
    output:
        folder=directory(layout.checkpoint("{method}", "{seed}")),
        run=layout.checkpoint("{method}", "{seed}") / RUN,
    log:
        LOGS / "train_variant" / "{method}-seed{seed}.log",
    benchmark:
        LOGS / "benchmarks" / "train_variant" / "{method}-seed{seed}.tsv"
    wildcard_constraints:
        method=one_of(profile.variants),
    priority: 1
    params:
        code=code_of("train_variant"),
        config=settings_of("train_variant"),
        # Not an input: a plan must not fail before they are fetched.
        weights=lambda w: read_outside(profile.variants[w.method].weights),
    threads: lambda w: processes_of(w.method)
    resources:
        gpu=lambda w: gpus_of(w.method),
        mem_mb=needs("mem_mb", "train_variant"),
        runtime=needs("runtime", "train_variant"),
    shell:
        verb("train --method {wildcards.method} --seed {wildcards.seed}")


rule train_baseline:
    input:
        lq=layout.lq("train", profile.data.train_level) / "degradation.jsonl",
        cache=layout.train_cache,
        prior=prior_files(),
    output:
        folder=directory(layout.checkpoint("{method}", "{seed}")),
        run=layout.checkpoint("{method}", "{seed}") / RUN,
    log:
        LOGS / "train_baseline" / "{method}-seed{seed}.log",
    benchmark:
        LOGS / "benchmarks" / "train_baseline" / "{method}-seed{seed}.tsv"
    wildcard_constraints:
        method=one_of(profile.baselines),
    priority: 1
    params:
        code=code_of("train_baseline"),
        config=settings_of("train_baseline", dataset="train"),
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=needs("mem_mb", "train_baseline"),
        runtime=needs("runtime", "train_baseline"),
    shell:
        verb("train --method {wildcards.method} --seed {wildcards.seed}")
