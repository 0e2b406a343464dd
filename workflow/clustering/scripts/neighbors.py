#!/usr/bin/env python
"""Compute the neighbor graph of a data set, or use the one it has."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from clustering.options import NeighborsKeyOptions, NeighborsOptions
from utils import cli
from utils.log import say
from utils.options import add_options, read_options


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
    from clustering.stores import graph_key, read_representation
    from utils.io import kept, keys, new_store, open_store, write_element

    options = read_options(NeighborsOptions, args)
    if kept(args.output_file, overwrite=args.overwrite, source=args.input_file):
        return
    root = open_store(args.input_file)
    key = args.neighbors_key
    if not args.overwrite and key in keys(root, "uns"):
        graph = graph_key(root, key, "connectivities")
        if graph in keys(root, "obsp"):
            say(f"{args.input_file}: uses its neighbors {key}; --overwrite computes them again")
            with new_store(args.output_file, source=args.input_file):
                return
        say(f"{args.input_file}: uns has {key} but obsp has no {graph}: computed again")
    use_rep, representation = read_representation(root, options.use_rep, key)
    graph, device = compute(args, representation, options)
    names = {
        f"{matrix}_key": matrix if key == "neighbors" else f"{key}_{matrix}"
        for matrix in ("connectivities", "distances")
    }
    new = [f"uns/{key}", *(f"obsp/{name}" for name in names.values())]
    with new_store(args.output_file, source=args.input_file, new=new) as store:
        write_element(store, f"obsp/{names['distances_key']}", graph.distances)
        write_element(store, f"obsp/{names['connectivities_key']}", graph.connectivities)
        params = {**graph.params, "use_rep": use_rep, **device.record()}
        params["search"] = graph.search
        if graph.recall is not None:
            params["recall"] = graph.recall
        write_element(store, f"uns/{key}", {**names, "params": params})
    say(
        f"{args.output_file}: {graph.connectivities.nnz:,} neighbors of "
        f"{representation.shape[0]:,} cells in {use_rep}"
    )


def compute(args, representation, options):
    """Search on the GPU where that was decided and works, else on the CPU."""
    from clustering.connectivities import neighbor_graph
    from utils.device import choose_device, try_gpu

    device = choose_device(
        representation.shape[0], use_gpu=args.use_gpu, n_cell_cpu=args.n_cell_cpu
    )
    parameters = {
        "n_neighbors": options.n_neighbors,
        "metric": options.metric,
        "seed": args.seed,
    }

    def on_gpu():
        from clustering.rapids import neighbor_graph_gpu

        return neighbor_graph_gpu(representation, **parameters)

    graph, device = try_gpu(device, on_gpu)
    if graph is None:
        graph = neighbor_graph(representation, threads=args.threads, **parameters)
    say(f"device: {device}")
    return graph, device


if __name__ == "__main__":
    cli.run(main, make_parser())
