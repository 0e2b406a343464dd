#!/usr/bin/env python
"""Compute the principal components of a data set from its counts."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from preprocessing.options import PCAOptions, ValuesOptions
from utils import cli
from utils.log import progress, say
from utils.options import add_options, as_arguments, read_options


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Normalize, choose highly variable genes, compute principal components.\n\n"
        "The matrix is read in blocks of rows, three times (four with --flavor seurat_v3 or\n"
        "--target_sum null); memory does not grow with the number of cells."
    )
    parser.add_argument("--layer", help="The layer to use, or raw (default: X)")
    add_options(parser, ValuesOptions)
    add_options(parser, PCAOptions)
    cli.add_run_options(parser, overwrite="Replace an X_pca that is there")
    return parser


def main(args):
    """Choose genes, decompose, write obsm, varm, uns and columns of var."""
    from preprocessing.counts import counts_of, named_values, stored_matrix
    from utils.io import keep_existing, keys, open_store

    options = read_options(PCAOptions, args)
    if keep_existing(args.output_file, overwrite=args.overwrite, source=args.input_file):
        return
    root = open_store(args.input_file)
    if "X_pca" in keys(root, "obsm") and not args.overwrite:
        raise ValueError("adata.obsm has X_pca already; --overwrite replaces it")
    choosing = options.n_top_genes is not None and not (options.hvg and options.hvg.use)
    if options.normalize:
        stored = counts_of(
            root,
            args.layer,
            needed_by="PCA with normalize: true",
            as_they_are="preprocessing: {normalize: false} (by hand --no-normalize)",
            **as_arguments(read_options(ValuesOptions, args)),
        )
    elif choosing and options.flavor == "seurat_v3":
        stored = counts_of(
            root,
            args.layer,
            needed_by="flavor: seurat_v3",
            **as_arguments(read_options(ValuesOptions, args)),
        )
    else:
        stored = stored_matrix(root, args.layer)
    with named_values(stored):
        compute(args, root, stored.values, options)


def compute(args, root, matrix, options):
    """Read the matrix in blocks, write the components."""
    from numerics.normalize import median_target_sum, normalize_block, row_totals
    from preprocessing.pca import gram_pca, project
    from utils.blocks import matrix_shape, n_blocks, row_blocks, write_blocks
    from utils.io import new_store, write_element
    from utils.threads import read_ahead

    n_cells, n_genes = matrix_shape(matrix)

    def counts(step):
        blocks = row_blocks(matrix) if args.threads == 1 else read_ahead(row_blocks(matrix))
        return progress(blocks, desc=step, total=n_blocks(matrix))

    target_sum = options.target_sum
    if options.normalize and target_sum is None:
        target_sum = median_target_sum(lambda: counts("median total"))
        say(f"target_sum: {target_sum:g}, the median total")
    genes, table = choose_genes(root, counts, n_genes, target_sum, options)

    def values(step):
        for block in counts(step):
            chosen = block if genes is None else block[:, genes]
            if options.normalize:
                totals = row_totals(block)  # of all genes, not of the chosen ones
                chosen = normalize_block(chosen, target_sum=target_sum, totals=totals)
            yield chosen

    found = gram_pca(lambda: values("products"), n_comps=options.n_comps, threads=args.threads)
    n_comps = found.components.shape[1]
    columns = [f"var/{name}" for name in table]
    new = ["obsm/X_pca", "varm/PCs", "uns/pca", *columns]
    with new_store(args.output_file, source=args.input_file, new=new) as store:
        scores = project(lambda: values("scores"), found.components, found.mean)
        write_blocks(store["obsm"], "X_pca", scores, n_cells=n_cells, n_genes=n_comps)
        loadings = found.components
        if genes is not None:
            import numpy as np

            loadings = np.zeros((n_genes, n_comps), dtype=found.components.dtype)
            loadings[genes] = found.components
        write_element(store, "varm/PCs", loadings)
        params = {"zero_center": True, "n_top_genes": len(found.components)}
        record = {"variance": found.variance, "variance_ratio": found.variance_ratio}
        write_element(store, "uns/pca", {"params": params, **record})
        for name, column in table.items():
            write_element(store, f"var/{name}", column)
    say(
        f"{args.output_file}: X_pca of {n_cells:,} cells, {n_comps} components of "
        f"{len(found.components):,} genes ({found.variance_ratio.sum():.1%} of their variance)"
    )


def choose_genes(root, counts, n_genes, target_sum, options):
    """Return the positions of the genes to use (None: all) and the columns of var about them."""
    from preprocessing.gene_choice import read_gene_choice, variable_genes
    from utils.elements import read_column
    from utils.io import read_index

    names = read_index(root, "var")
    choice = read_gene_choice(root, names, options.hvg)
    batch, batch_names = None, None
    if options.batch_key:
        column = read_column(root, options.batch_key).astype("category").cat
        batch, batch_names = column.codes.to_numpy(), list(map(str, column.categories))
    # seurat_v3 works on the counts themselves.
    normalize = {"target_sum": target_sum} if options.normalize else None
    genes, table = variable_genes(
        lambda: counts("variable genes"),
        n_genes,
        choice,
        n_top_genes=options.n_top_genes,
        flavor=options.flavor,
        batch=batch,
        batch_names=batch_names,
        normalize=normalize if options.flavor == "seurat" else None,
        gene_names=names,
    )
    return genes, {} if table is None else table


if __name__ == "__main__":
    cli.run(main, make_parser())
