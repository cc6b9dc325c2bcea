# The prior, where the profile trains its own, and what every training job reads of it.
rule train_prior:
    input:
        index=layout.dataset("prior") / "index.csv",
    output:
        folder=directory(layout.trained_prior),
        run=layout.trained_prior / RUN,
    log:
        LOGS / "train_prior" / "prior.log",
    benchmark:
        LOGS / "benchmarks" / "train_prior" / "prior.tsv"
    params:
        code=code_of("train_prior"),
        config=settings_of("train_prior"),
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=needs("mem_mb", "train_prior"),
        runtime=needs("runtime", "train_prior"),
    shell:
        verb("train-prior")


rule cache_latents:
    input:
        index=layout.dataset("train") / "index.csv",
        lq=layout.lq("train", profile.data.train_level) / "degradation.jsonl",
        prior=prior_files(),
    output:
        cache=layout.train_cache,
    log:
        LOGS / "cache_latents" / "train.log",
    benchmark:
        LOGS / "benchmarks" / "cache_latents" / "train.tsv"
    params:
        code=code_of("cache_latents"),
        config=settings_of("cache_latents"),
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=needs("mem_mb", "cache_latents"),
        runtime=needs("runtime", "cache_latents"),
    shell:
        verb("cache")
