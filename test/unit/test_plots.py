"""Pictures of embeddings: what is drawn, what is said, and that the bytes do not change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colormaps

from evaluation import plots
from evaluation.labels import spread
from evaluation.palette import COLORMAP, MISSING, palette, rgb
from evaluation.plots import compare_embeddings, file_stem, plot_embedding, save_figure
from utils.io import obs_column, open_store

pytestmark = pytest.mark.filterwarnings("error")


def islands(k: int, each: int = 30, seed: int = 0) -> tuple[np.ndarray, pd.Series]:
    """Make k round clusters on a square lattice, named by number."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(k)))
    centres = np.stack([np.arange(k) % side, np.arange(k) // side], axis=1) * 10.0
    xy = np.repeat(centres, each, axis=0) + rng.normal(size=(k * each, 2))
    return xy, pd.Series(np.repeat(np.arange(k), each).astype(str), dtype="category")


def words(fig) -> list[str]:
    """All texts of a figure, in drawing order."""
    return [text.get_text() for ax in fig.axes for text in ax.texts]


def labels(fig) -> dict[str, tuple[float, float]]:
    """Texts written on the cells, with their places in data units."""
    return {t.get_text(): t.get_position() for ax in fig.axes[1:] for t in ax.texts}


def scatters(fig) -> list:
    return [layer for ax in fig.axes[1:] for layer in ax.collections]


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("far", [0, 150])
def test_fifty_labels_sit_on_their_clusters_and_do_not_overlap(far):
    xy, names = islands(50)
    xy[0] += far  # one cell far away leaves little room to the clusters
    fig = plot_embedding(xy, names, title="leiden", on_data_labels=True)
    placed = labels(fig)
    assert set(placed) == {str(i) for i in range(50)}
    centres = pd.DataFrame(xy).groupby(names.to_numpy()).median()
    for name, place in placed.items():
        assert np.abs(centres.loc[name] - np.array(place)).max() < (20 if far else 3)
    fig.canvas.draw()
    boxes = [t.get_window_extent() for t in fig.axes[1].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_label_of_a_split_cluster_sits_on_its_denser_part():
    xy, _ = islands(2, each=100)
    names = np.array(["a"] * 200 + ["b"] * 110)
    names[-10:] = "a"  # a few cells of a among b, which lies between both parts of a
    xy = np.concatenate([xy, xy[:100] * 0.5 + [5, 0], xy[:10] * 0.5 + [5, 0]])
    place = labels(plot_embedding(xy, names, title="x", on_data_labels=True))["a"]
    assert min(abs(place[0] - 0), abs(place[0] - 10)) < 2.5


def test_labels_only_by_default_where_categories_lie_apart():
    xy, names = islands(9)
    assert set(labels(plot_embedding(xy, names, title="x"))) == set("012345678")
    mixed = np.random.default_rng(0).permutation(names.to_numpy())
    assert labels(plot_embedding(xy, mixed, title="x")) == {}
    assert labels(plot_embedding(xy, names.to_numpy() < "5", title="x")) == {}
    assert labels(plot_embedding(xy, names.astype(str) + " with a long name", title="x")) == {}


def test_more_clusters_than_labels_is_said():
    xy, names = islands(130, each=5)
    fig = plot_embedding(xy, names, title="x", on_data_labels=True)
    assert len(labels(fig)) == 120
    assert any("labels on the 120 largest" in text for text in words(fig))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 50), st.integers(0, 10_000))
def test_spread_separates_rectangles(n, seed):
    rng = np.random.default_rng(seed)
    window = np.array([360.0, 360.0])
    sizes = np.stack([rng.uniform(8, 30, n), np.full(n, 10.0)], axis=1)
    centres = spread(rng.uniform(90, 270, (n, 2)), sizes, window)
    apart = np.abs(centres[:, None] - centres[None]) - (sizes[:, None] + sizes[None]) / 2
    clear = (apart > -1e-6).any(axis=2) | np.eye(n, dtype=bool)
    assert clear.all()
    assert (centres >= sizes / 2 - 1e-9).all() and (centres <= window - sizes / 2 + 1e-9).all()


def test_spread_leaves_labels_that_do_not_touch():
    anchors = np.array([[10.0, 10.0], [50.0, 50.0]])
    np.testing.assert_array_equal(spread(anchors, np.full((2, 2), 8.0), [60, 60]), anchors)


# ---------------------------------------------------------------- legend, missing, numbers


def test_legend_has_names_in_counting_order_counts_and_missing():
    values = pd.Series(["donor 10 of the second study", "donor 2 of the second study", None] * 400)
    xy = np.random.default_rng(0).normal(size=(1200, 2))
    xy[0] = np.nan
    said = words(plot_embedding(xy, values, title="donor"))
    i = said.index("donor 2 of the second study")
    assert said[i : i + 6] == [
        *("donor 2 of the second study", "400"),
        *("donor 10 of the second study", "399"),
        *("no value", "400"),
    ]
    assert "1,199 cells · 2 categories · 1 without coordinates, left out" in said


def test_missing_lies_underneath_in_grey():
    xy, names = islands(4)
    values = names.astype(object).where(np.arange(len(names)) % 3 > 0, None)
    grey, cells = scatters(plot_embedding(xy, values, title="x"))
    assert grey.get_zorder() < cells.get_zorder()
    assert len(grey.get_offsets()) == 40 and len(cells.get_offsets()) == 80
    np.testing.assert_allclose(grey.get_facecolor()[0, :3], rgb(MISSING))


def test_long_legends_are_cut_and_the_rest_counted():
    values = [f"category number {i:03d}" for i in range(75)] + ["category number 003"] * 5
    said = words(plot_embedding(np.random.default_rng(0).normal(size=(80, 2)), values, title="x"))
    assert sum(text.startswith("category number") for text in said) == 60
    assert said[said.index("and 15 more") + 1] == "15"


def test_ordered_categories_keep_their_order():
    values = pd.Categorical(["low dose", "high dose"] * 5, ["low dose", "high dose"], ordered=True)
    said = words(plot_embedding(np.eye(2)[[0, 1] * 5], values, title="x"))
    assert said.index("low dose") < said.index("high dose")
    values = values.as_unordered()
    said = words(plot_embedding(np.eye(2)[[0, 1] * 5], values, title="x"))
    assert said.index("high dose") < said.index("low dose")


def test_numbers_are_clipped_to_their_quantiles():
    values = np.arange(1000.0)
    values[-1], values[5] = 1e9, np.nan
    fig = plot_embedding(np.random.default_rng(0).normal(size=(1000, 2)), values, title="x")
    low, high = np.nanquantile(values, (0.01, 0.99))
    np.testing.assert_allclose(fig.axes[-1].get_ylim(), (low, high))
    assert "no value 1" in words(fig)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(50),
        np.full(50, np.nan),
        np.r_[np.inf, -np.inf, np.arange(48.0)],
        np.r_[np.zeros(49), 7],
        pd.array([1, None] * 25, dtype="Int64"),
        pd.array([True, None] * 25, dtype="boolean"),
        pd.Series([None] * 50, dtype=object),
        pd.Series([1, 2.5] * 25, dtype=object),
        pd.Series(["", " "] * 25),
        pd.Series(["_hidden", "$x$", "b\na", "細胞", "\ud800"] * 10),
        pd.Categorical([None] * 50, ["unused"]),
        pd.Series(pd.date_range("2020", periods=50)),
        [f"cell{i}" for i in range(50)],
    ],
    ids=range(13),
)
@pytest.mark.parametrize("on_data_labels", [None, True])
def test_odd_values_are_drawn(values, on_data_labels, tmp_path):
    xy = np.random.default_rng(0).normal(size=(50, 2))
    fig = plot_embedding(xy, values, title="odd $_{", on_data_labels=on_data_labels)
    save_figure(fig, tmp_path / "odd.png", dpi=50)
    assert (tmp_path / "odd.png").stat().st_size > 1000


def test_values_are_taken_by_position():
    xy, names = islands(2)
    (cells,) = scatters(plot_embedding(xy, names[::-1].set_axis(names.index), title="x"))
    left = cells.get_offsets()[:, 0] < 5
    np.testing.assert_allclose(cells.get_facecolor()[left, :3], palette(2)[[1] * 30])


def test_order_of_drawing_is_random_but_seeded():
    xy, names = islands(2)
    first, again, other = (
        scatters(plot_embedding(xy, names, title="x", seed=seed))[0].get_offsets()
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first[:, 0] > 5)[:30].any()


# ---------------------------------------------------------------- many cells


def test_squares_hold_the_mean_of_their_cells(monkeypatch):
    monkeypatch.setattr(plots, "DENSITY_ABOVE", 10)
    xy = np.repeat([[0.0, 0.0], [1.0, 1.0]], 8, axis=0)
    fig = plot_embedding(xy, ["a", "b"] * 4 + ["a"] * 8, title="x", on_data_labels=False)
    (image,) = fig.axes[1].images
    pixels = np.asarray(image.get_array())
    drawn = pixels[pixels[..., 3] > 0]
    colours = palette(2)
    np.testing.assert_allclose(drawn[:, :3], [colours.mean(axis=0), colours[0]], atol=1e-6)
    row, column = np.nonzero(pixels[..., 3])
    assert row[0] < row[1] and column[0] < column[1] and image.origin == "lower"
    assert any("each dot is the mean of the cells there" in text for text in words(fig))


def test_squares_average_numbers_not_colours(monkeypatch):
    monkeypatch.setattr(plots, "DENSITY_ABOVE", 10)
    xy = np.repeat([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], 10, axis=0)
    values = np.r_[np.tile([0.0, 10.0], 5), np.zeros(10), np.full(10, 10.0)]
    fig = plot_embedding(xy, values, title="x")
    pixels = np.asarray(fig.axes[1].images[0].get_array())
    middle = colormaps[COLORMAP](0.5)[:3]
    assert (np.abs(pixels[..., :3] - middle).max(axis=2) < 0.01).sum() == 1


# ---------------------------------------------------------------- compare


def test_compared_panels_share_colours_and_one_legend():
    xy, names = islands(2)
    long = names.astype(str) + " of a long name"
    fig = compare_embeddings([("before", xy, long), ("after", -xy, long)], title="both")
    said = words(fig)
    assert said.count("0 of a long name") == 1 and said[said.index("0 of a long name") + 1] == "30"
    assert {"both", "before", "after"} <= set(said)
    part = long[long.str.startswith("1")]
    fig = compare_embeddings([("all", xy, long), ("part", xy[30:], part)])
    assert "30" not in words(fig), "counts that differ between panels are not listed"
    np.testing.assert_allclose(scatters(fig)[1].get_facecolor()[0, :3], palette(2)[1])


def test_names_of_all_panels_are_in_counting_order():
    panels = [(name, np.zeros((1, 2)), [f"number {name} of a few"]) for name in ("10", "9", "100")]
    said = [text for text in words(compare_embeddings(panels)) if "number" in text]
    assert said == ["number 9 of a few", "number 10 of a few", "number 100 of a few"]


def test_compared_panels_fill_rows():
    xy, names = islands(4)
    fig = compare_embeddings([(str(i), xy, names) for i in range(5)], columns=2)
    corners = {tuple(np.round(ax.get_position().p0, 6)) for ax in fig.axes[1:]}
    assert len(corners) == 5 and len({x for x, _ in corners}) == 2


def test_numbers_and_categories_have_no_common_legend():
    xy, names = islands(2)
    with pytest.raises(ValueError, match='"a" categories, "b" numbers'):
        compare_embeddings([("a", xy, names), ("b", xy, np.arange(60))])
    with pytest.raises(ValueError, match="nothing to draw: 0 panels"):
        compare_embeddings([])


# ---------------------------------------------------------------- bad input, degenerate input


@pytest.mark.parametrize(
    ("xy", "values", "error", "text"),
    [
        (np.zeros((4, 3)), np.zeros(4), ValueError, r"x: .*shape \(cells, 2\), found \(4, 3\)"),
        (np.zeros((4, 2)), np.zeros(5), ValueError, "x: 4 cells have coordinates, 5 have values"),
        (np.full((4, 2), np.nan), np.zeros(4), ValueError, "x: none of the 4 cells"),
        (np.zeros((0, 2)), np.zeros(0), ValueError, "x: none of the 0 cells"),
        (np.full((4, 2), "a"), np.zeros(4), TypeError, "x: coordinates must be numbers"),
        (np.zeros((4, 2)), np.zeros((4, 2)), ValueError, "x: values must have one dimension"),
    ],
)
def test_bad_input_is_told_in_one_line(xy, values, error, text):
    with pytest.raises(error, match=text) as caught:
        plot_embedding(xy, values, title="x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "xy",
    [[[3, 4]], [[0, 0], [0, 0]], [[0.0, 0], [0, 1]], [[0.0, 0], [1e6, 1]], [[-1e30, 0], [0, 1]]],
)
def test_degenerate_embeddings_are_drawn(xy, tmp_path):
    values = [str(i) for i in range(len(xy))]
    fig = plot_embedding(np.array(xy), values, title="x", on_data_labels=True)
    save_figure(fig, tmp_path / "few.png", dpi=50)
    width, height = fig.get_size_inches()
    assert width < 12 and height < 8


# ---------------------------------------------------------------- colours


def test_palette_stays_apart_and_is_stable():
    colours = palette(64)
    assert colours.shape == (64, 3) and (palette(10) == colours[:10]).all()
    assert palette(0).shape == (0, 3) and (palette(70)[64:] == colours[:6]).all()
    lab = oklab(colours)
    for n, least in ((8, 0.14), (24, 0.09), (64, 0.06)):
        far = np.linalg.norm(lab[:n, None] - lab[None, :n], axis=-1) + np.eye(n)
        assert far.min() > least
    paper = oklab(np.array([[1.0, 1, 1], rgb(MISSING)]))
    assert np.linalg.norm(lab[:, None] - paper, axis=-1).min() > 0.06


def test_palette_stays_apart_for_deuteranopes():
    # Machado et al. 2009, severity 1
    view = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413]]
    view = np.array([*view, [-0.011820, 0.042940, 0.968881]])
    lab = oklab(palette(64), view)
    for n, least in ((8, 0.07), (24, 0.05), (64, 0.03)):
        far = np.linalg.norm(lab[:n, None] - lab[None, :n], axis=-1) + np.eye(n)
        assert far.min() > least


def oklab(rgb: np.ndarray, view: np.ndarray | None = None) -> np.ndarray:
    """Convert sRGB to OKLab (Ottosson 2020), after a simulation of colour blindness."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = linear if view is None else np.clip(linear @ view.T, 0, 1)
    cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    cones = np.array([*cones, [0.0883024619, 0.2817188376, 0.6299787005]])
    lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]]
    lab = np.array([*lab, [0.0259040371, 0.7827717662, -0.8086757660]])
    return np.cbrt(linear @ cones.T) @ lab.T


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_same_bytes_in_two_processes(suffix, tmp_path):
    code = (
        "import sys, numpy as np; from evaluation.plots import *;"
        "xy = np.random.default_rng(0).normal(size=(300, 2));"
        "save_figure(plot_embedding(xy, (xy[:, 0] > 0).astype(str), title='x'), sys.argv[1])"
    )
    workflow = Path(plots.__file__).parents[1]
    written = []
    for name in ("one", "two"):
        out = tmp_path / f"{name}{suffix}"
        subprocess.run([sys.executable, "-c", code, out], cwd=workflow, check=True)
        written.append(out.read_bytes())
    assert written[0] == written[1]
    assert b"atplotlib version" not in written[0]


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    fig = plot_embedding(*islands(2), title="x")
    out = tmp_path / "new" / "figure.png"
    save_figure(fig, out)
    old = out.read_bytes()

    def fail(path, **_):
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(fig, "savefig", fail)
    with pytest.raises(OSError, match="no space left"):
        save_figure(fig, out)
    assert out.read_bytes() == old and [p.name for p in out.parent.iterdir()] == ["figure.png"]


def test_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.png, \.pdf or \.svg"):
        save_figure(plot_embedding(*islands(2), title="x"), tmp_path / "figure.jpg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["leiden_0.5_2", "batch", "n_counts", "cell_type", "a+b-c"])
def test_ordinary_names_stay(name):
    assert file_stem(name) == name


def test_odd_names_are_readable_and_apart():
    assert file_stem("cell type/level 1").startswith("cell_type_level_1-")
    assert file_stem("Zellgröße").startswith("Zellgro_e-")
    names = ["a b", "a/b", "a_b", "a\\b", "..", ".", "", " ", "/", "細胞", "組織", ".hidden", "-rf"]
    names += ["x" * 80, "x" * 81, "x" * 300, "x" * 300 + "y", "é", "e\u0301", "\ud800", 3]
    stems = [file_stem(name) for name in names]
    assert len(set(stems)) == len(names)


def test_names_that_differ_only_in_case_are_apart_on_every_disk():
    assert file_stem("X_umap").startswith("X_umap-") and file_stem("x_umap") == "x_umap"
    names = ["celltype", "CellType", "Celltype", "CELLTYPE", "é", "É", "a b", "A b"]
    assert len({file_stem(name).casefold() for name in names}) == len(names)


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_every_stem_is_a_safe_name(name):
    stem = file_stem(name)
    assert 1 <= len(stem) <= 80 and stem.isascii() and stem == file_stem(name)
    assert not set(stem) & set("/\\: \0") and stem[0] not in ".-"


# ---------------------------------------------------------------- real data


def test_real_metadata_is_drawn(tmp_path):
    source = Path(__file__).resolve().parents[3] / "shared/data/pancreas_5studies_4kg.h5ad"
    if not source.exists():
        pytest.skip(
            f"{source.name} is not here: the folder shared/ beside the repository is absent"
        )
    with open_store(source) as root:
        obs = {name: obs_column(root, name) for name in ("cell_type", "batch", "donor", "assay")}
    xy = np.random.default_rng(0).normal(size=(len(obs["batch"]), 2))
    for column, values in obs.items():
        fig = plot_embedding(xy, values, title=column)
        save_figure(fig, tmp_path / f"{column}.png", dpi=50)
        assert {str(name) for name in values.unique()[:20]} <= set(words(fig))
    assert len(list(tmp_path.iterdir())) == 4
