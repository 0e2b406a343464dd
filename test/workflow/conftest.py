"""Runs that several tests look at."""

from pathlib import Path

import pytest
from running import INPUT, REPO, snakemake, write_config


@pytest.fixture(scope="session")
def pancreas(tmp_path_factory) -> Path:
    """Run the small pancreas data from counts to atlas; return the folder."""
    folder = tmp_path_factory.mktemp("pancreas")
    config = write_config(
        folder,
        pancreas={
            "input": {"preprocessing": str(INPUT / "pancreas_mini.h5ad")},
            "preprocessing": {"n_top_genes": 800, "batch_key": "batch", "n_comps": 20},
            "integration": {"batch": "batch", "methods": {"unintegrated": {}, "harmony": {}}},
            "clustering": {
                "algorithm": ["leiden", "louvain"],
                "resolutions": [1],
                "hierarchy": 3,
                "umap_colors": ["cell_type", "batch"],
            },
            "evaluation": {"label": "cell_type", "rounds": 3, "n_markers": 20},
        },
    )
    done = snakemake(folder, "--configfile", config, "-p")
    (folder / "printed.txt").write_text(done.stdout + done.stderr)
    return folder


@pytest.fixture(scope="session")
def seed_examples(tmp_path_factory) -> Path:
    """Run the three example configurations of the documentation; return the folder."""
    folder = tmp_path_factory.mktemp("seed")
    (folder / "test").symlink_to(REPO / "test")
    snakemake(folder, "--configfile", REPO / "workflow" / "clustering" / "config.yaml")
    return folder
