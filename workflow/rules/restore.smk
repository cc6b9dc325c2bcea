# Every method on every test set and level: one process for each (method, seed).
rule restore_baseline:
    input:
        unpack(restoring),
        shards=shards("restore"),
    output:
        test_sets(lambda d, lv: layout.restoration("{method}", "{seed}", d, lv) / "manifest.json"),
    log:
        LOGS / "restore" / "{method}-seed{seed}.log",
    benchmark:
        LOGS / "benchmarks" / "restore" / "{method}-seed{seed}.tsv"
    wildcard_constraints:
        method=one_of(set(profile.methods) - set(profile.compared)),
    params:
        code=code_of("restore_baseline"),
        config=settings_of("restore_baseline"),
        outside=lambda w: outside_state(w.method),
    threads: 1
    resources:
        gpu=lambda w: profile.gpus_to_restore(w.method),
        mem_mb=needs("mem_mb", "restore_baseline"),
        runtime=needs("runtime", "restore_baseline"),
    shell:
        verb("restore-sets --method {wildcards.method} --seed {wildcards.seed}")


# A held-out denoising loss needs the model and the images that are loaded here anyway.
rule restore_denoiser:
    input:
        unpack(restoring),
        shards=shards("restore"),
    output:
        test_sets(lambda d, lv: layout.restoration("{method}", "{seed}", d, lv) / "manifest.json"),
        heldout=layout.restored("{method}", "{seed}") / "heldout.csv",
    log:
        LOGS / "restore" / "{method}-seed{seed}.log",
    benchmark:
        LOGS / "benchmarks" / "restore" / "{method}-seed{seed}.tsv"
    wildcard_constraints:
        method=one_of(profile.compared),
    params:
        code=code_of("restore_denoiser"),
        config=settings_of("restore_denoiser"),
    threads: 1
    resources:
        gpu=lambda w: profile.gpus_to_restore(w.method),
        mem_mb=needs("mem_mb", "restore_denoiser"),
        runtime=needs("runtime", "restore_denoiser"),
    shell:
        verb("restore-sets --method {wildcards.method} --seed {wildcards.seed}")


# One shard of the images of a method, where `shards` in the profile is more than 1.
rule restore_shard:
    input:
        unpack(restoring),
    output:
        record=layout.shard("restore", "{method}", "{seed}", "{shard}", profile.shards),
    log:
        LOGS / "restore_shard" / "{method}-seed{seed}-{shard}.log",
    benchmark:
        LOGS / "benchmarks" / "restore_shard" / "{method}-seed{seed}-{shard}.tsv"
    wildcard_constraints:
        method=one_of(profile.methods),
    params:
        code=code_of("restore_shard"),
        config=settings_of("restore_shard"),
        outside=lambda w: outside_state(w.method),
        shard=lambda w: f"{w.shard}/{profile.shards}",
    threads: 1
    resources:
        gpu=lambda w: profile.gpus_to_restore(w.method),
        mem_mb=needs("mem_mb", "restore_shard"),
        runtime=needs("runtime", "restore_shard"),
    shell:
        verb(
            "restore-sets --method {wildcards.method} --seed {wildcards.seed} --shard {params.shard}"
        )
