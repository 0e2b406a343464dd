#!/usr/bin/env python
"""Embed raw counts with a variational autoencoder that is told the batch: PVAE or GMVAE."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from integration.method_chains import missing_package
from integration.options import METHODS, GMVAEOptions
from preprocessing.options import ValuesOptions
from utils import cli
from utils.log import say
from utils.option_values import read_options
from utils.options import add_options, as_arguments


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Embed raw counts with a Poisson variational autoencoder whose decoder is told the batch.\n"
        "\n"
        "pvae has one Gaussian as the prior of the embedding, gmvae a mixture, whose likeliest\n"
        "component is the label of each cell. The genes are those of var/highly_variable where it\n"
        "exists, else all. Needs torch, which uses one thread on the CPU: more change the bits."
    )
    add = parser.add_argument
    add("--method", choices=["pvae", "gmvae"], default="pvae", help="Model (default: %(default)s)")
    add("--batch", nargs="+", required=True, metavar="COLUMN", help="obs column(s) of the batch")
    add("--layer", help="The layer that holds the raw counts, or raw (default: X)")
    add_options(parser, ValuesOptions)
    add(
        "--key_added",
        type=cli.new_element,
        help="obsm key of the result (default: X_pvae or X_gmvae)",
    )
    add_options(parser, GMVAEOptions)
    cli.add_device_options(parser)
    cli.add_run_options(parser, overwrite="Replace an existing result")
    return parser


def main(args):
    """Fit, write the embedding, its record and the labels."""
    from integration import stores
    from preprocessing.stores import counts_of
    from utils.io import keep_existing, open_store

    options = as_arguments(read_options(METHODS[args.method], args))
    key = args.key_added or f"X_{args.method}"
    label = f"obs/{key.removeprefix('X_')}_label"
    if keep_existing(args.output_file, overwrite=args.overwrite):
        return
    root = open_store(args.input_file)
    if problem := missing_package(METHODS[args.method]):
        raise ValueError(problem)
    new = [f"obsm/{key}", *([label] if args.method == "gmvae" else [])]
    stores.check_new_elements(root, new, overwrite=args.overwrite)
    values = as_arguments(read_options(ValuesOptions, args))
    matrix = counts_of(root, args.layer, needed_by=args.method, **values)
    names = options.pop("covariates") or args.batch
    covariates = stores.read_covariates(root, names, batch=args.batch)
    genes = stores.highly_variable_positions(root)
    counts = stores.read_counts(matrix, genes)
    chosen = "all" if genes is None else "var/highly_variable"
    say(f"{counts.shape[0]:,} cells x {counts.shape[1]:,} genes ({chosen})")

    import torch

    from integration.vae import embed_counts, labels_by_size

    run = {"seed": args.seed, "use_gpu": args.use_gpu, "n_cell_cpu": args.n_cell_cpu}
    result = embed_counts(counts, covariates, verbose=True, **run, **options)
    record = {
        "method": args.method,
        "covariates": list(covariates),
        "genes": chosen,
        "n_genes": counts.shape[1],
        "n_epochs": len(result.history),
        "history": result.history,
        "seed": args.seed,
        **result.device.record(),
        "torch": torch.__version__,
        "params": options,
    }
    others = {}
    if result.probabilities is not None:
        others[label] = labels_by_size(result.probabilities)
    stores.write_embedding(args.output_file, args.input_file, key, result.latent, record, others)
    last = max(result.history, key=lambda epoch: epoch.get("held_out_elbo", epoch["epoch"]))
    kind = "held_out_elbo" if "held_out_elbo" in last else "elbo"
    say(
        f"{args.output_file}: {key}, {len(result.history)} epochs; {kind} {last[kind]:.2f} "
        f"in epoch {last['epoch']}"
    )


if __name__ == "__main__":
    cli.run(main, make_parser())
