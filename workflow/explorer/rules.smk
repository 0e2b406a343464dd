# Needs:  {dataset}/{method}/atlas.zarr of every method, markers.tsv and splits.tsv where they are made.
# Makes:  {dataset}/explorer.html    a page to look at all methods and clusters of a data set


rule explorer:
    input:
        atlases=lambda wildcards: plan.each_method("atlas", wildcards),
        markers=lambda wildcards: plan.tables("markers", wildcards),
        splits=lambda wildcards: plan.tables("splits", wildcards),
    output:
        report(
            plan.pattern("explorer"),
            category="{dataset}",
            labels={"method": "all", "column": "explorer"},
        ),
    log:
        plan.log("{dataset}/explorer.log"),
    benchmark:
        plan.benchmark("{dataset}/explorer.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            input.atlases[0], attempt, base=1000, per_million=1500
        ),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        scripts=SCRIPTS,
        compare=lambda wildcards, input: plan.files_option("--compare", input.atlases[1:]),
        markers=lambda wildcards, input: plan.files_option("--markers", input.markers),
        splits=lambda wildcards, input: plan.files_option("--splits", input.splits),
        options=lambda wildcards: plan.options("explorer", wildcards),
    message:
        "{wildcards.dataset}: explorer"
    shell:
        "python {params.scripts:q}/explorer/scripts/explorer.py {input.atlases[0]:q} {output:q}"
        " {params.compare} {params.markers} {params.splits} {params.options} 2>&1 | tee {log:q} >&2"
