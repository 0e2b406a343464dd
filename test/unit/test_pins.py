"""The pip pins and the conda files say the same."""

import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ENVS = Path(__file__).resolve().parents[2] / "envs"
# The same program under another name.
CONDA_NAMES = {
    "igraph": "python-igraph",
    "matplotlib": "matplotlib-base",
    "snakemake": "snakemake-minimal",
}


def pip_pins(name, python):
    lines = [line.strip() for line in (ENVS / f"{name}.txt").read_text().splitlines()]
    found = {}
    for line in lines:
        if not line or line.startswith("#"):
            continue
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or marker.evaluate({"python_version": python}):
            assert requirement.name not in found, f"{requirement.name} is pinned twice"
            (pin,) = requirement.specifier
            assert pin.operator == "==", line
            found[requirement.name] = pin.version
    return found


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("scanpy", ["scanpy"]),
        ("snakemake", ["snakemake"]),
        ("slurm", ["slurm"]),
        ("vae", ["scanpy", "vae"]),
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
    for name in ("scanpy", "snakemake", "slurm", "test", "vae"):
        assert set(pip_pins(name, python)) == set(pip_pins(name, "3.11"))


def test_every_rule_names_a_conda_file():
    workflow = ENVS.parent / "workflow"
    for file in workflow.glob("*/rules.smk"):
        rules = re.split(r"^rule ", file.read_text(), flags=re.MULTILINE)[1:]
        assert rules, file
        for rule in rules:
            (path,) = re.findall(r'^    conda:\n        "(.*)"$', rule, flags=re.MULTILINE)
            assert (file.parent / path).resolve().parent == ENVS, rule.partition(":")[0]
            assert (file.parent / path).is_file(), path


def test_the_default_environment_is_small():
    packages = set(pip_pins("scanpy", "3.12")) | set(pip_pins("snakemake", "3.12"))
    assert not packages & {"torch", "jax", "cupy", "rapids-singlecell", "rpy2"}
