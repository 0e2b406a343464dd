#!/usr/bin/env python
"""Embed raw counts with scVI, which is told the batch."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from integration.method_chains import missing_package
from integration.options import SCVIOptions
from preprocessing.options import ValuesOptions
from utils import cli
from utils.log import say
from utils.option_values import read_options
from utils.options import add_options, as_arguments


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Embed raw counts with scVI (Lopez et al. 2018) as scvi-tools has it.\n\n"
        "The genes are those of var/highly_variable where it exists, else all. Needs scvi-tools,\n"
        "which uses one thread on the CPU: more change the bits."
    )
    add = parser.add_argument
    add("--batch", nargs="+", required=True, metavar="COLUMN", help="obs column(s) of the batch")
    add("--layer", help="The layer that holds the raw counts, or raw (default: X)")
    add_options(parser, ValuesOptions)
    add(
        "--key_added",
        type=cli.new_element,
        default="X_scvi",
        help="obsm key of the result (default: %(default)s)",
    )
    add_options(parser, SCVIOptions)
    cli.add_device_options(parser)
    cli.add_run_options(parser, overwrite="Replace an existing result")
    return parser


def main(args):
    """Fit, write the embedding and its record."""
    from integration import stores
    from preprocessing.stores import counts_of
    from utils.io import keep_existing, open_store

    options = as_arguments(read_options(SCVIOptions, args))
    if keep_existing(args.output_file, overwrite=args.overwrite):
        return
    root = open_store(args.input_file)
    if problem := missing_package(SCVIOptions):
        raise ValueError(problem)
    stores.check_new_elements(root, [f"obsm/{args.key_added}"], overwrite=args.overwrite)
    values = as_arguments(read_options(ValuesOptions, args))
    matrix = counts_of(root, args.layer, needed_by="scvi", **values)
    batches = stores.read_covariates(root, args.batch, batch=args.batch)
    genes = stores.highly_variable_positions(root)
    counts = stores.read_counts(matrix, genes)
    chosen = "all" if genes is None else "var/highly_variable"
    say(f"{counts.shape[0]:,} cells x {counts.shape[1]:,} genes ({chosen})")

    from integration.scvi import embed_with_scvi

    run = {"seed": args.seed, "use_gpu": args.use_gpu, "n_cell_cpu": args.n_cell_cpu}
    result, device, version = embed_with_scvi(counts, batches, **run, **options)
    record = {
        "method": "scvi",
        "batch": args.batch,
        "genes": chosen,
        "n_genes": counts.shape[1],
        "n_epochs": len(result.history),
        "history": result.history,
        "seed": args.seed,
        **device.record(),
        "scvi-tools": version,
        "params": options,
    }
    stores.write_embedding(
        args.output_file, args.input_file, args.key_added, result.latent, record, {}
    )
    say(f"{args.output_file}: {args.key_added}, {len(result.history)} epochs")


if __name__ == "__main__":
    cli.run(main, make_parser())
