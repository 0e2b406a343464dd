"""Principal components of a store: how often it is read, what is written, what a failure leaves."""

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from numerics.normalize import normalize_block
from preprocessing import expression
from preprocessing.components import add_pca
from preprocessing.expression import BlockFile, ExpressionReader
from preprocessing.options import VariableGenesOptions
from preprocessing.pca import gram_pca, pca_scores
from utils import blocks as utils_blocks
from utils.atomic import scratch_file

N_CELLS, N_BLOCKS = 350, 4
OPTIONS = {
    "layer": None,
    "values": None,
    "n_comps": 8,
    "n_top_genes": 60,
    "flavor": "seurat",
    "batch_key": None,
    "hvg": None,
    "normalize": True,
    "target_sum": 1e4,
    "threads": 1,
}


@pytest.fixture
def counts(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.poisson(rng.gamma(0.5, 1, 200) * rng.gamma(2, 0.5, (N_CELLS, 200))).astype("f4")
    adata = anndata.AnnData(
        sp.csr_matrix(X),
        obs=pd.DataFrame({"batch": list("ab") * (N_CELLS // 2)}, index=map(str, range(N_CELLS))),
        var=pd.DataFrame({"mine": np.arange(200) < 50}, index=[f"g{i}" for i in range(200)]),
    )
    adata.write_zarr(tmp_path / "in.zarr")
    return tmp_path / "in.zarr"


@pytest.fixture
def n_read(monkeypatch):
    """Count the blocks of X that are decompressed; there are `N_BLOCKS` of them."""
    read = []
    map_blocks = expression.map_blocks

    def counted(function, *args, **options):
        def reading(first_cell, block):
            read.append(block.shape[0])
            return function(first_cell, block)

        return map_blocks(reading, *args, **options)

    monkeypatch.setattr(utils_blocks, "BLOCK_ROWS", 100)
    monkeypatch.setattr(expression, "map_blocks", counted)
    return lambda: len(read)


MINE = VariableGenesOptions(use="mine")


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({}, 2),  # the choice of genes, their values
        ({"threads": 2}, 2),
        ({"batch_key": "batch"}, 2),
        ({"target_sum": None}, 3),  # the median total is known after a pass
        ({"flavor": "seurat_v3"}, 3),  # the choice takes two
        ({"flavor": "seurat_v3", "target_sum": None}, 3),  # of which the first sums the cells
        ({"n_top_genes": None}, 1),
        ({"n_top_genes": None, "normalize": False}, 1),
        ({"hvg": MINE}, 1),
        ({"hvg": MINE, "target_sum": None}, 2),
        ({"flavor": "seurat_v3", "normalize": False}, 3),
    ],
)
def test_no_block_is_decompressed_more_often_than_needed(counts, tmp_path, n_read, options, passes):
    out = tmp_path / "out.zarr"
    add_pca(counts, out, **(OPTIONS | options))
    assert n_read() == passes * N_BLOCKS

    # The same bits as from the values read again for the scores.
    written = anndata.read_zarr(out)
    genes = written.var.get("highly_variable", pd.Series([True] * 200)).to_numpy()
    values = written.X[:, genes]
    if options.get("normalize", True):
        totals = np.asarray(written.X.sum(axis=1), dtype=float).ravel()
        target_sum = options.get("target_sum", 1e4) or np.median(totals)
        values = normalize_block(values, target_sum=target_sum, totals=totals)
    pca = gram_pca(lambda: [values], n_comps=8)
    np.testing.assert_array_equal(written.varm["PCs"][genes], pca.components)
    assert not written.varm["PCs"][~genes].any()
    scores = list(pca_scores(lambda: [values], pca.components, pca.mean))
    np.testing.assert_array_equal(written.obsm["X_pca"], np.concatenate(scores))
    assert written.uns["pca"]["params"]["n_top_genes"] == genes.sum()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zarr", "out.zarr"]


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, np.asarray])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_key": "batch", "target_sum": None},
        {"flavor": "seurat_v3", "batch_key": "batch"},
        {"normalize": False, "n_top_genes": None},
    ],
)
def test_stores_do_not_depend_on_threads_and_blocks(counts, tmp_path, monkeypatch, form, options):
    adata = anndata.read_zarr(counts)
    adata.X = form(adata.X.toarray())
    adata.write_zarr(counts)
    written = []
    for threads, block_values in ((1, 1 << 21), (3, 1 << 21), (2, 20 * 200)):
        monkeypatch.setattr(utils_blocks, "BLOCK_VALUES", block_values)
        out = tmp_path / "out.zarr"
        add_pca(counts, out, **(OPTIONS | options | {"threads": threads}))
        files = [path for path in sorted(out.rglob("*")) if not path.is_dir()]
        written.append({path.relative_to(out): path.read_bytes() for path in files})
    assert written[0] == written[1] == written[2]


@pytest.mark.parametrize("options", [{"hvg": MINE}, {"hvg": MINE, "normalize": False}])
def test_a_bad_value_of_any_gene_is_named_in_the_only_pass(counts, tmp_path, options):
    adata = anndata.read_zarr(counts)
    adata.X = adata.X.toarray()
    adata.X[310, 177] = np.nan
    adata.write_zarr(counts)
    with pytest.raises(ValueError, match='cell "310", gene "g177"'):
        add_pca(counts, tmp_path / "out.zarr", **(OPTIONS | {"values": "counts"} | options))


@pytest.mark.parametrize("form", [sp.csr_matrix, np.asarray, np.asfortranarray])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
def test_blocks_come_back_as_they_were_in_float32(form, dtype):
    matrix = np.random.default_rng(0).poisson(0.5, (30, 7)).astype(dtype)
    blocks = [form(matrix[:20]), form(matrix[20:])]
    file = BlockFile(io.BytesIO())
    assert list(map(id, file.write(blocks))) == list(map(id, blocks))
    for _ in range(2):
        for block, again in zip(blocks, file.read(), strict=True):
            assert again.dtype == np.float32 and sp.issparse(again) == sp.issparse(block)
            if sp.issparse(block):
                np.testing.assert_array_equal(again.indices, block.indices)
                block, again = block.toarray(), again.toarray()
            np.testing.assert_array_equal(again, block)
            assert again.flags.f_contiguous == block.flags.f_contiguous


def test_cut_blocks_have_the_same_values(counts):
    from utils.io import open_store

    values = ExpressionReader(open_store(counts)["X"], normalize=True, target_sum=None)
    whole = sp.vstack(list(values.blocks("whole"))).toarray()
    parts = [block.toarray() for block in values.blocks("cut", rows=33)]
    assert len(parts) == -(-N_CELLS // 33)
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_full_disk_is_an_error_of_the_output(tmp_path):
    out = tmp_path / "new" / "out.zarr"
    full = pytest.raises(OSError, match="cannot be written: No space left")
    with full as error, scratch_file(out):
        assert not any(out.parent.iterdir())
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert error.value.filename == str(out)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_of_a_file_whose_process_was_killed(tmp_path, number):
    code = (
        "import signal, sys; from utils.atomic import scratch_file\n"
        "with scratch_file(sys.argv[1]) as file:\n"
        "    file.write(bytes(1 << 20)); file.flush(); print('written', flush=True)\n"
        "    signal.pause()"
    )
    workflow = Path(expression.__file__).parents[1]
    command = [sys.executable, "-c", code, tmp_path / "out.zarr"]
    with subprocess.Popen(command, cwd=workflow, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        process.send_signal(number)
    assert process.returncode == -number
    assert not any(tmp_path.iterdir())
