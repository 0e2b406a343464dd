#!/usr/bin/env python
"""Embed raw counts with a variational autoencoder that is told the batch: PVAE or GMVAE."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
import json

from utils import cli
from utils.log import say


def make_parser():
    """Define the command line."""
    parser = cli.script_parser(
        "Embed raw counts with a Poisson variational autoencoder whose decoder is told the batch.\n"
        "\n"
        "pvae has one Gaussian as the prior of the embedding, gmvae a mixture, whose likeliest\n"
        "component is the label of each cell. The genes are those of var/highly_variable where it\n"
        "is there, else all. Needs torch, which uses one thread on the CPU: more change the bits."
    )
    add = parser.add_argument
    add("--method", choices=["pvae", "gmvae"], default="pvae", help="Model (default: %(default)s)")
    add("--batch", nargs="+", required=True, metavar="COLUMN", help="obs column(s) of the batch")
    add("--layer", help="The layer that holds the raw counts, or raw (default: X)")
    cli.add_model(parser, "Values")
    add(
        "--key_added",
        type=cli.element_name,
        help="obsm key of the result (default: X_pvae or X_gmvae)",
    )
    cli.add_model(parser, "GMVAE")
    cli.add_device_options(parser)
    cli.add_run_options(parser, overwrite="Replace a result that is there")
    return parser


def main(args):
    """Fit, write the embedding, its record and the labels."""
    import pandas as pd
    from anndata import AnnData

    from integration.gene_counts import read_counts, variable_genes
    from preprocessing.counts import counts_of
    from utils.extras import missing_package
    from utils.io import kept, keys, open_store, read_index, write_zarr_linked

    options = vars(cli.from_options(args.method.upper(), args))
    key = args.key_added or f"X_{args.method}"
    label = f"{key.removeprefix('X_')}_label"
    if kept(args.output_file, overwrite=args.overwrite):
        return
    root = open_store(args.input_file)
    if problem := missing_package(args.method):
        raise ValueError(problem)
    present = [f"obsm/{key}"] if key in keys(root, "obsm") else []
    if args.method == "gmvae" and label in keys(root, "obs"):
        present.append(f"obs/{label}")
    if present and not args.overwrite:
        raise ValueError(
            f"{args.input_file} has {' and '.join(present)} already; --overwrite replaces it, "
            "--key_added names another"
        )
    matrix = counts_of(
        root, args.layer, needed_by=args.method, **vars(cli.from_options("Values", args))
    )
    covariates = read_covariates(root, args.batch, options.pop("covariates"))
    genes = variable_genes(root)
    counts = read_counts(matrix, genes)
    chosen = "all" if genes is None else "var/highly_variable"
    say(f"{counts.shape[0]:,} cells x {counts.shape[1]:,} genes ({chosen})")
    found, device = embed(args, counts, covariates, options)
    record = {
        "method": args.method,
        "covariates": list(covariates),
        "genes": chosen,
        "n_genes": counts.shape[1],
        "n_epochs": len(found["history"]),
        "history": found["history"],
        "seed": args.seed,
        **device.record(),
        "torch": found["torch"],
        "params": options,
    }
    obs = pd.DataFrame(index=read_index(root, "obs"))
    new = [f"obsm/{key}", f"uns/{key}"]
    if args.method == "gmvae":
        obs[label] = labels_by_size(found["probabilities"])
        new.append(f"obs/{label}")
    adata = AnnData(obs=obs, obsm={key: found["latent"]}, uns={key: json.dumps(record)})
    write_zarr_linked(adata, args.input_file, args.output_file, files_to_keep=new)
    last = max(found["history"], key=lambda epoch: epoch.get("held_out_elbo", epoch["epoch"]))
    kind = "held_out_elbo" if "held_out_elbo" in last else "elbo"
    say(
        f"{args.output_file}: {key}, {len(found['history'])} epochs; {kind} {last[kind]:.2f} "
        f"in epoch {last['epoch']}"
    )


def read_covariates(root, batch, covariates):
    """Read the columns that the decoder is given: the batch, or those that were named."""
    from utils.io import obs_column

    columns = {name: obs_column(root, name) for name in covariates or batch}
    # A batch is a category, however it is written.
    return {k: v.astype(object) if k in batch else v for k, v in columns.items()}


def embed(args, counts, covariates, options):
    """Fit on the GPU where that was decided and works, else on the CPU."""
    import torch

    from integration import vae
    from integration.pytorch import torch_gpu_problem
    from integration.vae.design import design
    from utils.device import choose_device, try_gpu

    columns = design(covariates)
    label_dim = options.get("label_dim")
    fitting = {k: v for k, v in options.items() if not k.endswith("_dim")}

    def compute(where):
        shape = (counts.shape[1], options["latent_dim"], columns.shape[1])
        sizes = {"hidden_dim": options["hidden_dim"], "seed": args.seed}
        if label_dim is None:
            model = vae.PVAE(*shape, **sizes)
        else:
            model = vae.GMVAE(*shape, label_dim, **sizes)
        model.fit(counts, columns, seed=args.seed, verbose=True, device=where, **fitting)
        found = {"latent": model.latent(counts, device=where), "history": model.history}
        if label_dim is not None:
            found["probabilities"] = model.probabilities(counts, device=where)
        return found | {"torch": torch.__version__}

    device = choose_device(
        counts.shape[0],
        use_gpu=args.use_gpu,
        n_cell_cpu=args.n_cell_cpu,
        problem=torch_gpu_problem,
    )
    result, device = try_gpu(device, lambda: compute("cuda"))
    say(f"device: {device}")
    return result or compute("cpu"), device


def labels_by_size(probabilities):
    """Return the likeliest label of every cell as a categorical, the largest group is 0."""
    import numpy as np
    import pandas as pd

    there = ~np.isnan(probabilities[:, 0])
    likeliest = probabilities[there].argmax(axis=1)
    sizes = np.bincount(likeliest, minlength=probabilities.shape[1])
    rank = np.argsort(np.argsort(-sizes, kind="stable"))
    codes = np.full(len(probabilities), -1)
    codes[there] = rank[likeliest]
    names = [str(number) for number in range(np.count_nonzero(sizes))]
    return pd.Categorical.from_codes(codes, names)


if __name__ == "__main__":
    cli.run(main, make_parser())
