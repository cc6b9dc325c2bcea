# Scores of every restoration, and the one table of these and the held-out losses.
rule score:
    input:
        data=[layout.dataset(d) / "index.csv" for d in profile.data.test],
        manifests=test_sets(
            lambda d, lv: layout.restoration("{method}", "{seed}", d, lv) / "manifest.json"
        ),
        shards=shards("score"),
    output:
        scores=layout.restored("{method}", "{seed}") / "scores.csv",
    log:
        LOGS / "score" / "{method}-seed{seed}.log",
    benchmark:
        LOGS / "benchmarks" / "score" / "{method}-seed{seed}.tsv"
    params:
        code=code_of("score"),
        config=settings_of("score"),
        weights=weights_state(profile),
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=needs("mem_mb", "score"),
        runtime=needs("runtime", "score"),
    shell:
        verb("score --method {wildcards.method} --seed {wildcards.seed}")


# One shard of the images, where `shards` in the profile is more than 1.
rule score_shard:
    input:
        data=rules.score.input.data,
        manifests=rules.score.input.manifests,
    output:
        record=layout.shard("score", "{method}", "{seed}", "{shard}", profile.shards),
    log:
        LOGS / "score_shard" / "{method}-seed{seed}-{shard}.log",
    benchmark:
        LOGS / "benchmarks" / "score_shard" / "{method}-seed{seed}-{shard}.tsv"
    params:
        code=code_of("score_shard"),
        config=settings_of("score_shard"),
        weights=weights_state(profile),
        shard=lambda w: f"{w.shard}/{profile.shards}",
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=needs("mem_mb", "score_shard"),
        runtime=needs("runtime", "score_shard"),
    shell:
        verb("score --method {wildcards.method} --seed {wildcards.seed} --shard {params.shard}")


rule collect:
    input:
        scores=expand(
            layout.restored("{method}", "{seed}") / "scores.csv",
            method=profile.methods,
            seed=profile.seeds,
        ),
        heldout=expand(
            layout.restored("{method}", "{seed}") / "heldout.csv",
            method=profile.compared,
            seed=profile.seeds,
        ),
    output:
        scores=layout.results / "scores.csv",
        summary=layout.results / "summary.json",
        training=layout.results / "training.csv",
        cost=layout.results / "cost.csv",
    log:
        LOGS / "collect" / "study.log",
    benchmark:
        LOGS / "benchmarks" / "collect" / "study.tsv"
    localrule: True  # seconds: less than its way through a queue
    params:
        code=code_of("collect"),
        # scores.csv says why a set or a baseline is missing; another reason makes it again.
        absent="; ".join(request.absent.lines()),
    threads: 1
    resources:
        mem_mb=needs("mem_mb", "collect"),
        runtime=needs("runtime", "collect"),
    shell:
        verb("collect")
