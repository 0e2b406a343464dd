#!/usr/bin/env python
"""Compute the neighbor graph of a data set, or use the one it has."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from clustering.options import NeighborsKeyOptions, NeighborsOptions
from utils import cli
from utils.log import say
from utils.option_values import read_options
from utils.options import add_options


def make_parser():
    """Define the command line."""
    parser = cli.script_parser("Compute the neighbor graph of a representation.")
    add_options(parser, NeighborsKeyOptions)
    add_options(parser, NeighborsOptions)
    cli.add_device_options(parser)
    cli.add_run_options(parser, overwrite="Compute neighbors even where the input has them")
    return parser


def main(args):
    """Search, weigh, write obsp and uns."""
    from clustering.dispatch import compute_neighbors
    from clustering.stores import graph_key, read_representation, write_neighbors
    from utils.io import keep_existing, keys, new_store, open_store

    options = read_options(NeighborsOptions, args)
    key = read_options(NeighborsKeyOptions, args).neighbors_key
    if keep_existing(args.output_file, overwrite=args.overwrite, source=args.input_file):
        return
    root = open_store(args.input_file)
    if not args.overwrite and key in keys(root, "uns"):
        connectivities = graph_key(root, key, "connectivities")
        if connectivities in keys(root, "obsp"):
            say(f"{args.input_file}: uses its neighbors {key}; --overwrite recomputes them")
            with new_store(args.output_file, source=args.input_file):
                return
        say(f"{args.input_file}: uns has {key} but obsp has no {connectivities}: recomputing it")
    use_rep, representation = read_representation(root, options.use_rep, key)
    graph, device = compute_neighbors(
        representation,
        n_neighbors=options.n_neighbors,
        metric=options.metric,
        seed=args.seed,
        use_gpu=args.use_gpu,
        n_cell_cpu=args.n_cell_cpu,
        threads=args.threads,
    )
    write_neighbors(
        args.output_file,
        graph,
        source=args.input_file,
        neighbors_key=key,
        params={"use_rep": use_rep, **device.record()},
    )
    say(
        f"{args.output_file}: {graph.connectivities.nnz:,} neighbors of "
        f"{representation.shape[0]:,} cells in {use_rep}"
    )


if __name__ == "__main__":
    cli.run(main, make_parser())
