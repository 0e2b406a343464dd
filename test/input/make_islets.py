"""Make islets_baron.h5ad and islets_muraro.h5ad of pancreas_mini.h5ad: a file for each study.

Each has the genes that are detected in three of its cells, and no column that names the study, as
the files of two laboratories.
"""

from pathlib import Path

import anndata

FOLDER = Path(__file__).resolve().parent

whole = anndata.read_h5ad(FOLDER / "pancreas_mini.h5ad")
for study in ("Baron", "Muraro"):
    cells = whole[whole.obs["batch"].astype(str).str.startswith(study)]
    cells = cells[:, cells.X.getnnz(axis=0) >= 3].copy()
    del cells.obs["batch"]
    cells.write_h5ad(FOLDER / f"islets_{study.lower()}.h5ad", compression="gzip")
    print(study, cells.shape)
