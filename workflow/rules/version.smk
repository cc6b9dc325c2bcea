# The last rule: DVC records what the others made.
rule version:
    input:
        manifest=layout.results / "manifest.json",
        report=rules.report.output.page,
        # What dvc.lock holds besides: an edit that changes no result must still reach it.
        config=[file for file in VERSIONED_CONFIG if file.is_file()],
    output:
        stamp=LOGS / "version.json",
    log:
        LOGS / "version.log",
    params:
        code=code_of("version"),
    threads: 1
    resources:
        mem_mb=needs("mem_mb", "version"),
        runtime=needs("runtime", "version"),
    shell:
        verb("version-study --stamp {output.stamp}", measured=False)
