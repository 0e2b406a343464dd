"""The pip pins and the conda files say the same."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from plan.plan import STEPS

ENVS = Path(__file__).resolve().parents[3] / "envs"
# The same program under another name.
CONDA_NAMES = {
    "igraph": "python-igraph",
    "zlib-ng": "python-zlib-ng",
    "matplotlib": "matplotlib-base",
    "snakemake": "snakemake-minimal",
}


def pip_pins(name, python):
    lines = [line.strip() for line in (ENVS / f"{name}.txt").read_text().splitlines()]
    found = {}
    for line in lines:
        if not line or line.startswith("#"):
            continue
        if line.startswith("-r "):
            found |= pip_pins(line[3:].removesuffix(".txt"), python)
            continue
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or marker.evaluate({"python_version": python}):
            package = requirement.name + "".join(f"[{extra}]" for extra in requirement.extras)
            assert package not in found, f"{package} is pinned twice"
            (pin,) = requirement.specifier
            assert pin.operator == "==", line
            found[package] = pin.version
    return found


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("scanpy", ["scanpy"]),
        ("snakemake", ["snakemake"]),
        ("slurm", ["slurm"]),
        ("vae", ["scanpy", "vae"]),
        ("scvi", ["scanpy", "scvi"]),
        ("rapids_singlecell", ["scanpy", "rapids_singlecell"]),  # which goes before scanpy's
    ],
)
def test_conda_mirrors_pip(name, files):
    conda = {}
    for item in yaml.safe_load((ENVS / f"{name}.yaml").read_text())["dependencies"]:
        for line in item["pip"] if isinstance(item, dict) else [item]:
            package, _, version = line.replace("==", "=").partition("=")
            conda[package] = version
    python = conda.pop("python")
    conda.pop("pip", None)
    pins = {k: v for file in files for k, v in pip_pins(file, python).items()}
    assert conda == {
        (name if name in conda else CONDA_NAMES[name]): pin for name, pin in pins.items()
    }


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_python_has_the_same_packages(python):
    for name in ("anndata010", "scanpy", "snakemake", "scvi", "slurm", "test", "vae"):
        assert set(pip_pins(name, python)) == set(pip_pins(name, "3.11"))


def test_every_rule_names_a_conda_file():
    workflow = ENVS.parent / "workflow"
    for file in workflow.glob("*/rules.smk"):
        rules = re.split(r"^rule ", file.read_text(), flags=re.MULTILINE)[1:]
        assert rules, file
        for rule in rules:
            (value,) = re.findall(r"^    conda:\n        (.*)$", rule, flags=re.MULTILINE)
            on_gpu = value.startswith("plan.environment(")
            has_gpu = STEPS[rule.partition(":")[0]].gpu is not None
            assert on_gpu == (has_gpu and not re.search(r"(vae|scvi)\.yaml", rule))
            names = ("scanpy", "rapids_singlecell")
            paths = [f"../../envs/{name}.yaml" for name in names] if on_gpu else [value.strip('"')]
            for path in paths:
                assert (file.parent / path).resolve().parent == ENVS, rule.partition(":")[0]
                assert (file.parent / path).is_file(), path


def test_the_default_environment_is_small():
    packages = set(pip_pins("scanpy", "3.12")) | set(pip_pins("snakemake", "3.12"))
    assert not packages & {"torch", "scvi-tools", "jax", "rpy2"}
    assert not packages & set(pip_pins("rapids_singlecell", "3.12")) - {"numba", "numpy", "pandas"}


@pytest.mark.parametrize("file", sorted(ENVS.glob("*.txt")), ids=lambda file: file.stem)
def test_every_pin_can_be_read(file):
    assert pip_pins(file.stem, "3.12")


def test_the_gpu_packages_refuse_a_python_that_they_have_no_release_for(tmp_path):
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    older = "import sys; sys.version_info = (3, 11); exec(sys.argv[2])"
    python.write_text(f"#!{sys.executable}\n{older}\n")
    python.chmod(0o755)
    (tmp_path / "installed").touch()
    command = ["make", "-o", tmp_path / "installed", f"VENV={tmp_path}", tmp_path / "installed-gpu"]
    done = subprocess.run(command, cwd=ENVS.parent, capture_output=True, text=True)
    assert done.returncode != 0
    line = "rapids-singlecell needs Python 3.12 or newer for its Harmony 2, this is 3.11"
    assert line in done.stderr.splitlines()[0]
