#!/usr/bin/env python
"""Fit a topic model to the counts of a data set."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from integration.options import N_TOPICS_LADDER, TopicsOptions
from preprocessing.options import ValuesOptions
from utils import cli
from utils.log import say
from utils.option_values import read_options
from utils.options import add_options, as_arguments


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Fit a topic model (Poisson NMF, or LDA) to raw counts: obsm/X_topics, varm/topics,\n"
        "obs/topic_scale. Batches are not corrected."
    )
    add = parser.add_argument
    add(
        "--key_added",
        type=cli.new_element,
        default="X_topics",
        help="obsm key of the result (default: %(default)s)",
    )
    add("--layer", help="The layer that holds raw counts, or raw (default: X)")
    add_options(parser, ValuesOptions)
    add("--table", metavar="FILE", help="Write the top genes of each topic (.tsv)")
    add_options(parser, TopicsOptions)
    cli.add_run_options(parser, overwrite="Replace an existing result")
    return parser


def main(args):
    """Read the counts, fit, write weights, topics and their top genes."""
    from integration import stores
    from integration.topics import choose_n_topics, fit_topics, top_genes
    from preprocessing.stores import counts_of
    from utils.atomic import atomic_file
    from utils.elements import read_column
    from utils.io import keep_existing, n_rows, open_store, read_index

    options = as_arguments(read_options(TopicsOptions, args))
    if keep_existing(args.output_file, overwrite=args.overwrite):
        return
    root = open_store(args.input_file)
    stores.check_new_elements(root, [f"obsm/{args.key_added}"], overwrite=args.overwrite)
    needed_by = f"topics ({options['model']})"
    values = as_arguments(read_options(ValuesOptions, args))
    matrix = counts_of(root, args.layer, needed_by=needed_by, **values)
    groups = options.pop("groups")
    if groups is not None:
        read_column(root, groups)  # of structure.py: a wrong name is an error before the fit
    run = {**options, "threads": args.threads, "seed": args.seed, "verbose": True}
    genes = stores.highly_variable_positions(root) if run.pop("highly_variable") else None
    counts = stores.read_counts(matrix, genes, dtype=options["dtype"])
    record = {"method": "topics", "layer": args.layer}
    if run["n_topics"] is None:
        chosen_by = {name: run[name] for name in ("seed", "dtype", "threads", "verbose")}
        selection = choose_n_topics(counts, **chosen_by)
        say_selection(selection)
        run["n_topics"] = options["n_topics"] = selection.n_topics
        record["n_topics_selection"] = selection._asdict()
    result = fit_topics(counts, **run)
    n_genes = counts.shape[1]
    topics = stores.to_all_genes(result.topics, genes, n_rows(root, "var"))
    record |= {
        "n_genes": n_genes,
        "n_iterations": result.n_iterations,
        "converged": result.converged,
        "seed": args.seed,
        "params": options,
    }
    fitted = ""
    if options["model"] == "poisson_nmf":
        record |= {name: getattr(result, name) for name in ("deviance", "residual", "deviances")}
        fitted = f", deviance {result.deviance:,.0f}"
    if args.table:
        with atomic_file(args.table) as path:
            table = top_genes(topics, read_index(root, "var"))
            table.to_csv(path, sep="\t", index=False, float_format="%.6g")
    others = {"varm/topics": topics, "obs/topic_scale": result.topic_scale}
    files = args.output_file, args.input_file
    stores.write_embedding(*files, args.key_added, result.weights, record, others)
    end = "converged" if result.converged else "stopped"
    say(
        f"{args.output_file}: {args.key_added}, {options['n_topics']} topics of {n_genes:,} genes, "
        f"{end} after {result.n_iterations} iterations{fitted}"
    )


def say_selection(selection):
    """Write the number of topics and the curve that it was chosen by to the log."""
    curve = zip(selection.ladder, selection.deviances, selection.standard_errors, strict=True)
    tried = ", ".join(f"{n}: {deviance:.1f} (+-{error:.1f})" for n, deviance, error in curve)
    say(
        f"n_topics: {selection.n_topics}, the fewest within a standard error of the lowest "
        f"held-out deviance per cell ({tried}); n_topics in the config overrides it"
    )
    if selection.n_topics == N_TOPICS_LADDER[-1]:
        say("warning: n_topics is the largest that is tried; more topics may keep more cell types")


if __name__ == "__main__":
    cli.run(main, make_parser())
