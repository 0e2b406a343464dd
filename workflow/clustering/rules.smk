# Needs:  {dataset}/{method}/embedding.zarr, or the basis for the method `unintegrated`.
# Makes:  {dataset}/{method}/neighbors.zarr  + obsp/{connectivities,distances}, uns/neighbors
#         {dataset}/{method}/clustering/{algorithm}_{resolution}_{level}.zarr  one obs column, or
#                                            (level auto) one for each level at which a cluster is split
#         {dataset}/{method}/clustered.zarr  all cluster columns; clusters.tsv counts the clusters,
#                                            tree.tsv and tree.nwk name each with its parent
#         {dataset}/{method}/umap.zarr       + obsm/X_umap
#         {dataset}/{method}/atlas.zarr      everything
#         {dataset}/{method}/atlas.h5ad      the same as one file, where it is asked for


rule neighbors:
    input:
        plan.embedding,
    output:
        directory(plan.pattern("neighbors")),
    log:
        plan.log("{dataset}/{method}/neighbors.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/neighbors.tsv")
    conda:
        plan.environment("clustering")
    threads: 2
    resources:
        **plan.resources("neighbors"),
    params:
        **plan.params("neighbors"),
    message:
        "{wildcards.dataset}, {wildcards.method}: neighbors"
    shell:
        "python {params.script} {input:q} {output:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule clustering:
    input:
        plan.pattern("neighbors"),
    output:
        directory(plan.pattern("clustering")),
    log:
        plan.log("{dataset}/{method}/clustering/{algorithm}_{resolution}_{level}.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/clustering/{algorithm}_{resolution}_{level}.tsv")
    wildcard_constraints:
        level="1",
    conda:
        plan.environment("clustering")
    threads: 1
    resources:
        **plan.resources("clustering"),
    params:
        **plan.params("clustering"),
    message:
        "{wildcards.dataset}, {wildcards.method}: {wildcards.algorithm} {wildcards.resolution}"
    shell:
        "python {params.script} {input:q} {output:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule subclustering:
    input:
        parent=plan.parent,
        siblings=plan.siblings,
    output:
        directory(plan.pattern("clustering")),
    log:
        plan.log("{dataset}/{method}/clustering/{algorithm}_{resolution}_{level}.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/clustering/{algorithm}_{resolution}_{level}.tsv")
    wildcard_constraints:
        level="[2-9]|1[0-9]|20",
    conda:
        "../../envs/scanpy.yaml"
    threads: resources.half(workflow.resource_settings.cores)
    resources:
        **plan.resources("subclustering"),
    params:
        **plan.params("subclustering"),
        siblings=lambda wildcards, input: plan.option("--siblings", input.siblings),
    message:
        "{wildcards.dataset}, {wildcards.method}: {wildcards.algorithm} {wildcards.resolution},"
        " level {wildcards.level}"
    shell:
        "python {params.script} {input.parent:q} {output:q}"
        " --threads {threads} {params.options} {params.siblings} 2>&1 | tee {log:q} >&2"


rule autoclustering:
    input:
        plan.pattern("neighbors"),
    output:
        directory(plan.pattern("clustering")),
    log:
        plan.log("{dataset}/{method}/clustering/{algorithm}_{resolution}_{level}.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/clustering/{algorithm}_{resolution}_{level}.tsv")
    wildcard_constraints:
        level="auto",
    conda:
        plan.environment("clustering")
    threads: resources.half(workflow.resource_settings.cores)
    resources:
        **plan.resources("autoclustering"),
    params:
        **plan.params("autoclustering"),
    message:
        "{wildcards.dataset}, {wildcards.method}: {wildcards.algorithm} {wildcards.resolution},"
        " all levels"
    shell:
        "python {params.script} {input:q} {output:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule merge:
    input:
        neighbors=plan.pattern("neighbors"),
        clustering=plan.clusterings,
    output:
        store=directory(plan.pattern("clustered")),
        table=plan.pattern("clusters"),
        tree=plan.pattern("tree"),
        newick=plan.pattern("newick"),
    log:
        plan.log("{dataset}/{method}/merge.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/merge.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 1
    resources:
        **plan.resources("merge"),
    params:
        **plan.params("merge"),
    message:
        "{wildcards.dataset}, {wildcards.method}: cluster columns"
    shell:
        "python {params.script} {input.neighbors:q} {output.store:q}"
        " --clustering {input.clustering:q} --table {output.table:q}"
        " --tree {output.tree:q} --newick {output.newick:q} {params.options} 2>&1 | tee {log:q} >&2"


rule umap:
    input:
        plan.pattern("neighbors"),
    output:
        directory(plan.pattern("umap")),
    log:
        plan.log("{dataset}/{method}/umap.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/umap.tsv")
    # The longest step on the way to the atlas: the others run beside it.
    priority: 10
    conda:
        plan.environment("clustering")
    threads: resources.half(workflow.resource_settings.cores)
    resources:
        **plan.resources("umap"),
    params:
        **plan.params("umap"),
    message:
        "{wildcards.dataset}, {wildcards.method}: UMAP"
    shell:
        "python {params.script} {input:q} {output:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule atlas:
    input:
        umap=plan.pattern("umap"),
        clustered=plan.pattern("clustered"),
    output:
        directory(plan.pattern("atlas")),
    log:
        plan.log("{dataset}/{method}/atlas.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/atlas.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 1
    resources:
        **plan.resources("atlas"),
    params:
        **plan.params("atlas"),
    message:
        "{wildcards.dataset}, {wildcards.method}: atlas"
    shell:
        "python {params.script} {input.clustered:q} {output:q}"
        " --layout {input.umap:q} {params.options} 2>&1 | tee {log:q} >&2"


rule h5ad:
    input:
        umap=plan.pattern("umap"),
        clustered=plan.pattern("clustered"),
        atlas=plan.pattern("atlas"),
    output:
        plan.pattern("h5ad"),
    log:
        plan.log("{dataset}/{method}/h5ad.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/h5ad.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 1
    resources:
        **plan.resources("h5ad"),
    params:
        **plan.params("h5ad"),
    message:
        "{wildcards.dataset}, {wildcards.method}: atlas as one file"
    shell:
        # The atlas exists and stays: only the file is written.
        "python {params.script} {input.clustered:q} {input.atlas:q}"
        " --layout {input.umap:q} --h5ad {output:q} 2>&1 | tee {log:q} >&2"
