#!/usr/bin/env python
"""Score the cells of a data set as doublets."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from preprocessing.options import DoubletOptions, ValuesOptions
from utils import cli
from utils.log import say
from utils.option_values import read_options
from utils.options import add_options, as_arguments


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Score cells as doublets within each sample (Scrublet): obs/doublet_score,\n"
        "obs/doublet_like, obs/relative_counts. Samples of fewer than 100 cells are not scored."
    )
    parser.add_argument("--layer", help="The layer that holds raw counts, or raw (default: X)")
    add_options(parser, ValuesOptions)
    add_options(parser, DoubletOptions)
    cli.add_run_options(parser, threads=False, overwrite="Replace an existing result")
    return parser


def main(args):
    """Read the counts sample by sample, score, write columns of obs."""
    import json

    import numpy as np

    from preprocessing.doublets import score_doublets
    from preprocessing.stores import counts_blocks, counts_of
    from utils.elements import read_categorical
    from utils.io import keep_existing, n_rows, new_store, open_store, write_element

    options = read_options(DoubletOptions, args)
    if keep_existing(args.output_file, overwrite=args.overwrite):
        return
    root = open_store(args.input_file)
    values = as_arguments(read_options(ValuesOptions, args))
    matrix = counts_of(root, args.layer, needed_by="doublets", **values)
    n_cells = n_rows(root, "obs")
    samples, names = np.zeros(n_cells, int), ["all cells"]
    if options.sample_key is not None:
        samples, names = read_categorical(root, options.sample_key)
    result = score_doublets(
        lambda: counts_blocks(matrix),
        np.asarray(samples),
        [str(name) for name in names],
        expected_doublet_rate=options.expected_doublet_rate,
        seed=args.seed,
    )
    record = {**as_arguments(options), "seed": args.seed, "thresholds": result.thresholds}
    elements = {
        "obs/doublet_score": result.scores,
        "obs/doublet_like": result.doublet_like,
        "obs/relative_counts": result.relative_counts,
        "uns/doublets": json.dumps(record),
    }
    with new_store(args.output_file, source=args.input_file, new=elements) as store:
        for name, value in elements.items():
            write_element(store, name, value)
    n_scored = int(np.isfinite(result.scores).sum())
    n_like = int(result.doublet_like.sum())
    say(
        f"{args.output_file}: {n_like:,} of {n_scored:,} cells are like doublets "
        f"({n_like / max(n_scored, 1):.1%}; expected {options.expected_doublet_rate:.1%})"
    )
    if n_scored < n_cells:
        say(f"{n_cells - n_scored:,} cells are not scored: samples below 100 cells, few genes")


if __name__ == "__main__":
    cli.run(main, make_parser())
