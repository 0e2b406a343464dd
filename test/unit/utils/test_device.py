"""On a real GPU: the same results as on the CPU, as far as they can be the same.

Not run where there is none. Beside every figure stands what it is compared with.
"""

import numpy as np
import pandas as pd
import pytest

from clustering.communities import build, find_communities
from clustering.connectivities import neighbor_graph
from integration.harmony import harmonize, harmony_integrate
from utils.device import gpu_problem

PROBLEM = gpu_problem()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(PROBLEM is not None, reason=f"needs a GPU: {PROBLEM}"),
    # What RAPIDS says of its own dependencies is not ours.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def data():
    """Twelve types of cells in four batches, 20,000 x 30."""
    rng = np.random.default_rng(0)
    types, batches = rng.integers(12, size=20_000), rng.integers(4, size=20_000)
    Z = 3 * rng.normal(size=(12, 30))[types] + rng.normal(size=(4, 30))[batches]
    return (Z + rng.normal(size=Z.shape)).astype(np.float32), batches, types


@pytest.fixture(scope="module")
def graph(data):
    return neighbor_graph(data[0], threads=2)


@pytest.mark.parametrize("flavor", ["harmony2", "harmony1"])
@pytest.mark.parametrize("lean", [True, False])
def test_harmony_is_that_of_the_cpu(data, flavor, lean):
    import cupy

    Z, batches, _ = data
    options = {"flavor": flavor, "lean": lean, "tol_harmony": None, "max_iter_harmony": 5}
    here = harmonize(Z, batches, **options).corrected
    there = cupy.asnumpy(harmonize(cupy.asarray(Z), batches, **options).corrected)
    assert np.linalg.norm(there - here) <= 1e-3 * np.linalg.norm(here)
    assert np.abs(there - here).max() <= 1e-2 * np.abs(here).max()


def test_harmony_on_a_gpu_mixes_as_well_as_that_of_rapids(data):
    from anndata import AnnData

    Z, batches, types = data
    obs = pd.DataFrame({"batch": batches.astype(str)}, index=np.arange(len(Z)).astype(str))
    adata = AnnData(obs=obs, obsm={"X_pca": Z})
    for backend in ("cupy", "rapids"):
        harmony_integrate(adata, "batch", backend=backend, adjusted_basis=backend)

    def spread(key):
        """Return the variance between batches within types: 0 where they are mixed."""
        means = [
            [adata.obsm[key][(types == t) & (batches == b)].mean(0) for b in range(4)]
            for t in range(12)
        ]
        return np.var(means, axis=1).sum()

    assert spread("cupy") <= 1.1 * spread("rapids")
    assert spread("cupy") < 0.2 * spread("X_pca")


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbors_are_those_of_the_cpu(data, metric):
    from clustering.rapids import neighbor_graph_gpu

    Z = data[0].copy()
    Z[::1000] = np.nan
    here = neighbor_graph(Z, metric=metric, threads=2)
    there = neighbor_graph_gpu(Z, metric=metric)
    assert np.array_equal(np.diff(there.distances.indptr), np.diff(here.distances.indptr))
    common = (there.distances > 0).multiply(here.distances > 0).nnz
    assert common >= 0.98 * here.distances.nnz
    difference = abs(there.connectivities - here.connectivities)
    assert difference.sum() <= 0.03 * here.connectivities.sum()
    assert abs(there.connectivities - there.connectivities.T).max() < 1e-6
    assert not there.connectivities.diagonal().any()


@pytest.mark.parametrize("algorithm", ["leiden", "louvain"])
@pytest.mark.parametrize("resolution", [0.3, 1.0])
def test_communities_are_as_modular_as_those_of_the_cpu(graph, algorithm, resolution):
    from clustering.rapids import find_communities_gpu

    options = {"algorithm": algorithm, "resolution": resolution}
    graph = build(graph.connectivities)
    here = find_communities(graph, **options)
    there = find_communities_gpu(graph, **options)
    sizes = np.bincount(there)
    assert (sizes > 0).all()
    assert (np.diff(sizes) <= 0).all()
    found, expected = (modularity(graph, x, resolution) for x in (there, here))
    assert found >= 0.98 * expected


def modularity(graph, labels, resolution):
    weights = graph.adjacency.tocoo()
    degrees = np.bincount(weights.row, weights.data, len(labels))
    total = weights.data.sum()
    within = weights.data[labels[weights.row] == labels[weights.col]].sum()
    return within / total - resolution * (np.bincount(labels, degrees) ** 2).sum() / total**2


def test_the_layout_is_finite_and_keeps_types_together(data, graph):
    from sklearn.neighbors import KNeighborsClassifier

    from clustering.rapids import umap_layout_gpu

    layout = umap_layout_gpu(graph.connectivities)
    assert np.isfinite(layout).all()
    assert layout.std(axis=0).min() > 0.1
    model = KNeighborsClassifier(15).fit(layout[::2], data[2][::2])
    assert model.score(layout[1::2], data[2][1::2]) > 0.95
