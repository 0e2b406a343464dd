# Needs:  {dataset}/{method}/atlas.zarr and clusters.tsv.
# Makes:  {dataset}/{method}/plots/  the layout in the colours asked for, and its coordinates
#         {dataset}/comparison/      the layouts of all methods side by side
#         clusters.tsv               every data set, method and column: number and size of clusters


rule plots:
    input:
        atlas=plan.pattern("atlas"),
        # For the memory: where this runs as one job with merge, the atlas is not there yet.
        umap=plan.pattern("umap"),
    output:
        report(
            directory(plan.pattern("plots")),
            patterns=["{name}.png"],
            category="{dataset}",
            labels={"method": "{method}", "column": "{name}"},
        ),
    log:
        plan.log("{dataset}/{method}/plots.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/plots.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 2
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            input.umap, attempt, base=1000, per_million=500
        ),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("plots", wildcards),
    message:
        "{wildcards.dataset}, {wildcards.method}: plots"
    shell:
        "python {params.scripts:q}/evaluation/scripts/plots.py {input.atlas:q} {output:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule comparison:
    input:
        plan.atlases,
    output:
        report(
            directory(plan.pattern("comparison")),
            patterns=["{name}.png"],
            category="{dataset}",
            labels={"method": "all", "column": "{name}"},
        ),
    log:
        plan.log("{dataset}/comparison.log"),
    benchmark:
        plan.benchmark("{dataset}/comparison.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            input[0], attempt, base=1000, per_million=500
        ),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("comparison", wildcards),
    message:
        "{wildcards.dataset}: methods side by side"
    shell:
        "python {params.scripts:q}/evaluation/scripts/comparison.py {input:q} {output:q}"
        " {params.options} 2>&1 | tee {log:q} >&2"


rule summary:
    input:
        plan.targets("clusters"),
    output:
        plan.pattern("summary"),
    log:
        plan.log("summary.log"),
    benchmark:
        plan.benchmark("summary.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    params:
        scripts=SCRIPTS,
    message:
        "number and size of all clusters"
    shell:
        "python {params.scripts:q}/evaluation/scripts/summary.py {input:q} {output:q}"
        " 2>&1 | tee {log:q} >&2"
