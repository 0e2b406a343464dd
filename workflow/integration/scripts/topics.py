#!/usr/bin/env python
"""Fit a topic model to the counts of a data set."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
import json

from integration.options import TopicsOptions
from preprocessing.options import ValuesOptions
from utils import cli
from utils.log import say
from utils.options import add_options, as_arguments, read_options


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Fit a topic model (Poisson NMF, or LDA) to raw counts: obsm/X_topics, varm/topics,\n"
        "obs/topic_scale. Batches are not corrected."
    )
    add = parser.add_argument
    add(
        "--key_added",
        type=cli.element_name,
        default="X_topics",
        help="obsm key of the result (default: %(default)s)",
    )
    add("--layer", help="The layer that holds raw counts, or raw (default: X)")
    add_options(parser, ValuesOptions)
    add("--table", metavar="FILE", help="Write the top genes of each topic (.tsv)")
    add("--plot", metavar="FILE", help="Draw the weights of all cells (.png, .pdf or .svg)")
    add_options(parser, TopicsOptions)
    cli.add_run_options(parser, overwrite="Replace a result that is there")
    return parser


def main(args):
    """Read the counts, fit, write weights and topics, then the table and the picture."""
    import numpy as np
    import pandas as pd

    from integration.gene_counts import read_counts, variable_genes
    from preprocessing.stores import counts_of
    from utils.io import (
        kept,
        keys,
        length,
        new_store,
        obs_column,
        open_store,
        read_index,
        write_element,
    )
    from utils.paths import is_linkable

    options = read_options(TopicsOptions, args)
    if kept(args.output_file, overwrite=args.overwrite):
        return
    root = open_store(args.input_file)
    if args.key_added in keys(root, "obsm") and not args.overwrite:
        raise ValueError(
            f"adata.obsm has {args.key_added} already; --overwrite replaces it, --key_added names "
            "another"
        )
    matrix = counts_of(
        root,
        args.layer,
        needed_by=f"topics ({options.model})",
        **as_arguments(read_options(ValuesOptions, args)),
    )
    groups = obs_column(root, options.groups) if options.groups else None
    if args.plot:
        check_plot(args.plot, groups)
    genes = variable_genes(root) if options.highly_variable else None
    counts = read_counts(matrix, genes, dtype=options.dtype)
    result = fit(counts, options, seed=args.seed, threads=args.threads)
    n_genes = counts.shape[1]
    del counts
    topics = result.topics
    if genes is not None:
        topics = np.full((length(root, "var"), options.n_topics), np.nan, result.topics.dtype)
        topics[genes] = result.topics
    record = {
        "method": "topics",
        "layer": args.layer,
        "n_genes": n_genes,
        "n_iterations": result.n_iterations,
        "converged": result.converged,
        "seed": args.seed,
        "params": {k: v for k, v in as_arguments(options).items() if k != "groups"},
    }
    if options.model == "poisson_nmf":
        record |= {
            "deviance": result.deviance,
            "residual": result.residual,
            "deviances": result.deviances,
        }
    values = {
        f"obsm/{args.key_added}": result.weights,
        "varm/topics": topics,
        "obs/topic_scale": result.topic_scale,
        f"uns/{args.key_added}": json.dumps(record),
    }
    source = args.input_file if is_linkable(args.input_file) else None
    if source is None:  # nothing can be linked: the names only
        frames = {name: pd.DataFrame(index=read_index(root, name)) for name in ("obs", "var")}
        values = frames | values
    with new_store(args.output_file, source=source, new=values) as store:
        for name, value in values.items():
            write_element(store, name, value)
        write_figures(args, result.weights, topics, read_index(root, "var"), groups)
    end = "converged" if result.converged else "stopped"
    fitted = f", deviance {result.deviance:,.0f}" if options.model == "poisson_nmf" else ""
    say(
        f"{args.output_file}: {args.key_added}, {options.n_topics} topics of {n_genes:,} genes, "
        f"{end} after {result.n_iterations} iterations{fitted}"
    )


def check_plot(path, groups):
    """Refuse a picture that could not be drawn before time is spent on the fit."""
    from evaluation.figures.embedding import figure_format
    from evaluation.figures.structure_plot import check_groups

    figure_format(path)
    if groups is not None:
        check_groups(groups)


def fit(counts, options, *, seed, threads):
    """Fit the model that is asked for."""
    from integration.topics import lda, poisson_nmf

    common = {"seed": seed, "verbose": True}
    if options.max_iter is not None:
        common["max_iter"] = options.max_iter
    if options.model == "lda":
        priors = {"weight_prior": options.weight_prior, "topic_prior": options.topic_prior}
        return lda(counts, options.n_topics, **priors, **common)
    return poisson_nmf(
        counts,
        options.n_topics,
        n_restarts=options.n_restarts,
        tol=options.tol,
        dtype=options.dtype,
        threads=threads,
        **common,
    )


def write_figures(args, weights, topics, names, groups):
    """Write the table and the picture that were asked for."""
    from integration.topics import top_genes
    from utils.atomic import atomic_file

    if args.table:
        with atomic_file(args.table) as temporary:
            table = top_genes(topics, names)
            table.to_csv(temporary, sep="\t", index=False, float_format="%.6g")
    if args.plot:
        from evaluation.figures.embedding import save_figure
        from evaluation.figures.structure_plot import structure_plot

        title = f"{topics.shape[1]} topics" + (f" by {args.groups}" if args.groups else "")
        save_figure(structure_plot(weights, groups, title=title), args.plot)


if __name__ == "__main__":
    cli.run(main, make_parser())
