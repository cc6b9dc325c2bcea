# Every method on every test set and level: one process for each (method, seed).
rule restore_baseline:
    input:
        data=[layout.dataset(d) / "index.csv" for d in profile.data.test],
        lq=test_sets(lambda d, lv: layout.lq(d, lv) / "degradation.jsonl"),
        captions=[layout.captions(d, lv) for d, lv in profile.data.places if d in CAPTIONED],
        checkpoint=lambda w: (
            layout.checkpoint(w.method, w.seed) if w.method in profile.trained else []
        ),
        prepared=lambda w: (layout.prepared(w.method) if needs_preparation(w.method) else []),
    output:
        test_sets(lambda d, lv: layout.restoration("{method}", "{seed}", d, lv) / "manifest.json"),
    log:
        LOGS / "restore" / "{method}-seed{seed}.log",
    benchmark:
        LOGS / "benchmarks" / "restore" / "{method}-seed{seed}.tsv"
    wildcard_constraints:
        method=one_of(set(profile.methods) - set(profile.denoisers)),
    params:
        code=lambda w: code_digest("faithdiff.restore.run", method_module(w.method)),
        config=digest(scales(), profile.seed),
        outside=lambda w: outside_state(w.method),
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=4000,
    shell:
        verb("restore-sets --method {wildcards.method} --seed {wildcards.seed}")


# A held-out denoising loss needs the model and the images that are loaded here anyway.
rule restore_denoiser:
    input:
        data=[layout.dataset(d) / "index.csv" for d in profile.data.test],
        lq=test_sets(lambda d, lv: layout.lq(d, lv) / "degradation.jsonl"),
        captions=[layout.captions(d, lv) for d, lv in profile.data.places if d in CAPTIONED],
        checkpoint=layout.checkpoint("{method}", "{seed}"),
        prior=prior_files(),
    output:
        test_sets(lambda d, lv: layout.restoration("{method}", "{seed}", d, lv) / "manifest.json"),
        heldout=layout.restored("{method}", "{seed}") / "heldout.csv",
    log:
        LOGS / "restore" / "{method}-seed{seed}.log",
    benchmark:
        LOGS / "benchmarks" / "restore" / "{method}-seed{seed}.tsv"
    wildcard_constraints:
        method=one_of(profile.denoisers),
    params:
        code=lambda w: code_digest(
            "faithdiff.restore.run", "faithdiff.score.heldout", method_module(w.method)
        ),
        config=lambda w: digest(
            settings_of(w.method),
            profile.restore,
            profile.training.heldout,
            profile.training.loss,
            scales(),
            profile.seed,
        ),
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=4000,
    shell:
        verb("restore-sets --method {wildcards.method} --seed {wildcards.seed}")
