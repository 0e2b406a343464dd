"""The workflow on a real Slurm cluster: three nodes, all of them on this machine (cluster.sh).

Two runs side by side: a small demo whose results are compared with those of a local run, and a data
set that every fault falls upon. The tests look at what became of them.
"""

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
QUICK = Path(__file__).with_name("quick.py")
PROFILES = REPO / "workflow" / "profiles"
RESOLUTIONS = ("0.5", "1.0")
WAIT = 300  # seconds, for what takes one minute


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
        command = [CLUSTER, "start", folder, str(os.getpid())]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    try:
        start()
        yield start
    finally:
        subprocess.run([CLUSTER, "stop", folder], check=True)


@pytest.fixture(scope="session")
def begin(cluster):
    """Return a function that starts a run in a folder that has a config; end what is left."""
    begun = []

    def begin(folder: Path, profile: str, *options: object, nodes: str = "") -> subprocess.Popen:
        # It ends with this process, however that ends.
        command = ["setpriv", "--pdeathsig", "KILL", sys.executable, QUICK]
        command += ["--snakefile", REPO / "Snakefile", "--profile", PROFILES / profile]
        command += ["--configfile", "my.yaml", "--latency-wait", "5", *options]
        environment = os.environ | ({"SBATCH_CONSTRAINT": nodes} if nodes else {})
        with (folder / "said.log").open("w") as log:
            begun.append(
                subprocess.Popen(
                    [*map(str, command)], cwd=folder, stdout=log, stderr=log, env=environment
                )
            )
        return begun[-1]

    yield begin
    for run in begun:
        run.kill()
        run.wait()


def end(run: subprocess.Popen, folder: Path) -> str:
    """Wait until a run has ended well; return what it said."""
    code = run.wait(timeout=WAIT)
    said = (folder / "said.log").read_text()
    assert code == 0, said
    return said


def jobs(folder: Path, rule: str = "") -> list[dict[str, str]]:
    """Ask Slurm for the jobs that were submitted in a folder, first to last."""
    shown = subprocess.run(
        ["scontrol", "show", "job", "--oneliner"], capture_output=True, text=True, check=True
    )
    found = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in shown.stdout.splitlines()]
    found = [job for job in found if job.get("WorkDir") == str(folder)]
    return [job for job in found if job["Comment"].startswith(f"rule_{rule}")]


def await_running(folder: Path, rule: str, attempt: int) -> dict[str, str]:
    """Wait until a rule runs, at the first or a later attempt."""
    until = time.monotonic() + WAIT
    while time.monotonic() < until:
        found = jobs(folder, rule)
        if len(found) >= attempt and processes(found[attempt - 1]):
            return found[attempt - 1]
        time.sleep(0.2)
    raise AssertionError(f"{rule} does not run: {found}\n{(folder / 'said.log').read_text()}")


def processes(job: dict[str, str], node: str = "") -> list[int]:
    """Return the processes of a job, and the daemon of a node."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            environment = (process / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        daemon = node and words.startswith("slurmd ") and words.endswith(f"-N {node}")
        step = words.startswith(f"slurmstepd: [{job['JobId']}.")
        if daemon or step or f"SLURM_JOB_ID={job['JobId']}\0" in environment:
            found.append(int(process.name))
    return found


def power_off(job: dict[str, str]) -> None:
    """Kill the node of a job: its daemon and all processes of the job."""
    while found := processes(job, job["NodeList"]):
        for process in found:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.1)


@pytest.fixture(scope="module")
def demos(begin, tmp_path_factory):
    """Begin the same here and on the cluster; return the folders and the runs."""
    begun = {}
    for profile in ("slurm", "local"):
        folder = tmp_path_factory.mktemp(profile)
        write_config(
            folder,
            a={
                "input": {"preprocessing": str(INPUT / "pancreas_mini.h5ad")},
                "use_gpu": True,
                "n_cell_cpu": 0,
                "preprocessing": {"n_top_genes": 800, "batch_key": "batch", "n_comps": 20},
                "integration": {"batch": "batch"},
                "clustering": {"resolutions": [0.5], "hierarchy": 2, "umap_colors": "cell_type"},
                "evaluation": {"label": "cell_type", "n_markers": 5, "rounds": 2},
            },
        )
        begun[profile] = folder, begin(folder, profile, nodes="stays")
    return begun


@pytest.fixture(scope="module")
def demo(demos, faults):
    """Wait for what goes on beside the faults; return the folders."""
    for folder, run in demos.values():
        end(run, folder)
    return {profile: folder for profile, (folder, _) in demos.items()}


@pytest.fixture(scope="module")
def faults(cluster, begin, demos, tmp_path_factory):
    """Run a data set that does not ask for a GPU through all faults; return its folder."""
    folder = tmp_path_factory.mktemp("faults")
    write_config(
        folder,
        a={
            "input": {"clustering": str(INPUT / "pbmc68k.h5ad")},
            "clustering": {"resolutions": [*map(float, RESOLUTIONS)]},
        },
    )
    options = ["--set-resources", "prepare:mem_mb=50*20**(attempt-1)"]
    options += ["--slurm-array-jobs", "clustering", "--", *map(column_store, RESOLUTIONS)]
    run = begin(folder, "slurm", *options)
    subprocess.run(["scancel", await_running(folder, "neighbors", 1)["JobId"]], check=True)
    power_off(await_running(folder, "neighbors", 2))
    await_running(folder, "clustering", len(RESOLUTIONS))
    run.kill()
    run.wait()
    (folder / "said.log").rename(folder / "killed.log")
    cancelled = [job["JobId"] for job in jobs(folder, "clustering")]  # which live on
    subprocess.run(["scancel", *cancelled], check=True)
    cluster()
    end(begin(folder, "slurm", "--unlock"), folder)
    end(begin(folder, "slurm", *options), folder)
    return folder


def column_store(resolution: str) -> str:
    return f"results/a/unintegrated/clustering/leiden_{resolution}_1.zarr"


def test_a_job_killed_for_memory_is_tried_again_with_more(faults):
    first, second = jobs(faults, "prepare")
    assert (first["MinMemoryNode"], second["MinMemoryNode"]) == ("50M", "1000M")
    assert (first["JobState"], second["JobState"]) == ("FAILED", "COMPLETED")
    (log,) = faults.glob(f".snakemake/slurm_logs/rule_prepare/*/{first['JobId']}.log")
    assert "memory limit" in log.read_text()
    assert read(faults / "results/a/prepared.zarr").n_obs == 700


def test_a_cancelled_job_and_one_whose_node_died_are_tried_again(faults):
    cancelled, dead, last = jobs(faults, "neighbors")
    assert cancelled["JobState"] == "CANCELLED"
    assert (dead["JobState"], last["JobState"]) == ("NODE_FAIL", "COMPLETED")
    assert dead["NodeList"] != last["NodeList"]
    assert "NODE_FAIL" in (faults / "killed.log").read_text()


def test_after_a_kill_of_snakemake_only_what_was_not_done_runs_again(faults):
    said = (faults / "said.log").read_text()
    ran = re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", said)
    assert ran == ["clustering"] * len(RESOLUTIONS)
    assert len(jobs(faults)) == 2 + 3 + 2 * len(RESOLUTIONS)
    for resolution in RESOLUTIONS:
        assert list(read(faults / column_store(resolution)).obs) == [f"leiden_{resolution}_1"]


def test_resolutions_are_one_array(faults):
    found = jobs(faults, "clustering")
    killed, last = found[: len(RESOLUTIONS)], found[len(RESOLUTIONS) :]
    for array, state in ((killed, "CANCELLED"), (last, "COMPLETED")):
        assert len({job["ArrayJobId"] for job in array}) == 1
        assert {job["JobState"] for job in array} == {state}


def test_a_gpu_is_asked_for_only_by_a_plan_that_says_so(faults):
    assert {job["Partition"] for job in jobs(faults)} == {"cpu"}
    assert not any("TresPerJob" in job for job in jobs(faults))


def test_every_step_is_a_job_with_its_partition_and_cpus(demo):
    found = {job["Comment"]: job for job in jobs(demo["slurm"])}
    cpus = {
        "rule_prepare_wildcards_a": 4,
        "rule_pca_wildcards_a": 4,
        "rule_harmony_wildcards_a_harmony": 4,
        "rule_neighbors_wildcards_a_harmony": 4,
        "rule_umap_wildcards_a_harmony": 4,
        "rule_clustering_wildcards_a_harmony_leiden_0.5_1": 1,
        "rule_subclustering_wildcards_a_harmony_leiden_0.5_2": 4,
        "rule_markers_wildcards_a_harmony": 4,
        "rule_robustness_wildcards_a_harmony": 2,
        "rule_splits_wildcards_a_harmony": 2,
        "rule_resolutions_wildcards_a_harmony": 2,
        "rule_metrics_wildcards_a_harmony": 1,
        "rule_neighbors_wildcards_a_unintegrated": 4,
        "rule_metrics_wildcards_a_unintegrated": 1,
        "rule_comparison_wildcards_a": 1,
        "rule_explorer_wildcards_a": 1,
        "rule_summary": 1,
    }
    groups = {name: next(c for c in found if name in c) for name in ("merge_trees", "atlas_plots")}
    cpus |= dict.fromkeys(groups.values(), 1)
    assert {comment: int(job["NumCPUs"]) for comment, job in found.items()} == cpus
    assert len(jobs(demo["slurm"])) == len(found), "each is a job once"
    for comment, job in found.items():
        assert job["JobState"] == "COMPLETED"
        on_gpu = comment.startswith(
            ("rule_harmony", "rule_neighbors", "rule_clustering", "rule_umap")
        )
        assert job["Partition"] == ("gpu" if on_gpu else "cpu"), comment
        assert job.get("TresPerJob") == ("gres:gpu:1" if on_gpu else None), comment
        assert job["TimeLimit"] > "00:04:00", "every step asks for time"
        assert int(job["MinMemoryNode"].removesuffix("M")) >= 500, "and for memory"
    log = demo["slurm"] / "results/logs/a/harmony"
    for step in ("harmony.log", "neighbors.log", "clustering/leiden_0.5_1.log"):
        assert "device: CPU (" in (log / step).read_text(), "no real GPU: says so, goes on"


def test_the_results_are_those_of_a_local_run_to_the_bit(demo):
    found = {profile: hashes(demo[profile] / "results") for profile in ("slurm", "local")}
    assert len(found["local"]) > 300
    assert found["slurm"] == found["local"]
