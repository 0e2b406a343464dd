"""The command line of the scripts."""

import argparse
import json

import pytest

from utils import cli
from utils.device import choose_device, gpu_problem
from utils.log import progress

SCRIPTS = [
    "preprocessing/scripts/prepare.py",
    "preprocessing/scripts/pca.py",
    "integration/scripts/harmony.py",
    "integration/scripts/vae.py",
    "integration/scripts/mnn.py",
    "integration/scripts/topics.py",
    "clustering/scripts/neighbors.py",
    "clustering/scripts/clustering.py",
    "clustering/scripts/umap.py",
    "clustering/scripts/merge.py",
    "evaluation/scripts/plots.py",
    "evaluation/scripts/comparison.py",
    "evaluation/scripts/metrics.py",
    "evaluation/scripts/markers.py",
    "evaluation/scripts/robustness.py",
    "evaluation/scripts/splits.py",
    "evaluation/scripts/structure.py",
    "evaluation/scripts/trees.py",
    "explorer/scripts/explorer.py",
    "evaluation/scripts/summary.py",
]


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
        "mnn.py": ["--batch", "a"],
        "metrics.py": ["--batch", "a"],
        "markers.py": ["--clusters", "a"],
        "robustness.py": ["--clusters", "a"],
        "splits.py": ["--clusters", "a"],
        "trees.py": ["--clusters", "a"],
    }.get(name.rpartition("/")[2], [])
    missing = tmp_path / "missing.zarr"
    done = script(name, missing, tmp_path / "out.zarr", *more, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{missing}" in done.stderr
    assert not any(tmp_path.iterdir())


def options_of(model, *argv):
    parser = argparse.ArgumentParser()
    cli.add_model(parser, model)
    return cli.from_options(model, parser.parse_args(argv))


@pytest.mark.parametrize("name", json.loads(cli.OPTIONS.read_text()))
def test_defaults_are_what_the_model_makes_of_them(name):
    found = vars(options_of(name))
    model = cli._model(name)
    section = {"DATASETS": {"a": {"input": {"clustering": "a.zarr"}}}} if name == "Config" else {}
    checked = dict(model.model_validate({**section, **found}))
    # As JSON: a default of 1 where the model makes 1.0 would show.
    assert json.dumps(found) == json.dumps({key: checked[key] for key in found})
    assert set(model.model_fields) - set(found) <= {"method", "basis", "DATASETS"}


def test_only_options_that_differ_are_checked(monkeypatch):
    def check(*_, **__):
        raise AssertionError

    monkeypatch.setattr(cli, "check_options", check)
    assert options_of("Neighbors").n_neighbors == 15
    assert options_of("Neighbors", "--n_neighbors", "15").n_neighbors == 15
    assert options_of("Neighbors", "--use_rep", "X_pca").use_rep == "X_pca"
    for other in ("15.0", "true", "16"):
        with pytest.raises(AssertionError):
            options_of("Neighbors", "--n_neighbors", other)


def test_options_come_from_the_model():
    words = "--n_clusters 7 --tol_harmony null --combine_keys"
    found = options_of("Harmony", "--theta", "[1, 2]", *words.split())
    assert (found.theta, found.n_clusters, found.tol_harmony) == ([1, 2], 7, None)
    assert found.combine_keys
    found = options_of("Preparation", "--subset", '{"a": ["b", 1]}', "--layer", "3")
    assert (found.subset, found.layer) == ({"a": ["b", 1]}, "3")


def test_a_wrong_option_is_named():
    with pytest.raises(ValueError, match="--alpha: must be less than 1, found 2"):
        options_of("Harmony", "--alpha", "2")
    with pytest.raises(ValueError, match='--flavor: unknown value "harmony3"; did you mean'):
        options_of("Harmony", "--flavor", "harmony3")


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
