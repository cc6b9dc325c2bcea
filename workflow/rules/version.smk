# The last rule: DVC records what the others made.
rule version:
    input:
        manifest=layout.results / "manifest.json",
    output:
        stamp=LOGS / "version.json",
    log:
        LOGS / "version.log",
    params:
        code=code_digest("faithdiff.versioning"),
    threads: 1
    resources:
        mem_mb=2000,
    shell:
        verb("version-study --stamp {output.stamp}")
