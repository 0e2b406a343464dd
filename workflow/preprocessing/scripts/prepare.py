#!/usr/bin/env python
"""Turn the input files into one zarr store: linked, converted, joined, subset."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from preprocessing.options import PrepareOptions, ValuesOptions
from utils import cli
from utils.log import say
from utils.option_values import read_options
from utils.options import add_options, as_arguments


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Turn one or several files into one zarr store.\n\n"
        "A .zarr file that nothing is dropped from is linked, an .h5ad file is converted in\n"
        "blocks of rows, several files are joined on their genes; a line says what is dropped.",
        inputs="Input files: anndata (.h5ad, .zarr), one table of several (file.h5mu::rna, "
        "store.zarr::tables/table), or a 10x matrix (.h5, a folder with matrix.mtx)",
        several=True,
    )
    parser.add_argument(
        "--batch",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="Batch columns; the first that the files do not have will name the file, where there "
        "are several (default: file)",
    )
    parser.add_argument(
        "--stage",
        choices=("preprocessing", "integration", "clustering"),
        default="preprocessing",
        help="Where the data set enters; after preprocessing several files share an embedding "
        "(default: %(default)s)",
    )
    for option, what in (("umap", "a layout"), ("neighbors", "a graph")):
        parser.add_argument(
            f"--recompute_{option}",
            action="store_true",
            help=f"Drop {what} that each of several files has; else it is refused after "
            "preprocessing",
        )
    add_options(parser, PrepareOptions)
    add_options(parser, ValuesOptions)
    cli.add_run_options(parser, overwrite="Replace an existing output")
    return parser


def main(args):
    """Read, select, write."""
    from preprocessing.prepare import prepare_store
    from utils.io import keep_existing
    from utils.threads import shared_workers

    if keep_existing(args.output_file, overwrite=args.overwrite):
        return
    with shared_workers(args.threads):
        shape = prepare_store(
            args.input_file,
            Path(args.output_file),
            batch=args.batch,
            stage=args.stage,
            recompute_umap=args.recompute_umap,
            recompute_neighbors=args.recompute_neighbors,
            threads=args.threads,
            **as_arguments(read_options(PrepareOptions, args)),
            **as_arguments(read_options(ValuesOptions, args)),
        )
    say(f"{args.output_file}: {shape[0]:,} cells x {shape[1]:,} genes")


if __name__ == "__main__":
    cli.run(main, make_parser())
