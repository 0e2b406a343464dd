#!/usr/bin/env python
"""Compute the principal components of a data set from its counts."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from preprocessing.options import PCAOptions, ValuesOptions
from utils import cli
from utils.option_values import read_options
from utils.options import add_options, as_arguments


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Normalize, choose highly variable genes, compute principal components.\n\n"
        "The matrix is read in blocks of rows, twice (three times with --flavor seurat_v3 or\n"
        "--target_sum null); memory does not grow with the number of cells."
    )
    parser.add_argument("--layer", help="The layer to use, or raw (default: X)")
    add_options(parser, ValuesOptions)
    add_options(parser, PCAOptions)
    cli.add_run_options(parser, overwrite="Replace an existing X_pca")
    return parser


def main(args):
    """Choose genes, decompose, write obsm, varm, uns and columns of var."""
    from preprocessing.components import add_pca
    from utils.io import keep_existing, keys, open_store

    options = read_options(PCAOptions, args)
    if keep_existing(args.output_file, overwrite=args.overwrite, source=args.input_file):
        return
    if "X_pca" in keys(open_store(args.input_file), "obsm") and not args.overwrite:
        raise ValueError("adata.obsm has X_pca already; --overwrite replaces it")
    add_pca(
        args.input_file,
        args.output_file,
        layer=args.layer,
        threads=args.threads,
        **as_arguments(options),
        **as_arguments(read_options(ValuesOptions, args)),
    )


if __name__ == "__main__":
    cli.run(main, make_parser())
