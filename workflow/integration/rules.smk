# Needs:  {dataset}/pca.zarr, or prepared.zarr where the data set enters at integration,
#         or {dataset}/{other}/embedding.zarr where a method starts from another's result.
# Makes:  {dataset}/{method}/embedding.zarr  + obsm/X_{method}
# The method `unintegrated` has no rule: its neighbors are searched in the basis itself.


rule harmony:
    input:
        plan.source,
    output:
        directory(plan.pattern("embedding")),
    log:
        plan.log("{dataset}/{method}/harmony.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/harmony.tsv")
    wildcard_constraints:
        method=plan.names("harmony"),
    conda:
        plan.environment("integration")
    threads: 2
    resources:
        **plan.resources("harmony"),
    params:
        **plan.params("harmony"),
    message:
        "{wildcards.dataset}: {wildcards.method}"
    shell:
        "python {params.script} {input:q} {output:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule vae:
    input:
        plan.source,
    output:
        directory(plan.pattern("embedding")),
    log:
        plan.log("{dataset}/{method}/vae.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/vae.tsv")
    wildcard_constraints:
        method=plan.names("pvae", "gmvae"),
    conda:
        "../../envs/vae.yaml"
    threads: 1
    resources:
        **plan.resources("vae"),
    params:
        **plan.params("vae"),
        method=plan.method,
    message:
        "{wildcards.dataset}: {wildcards.method}"
    shell:
        "python {params.script} {input:q} {output:q}"
        " --method {params.method} --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule scvi:
    input:
        plan.source,
    output:
        directory(plan.pattern("embedding")),
    log:
        plan.log("{dataset}/{method}/scvi.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/scvi.tsv")
    wildcard_constraints:
        method=plan.names("scvi"),
    conda:
        "../../envs/scvi.yaml"
    threads: 1
    resources:
        **plan.resources("scvi"),
    params:
        **plan.params("scvi"),
    message:
        "{wildcards.dataset}: {wildcards.method}"
    shell:
        "python {params.script} {input:q} {output:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule mnn:
    input:
        plan.source,
    output:
        embedding=directory(plan.pattern("embedding")),
        merges=plan.pattern("merges"),
    log:
        plan.log("{dataset}/{method}/mnn.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/mnn.tsv")
    wildcard_constraints:
        method=plan.names("mnn", "fast_mnn", "mnn_correct"),
    conda:
        "../../envs/scanpy.yaml"
    threads: 2
    resources:
        **plan.resources("mnn"),
    params:
        **plan.params("mnn"),
        method=plan.method,
    message:
        "{wildcards.dataset}: {wildcards.method}"
    shell:
        "python {params.script} {input:q} {output.embedding:q}"
        " --method {params.method} --table {output.merges:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule topics:
    input:
        plan.basis,
    output:
        store=directory(plan.pattern("embedding")),
        table=plan.pattern("topics"),
    log:
        plan.log("{dataset}/{method}/topics.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/topics.tsv")
    wildcard_constraints:
        method=plan.names("topics"),
    conda:
        "../../envs/scanpy.yaml"
    threads: 2
    resources:
        **plan.resources("topics"),
    params:
        **plan.params("topics"),
    message:
        "{wildcards.dataset}: {wildcards.method}"
    shell:
        "python {params.script} {input:q} {output.store:q}"
        " --table {output.table:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"
