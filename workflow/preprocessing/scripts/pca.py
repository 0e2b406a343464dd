#!/usr/bin/env python
"""Compute the principal components of a data set from its counts."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from utils import cli


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Normalize, choose highly variable genes, compute principal components.\n\n"
        "The matrix is read in blocks of rows, three times (four with --flavor seurat_v3 or\n"
        "--target_sum null); memory does not grow with the number of cells."
    )
    parser.add_argument("--layer", help="The layer to use, or raw (default: X)")
    cli.add_model(parser, "Values")
    cli.add_model(parser, "PCA")
    cli.add_run_options(parser, overwrite="Replace an X_pca that is there")
    return parser


def main(args):
    """Choose genes, decompose, write obsm, varm, uns and columns of var."""
    from preprocessing.components import add_pca
    from utils.io import kept, keys, open_store

    options = cli.from_options("PCA", args)
    if kept(args.output_file, overwrite=args.overwrite, source=args.input_file):
        return
    if "X_pca" in keys(open_store(args.input_file), "obsm") and not args.overwrite:
        raise ValueError("adata.obsm has X_pca already; --overwrite replaces it")
    add_pca(
        args.input_file,
        args.output_file,
        layer=args.layer,
        threads=args.threads,
        **vars(options),
        **vars(cli.from_options("Values", args)),
    )


if __name__ == "__main__":
    cli.run(main, make_parser())
