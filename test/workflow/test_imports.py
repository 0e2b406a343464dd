"""A job pays for every import: no step loads a package that it does not use."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from running import REPO

# Packages that take a tenth of a second or more, and which step may load them.
HEAVY = {
    "anndata", "h5py", "igraph", "leidenalg", "matplotlib", "numba", "pandas", "pydantic",
    "scanpy", "scipy", "sklearn", "snakemake", "torch", "umap", "zarr",
}  # fmt: skip
PLAIN = {"scipy", "zarr"}  # utils/encoding.py, utils/elements.py
STORES = {"scipy", "zarr", "pandas", "anndata", "h5py"}
if sys.version_info >= (3, 12):  # whose anndata loads it too
    STORES |= {"pydantic"}
LOADED = {
    "preprocessing/scripts/prepare.py": STORES,
    "preprocessing/scripts/pca.py": PLAIN | {"pandas", "pydantic"},  # checks its n_top_genes
    "integration/scripts/harmony.py": PLAIN,
    "clustering/scripts/neighbors.py": PLAIN | {"numba"},
    "clustering/scripts/umap.py": PLAIN,
    "clustering/scripts/clustering.py": PLAIN | {"numba"},  # Leiden in its default flavor
    "clustering/scripts/merge.py": {"zarr"},
    "evaluation/scripts/plots.py": {"matplotlib", "pandas", "zarr"},
    "evaluation/scripts/comparison.py": {"matplotlib", "pandas", "zarr"},
    "explorer/scripts/explorer.py": {"matplotlib", "pandas", "zarr"},
}


def loaded_by(command: list[str], folder) -> set[str]:
    """Return the packages that a command imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], cwd=folder, capture_output=True, text=True
    )
    errors = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 0, "\n".join(errors)
    modules = re.findall(r"^import time: .*\| +([\w.]+)$", done.stderr, re.MULTILINE)
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("script", LOADED)
def test_modules_of_each_step(script, pancreas, tmp_path):
    # Jobs are printed in any order: of the clusterings, one of Leiden.
    which = " .*?/leiden_" if script.endswith("/clustering.py") else " "
    pattern = rf"python (\S*/{re.escape(script)}{which}.*?) 2>&1"
    command = shlex.split(re.search(pattern, (pancreas / "printed.txt").read_text())[1])
    # Behind the input, or behind several.
    written = next((i for i, word in enumerate(command) if word.endswith("/comparison")), 2)
    command[written] = str(tmp_path / f"out{Path(command[written]).suffix}")
    found = loaded_by(command, pancreas) & HEAVY
    assert found == LOADED[script], f"{script} loads {sorted(found)}"


SCRIPTS = sorted(
    str(path.relative_to(REPO / "workflow")) for path in REPO.glob("workflow/*/scripts/*.py")
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_loads_nothing_heavy(script, tmp_path):
    found = loaded_by([str(REPO / "workflow" / script), "--help"], tmp_path) & HEAVY
    assert not found, f"{script} --help loads {sorted(found)}"
