# Every method on every test set and level: one process for each (method, seed).
rule restore:
    input:
        data=[layout.dataset(d) / "index.csv" for d in profile.data.test],
        lq=test_sets(lambda d, lv: layout.lq(d, lv) / "degradation.jsonl"),
        checkpoint=lambda w: (
            layout.checkpoint(w.method, w.seed) if w.method in profile.trained else []
        ),
        prior=prior_files(),
    output:
        test_sets(
            lambda d, lv: layout.restoration("{method}", "{seed}", d, lv) / "manifest.json"
        ),
    log:
        LOGS / "restore" / "{method}-seed{seed}.log",
    benchmark:
        LOGS / "benchmarks" / "restore" / "{method}-seed{seed}.tsv"
    params:
        code=lambda w: code_digest("faithdiff.restore.run", method_module(w.method)),
        config=lambda w: digest(
            profile.restore if w.method in profile.variants else None,
            profile.data.scale,
            profile.seed,
        ),
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=4000,
    shell:
        verb("restore-sets --method {wildcards.method} --seed {wildcards.seed}")
