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
from PIL import Image

from evaluation.figures import embedding, page
from evaluation.figures.color_scale import MISSING
from evaluation.figures.dots import FINE, Picture, color_cells, paint_cells
from evaluation.figures.embedding import compare_embeddings, plot_embedding
from evaluation.figures.page import file_stem, save_figure
from evaluation.figures.text_places import spread, text_outline
from utils.elements import read_column
from utils.io import open_store
from utils.palette import palette, rgb

pytestmark = pytest.mark.filterwarnings("error")


def islands(k: int, each: int = 30, seed: int = 0) -> tuple[np.ndarray, pd.Series]:
    """Make k round clusters on a square lattice, named by number."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(k)))
    centers = np.stack([np.arange(k) % side, np.arange(k) // side], axis=1) * 10.0
    xy = np.repeat(centers, each, axis=0) + rng.normal(size=(k * each, 2))
    return xy, pd.Series(np.repeat(np.arange(k), each).astype(str), dtype="category")


def words(fig) -> list[str]:
    """All texts of a figure, in drawing order."""
    return [text.get_text() for ax in fig.axes for text in ax.texts]


def pictures(fig) -> list[Picture]:
    """Find the cells of each panel."""
    return [artist for artist in fig.axes[0].artists if isinstance(artist, Picture)]


def written(fig) -> list[tuple[object, np.ndarray]]:
    """Letters on the cells, as drawn and with their middles in inches from the page's corner."""
    return [
        (letters, middle)
        for layer in fig.axes[0].collections
        if layer.get_zorder() == 4 and len(layer.get_edgecolor()) == 0
        for letters, middle in zip(layer.get_paths(), layer.get_offsets(), strict=True)
    ]


def labels(fig, xy, names) -> dict[str, np.ndarray]:
    """Which of some names are written on the cells, and where in data units."""
    shapes = {
        text_outline(name, size, "bold").vertices.tobytes(): name
        for name in names
        for size in (10, 8.5, 7)
    }
    (picture,) = pictures(fig)
    panel = embedding._panel("", xy, np.zeros(len(xy)))
    size = np.array(picture.image.shape[1::-1]) / page.DPI
    return {
        shapes[letters.vertices.tobytes()]: panel.corner
        + (middle - picture.corner) * (1, -1) / size * panel.span
        for letters, middle in written(fig)
    }


def share(image, color) -> float:
    """Part of an image that has a color, sRGB from 0 to 1."""
    return (np.abs(image / 255 - color).max(axis=2) < 0.003).mean()


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("far", [0, 150])
def test_fifty_labels_sit_on_their_clusters_and_do_not_overlap(far):
    xy, names = islands(50)
    xy[0] += far  # one cell far away leaves little room to the clusters
    fig = plot_embedding(xy, names, title="leiden", on_data_labels=True)
    placed = labels(fig, xy, names.unique())
    assert set(placed) == {str(i) for i in range(50)}
    centers = pd.DataFrame(xy).groupby(names.to_numpy()).median()
    for name, place in placed.items():
        assert np.abs(centers.loc[name] - np.array(place)).max() < (20 if far else 3)
    boxes = [text.get_extents().translated(*(at * (72, -72))) for text, at in written(fig)]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_label_of_a_split_cluster_sits_on_its_denser_part():
    xy, _ = islands(2, each=100)
    names = np.array(["a"] * 200 + ["b"] * 110)
    names[-10:] = "a"  # a few cells of a among b, which lies between both parts of a
    xy = np.concatenate([xy, xy[:100] * 0.5 + [5, 0], xy[:10] * 0.5 + [5, 0]])
    place = labels(plot_embedding(xy, names, title="x", on_data_labels=True), xy, "ab")["a"]
    assert min(abs(place[0] - 0), abs(place[0] - 10)) < 2.5


def test_labels_only_by_default_where_categories_lie_apart():
    xy, names = islands(9)
    assert set(labels(plot_embedding(xy, names, title="x"), xy, "012345678")) == set("012345678")
    mixed = np.random.default_rng(0).permutation(names.to_numpy())
    for other in (mixed, names.to_numpy() < "5", names.astype(str) + " with a long name"):
        assert not written(plot_embedding(xy, other, title="x"))


def test_more_clusters_than_labels_is_said():
    xy, names = islands(130, each=5)
    fig = plot_embedding(xy, names, title="x", on_data_labels=True)
    assert len(written(fig)) == 120
    assert any("labels on the 120 largest" in text for text in words(fig))
    # Long labels would cover the cells: fewer are written.
    fig = plot_embedding(xy, names.astype(str) + "_0_1_2", title="x", on_data_labels=True)
    assert 40 < len(written(fig)) < 80
    assert any(f"labels on the {len(written(fig))} largest" in text for text in words(fig))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 50), st.integers(0, 10_000))
def test_spread_separates_rectangles(n, seed):
    rng = np.random.default_rng(seed)
    window = np.array([360.0, 360.0])
    sizes = np.stack([rng.uniform(8, 30, n), np.full(n, 10.0)], axis=1)
    centers = spread(rng.uniform(90, 270, (n, 2)), sizes, window)
    apart = np.abs(centers[:, None] - centers[None]) - (sizes[:, None] + sizes[None]) / 2
    clear = (apart > -1e-6).any(axis=2) | np.eye(n, dtype=bool)
    assert clear.all()
    assert (centers >= sizes / 2 - 1e-9).all() and (centers <= window - sizes / 2 + 1e-9).all()


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


@pytest.mark.parametrize("values", [["a", None] * 300, [1.0, np.nan] * 300])
def test_missing_lies_underneath_in_gray(values):
    xy = np.repeat(np.random.default_rng(0).normal(size=(300, 2)), 2, axis=0)
    covered, apart = (
        pictures(plot_embedding(xy + off, values, title="x", on_data_labels=False))[0].image
        for off in (0, np.tile([[0, 0], [10, 0]], (300, 1)))
    )
    assert share(covered, rgb(MISSING)) == 0 and share(covered, 1) < 0.99
    assert share(apart, rgb(MISSING)) > 0.005


def test_long_legends_are_cut_and_the_rest_counted():
    values = [f"category number {i:03d}" for i in range(75)] + ["category number 003"] * 5
    said = words(plot_embedding(np.random.default_rng(0).normal(size=(80, 2)), values, title="x"))
    assert sum(text.startswith("category number") for text in said) == 60
    assert said[said.index("and 15 more") + 1] == "15"


def test_ordered_categories_keep_their_order():
    values = pd.Categorical(["low dose", "high dose"] * 5, ["low dose", "high dose"], ordered=True)
    said = words(plot_embedding(np.eye(2)[[0, 1] * 5], values, title="x", on_data_labels=False))
    assert said.index("low dose") < said.index("high dose")
    values = values.as_unordered()
    said = words(plot_embedding(np.eye(2)[[0, 1] * 5], values, title="x", on_data_labels=False))
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
        pd.Series(["_hidden", "$x$", "b\na", "細胞", "\ud800"] * 10, dtype=object),
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
    save_figure(fig, tmp_path / "odd.png")
    assert (tmp_path / "odd.png").stat().st_size > 1000


def test_values_are_taken_by_position():
    xy, names = islands(2)
    (cells,) = pictures(plot_embedding(xy, names[::-1].set_axis(names.index), title="x"))
    left, right = np.split(cells.image, [cells.image.shape[1] // 2], axis=1)
    for half, here, there in ((left, 1, 0), (right, 0, 1)):
        assert share(half, palette(2)[here]) > 0.001 and share(half, palette(2)[there]) == 0


def test_order_of_drawing_is_random_but_seeded():
    xy = np.random.default_rng(0).normal(size=(5000, 2))
    names = np.repeat(["a of a long name", "b of a long name"], 2500)
    first, again, other = (
        pictures(plot_embedding(xy, names, title="x", seed=seed))[0].image for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    a, b = (share(first, color) for color in palette(2))
    assert 0.9 < a / b < 1.1


# ---------------------------------------------------------------- dots


@pytest.mark.parametrize("diameter", [1.5, 8.3])
def test_a_point_shows_one_of_the_cells_that_cover_it_always_the_same_first(diameter):
    rng = np.random.default_rng(0)
    places, known = rng.uniform(0.2, 0.8, (60, 2)), np.arange(60) >= 20
    wide, high = 50, 40
    dots = paint_cells(places, known, wide=wide, high=high, diameter=diameter, seed=0)
    fine = np.full((FINE * FINE, high * wide), -1)
    fine[:, dots.pixels] = dots.seen
    fine = fine.reshape(FINE, FINE, high, wide).transpose(2, 0, 3, 1).reshape(high * FINE, -1)
    row, column = np.indices(fine.shape)
    x, y = (places * (1, -1) + (0, 1)).T * np.array([[wide], [high]]) * FINE
    near = (column - x.astype(int)[:, None, None]) ** 2 + (row - y.astype(int)[:, None, None]) ** 2
    covers = near <= (diameter * FINE / 2) ** 2
    np.testing.assert_array_equal(fine >= 0, covers.any(axis=0))
    beats = np.zeros((60, 60), dtype=bool)
    for r, c in zip(*np.nonzero(fine >= 0), strict=True):
        assert covers[fine[r, c], r, c]
        beats[fine[r, c], covers[:, r, c]] = True
    np.fill_diagonal(beats, False)
    assert beats[20:].any() and not (beats & beats.T).any() and not beats[:20, 20:].any()


def test_a_pixel_is_the_mean_of_its_points():
    rng = np.random.default_rng(0)
    dots = paint_cells(
        rng.uniform(0.2, 0.8, (30, 2)), np.ones(30), wide=30, high=30, diameter=4, seed=0
    )
    colors = rng.integers(0, 256, (30, 3))
    points = np.vstack([colors, [[255] * 3]])[dots.seen]
    assert (dots.seen < 0).any() and (dots.seen < 0).all(axis=0).sum() == 0
    image = color_cells(dots, colors).reshape(-1, 3).astype(float)
    assert np.abs(image[dots.pixels] - points.mean(axis=0)).max() <= 0.5
    assert (np.delete(image, dots.pixels, axis=0) == 255).all()


def test_cells_stand_in_the_file_as_they_were_painted(tmp_path):
    xy = np.random.default_rng(0).normal(size=(400, 2)) * (1.13, 1)
    fig = compare_embeddings(
        [("one", xy, xy[:, 0]), ("two", xy * (1.3, 1), xy[:, 0])], title="both"
    )
    save_figure(fig, tmp_path / "cells.png")
    pixels = np.asarray(Image.open(tmp_path / "cells.png").convert("RGB"))
    for picture in pictures(fig):
        left, bottom = (round(inches * page.DPI) for inches in picture.corner)
        high, wide = picture.image.shape[:2]
        assert share(picture.image, 1) < 0.99
        np.testing.assert_array_equal(
            pixels[bottom - high : bottom - 40, left + 80 : left + wide],
            picture.image[:-40, 80:],
        )


# ---------------------------------------------------------------- compare


def test_compared_panels_share_colors_and_one_legend():
    xy, names = islands(2)
    long = names.astype(str) + " of a long name"
    fig = compare_embeddings([("before", xy, long), ("after", -xy, long)], title="both")
    said = words(fig)
    assert said.count("0 of a long name") == 1 and said[said.index("0 of a long name") + 1] == "30"
    assert {"both", "before", "after"} <= set(said)
    part = long[long.str.startswith("1")]
    fig = compare_embeddings([("all", xy, long), ("part", xy[30:], part)])
    assert "30" not in words(fig), "counts that differ between panels are not listed"
    both, part = (picture.image for picture in pictures(fig))
    assert share(part, palette(2)[1]) > 0.001 and share(part, palette(2)[0]) == 0
    assert share(both, palette(2)[0]) > 0.001


def test_names_of_all_panels_are_in_counting_order():
    panels = [(name, np.zeros((1, 2)), [f"number {name} of a few"]) for name in ("10", "9", "100")]
    said = [text for text in words(compare_embeddings(panels)) if "number" in text]
    assert said == ["number 9 of a few", "number 10 of a few", "number 100 of a few"]


def test_compared_panels_fill_rows():
    xy, names = islands(4)
    fig = compare_embeddings([(str(i), xy, names) for i in range(5)], columns=2)
    corners = {picture.corner for picture in pictures(fig)}
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
    save_figure(fig, tmp_path / "few.png")
    width, height = fig.get_size_inches()
    assert width < 12 and height < 8


# ---------------------------------------------------------------- colors


def test_palette_stays_apart_and_is_stable():
    colors = palette(64)
    assert colors.shape == (64, 3) and (palette(10) == colors[:10]).all()
    assert palette(0).shape == (0, 3) and (palette(70)[64:] == colors[:6]).all()
    lab = oklab(colors)
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
    """Convert sRGB to OKLab (Ottosson 2020), after a simulation of color blindness."""
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
        "import sys, numpy as np; from evaluation.figures.embedding import plot_embedding;"
        "from evaluation.figures.page import save_figure;"
        "xy = np.random.default_rng(0).normal(size=(300, 2));"
        "save_figure(plot_embedding(xy, (xy[:, 0] > 0).astype(str), title='x'), sys.argv[1])"
    )
    workflow = Path(page.__file__).parents[2]
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

    def fail(_, path, **__):
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("PIL.Image.Image.save", fail)
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
    source = Path(__file__).resolve().parents[4] / "shared/data/pancreas_5studies_4kg.h5ad"
    if not source.exists():
        pytest.skip(
            f"{source.name} is not here: the folder shared/ beside the repository is absent"
        )
    with open_store(source) as root:
        obs = {name: read_column(root, name) for name in ("cell_type", "batch", "donor", "assay")}
    xy = np.random.default_rng(0).normal(size=(len(obs["batch"]), 2))
    for column, values in obs.items():
        fig = plot_embedding(xy, values, title=column)
        save_figure(fig, tmp_path / f"{column}.png")
        assert {str(name) for name in values.unique()[:20]} <= set(words(fig))
    assert len(list(tmp_path.iterdir())) == 4
