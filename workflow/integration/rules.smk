# Needs:  {dataset}/pca.zarr, or prepared.zarr where the data set enters at integration,
#         or {dataset}/{other}/embedding.zarr where a method starts from another's result.
# Makes:  {dataset}/{method}/embedding.zarr  + obsm/X_{method}
# The method `unintegrated` has no rule: its neighbors are searched in the basis itself.


rule harmony:
    input:
        lambda wildcards: plan.source(wildcards),
    output:
        directory(plan.pattern("embedding")),
    log:
        plan.log("{dataset}/{method}/harmony.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/harmony.tsv")
    wildcard_constraints:
        method=plan.names("harmony"),
    conda:
        lambda wildcards: plan.environment(wildcards, "integration")
    threads: 2
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            str(input),
            attempt,
            base=1000,
            per_million=2000,
            **plan.device(wildcards, "integration"),
        ),
        runtime=lambda wildcards, input, attempt: resources.minutes(
            str(input), attempt, per_million=20
        ),
        gpu=lambda wildcards, input: resources.gpus(
            str(input), **plan.device(wildcards, "integration")
        ),
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("integration", wildcards),
    message:
        "{wildcards.dataset}: {wildcards.method}"
    shell:
        "python {params.scripts:q}/integration/scripts/harmony.py {input:q} {output:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule vae:
    input:
        lambda wildcards: plan.source(wildcards),
    output:
        directory(plan.pattern("embedding")),
    log:
        plan.log("{dataset}/{method}/vae.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/vae.tsv")
    wildcard_constraints:
        method=f"{plan.names('pvae')}|{plan.names('gmvae')}",
    conda:
        "../../envs/vae.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.counts_mb(
            str(input),
            attempt,
            base=2000,
            per_million=6000,
            **plan.device(wildcards, "integration"),
        ),
        runtime=lambda wildcards, input, attempt: resources.minutes(
            str(input), attempt, per_million=600
        ),
        gpu=lambda wildcards, input: resources.gpus(
            str(input), **plan.device(wildcards, "integration")
        ),
    params:
        scripts=SCRIPTS,
        method=lambda wildcards: plan.dataset(wildcards).methods[wildcards.method].method,
        options=lambda wildcards: plan.options("integration", wildcards),
    message:
        "{wildcards.dataset}: {wildcards.method}"
    shell:
        "python {params.scripts:q}/integration/scripts/vae.py {input:q} {output:q}"
        " --method {params.method} --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule mnn:
    input:
        lambda wildcards: plan.source(wildcards),
    output:
        embedding=directory(plan.pattern("embedding")),
        merges=plan.pattern("merges"),
    log:
        plan.log("{dataset}/{method}/mnn.log"),
    benchmark:
        plan.benchmark("{dataset}/{method}/mnn.tsv")
    wildcard_constraints:
        method="|".join(map(plan.names, ("mnn", "fast_mnn", "mnn_correct"))),
    conda:
        "../../envs/scanpy.yaml"
    threads: 2
    resources:
        mem_mb=lambda wildcards, input, attempt: resources.memory_mb(
            str(input), attempt, base=2000, per_million=4000
        ),
        runtime=lambda wildcards, input, attempt: resources.minutes(
            str(input), attempt, per_million=60
        ),
    params:
        scripts=SCRIPTS,
        method=lambda wildcards: plan.dataset(wildcards).methods[wildcards.method].method,
        options=lambda wildcards: plan.options("integration", wildcards),
    message:
        "{wildcards.dataset}: {wildcards.method}"
    shell:
        "python {params.scripts:q}/integration/scripts/mnn.py {input:q} {output.embedding:q}"
        " --method {params.method} --table {output.merges:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"


rule topics:
    input:
        lambda wildcards: plan.basis(wildcards),
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
        mem_mb=lambda wildcards, input, attempt: resources.counts_mb(
            str(input),
            attempt,
            base=1000,
            per_million=12000,
            all_genes=not plan.dataset(wildcards).methods[wildcards.method].highly_variable,
        ),
        runtime=lambda wildcards, input, attempt: resources.minutes(
            str(input), attempt, per_million=120
        ),
    params:
        scripts=SCRIPTS,
        options=lambda wildcards: plan.options("integration", wildcards),
    message:
        "{wildcards.dataset}: {wildcards.method}"
    shell:
        "python {params.scripts:q}/integration/scripts/topics.py {input:q} {output.store:q}"
        " --table {output.table:q}"
        " --threads {threads} {params.options} 2>&1 | tee {log:q} >&2"
