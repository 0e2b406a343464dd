# Needs:  {dataset}/{method}/embedding.zarr, or the basis for the method `unintegrated`.
# Makes:  {dataset}/{method}/neighbors.zarr  + obsp/{connectivities,distances}, uns/neighbors
#         {dataset}/{method}/clustering/{algorithm}_{resolution}_{level}.zarr  one obs column
#         {dataset}/{method}/umap.zarr       + obsm/X_umap
#         {dataset}/{method}/atlas.zarr      everything; clusters.tsv counts the clusters,
#                                            tree.tsv and tree.nwk name each with its parent
#         {dataset}/{method}/atlas.h5ad      the same as one file, where it is asked for


rule neighbors:
    input:
        lambda wildcards: plan.embedding(wildcards),
    output:
        directory(plan.pattern("neighbors")),
    log:
        plan.log("{dataset}/{method}/neighbors.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/neighbors.tsv")
    conda:
        lambda wildcards: plan.environment(wildcards, "clustering")
    threads: 2
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            str(input),
            attempt,
            base=1000,
            per_million=2000,
            **plan.device(wildcards, "clustering"),
        ),
        runtime=lambda wildcards, input, attempt: resources.minutes(
            str(input), attempt, per_million=30
        ),
        gpu=lambda wildcards, input: resources.gpus(
            str(input), **plan.device(wildcards, "clustering")
        ),
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("neighbors", wildcards),
    message:
        "{wildcards.dataset}, {wildcards.method}: neighbors"
    shell:
        "python {params.scripts:q}/clustering/scripts/neighbors.py {input:q} {output:q}"
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
        lambda wildcards: plan.environment(wildcards, "clustering")
    threads: 1
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            str(input),
            attempt,
            base=1000,
            per_million=4000 if plan.has_flavor(wildcards) else 2000,
            **plan.community_device(wildcards),
        ),
        runtime=lambda wildcards, input, attempt: resources.minutes(
            str(input), attempt, per_million=60
        ),
        gpu=lambda wildcards, input: resources.gpus(str(input), **plan.community_device(wildcards)),
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("clustering", wildcards),
    message:
        "{wildcards.dataset}, {wildcards.method}: {wildcards.algorithm} {wildcards.resolution}"
    shell:
        "python {params.scripts:q}/clustering/scripts/clustering.py {input:q} {output:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule subclustering:
    input:
        parent=lambda wildcards: plan.parent(wildcards),
        siblings=lambda wildcards: plan.siblings(wildcards),
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
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            input.parent, attempt, base=1000, per_million=3000
        ),
        runtime=lambda wildcards, input, attempt: resources.minutes(
            input.parent, attempt, per_million=60
        ),
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("clustering", wildcards),
        siblings=lambda wildcards, input: plan.files_option("--siblings", input.siblings),
    message:
        "{wildcards.dataset}, {wildcards.method}: {wildcards.algorithm} {wildcards.resolution},"
        " level {wildcards.level}"
    shell:
        "python {params.scripts:q}/clustering/scripts/clustering.py {input.parent:q} {output:q}"
        " --threads {threads} {params.options} {params.siblings} 2>&1 | tee {log:q} >&2"


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
        lambda wildcards: plan.environment(wildcards, "clustering")
    threads: resources.half(workflow.resource_settings.cores)
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            str(input),
            attempt,
            base=1000,
            per_million=2000,
            **plan.device(wildcards, "clustering"),
        ),
        runtime=lambda wildcards, input, attempt: resources.minutes(
            str(input), attempt, per_million=120
        ),
        gpu=lambda wildcards, input: resources.gpus(
            str(input), **plan.device(wildcards, "clustering")
        ),
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("umap", wildcards),
    message:
        "{wildcards.dataset}, {wildcards.method}: UMAP"
    shell:
        "python {params.scripts:q}/clustering/scripts/umap.py {input:q} {output:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule merge:
    input:
        umap=plan.pattern("umap"),
        clustering=plan.clusterings,
    output:
        atlas=directory(plan.pattern("atlas")),
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
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            input.umap, attempt, base=1000, per_million=200
        ),
        runtime=lambda wildcards, input, attempt: resources.minutes(
            input.umap, attempt, per_million=10
        ),
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("merge", wildcards),
    message:
        "{wildcards.dataset}, {wildcards.method}: atlas"
    shell:
        "python {params.scripts:q}/clustering/scripts/merge.py {input.umap:q} {output.atlas:q}"
        " --clustering {input.clustering:q} --table {output.table:q}"
        " --tree {output.tree:q} --newick {output.newick:q} {params.options} 2>&1 | tee {log:q} >&2"


rule h5ad:
    input:
        umap=plan.pattern("umap"),
        clustering=plan.clusterings,
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
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            input.atlas, attempt, base=1000, per_million=3000
        ),
        runtime=lambda wildcards, input, attempt: resources.minutes(
            input.atlas, attempt, per_million=60
        ),
    params:
        scripts=SCRIPTS,
    message:
        "{wildcards.dataset}, {wildcards.method}: atlas as one file"
    # The atlas is there and stays: only the file is written.
    shell:
        "python {params.scripts:q}/clustering/scripts/merge.py {input.umap:q} {input.atlas:q}"
        " --clustering {input.clustering:q} --h5ad {output:q} 2>&1 | tee {log:q} >&2"
