#!/usr/bin/env python
"""Lay the cells out in two dimensions from their neighbour graph, or use the layout they have."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from utils import cli
from utils.config import UMAP


def make_parser():
    """Define the command line."""
    parser = cli.script_parser("Compute obsm/X_umap from the neighbour graph (CPU).")
    parser.add_argument(
        "--neighbors_key",
        default="neighbors",
        help="Key for neighbors in adata.uns (default: %(default)s)",
    )
    cli.add_model(parser, UMAP)
    cli.add_device_options(parser)
    cli.add_run_options(parser, overwrite="Compute the layout even where the input has an X_umap")
    return parser


def main(args):
    """Lay out, write obsm/X_umap."""
    from clustering.columns import read_graph
    from utils.io import kept, keys, new_store, open_store, write_element

    options = cli.from_options(UMAP, args)
    if kept(args.output_file, overwrite=args.overwrite):
        return
    root = open_store(args.input_file)
    if not args.overwrite and "X_umap" in keys(root, "obsm"):
        cli.say(f"{args.input_file}: uses its X_umap; --overwrite computes it again")
        with new_store(args.output_file, source=args.input_file):
            return
    from clustering.layout import umap_layout

    layout = umap_layout(
        read_graph(root, args.neighbors_key),
        min_dist=options.min_dist,
        spread=options.spread,
        n_epochs=options.n_epochs,
        threads=args.threads,
        seed=args.seed,
    )
    new = ["obsm/X_umap", "uns/umap"]
    with new_store(args.output_file, source=args.input_file, new=new) as store:
        write_element(store, "obsm/X_umap", layout)
        params = {"min_dist": options.min_dist, "spread": options.spread, "seed": args.seed}
        write_element(store, "uns/umap", {"params": params})
    cli.say(f"{args.output_file}: X_umap of {layout.shape[0]:,} cells")


if __name__ == "__main__":
    cli.run(main, make_parser())
