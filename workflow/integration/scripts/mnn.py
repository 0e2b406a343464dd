#!/usr/bin/env python
"""Integrate batches by mutual nearest neighbors, in an embedding or from counts."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
import argparse
import json

from integration.options import METHODS, IntegrationOptions
from preprocessing.options import ValuesOptions
from utils import cli
from utils.log import progress, say
from utils.options import add_options, as_arguments, read_options

CHOICES = ("mnn", "fast_mnn", "mnn_correct")
MOST_GENES = 10_000  # their products, and the components, take 16 bytes a pair


def make_parser(argv=None):
    """Define the command line; each method has options of its own."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--method", choices=CHOICES, default=CHOICES[0])
    method = first.parse_known_args(argv)[0].method
    parser = cli.script_parser(
        "Integrate batches by mutual nearest neighbors:\n\n"
        "  mnn          in an embedding\n"
        "  fast_mnn     in components of all batches alike, from counts\n"
        "  mnn_correct  on expression values, from counts, up to 10,000 cells\n\n"
        f"The options are those of {method}; --method ... --help shows another's."
    )
    add = parser.add_argument
    add("--method", choices=CHOICES, default=CHOICES[0], help="(default: %(default)s)")
    add("--batch", nargs="+", required=True, metavar="COLUMN", help="obs column(s) of the batch")
    if method == "mnn":
        add(
            "--basis",
            default=IntegrationOptions.basis,
            help="obsm key to start from (default: %(default)s)",
        )
    else:
        add("--layer", help="The layer that holds raw counts, or raw (default: X)")
        add_options(parser, ValuesOptions)
    add(
        "--key_added",
        type=cli.element_name,
        default=f"X_{method}",
        help="obsm key of the result (default: %(default)s)",
    )
    add("--table", help="File for the diagnostics of every merge (.tsv)")
    add_options(parser, METHODS[method])
    cli.add_run_options(parser, overwrite="Replace a result that is there")
    return parser


def main(args):
    """Integrate, write one embedding and what happened at each merge."""
    from utils.atomic import atomic_file
    from utils.io import kept, keys, new_store, obs_column, open_store, write_element

    options = as_arguments(read_options(METHODS[args.method], args))
    if kept(args.output_file, overwrite=args.overwrite, source=args.input_file):
        return
    root = open_store(args.input_file)
    if args.key_added in keys(root, "obsm") and not args.overwrite:
        raise ValueError(
            f"adata.obsm has {args.key_added} already; --overwrite replaces it, --key_added names "
            "another"
        )
    batch = [obs_column(root, column) for column in args.batch]
    run = {"mnn": correct_embedding, "fast_mnn": correct_components, "mnn_correct": correct_genes}
    common = dict(options)
    for name in ("restrict", "clusters"):
        if common[name] is not None:
            common[name] = obs_column(root, common[name]).to_numpy()
    common |= {"threads": args.threads, "seed": args.seed, "verbose": True}
    embedding, result, others = run[args.method](args, root, batch, common)
    table = result.merges.drop(columns="pairs")
    record = {
        "method": args.method,
        "batch": args.batch,
        "basis": getattr(args, "basis", getattr(args, "layer", None) or "X"),
        "seed": args.seed,
        "params": options,
        "merges": json.loads(table.to_json(orient="records")),
        "notes": list(result.notes),
    }
    elements = {f"obsm/{args.key_added}": embedding, **others}
    elements[f"uns/{args.key_added}"] = json.dumps(record)
    with new_store(args.output_file, source=args.input_file, new=[*elements]) as store:
        for name, value in elements.items():
            write_element(store, name, value)
    if args.table:
        table["notes"] = [" | ".join(notes) for notes in table["notes"]]
        with atomic_file(args.table) as path:
            table.to_csv(path, sep="\t", index=False)
    say(f"{args.output_file}: {args.key_added}, {len(table)} merges, {len(result.notes)} notes")


def correct_embedding(args, root, batch, options):
    """Run `reduced_mnn` on the basis; cells that are NaN there take no part."""
    import numpy as np

    from integration.mnn import cosine_norm, project_simplex, reduced_mnn
    from utils.elements import read_embedding

    Z = read_embedding(root, args.basis)
    part = ~np.isnan(Z).all(axis=1)
    if not part.all():
        say(f"{(~part).sum():,} of {len(Z):,} cells are NaN in {args.basis} and stay so")
    if not part.any():
        raise ValueError(f"{args.basis} is NaN in all {len(Z):,} cells")
    cells = Z[part]
    if options.pop("cos_norm"):
        cells = cosine_norm(cells)
    back = options.pop("project_simplex")
    for name in ("restrict", "clusters"):
        if options[name] is not None:
            options[name] = options[name][part]
    result = reduced_mnn(cells, [labels[part] for labels in batch], **options)
    corrected = project_simplex(result.corrected) if back else result.corrected
    embedding = np.full(Z.shape, np.nan, dtype=np.float32)
    embedding[part] = corrected
    return embedding, result, {}


def correct_components(args, root, batch, options):
    """Run `fast_mnn` on the counts, which are read in blocks."""
    import numpy as np

    from integration.mnn import fast_mnn

    blocks, genes, n_genes = expression(args, root, options)
    result = fast_mnn(blocks, batch, **options)
    loadings = np.zeros((n_genes, result.rotation.shape[1]), dtype=np.float32)
    loadings[genes] = result.rotation
    return result.corrected.astype(np.float32), result, {f"varm/{args.key_added}": loadings}


def correct_genes(args, root, batch, options):
    """Run `mnn_correct` on the counts; the embedding are components of the corrected values."""
    import numpy as np
    import scipy.sparse as sp

    from integration.mnn import mnn_correct
    from preprocessing.pca import gram_pca, pca_scores

    layer, n_comps = options.pop("layer_added"), options.pop("n_comps")
    blocks, genes, n_genes = expression(args, root, options, all_genes=layer is not None)
    X = np.concatenate([block.toarray() if sp.issparse(block) else block for block in blocks()])
    subset = genes if layer is not None and len(genes) < n_genes else None
    result = mnn_correct(X, batch, subset=subset, correct_all=layer is not None, **options)
    values = result.corrected if subset is None else result.corrected[:, subset]
    found = gram_pca(lambda: [values], n_comps=n_comps, threads=args.threads)
    scores = np.concatenate(list(pca_scores(lambda: [values], found.components, found.mean)))
    others = {} if layer is None else {f"layers/{layer}": result.corrected.astype(np.float32)}
    return scores, result, others


def expression(args, root, options, *, all_genes=False):
    """Return log-expression in blocks, the positions of the variable genes, how many there are.

    Takes what says how to read the values out of the options.
    """
    import numpy as np

    from integration.gene_counts import variable_genes
    from numerics.normalize import (
        count_totals,
        median_target_sum,
        normalize_block,
        row_totals,
    )
    from preprocessing.stores import counts_blocks, counts_of, stored_matrix
    from utils.blocks import matrix_shape, n_blocks, row_blocks

    target_sum, normalize = options.pop("target_sum"), options.pop("normalize")
    if normalize:
        stored = counts_of(
            root,
            args.layer,
            needed_by=args.method,
            as_they_are=f"normalize: false under {args.method} (by hand --no-normalize)",
            **as_arguments(read_options(ValuesOptions, args)),
        )
    else:
        stored = stored_matrix(root, args.layer)
    matrix = stored.values
    n_genes = matrix_shape(matrix)[1]
    genes = variable_genes(root)
    if genes is None:
        genes = np.arange(n_genes)
    if len(genes) > MOST_GENES:
        raise ValueError(
            f"components of all {len(genes):,} genes need {16 * len(genes) ** 2 / 1e9:.0f} GB; "
            "mark fewer in var/highly_variable (pca.py does)"
        )
    say(f"{len(genes):,} of {n_genes:,} genes")
    taken = np.arange(n_genes) if all_genes else genes

    def counts():
        blocks = counts_blocks(stored) if normalize else row_blocks(matrix)
        return progress(blocks, desc="counts", total=n_blocks(matrix))

    if normalize and target_sum is None:
        target_sum = median_target_sum(count_totals(counts))

    def blocks():
        for block in counts():
            chosen = block[:, taken]
            if normalize:
                totals = row_totals(block)  # of all genes, not of the chosen ones
                chosen = normalize_block(chosen, target_sum=target_sum, totals=totals)
            yield chosen

    return blocks, genes, n_genes


if __name__ == "__main__":
    cli.run(main, make_parser())
