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
from utils.log import say
from utils.option_values import read_options
from utils.options import add_options, as_arguments

CHOICES = ("mnn", "fast_mnn", "mnn_correct")


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
        type=cli.new_element,
        default=f"X_{method}",
        help="obsm key of the result (default: %(default)s)",
    )
    add("--table", help="File for the diagnostics of every merge (.tsv)")
    add_options(parser, METHODS[method])
    cli.add_run_options(parser, overwrite="Replace an existing result")
    return parser


def main(args):
    """Read an embedding or counts, correct, write the embedding and what happened at each merge."""
    from integration import stores
    from integration.mnn import embeddings
    from utils.atomic import atomic_file
    from utils.elements import read_column, read_embedding
    from utils.io import keep_existing, open_store

    options = as_arguments(read_options(METHODS[args.method], args))
    if keep_existing(args.output_file, overwrite=args.overwrite, source=args.input_file):
        return
    root = open_store(args.input_file)
    stores.check_new_elements(root, [f"obsm/{args.key_added}"], overwrite=args.overwrite)
    batch = [read_column(root, column) for column in args.batch]
    run = {**options, "threads": args.threads, "seed": args.seed, "verbose": True}
    for name in ("restrict", "clusters"):
        if options[name] is not None:
            run[name] = read_column(root, options[name]).to_numpy()
    if args.method == "mnn":
        basis = run["basis"] = args.basis
        start = read_embedding(root, basis)
    else:
        basis = args.layer or "X"
        start = stores.open_expression(
            root,
            args.layer,
            method=args.method,
            normalize=run.pop("normalize"),
            target_sum=run.pop("target_sum"),
            all_genes=run.get("layer_added") is not None,
            **as_arguments(read_options(ValuesOptions, args)),
        )
    embedding, result, of_genes = embeddings.CORRECT[args.method](start, batch, **run)
    merges = result.merges.drop(columns="pairs")
    record = {
        "method": args.method,
        "batch": args.batch,
        "basis": basis,
        "seed": args.seed,
        "params": options,
        "merges": json.loads(merges.to_json(orient="records")),
        "notes": list(result.notes),
    }
    slot = {"fast_mnn": f"varm/{args.key_added}", "mnn_correct": f"layers/{run.get('layer_added')}"}
    others = {} if of_genes is None else {slot[args.method]: of_genes}
    files = args.output_file, args.input_file
    stores.write_embedding(*files, args.key_added, embedding, record, others)
    if args.table:
        merges["notes"] = [" | ".join(notes) for notes in merges["notes"]]
        with atomic_file(args.table) as path:
            merges.to_csv(path, sep="\t", index=False)
    say(f"{args.output_file}: {args.key_added}, {len(merges)} merges, {len(result.notes)} notes")


if __name__ == "__main__":
    cli.run(main, make_parser())
