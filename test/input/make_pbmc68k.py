"""Make pbmc68k.h5ad from the file that scanpy's wheel carries, with a synthetic batch column."""

from pathlib import Path

import numpy as np
import scanpy as sc

adata = sc.datasets.pbmc68k_reduced()
batch = np.random.default_rng(0).integers(0, 3, adata.n_obs)
adata.obs["batch"] = batch.astype(str)
adata.obs["batch"] = adata.obs["batch"].astype("category")
adata.write_h5ad(Path(__file__).parent / "pbmc68k.h5ad", compression="gzip")
