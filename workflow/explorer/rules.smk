# Needs:  {dataset}/{method}/atlas.zarr of every method; where they are made, markers.tsv, splits.tsv and
#         {dataset}/comparison/warnings.tsv.
# Makes:  {dataset}/explorer.html  a page to look at all methods and clusters of a data set


rule explorer:
    input:
        atlases=plan.each_method("atlas"),
        markers=plan.tables("markers"),
        splits=plan.tables("splits"),
        comparison=plan.comparison_of,
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
        **plan.resources("explorer"),
    params:
        **plan.params("explorer"),
        compare=lambda wildcards, input: plan.option("--compare", input.atlases[1:]),
        markers=lambda wildcards, input: plan.option("--markers", input.markers),
        splits=lambda wildcards, input: plan.option("--splits", input.splits),
        warnings=lambda wildcards, input: plan.option(
            "--warnings", [f"{folder}/warnings.tsv" for folder in input.comparison]
        ),
    message:
        "{wildcards.dataset}: explorer"
    shell:
        "python {params.script} {input.atlases[0]:q} {output:q}"
        " {params.compare} {params.markers} {params.splits} {params.warnings} {params.options}"
        " 2>&1 | tee {log:q} >&2"
