# Needs:  {dataset}/{method}/atlas.zarr and clusters.tsv.
# Makes:  {dataset}/{method}/plots/  the layout in the colors asked for, and its coordinates
#         {dataset}/{method}/topics/structure.png  the topics of every cell
#         {dataset}/{method}/metrics.tsv  how well batches are mixed and cell types kept
#         {dataset}/{method}/markers.tsv  the genes that tell clusters apart
#         {dataset}/{method}/robustness.tsv  which clusters come back from a part of the cells;
#                                            resolutions.tsv suggests one
#         {dataset}/{method}/splits.tsv   what speaks for and against every split
#         {dataset}/{method}/trees/  trees of resolutions and levels, and what clusters are made of
#         {dataset}/comparison/      the layouts and scores of all methods side by side
#         clusters.tsv               every data set, method and column: number and size of clusters


rule plots:
    input:
        atlas=plan.pattern("atlas"),
        # For the memory: where this runs as one job with merge, the atlas is not there yet.
        umap=plan.pattern("umap"),
    output:
        report(
            directory(plan.pattern("plots")),
            caption="report/plots.rst",
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
    threads: 1
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            input.umap, attempt, base=1500, per_million=1000
        ),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("plots", wildcards),
    message:
        "{wildcards.dataset}, {wildcards.method}: plots"
    shell:
        "python {params.scripts:q}/evaluation/scripts/plots.py {input.atlas:q} {output:q}"
        " {params.options} 2>&1 | tee {log:q} >&2"


rule structure:
    input:
        plan.pattern("embedding"),
    output:
        report(
            plan.pattern("structure"),
            category="{dataset}",
            labels={"method": "{method}", "column": "structure plot"},
        ),
    log:
        plan.log("{dataset}/{method}/structure.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/structure.tsv")
    wildcard_constraints:
        method=plan.names("topics"),
    conda:
        "../../envs/scanpy.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            str(input), attempt, base=1000, per_million=1000
        ),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("structure", wildcards),
    message:
        "{wildcards.dataset}, {wildcards.method}: structure plot"
    shell:
        "python {params.scripts:q}/evaluation/scripts/structure.py {input:q} {output:q}"
        " {params.options} 2>&1 | tee {log:q} >&2"


rule metrics:
    input:
        lambda wildcards: plan.scored_store(wildcards),
    output:
        plan.pattern("metrics"),
    log:
        plan.log("{dataset}/{method}/metrics.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/metrics.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            str(input), attempt, base=1500, per_million=3000
        ),
        runtime=lambda wildcards, input, attempt: resources.minutes(
            str(input), attempt, per_million=20
        ),
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("metrics", wildcards),
    message:
        "{wildcards.dataset}, {wildcards.method}: metrics"
    shell:
        "python {params.scripts:q}/evaluation/scripts/metrics.py {input:q} {output:q}"
        " {params.options} 2>&1 | tee {log:q} >&2"


rule markers:
    input:
        atlas=plan.pattern("atlas"),
    output:
        plan.pattern("markers"),
    log:
        plan.log("{dataset}/{method}/markers.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/markers.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.markers_mb(input.atlas, attempt),
        runtime=lambda wildcards, input, attempt: resources.minutes(
            input.atlas, attempt, per_million=60
        ),
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("markers", wildcards),
    message:
        "{wildcards.dataset}, {wildcards.method}: markers"
    shell:
        "python {params.scripts:q}/evaluation/scripts/markers.py {input.atlas:q} {output:q}"
        " {params.options} 2>&1 | tee {log:q} >&2"


rule robustness:
    input:
        atlas=plan.pattern("atlas"),
    output:
        table=plan.pattern("robustness"),
        resolutions=report(
            plan.pattern("resolutions"),
            caption="report/resolutions.rst",
            category="{dataset}",
            labels={"method": "{method}", "column": "resolutions (table)"},
        ),
    log:
        plan.log("{dataset}/{method}/robustness.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/robustness.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 2
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            input.atlas, attempt, base=1000, per_million=6000
        ),
        runtime=lambda wildcards, input, attempt: resources.minutes(
            input.atlas, attempt, per_million=600
        ),
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("robustness", wildcards),
    message:
        "{wildcards.dataset}, {wildcards.method}: robustness"
    shell:
        "python {params.scripts:q}/evaluation/scripts/robustness.py {input.atlas:q} {output.table:q}"
        " --resolutions {output.resolutions:q} --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule splits:
    input:
        atlas=plan.pattern("atlas"),
        evidence=lambda wildcards: list(plan.evidence(wildcards).values()),
    output:
        report(
            plan.pattern("splits"),
            caption="report/splits.rst",
            category="{dataset}",
            labels={"method": "{method}", "column": "splits (table)"},
        ),
    log:
        plan.log("{dataset}/{method}/splits.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/splits.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            input.atlas, attempt, base=1000, per_million=1000
        ),
        runtime=lambda wildcards, input, attempt: resources.minutes(
            input.atlas, attempt, per_million=30
        ),
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("splits", wildcards),
        evidence=lambda wildcards: plan.evidence_option(wildcards),
    message:
        "{wildcards.dataset}, {wildcards.method}: splits"
    shell:
        "python {params.scripts:q}/evaluation/scripts/splits.py {input.atlas:q} {output:q}"
        " {params.evidence} {params.options} 2>&1 | tee {log:q} >&2"


rule trees:
    input:
        atlas=plan.pattern("atlas"),
    output:
        report(
            directory(plan.pattern("trees")),
            caption="report/trees.rst",
            patterns=["{name}.png"],
            category="{dataset}",
            labels={"method": "{method}", "column": "{name}"},
        ),
    log:
        plan.log("{dataset}/{method}/trees.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/trees.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            input.atlas, attempt, base=1000, per_million=2000
        ),
        runtime=lambda wildcards, input, attempt: resources.minutes(
            input.atlas, attempt, per_million=30
        ),
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("trees", wildcards),
    message:
        "{wildcards.dataset}, {wildcards.method}: trees and composition of clusters"
    shell:
        "python {params.scripts:q}/evaluation/scripts/trees.py {input.atlas:q} {output:q}"
        " {params.options} 2>&1 | tee {log:q} >&2"


rule comparison:
    input:
        atlases=lambda wildcards: plan.each_method("atlas", wildcards),
        metrics=plan.scores,
    output:
        report(
            directory(plan.pattern("comparison")),
            caption="report/comparison.rst",
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
            input.atlases[0], attempt, base=1000, per_million=500
        ),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("comparison", wildcards),
        metrics=lambda wildcards, input: plan.files_option("--metrics", input.metrics),
    message:
        "{wildcards.dataset}: methods side by side"
    shell:
        "python {params.scripts:q}/evaluation/scripts/comparison.py {input.atlases:q} {output:q}"
        " {params.options} {params.metrics} 2>&1 | tee {log:q} >&2"


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
