# Needs:  the files of a data set.
# Makes:  {dataset}/prepared.zarr  the input as one zarr store, subset and joined
#         {dataset}/doublets.zarr  + obs/doublet_score, obs/doublet_like, where these are asked for
#         {dataset}/pca.zarr       + obsm/X_pca, varm/PCs, uns/pca, var/highly_variable


rule prepare:
    input:
        plan.paths,
    output:
        directory(plan.pattern("prepared")),
    log:
        plan.log("{dataset}/prepare.log"),
    benchmark:
        plan.benchmark("{dataset}/prepare.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: resources.all_cores(workflow.resource_settings.cores)
    resources:
        **plan.resources("prepare"),
    params:
        **plan.params("prepare"),
        files=plan.files,
        # Makes the data set anew where a .zarr input was changed in place.
        changed=lambda wildcards: changed_at(plan.files(wildcards)),
    message:
        "{wildcards.dataset}: prepare {input}"
    shell:
        "python {params.script} {params.files:q} {output:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule doublets:
    input:
        plan.pattern("prepared"),
    output:
        directory(plan.pattern("doublets")),
    log:
        plan.log("{dataset}/doublets.log"),
    benchmark:
        plan.benchmark("{dataset}/doublets.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 1
    resources:
        **plan.resources("doublets"),
    params:
        **plan.params("doublets"),
    message:
        "{wildcards.dataset}: doublets"
    shell:
        "python {params.script} {input:q} {output:q} {params.options} 2>&1 | tee {log:q} >&2"


rule pca:
    input:
        plan.cells,
    output:
        directory(plan.pattern("pca")),
    log:
        plan.log("{dataset}/pca.log"),
    benchmark:
        plan.benchmark("{dataset}/pca.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: resources.all_cores(workflow.resource_settings.cores)
    resources:
        **plan.resources("pca"),
    params:
        **plan.params("pca"),
    message:
        "{wildcards.dataset}: principal components"
    shell:
        "python {params.script} {input:q} {output:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"
