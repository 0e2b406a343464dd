"""The command line of the scripts."""

import argparse
from pathlib import Path

import pytest

from utils import cli
from utils.device import choose_device, gpu_problem
from utils.log import progress

WORKFLOW = Path(__file__).resolve().parents[3] / "workflow"
# Files whose ending is looked at first.
OUTPUTS = {"explorer.py": "out.html", "structure.py": "out.png"}
SCRIPTS = sorted(str(path.relative_to(WORKFLOW)) for path in WORKFLOW.glob("*/scripts/*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_answers_and_names_input_and_output(script, name):
    text = script(name, "--help").stdout
    assert "input_file" in text
    assert "output_file" in text


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_missing_input_is_one_line_and_exit_code_2(script, tmp_path, name):
    more = {
        "merge.py": ["--clustering", "x.zarr"],
        "plots.py": ["--colors", "a"],
        "comparison.py": ["--colors", "a", "--names", "b"],
        "harmony.py": ["--batch", "a"],
        "vae.py": ["--batch", "a"],
        "scvi.py": ["--batch", "a"],
        "mnn.py": ["--batch", "a"],
        "metrics.py": ["--batch", "a"],
        "markers.py": ["--clusters", "a"],
        "doublet_clusters.py": ["--clusters", "a"],
        "robustness.py": ["--clusters", "a"],
        "splits.py": ["--clusters", "a"],
        "resolutions.py": ["--clusters", "a", "--robustness", "r.tsv"],
        "trees.py": ["--clusters", "a"],
    }.get(name.rpartition("/")[2], [])
    missing = tmp_path / "missing.zarr"
    out = tmp_path / OUTPUTS.get(name.rpartition("/")[2], "out.zarr")
    done = script(name, missing, out, *more, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{missing}" in done.stderr
    assert not any(tmp_path.iterdir())


def run(main, argv=()):
    parser = argparse.ArgumentParser(prog="x.py")
    parser.add_argument("--debug", action="store_true")
    with pytest.raises(SystemExit) as left:
        cli.run(main, parser, argv)
    return left.value.code


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("bad"), 2, "x.py: error: bad\n"),
        (KeyError("no such"), 2, "x.py: error: no such\n"),
        (RuntimeError("ours"), 1, "x.py: error: RuntimeError: ours (--debug shows where)\n"),
    ],
)
def test_errors_are_one_line(capsys, error, code, text):
    def main(_):
        raise error

    assert run(main) == code
    assert capsys.readouterr().err == text
    assert run(main, ["--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_one_line(capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        cli.run(interrupted, argparse.ArgumentParser(prog="pca.py"), [])
    assert end.value.code == 130
    assert capsys.readouterr().err == "pca.py: interrupted (Ctrl-C)\n"


def test_progress_yields_everything():
    assert list(progress(range(5), desc="x")) == list(range(5))
    assert list(progress(iter("ab"), desc="x", disable=True)) == ["a", "b"]


def test_device_is_decided_with_a_reason():
    assert choose_device(10, use_gpu=False).reason == "use_gpu is false"
    assert "fewer than n_cell_cpu" in choose_device(10, use_gpu=True).reason
    assert "flavor leidenalg" in choose_device(10**6, cpu_only="flavor leidenalg").reason
    device = choose_device(10**6, use_gpu=True, n_cell_cpu=0)
    assert device.name == ("cpu" if gpu_problem() else "gpu")


def test_device_is_the_gpu_where_one_is_visible(monkeypatch):
    monkeypatch.setattr("utils.device.gpu_problem", lambda: None)
    assert choose_device(100_000).name == "gpu"
    assert choose_device(99_999).name == "cpu"
    assert choose_device(99_999, n_cell_cpu=10).name == "gpu"
