#!/usr/bin/env python
"""Lay the cells out in two dimensions from their neighbor graph, or use the layout they have."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from clustering.options import NeighborsKeyOptions, UMAPOptions
from utils import cli
from utils.log import say
from utils.option_values import read_options
from utils.options import add_options, as_arguments


def make_parser():
    """Define the command line."""
    parser = cli.script_parser("Compute obsm/X_umap from the neighbor graph.")
    add_options(parser, NeighborsKeyOptions)
    add_options(parser, UMAPOptions)
    cli.add_device_options(parser)
    cli.add_run_options(parser, overwrite="Compute the layout even where the input has an X_umap")
    return parser


def main(args):
    """Lay out, write obsm/X_umap."""
    from clustering.dispatch import compute_layout
    from clustering.stores import read_community_graph, write_layout
    from utils.io import keep_existing, keys, new_store, open_store

    options = read_options(UMAPOptions, args)
    if keep_existing(args.output_file, overwrite=args.overwrite, source=args.input_file):
        return
    root = open_store(args.input_file)
    if not args.overwrite and "X_umap" in keys(root, "obsm"):
        say(f"{args.input_file}: uses its X_umap; --overwrite recomputes it")
        with new_store(args.output_file, source=args.input_file):
            return
    layout, device = compute_layout(
        read_community_graph(root, args.neighbors_key),
        seed=args.seed,
        use_gpu=args.use_gpu,
        n_cell_cpu=args.n_cell_cpu,
        threads=args.threads,
        **as_arguments(options),
    )
    params = {"min_dist": options.min_dist, "spread": options.spread, "seed": args.seed}
    params |= device.record()
    write_layout(args.output_file, layout, source=args.input_file, params=params)
    say(f"{args.output_file}: X_umap of {layout.shape[0]:,} cells")


if __name__ == "__main__":
    cli.run(main, make_parser())
