#!/usr/bin/env python
"""Integrate the batches of an embedding with Harmony."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from integration.options import HarmonyOptions, IntegrationOptions
from utils import cli
from utils.log import say
from utils.option_values import read_options
from utils.options import add_options, as_arguments


def make_parser():
    """Define the command line."""
    parser = cli.script_parser("Integrate the batches of an embedding with Harmony.")
    add = parser.add_argument
    add("--batch", nargs="+", required=True, metavar="COLUMN", help="obs column(s) of the batch")
    add(
        "--basis",
        default=IntegrationOptions.basis,
        help="obsm key to start from (default: %(default)s)",
    )
    add(
        "--key_added",
        type=cli.new_element,
        default="X_harmony",
        help="obsm key of the result (default: %(default)s)",
    )
    add("--qc_column", metavar="COLUMN", help="Only cells that are true here; others become NaN")
    add_options(parser, HarmonyOptions)
    cli.add_device_options(parser)
    cli.add_run_options(parser, overwrite="Replace an existing result")
    return parser


def main(args):
    """Integrate, write one embedding."""
    from integration import stores
    from utils.elements import read_batch, read_column, read_embedding
    from utils.io import keep_existing, open_store

    options = as_arguments(read_options(HarmonyOptions, args))
    if keep_existing(args.output_file, overwrite=args.overwrite, source=args.input_file):
        return
    root = open_store(args.input_file)
    stores.check_new_elements(root, [f"obsm/{args.key_added}"], overwrite=args.overwrite)
    batches = [read_batch(root, column) for column in args.batch]
    mask = None
    if args.qc_column:
        mask = read_column(root, args.qc_column)
        if mask.dtype != bool:
            raise TypeError(f'adata.obs["{args.qc_column}"] must be true or false: {mask.dtype}')
        mask = mask.to_numpy()
    result, device = integrate(
        args,
        read_embedding(root, args.basis),
        batches,
        mask=mask,
        key_names=args.batch,
        verbose=True,
        **options,
    )
    record = {
        "method": "harmony",
        "batch": args.batch,
        "basis": args.basis,
        "n_iterations": len(result.rounds),
        "converged": result.converged,
        "seed": args.seed,
        **device.record(),
        "params": options,
    }
    files = args.output_file, args.input_file
    stores.write_embedding(*files, args.key_added, result.corrected, record)
    end = "converged" if result.converged else "stopped"
    say(f"{args.output_file}: {args.key_added}, {end} after {len(result.rounds)} iterations")


def integrate(args, Z, batches, **options):
    """Run Harmony on the GPU where that was decided and works, else on the CPU."""
    from dataclasses import replace

    from integration.harmony import harmonize
    from utils.device import choose_device, try_gpu

    device = choose_device(len(Z), use_gpu=args.use_gpu, n_cell_cpu=args.n_cell_cpu)

    def on_gpu():
        import cupy

        result = harmonize(cupy.asarray(Z), batches, seed=args.seed, **options)
        return replace(result, corrected=cupy.asnumpy(result.corrected))

    result, device = try_gpu(device, on_gpu)
    if result is None:
        result = harmonize(Z, batches, seed=args.seed, threads=args.threads, **options)
    say(f"device: {device}")
    return result, device


if __name__ == "__main__":
    cli.run(main, make_parser())
