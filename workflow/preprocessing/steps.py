"""The steps before the integration: what they write, their command lines, memory and time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from preprocessing.options import DoubletOptions, PCAOptions, PrepareOptions
from utils.options import named, option_words, words
from utils.paths import is_store
from utils.resources import n_cells, n_genes, n_values, size_mb
from utils.steps import Step

if TYPE_CHECKING:
    from preprocessing.options import PreprocessingOptions

STORES = {
    "prepared": "{dataset}/prepared.zarr",
    "doublets": "{dataset}/doublets.zarr",
    "pca": "{dataset}/pca.zarr",
}


def matrix_words(section: PreprocessingOptions) -> list[str]:
    """Write where the counts are, and what the user says that they are."""
    # `raw` has become X when the files were prepared.
    layer = None if section.layer == "raw" else section.layer
    return words(layer=layer, values=section.values)


def hvg_words(section: PreprocessingOptions) -> list[str]:
    """Write which genes can be variable, where it matters to others than the PCA."""
    return words(pca_args={"hvg": section.hvg} if section.hvg else None)


def _prepare(job: Any) -> list[str]:
    dataset = job.dataset
    line = option_words(PrepareOptions, dataset.preprocessing)
    if len(job.files) > 1:
        line += named("--batch", dataset.integration.batch or [])
    line += words(values=dataset.preprocessing.values)
    if dataset.stage != "preprocessing":
        line += words(stage=dataset.stage)
        keys = ("recompute_umap", "recompute_neighbors")
        line += [f"--{name}" for name in keys if getattr(dataset.clustering, name)]
    return line


def _prepare_memory(job: Any, inputs: list[str]) -> float:
    """Annotations and embeddings are read whole, matrices in blocks.

    A 10x matrix is read whole: 7 times the size of its ``.h5``, 11 times that of ``.mtx.gz`` were
    measured.
    """
    tenx = [file for file in inputs if not is_store(file)]
    return 2 * size_mb(inputs) + 12 * size_mb(tenx)


def _pca(job: Any) -> list[str]:
    section = job.dataset.preprocessing
    return ["--overwrite", *matrix_words(section), *option_words(PCAOptions, section)]


def _pca_memory(job: Any, inputs: list[str]) -> float:
    """22 to 31 bytes were measured for each pair of its genes."""
    genes = n_genes(inputs[0])
    return 36 * min(job.dataset.preprocessing.n_top_genes or genes, genes) ** 2 / 1e6


def _doublets(job: Any) -> list[str]:
    section = job.dataset.preprocessing
    line = ["--overwrite", *matrix_words(section), *option_words(DoubletOptions, section)]
    if section.sample_key is None:
        line += words(sample_key=(job.dataset.integration.batch or [None])[0])
    return line + job.run_words("preprocessing", device=False)


def _doublets_memory(job: Any, inputs: list[str]) -> float:
    """8 bytes for each count of 100,000 cells, while they are joined twice."""
    share = min(1, 1e5 / max(n_cells(inputs[0]), 1))
    return 16 * share * n_values(inputs[0]) / 1e6


STEPS = {
    "prepare": Step(
        script="preprocessing/scripts/prepare.py",
        words=_prepare,
        memory=(1000, 0),
        more_memory=_prepare_memory,
        minutes=(60, 0),
    ),
    "doublets": Step(
        script="preprocessing/scripts/doublets.py",
        words=_doublets,
        memory=(2500, 100),
        more_memory=_doublets_memory,
        minutes=(10, 120),
    ),
    "pca": Step(
        script="preprocessing/scripts/pca.py",
        words=_pca,
        memory=(2000, 200),
        more_memory=_pca_memory,
        minutes=(10, 30),
    ),
}
