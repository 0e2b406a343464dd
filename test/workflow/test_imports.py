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
# All that scvi-tools loads, beside what is counted here.
SCVI = STORES | {"matplotlib", "numba", "pydantic", "sklearn", "torch"}
LOADED = {
    "preprocessing/scripts/prepare.py": STORES,
    # Scrublet is scanpy's, which loads nearly all.
    "preprocessing/scripts/doublets.py": STORES
    | {"igraph", "leidenalg", "matplotlib", "numba", "scanpy", "sklearn"},
    "preprocessing/scripts/pca.py": PLAIN | {"numba", "pandas", "pydantic"},  # checks n_top_genes
    "integration/scripts/harmony.py": PLAIN,
    "integration/scripts/mnn.py": PLAIN | {"numba", "pandas"},
    "integration/scripts/scvi.py": SCVI,
    "integration/scripts/topics.py": PLAIN | {"numba", "pydantic"},
    "integration/scripts/vae.py": PLAIN | {"pandas", "torch"},
    "clustering/scripts/neighbors.py": PLAIN | {"numba"},
    "clustering/scripts/umap.py": PLAIN,
    "clustering/scripts/clustering.py": PLAIN | {"numba"},  # Leiden in its default flavor
    "clustering/scripts/merge.py": {"zarr"},
    "evaluation/scripts/plots.py": {"matplotlib", "pandas", "zarr"},
    "evaluation/scripts/comparison.py": {"matplotlib", "pandas", "zarr"},
    "evaluation/scripts/doublet_clusters.py": {"pandas", "zarr"},
    "evaluation/scripts/markers.py": PLAIN
    | {"numba", "pandas", "pydantic"},  # checks its n_markers
    "evaluation/scripts/metrics.py": PLAIN | {"pandas"},
    "evaluation/scripts/robustness.py": PLAIN | {"numba", "pandas", "pydantic"},
    "evaluation/scripts/resolutions.py": PLAIN | {"numba", "pandas", "pydantic"},
    "evaluation/scripts/splits.py": PLAIN | {"numba", "pandas"},  # tests splits
    "evaluation/scripts/structure.py": {"matplotlib", "pandas", "zarr"},
    "evaluation/scripts/summary.py": set(),
    "evaluation/scripts/trees.py": {"matplotlib", "pandas", "zarr"},
    "explorer/scripts/explorer.py": {"matplotlib", "pandas", "zarr"},
}
# What the fixture does not run: words after input and output.
BY_HAND = {
    "integration/scripts/mnn.py": ["--batch", "batch"],
    "preprocessing/scripts/doublets.py": ["--sample_key", "batch"],
    "evaluation/scripts/doublet_clusters.py": ["--clusters", "cell_type", "--use_rep", "X_pca"],
    "integration/scripts/topics.py": ["--n_topics", "3", "--max_iter", "2"],
    "integration/scripts/vae.py": ["--batch", "batch"],
    "integration/scripts/scvi.py": ["--batch", "batch", "--max_epochs", "1"],
    "evaluation/scripts/structure.py": ["--key", "X_topics"],
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


SCRIPTS = sorted(
    str(path.relative_to(REPO / "workflow")) for path in REPO.glob("workflow/*/scripts/*.py")
)


def command_of(script: str, folder: Path, out: Path) -> list[str]:
    """Return the command that the workflow printed, or one by hand, with another output."""
    # Jobs are printed in any order: of the clusterings, one of Leiden.
    which = " .*?/leiden_" if script.endswith("/clustering.py") else " "
    pattern = rf"python (\S*/{re.escape(script)}{which}.*?) 2>&1"
    if script not in BY_HAND:
        command = shlex.split(re.search(pattern, (folder / "printed.txt").read_text())[1])
        # Behind the input, or behind several.
        ends = ("/comparison", "results/clusters.tsv")
        written = next((i for i, word in enumerate(command) if word.endswith(ends)), 2)
        command[written] = str(out / f"out{Path(command[written]).suffix}")
        return command
    source, suffix = str(folder / "results/pancreas/pca.zarr"), ".zarr"
    if script.endswith("structure.py"):
        topics = "integration/scripts/topics.py"
        made = command_of(topics, folder, out)
        subprocess.run([sys.executable, *made], check=True, capture_output=True)
        source, suffix = made[2], ".png"
    elif script.endswith("doublet_clusters.py"):
        source, suffix = with_doublet_scores(source, out), ".tsv"
    return [str(REPO / "workflow" / script), source, str(out / f"out{suffix}"), *BY_HAND[script]]


def with_doublet_scores(source: str, out: Path) -> str:
    """Write a store in which cells have scores."""
    made = str(out / "scored.zarr")
    script = REPO / "workflow/preprocessing/scripts/doublets.py"
    subprocess.run([sys.executable, script, source, made], check=True, capture_output=True)
    return made


def test_every_script_is_looked_at():
    assert set(LOADED) == set(SCRIPTS)


@pytest.mark.parametrize("script", LOADED)
def test_modules_of_each_step(script, pancreas, tmp_path):
    for package in {"torch", "scvi"} & {*LOADED[script], Path(script).stem}:
        pytest.importorskip(package)
    command = command_of(script, pancreas, tmp_path)
    found = loaded_by(command, pancreas) & HEAVY
    assert found == LOADED[script], f"{script} loads {sorted(found)}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_loads_nothing_heavy(script, tmp_path):
    found = loaded_by([str(REPO / "workflow" / script), "--help"], tmp_path) & HEAVY
    assert not found, f"{script} --help loads {sorted(found)}"
