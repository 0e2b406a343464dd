#!/usr/bin/env python
"""Lay the cells out in two dimensions from their neighbor graph, or use the layout they have."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from clustering.options import NeighborsKeyOptions, UMAPOptions
from utils import cli
from utils.log import say
from utils.options import add_options, as_arguments, read_options


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
    from utils.io import kept, keys, new_store, open_store, write_element

    options = read_options(UMAPOptions, args)
    if kept(args.output_file, overwrite=args.overwrite, source=args.input_file):
        return
    root = open_store(args.input_file)
    if not args.overwrite and "X_umap" in keys(root, "obsm"):
        say(f"{args.input_file}: uses its X_umap; --overwrite computes it again")
        with new_store(args.output_file, source=args.input_file):
            return
    layout, device = compute(args, root, options)
    new = ["obsm/X_umap", "uns/umap"]
    with new_store(args.output_file, source=args.input_file, new=new) as store:
        write_element(store, "obsm/X_umap", layout)
        params = {"min_dist": options.min_dist, "spread": options.spread, "seed": args.seed}
        write_element(store, "uns/umap", {"params": {**params, **device.record()}})
    say(f"{args.output_file}: X_umap of {layout.shape[0]:,} cells")


def compute(args, root, options):
    """Lay out on the GPU where that was decided and works, else on the CPU."""
    from clustering.stores import read_graph
    from utils.device import choose_device, try_gpu

    graph = read_graph(root, args.neighbors_key)
    device = choose_device(graph.shape[0], use_gpu=args.use_gpu, n_cell_cpu=args.n_cell_cpu)
    parameters = {**as_arguments(options), "seed": args.seed}

    def on_gpu():
        from clustering.rapids import umap_layout_gpu

        return umap_layout_gpu(graph, **parameters)

    layout, device = try_gpu(device, on_gpu)
    if layout is None:
        from clustering.umap import umap_layout

        layout = umap_layout(graph, threads=args.threads, **parameters)
    say(f"device: {device}")
    return layout, device


if __name__ == "__main__":
    cli.run(main, make_parser())
