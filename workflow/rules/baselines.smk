# Code and environment of the methods that run outside: official systems, the user's own commands.
# Weights come by `faithdiff fetch`, and `faithdiff baseline check` says what is missing.
rule prepare_baseline:
    output:
        prepared=layout.prepared("{method}"),
    log:
        LOGS / "prepare_baseline" / "{method}.log",
    wildcard_constraints:
        method=one_of(m for m in profile.baselines if needs_preparation(m)),
    localrule: True  # git and pip need the network, which nodes of a cluster often lack
    params:
        outside=lambda w: outside_state(w.method),
    threads: 1
    resources:
        mem_mb=needs("mem_mb", "prepare_baseline"),
        runtime=needs("runtime", "prepare_baseline"),
    shell:
        verb("baseline prepare {wildcards.method}", measured=False)
