"""The profiles, and every step in a conda environment of its own."""

import re
from pathlib import Path

import pytest
import yaml
from running import INPUT, REPO, snakemake, write_config

PROFILES = REPO / "workflow" / "profiles"

# Says what Snakemake wants to hear, and writes down what it was asked for.
CONDA = """#!/bin/sh
echo "$*" >>{log}
[ "$1" != --version ] || {{ echo conda 25.9.1; exit; }}
echo '{{"conda_prefix": "/", "platform": "linux-64", "get": {{"channel_priority": "strict"}}}}'
"""


@pytest.mark.parametrize(
    "file", sorted(PROFILES.glob("*/*.yaml")), ids=lambda file: file.parent.name
)
def test_every_line_has_a_comment(file):
    lines = [line for line in file.read_text().splitlines() if line]
    assert [line for line in lines if "#" not in line] == []


def test_the_rules_that_a_profile_names_are_there():
    rules = {
        name
        for file in REPO.glob("workflow/*/rules.smk")
        for name in re.findall(r"^rule (\w+):", file.read_text(), flags=re.MULTILINE)
    }
    profile = yaml.safe_load((PROFILES / "slurm" / "config.yaml").read_text())
    assert len(rules) > 15
    assert profile["set-threads"].keys() | profile["groups"].keys() < rules


def test_every_step_gets_the_packages_of_its_conda_file(tmp_path, monkeypatch):
    (tmp_path / "conda").write_text(CONDA.format(log=tmp_path / "asked.txt"))
    (tmp_path / "conda").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    source = {"input": {"integration": str(INPUT / "pbmc68k.h5ad")}}
    methods = {"pvae": {}, "unintegrated": {}}  # torch need not be here
    config = write_config(
        tmp_path,
        a=source | {"use_gpu": True, "integration": {"batch": "phase", "methods": methods}},
        b=source,
    )
    profile = ["--profile", PROFILES / "local", "--sdm", "conda", "--conda-create-envs-only"]
    snakemake(tmp_path, *profile, "--configfile", config)
    asked = (tmp_path / "asked.txt").read_text()
    made = {Path(file).read_text() for file in re.findall(r"env create .* --file (\S+)", asked)}
    names = ("scanpy", "rapids_singlecell", "vae")
    assert made == {(REPO / "envs" / f"{name}.yaml").read_text() for name in names}
