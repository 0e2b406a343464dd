"""The workflow on a real Slurm cluster: three nodes, all of them on this machine (cluster.sh)."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import INPUT, REPO, hashes, read, write_config

CLUSTER = Path(__file__).with_name("cluster.sh")
PROFILES = REPO / "workflow" / "profiles"
# The jobs here take 5 seconds, and their files are on this machine.
QUICK = ["--slurm-init-seconds-before-status-checks", "9", "--latency-wait", "5"]
PREPARED = "results/a/prepared.zarr"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Start the cluster; return a function that brings back what died."""
    if os.geteuid() != 0:
        pytest.skip("starting Slurm needs root")
    for program in ("slurmctld", "slurmd", "munged", "sbatch"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed: test/slurm/cluster.sh install")
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("snakemake-executor-plugin-slurm is not installed: envs/slurm.txt")
    if Path("/etc/slurm/slurm.conf").exists():
        pytest.skip("this machine has a Slurm of its own")
    folder = tmp_path_factory.mktemp("cluster")

    def start():
        done = subprocess.run([CLUSTER, "start", folder], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    try:
        start()
        yield start
    finally:
        subprocess.run([CLUSTER, "stop", folder], check=True)


def begin(folder: Path, profile: str, *options: object) -> subprocess.Popen:
    """Start a run of the workflow in a folder that has a config."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", REPO / "Snakefile"]
    command += ["--profile", PROFILES / profile, "--configfile", "my.yaml", *options]
    with (folder / "said.log").open("w") as log:
        return subprocess.Popen([*map(str, command)], cwd=folder, stdout=log, stderr=log)


def end(run: subprocess.Popen, folder: Path) -> str:
    """Wait until a run has ended well; return what it said."""
    code = run.wait(timeout=600)
    said = (folder / "said.log").read_text()
    assert code == 0, said
    return said


def jobs(folder: Path) -> list[dict[str, str]]:
    """Ask Slurm for all jobs that were submitted in a folder, first to last."""
    shown = subprocess.run(
        ["scontrol", "show", "job", "--oneliner"], capture_output=True, text=True, check=True
    )
    found = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in shown.stdout.splitlines()]
    return [job for job in found if job.get("WorkDir") == str(folder)]


def await_running(folder: Path, n: int) -> dict[str, str]:
    """Wait until the n-th job of a folder runs."""
    for _ in range(300):
        found = jobs(folder)
        if len(found) >= n and found[n - 1]["JobState"] == "RUNNING":
            return found[n - 1]
        time.sleep(0.1)
    raise AssertionError(f"no job runs: {found}")


def small(folder: Path, **clustering: object) -> None:
    write_config(
        folder, a={"input": {"clustering": str(INPUT / "pbmc68k.h5ad")}, "clustering": clustering}
    )


@pytest.fixture(scope="module")
def runs(cluster, tmp_path_factory):
    """Run side by side what can be: a config here and on the cluster, and two smaller ones there.

    Return the folders.
    """
    folders = {name: tmp_path_factory.mktemp(name) for name in ("slurm", "local", "oom", "array")}
    for name in ("slurm", "local"):
        write_config(
            folders[name],
            wants={
                "input": {"preprocessing": str(INPUT / "pancreas_mini.h5ad")},
                "use_gpu": True,
                "n_cell_cpu": 0,
                "preprocessing": {"n_top_genes": 800, "batch_key": "batch", "n_comps": 20},
                "integration": {"batch": "batch"},
                "clustering": {"resolutions": [0.5, 1], "hierarchy": 2, "umap_colors": "cell_type"},
                "evaluation": {"metrics": False, "trees": False},
            },
            needs_not={
                "input": {"clustering": str(INPUT / "pbmc68k.h5ad")},
                "clustering": {"hierarchy": {"0": 0.5}},
                "evaluation": {"metrics": False, "trees": False},
            },
        )
    small(folders["oom"])
    small(folders["array"], resolutions=[0.2, 0.5, 1.0])
    memory = ["--set-resources", "prepare:mem_mb=50*20**(attempt-1)", "--", PREPARED]
    array = ["--slurm-array-jobs", "clustering", "--", *map(column_store, ("0.2", "0.5", "1.0"))]
    options = {"slurm": QUICK, "local": [], "oom": [*QUICK, *memory], "array": [*QUICK, *array]}
    begun = {
        name: begin(folder, "local" if name == "local" else "slurm", *options[name])
        for name, folder in folders.items()
    }
    for name, run in begun.items():
        end(run, folders[name])
    return folders


def column_store(resolution: str) -> str:
    return f"results/a/unintegrated/clustering/leiden_{resolution}_1.zarr"


def test_every_step_is_a_job_with_its_partition_and_cpus(runs):
    found = {job["Comment"]: job for job in jobs(runs["slurm"])}
    wants, needs_not = "wants_harmony", "needs_not_unintegrated"
    cpus = {
        "rule_prepare_wildcards_wants": 1,
        "rule_prepare_wildcards_needs_not": 1,
        "rule_pca_wildcards_wants": 4,
        f"rule_harmony_wildcards_{wants}": 4,
        "rule_explorer_wildcards_wants": 1,
        "rule_explorer_wildcards_needs_not": 1,
        "rule_summary": 1,
    }
    for name, resolutions in ((wants, ("0.5", "1.0")), (needs_not, ("1.0",))):
        cpus[f"rule_neighbors_wildcards_{name}"] = 4
        cpus[f"rule_umap_wildcards_{name}"] = 4
        for resolution in resolutions:
            cpus[f"rule_clustering_wildcards_{name}_leiden_{resolution}_1"] = 1
            cpus[f"rule_subclustering_wildcards_{name}_leiden_{resolution}_2"] = 4
    groups = [job for job in jobs(runs["slurm"]) if "merge_plots" in job["Comment"]]
    assert len(groups) == 2, "merge and plots are one job for each atlas"
    assert {name: int(found[name]["NumCPUs"]) for name in cpus} == cpus
    assert len(jobs(runs["slurm"])) == len(cpus) + len(groups)
    for name, job in found.items():
        assert job["JobState"] == "COMPLETED"
        on_gpu = re.match(rf"rule_(harmony|neighbors|clustering|umap)_wildcards_{wants}", name)
        assert job["Partition"] == ("gpu" if on_gpu else "cpu"), name
        assert job.get("TresPerJob") == ("gres:gpu:1" if on_gpu else None), name
        assert job["TimeLimit"] > "00:04:00", "every step asks for time"
        assert 500 <= int(job["MinMemoryNode"].removesuffix("M")) < 3000, "and for memory"
    log = runs["slurm"] / "results/logs/wants/harmony"
    for step in ("harmony.log", "neighbors.log", "clustering/leiden_1.0_1.log"):
        assert "device: CPU (" in (log / step).read_text(), "no real GPU: says so, goes on"


def test_the_results_are_those_of_a_local_run_to_the_bit(runs):
    found = {name: hashes(runs[name] / "results") for name in ("slurm", "local")}
    assert len(found["local"]) > 300
    assert found["slurm"] == found["local"]


def test_a_job_killed_for_memory_is_tried_again_with_more(runs):
    folder = runs["oom"]
    first, second = jobs(folder)
    assert (first["MinMemoryNode"], second["MinMemoryNode"]) == ("50M", "1000M")
    assert (first["JobState"], second["JobState"]) == ("FAILED", "COMPLETED")
    (log,) = folder.glob(f".snakemake/slurm_logs/rule_prepare/*/{first['JobId']}.log")
    assert "memory limit" in log.read_text()
    assert read(folder / PREPARED).n_obs == 700


def test_resolutions_as_one_array(runs):
    folder = runs["array"]
    array = [job for job in jobs(folder) if "ArrayJobId" in job]
    assert len(array) == 3
    assert len({job["ArrayJobId"] for job in array}) == 1
    for resolution in ("0.2", "0.5", "1.0"):
        assert list(read(folder / column_store(resolution)).obs) == [f"leiden_{resolution}_1"]


@pytest.fixture
def folder(cluster, tmp_path):
    small(tmp_path)
    return tmp_path


def test_a_cancelled_job_is_tried_again(folder):
    run = begin(folder, "slurm", *QUICK, "--", PREPARED)
    subprocess.run(["scancel", await_running(folder, 1)["JobId"]], check=True)
    end(run, folder)
    assert [job["JobState"] for job in jobs(folder)] == ["CANCELLED", "COMPLETED"]
    assert read(folder / PREPARED).n_obs == 700


def test_a_node_that_dies_is_left_for_another(folder, cluster):
    run = begin(folder, "slurm", *QUICK, "--", PREPARED)
    first = await_running(folder, 1)
    power_off(first["NodeList"], first["JobId"])
    try:
        said = end(run, folder)
    finally:
        cluster()
    first, second = jobs(folder)
    assert (first["JobState"], second["JobState"]) == ("NODE_FAIL", "COMPLETED")
    assert first["NodeList"] != second["NodeList"]
    assert "NODE_FAIL" in said
    assert read(folder / PREPARED).n_obs == 700


def power_off(node: str, job: str) -> None:
    """Kill the daemon of a node and all processes of the job on it, at once."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = (process / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        daemon = words.startswith("slurmd ") and words.rstrip().endswith(f"-N {node}")
        step = words.startswith(f"slurmstepd: [{job}.")
        if daemon or step or f"SLURM_JOB_ID={job}\0" in environment:
            os.kill(int(process.name), signal.SIGKILL)
