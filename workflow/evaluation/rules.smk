# Needs:  {dataset}/{method}/clustered.zarr, for pictures of the layout atlas.zarr; clusters.tsv.
# Makes:  {dataset}/{method}/plots/  the layout in the colors asked for, and its coordinates
#         {dataset}/{method}/topics/structure.png  the topics of every cell
#         {dataset}/{method}/metrics.tsv  how well batches are mixed and cell types kept
#         {dataset}/{method}/markers.tsv  the genes that tell clusters apart
#         {dataset}/{method}/robustness.tsv  which clusters come back from a part of the cells
#         {dataset}/{method}/splits.tsv   what speaks for and against every split
#         {dataset}/{method}/resolutions.tsv  which resolution to take, or none
#         {dataset}/{method}/doublets.tsv  which clusters have the marks of doublets
#         {dataset}/{method}/trees/  trees of resolutions and levels, and what clusters are made of
#         {dataset}/comparison/      the layouts and scores of all methods side by side
#         clusters.tsv               every data set, method and column: number and size of clusters


rule plots:
    input:
        # First, for the memory: where this is one job with the atlas, that does not exist yet.
        umap=plan.pattern("umap"),
        atlas=plan.pattern("atlas"),
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
        **plan.resources("plots"),
    params:
        **plan.params("plots"),
    message:
        "{wildcards.dataset}, {wildcards.method}: plots"
    shell:
        "python {params.script} {input.atlas:q} {output:q}"
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
        **plan.resources("structure"),
    params:
        **plan.params("structure"),
    message:
        "{wildcards.dataset}, {wildcards.method}: structure plot"
    shell:
        "python {params.script} {input:q} {output:q}" " {params.options} 2>&1 | tee {log:q} >&2"


rule metrics:
    input:
        plan.scored_store,
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
        **plan.resources("metrics"),
    params:
        **plan.params("metrics"),
    message:
        "{wildcards.dataset}, {wildcards.method}: metrics"
    shell:
        "python {params.script} {input:q} {output:q}" " {params.options} 2>&1 | tee {log:q} >&2"


rule markers:
    input:
        plan.pattern("clustered"),
    output:
        plan.pattern("markers"),
    log:
        plan.log("{dataset}/{method}/markers.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/markers.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: resources.half(workflow.resource_settings.cores)
    resources:
        **plan.resources("markers"),
    params:
        **plan.params("markers"),
    message:
        "{wildcards.dataset}, {wildcards.method}: markers"
    shell:
        "python {params.script} {input:q} {output:q} --threads {threads}"
        " {params.options} 2>&1 | tee {log:q} >&2"


rule robustness:
    input:
        plan.pattern("clustered"),
    output:
        plan.pattern("robustness"),
    log:
        plan.log("{dataset}/{method}/robustness.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/robustness.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 2
    resources:
        **plan.resources("robustness"),
    params:
        **plan.params("robustness"),
    message:
        "{wildcards.dataset}, {wildcards.method}: robustness"
    shell:
        "python {params.script} {input:q} {output:q} --threads {threads}"
        " {params.options} 2>&1 | tee {log:q} >&2"


rule splits:
    input:
        store=plan.pattern("clustered"),
        robustness=plan.split_robustness,
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
    threads: 2
    resources:
        **plan.resources("splits"),
    params:
        **plan.params("splits"),
        robustness=lambda wildcards, input: plan.option("--robustness", input.robustness),
    message:
        "{wildcards.dataset}, {wildcards.method}: splits"
    shell:
        "python {params.script} {input.store:q} {output:q} --threads {threads}"
        " {params.robustness} {params.options} 2>&1 | tee {log:q} >&2"


rule resolutions:
    input:
        store=plan.pattern("clustered"),
        robustness=plan.pattern("robustness"),
        splits=plan.pattern("splits"),
    output:
        report(
            plan.pattern("resolutions"),
            caption="report/resolutions.rst",
            category="{dataset}",
            labels={"method": "{method}", "column": "resolutions (table)"},
        ),
    log:
        plan.log("{dataset}/{method}/resolutions.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/resolutions.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 2
    resources:
        **plan.resources("resolutions"),
    params:
        **plan.params("resolutions"),
    message:
        "{wildcards.dataset}, {wildcards.method}: resolutions"
    shell:
        "python {params.script} {input.store:q} {output:q} --robustness {input.robustness:q}"
        " --splits {input.splits:q} --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule doublet_clusters:
    input:
        plan.pattern("clustered"),
    output:
        plan.pattern("doublet_clusters"),
    log:
        plan.log("{dataset}/{method}/doublets.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/doublets.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 1
    resources:
        **plan.resources("doublet_clusters"),
    params:
        **plan.params("doublet_clusters"),
    message:
        "{wildcards.dataset}, {wildcards.method}: clusters with the marks of doublets"
    shell:
        "python {params.script} {input:q} {output:q}" " {params.options} 2>&1 | tee {log:q} >&2"


rule trees:
    input:
        plan.pattern("clustered"),
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
        **plan.resources("trees"),
    params:
        **plan.params("trees"),
    message:
        "{wildcards.dataset}, {wildcards.method}: trees and composition of clusters"
    shell:
        "python {params.script} {input:q} {output:q}" " {params.options} 2>&1 | tee {log:q} >&2"


rule comparison:
    input:
        atlases=plan.each_method("atlas"),
        metrics=plan.scores,
        doublets=plan.doublet_tables,
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
        **plan.resources("comparison"),
    params:
        **plan.params("comparison"),
        metrics=lambda wildcards, input: plan.option("--metrics", input.metrics),
        doublets=lambda wildcards, input: plan.option("--doublets", input.doublets),
    message:
        "{wildcards.dataset}: methods side by side"
    shell:
        "python {params.script} {input.atlases:q} {output:q}"
        " {params.options} {params.metrics} {params.doublets} 2>&1 | tee {log:q} >&2"


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
        **plan.resources("summary"),
    params:
        **plan.params("summary"),
    message:
        "number and size of all clusters"
    shell:
        "python {params.script} {input:q} {output:q} 2>&1 | tee {log:q} >&2"
