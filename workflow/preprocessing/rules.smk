# Needs:  the files of a data set.
# Makes:  {dataset}/prepared.zarr  the input as one zarr store, subset and joined
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
    threads: 1
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.prepare_mb(list(input), attempt),
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        scripts=SCRIPTS,
        files=lambda wildcards: plan.files(wildcards),
        options=lambda wildcards: plan.options("prepare", wildcards),
        # Makes the data set anew where a .zarr input was changed in place.
        changed=lambda wildcards: changed_at(plan.files(wildcards)),
    message:
        "{wildcards.dataset}: prepare {input}"
    shell:
        "python {params.scripts:q}/preprocessing/scripts/prepare.py {params.files:q} {output:q}"
        " {params.options} 2>&1 | tee {log:q} >&2"


rule pca:
    input:
        plan.pattern("prepared"),
    output:
        directory(plan.pattern("pca")),
    log:
        plan.log("{dataset}/pca.log"),
    benchmark:
        plan.benchmark("{dataset}/pca.tsv")
    conda:
        "../../envs/scanpy.yaml"
    threads: 2
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.pca_mb(
            str(input), attempt, plan.dataset(wildcards).preprocessing.n_top_genes
        ),
        runtime=lambda wildcards, input, attempt: resources.minutes(
            str(input), attempt, per_million=30
        ),
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("pca", wildcards),
    message:
        "{wildcards.dataset}: principal components"
    shell:
        "python {params.scripts:q}/preprocessing/scripts/pca.py {input:q} {output:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"
