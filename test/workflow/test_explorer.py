"""The explorer page in a real browser: what is drawn, selected, asked for and complained of."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from browser import BROWSERS, Browser, find_browser
from matplotlib.image import imread
from running import read

from explorer.page import MethodResult, explorer_page
from utils.palette import palette

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason=f"needs a browser: none of {', '.join(BROWSERS)} is installed"
)

HOSTILE = [
    "<img src=x onerror='window.hacked=1'>",
    "</script><script>window.hacked=1</script>",
    "\"quotes\" & 'more' {{script}}",
    "雪 \u2028 \U0001f9ec \u202egnp",
    "",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


def example() -> tuple[list[MethodResult], dict[str, pd.Series | np.ndarray]]:
    """Make six islands of 50 cells, in three clusters of two parts, and two layouts of them."""
    rng = np.random.default_rng(0)
    island = np.repeat(np.arange(6), 50)
    center = np.stack([island % 3, island // 3], axis=1) * 10.0
    layout = center + rng.normal(0, 0.5, (300, 2))
    first = pd.Series(island % 3).astype(str)
    second = first + "_" + pd.Series(island // 3).astype(str)
    clusters = {"leiden_0.5_1": first, "leiden_0.5_2": second, "leiden_1.0_1": second.str[-1]}
    keys = {"column": ["leiden_0.5_2"] * 2, "cluster": ["2_1", "2_1"]}
    markers = pd.DataFrame({**keys, "gene": ["INS", "<b>GCG"], "auc": [0.98765, 0.9]})
    splits = pd.DataFrame(
        {
            "column": ["leiden_0.5_2"],
            "left": ["2_1"],
            "right": ["2_0"],
            "jaccard_left": [0.87321],
            "verdict": ["gradual"],
            "p": [0.00123],
            "suggestion": ["keep"],
        }
    )
    columns = {
        "sample": pd.Series([HOSTILE[i % 5] for i in range(300)]),
        "n_genes": np.where(np.arange(300) % 10 == 0, np.nan, layout[:, 0] * 100),
        HOSTILE[0]: pd.Series(["x", None] * 150),
    }
    other = MethodResult("after <i>", layout[:, ::-1] + 1, clusters, markers, splits)
    return [MethodResult("before", layout, clusters), other], columns


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Write the page of the example; return its path, its cells and the labels of all."""
    methods, columns = example()
    page = explorer_page(methods, columns, title=HOSTILE[1], batch=["sample"])
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    path.write_text(page.html, encoding="utf-8")
    return path, page.rows, methods[0].clusters


def chosen(browser: Browser, rows: np.ndarray) -> np.ndarray:
    """Rows of the data set that are selected on the page, in ascending order."""
    mask = browser.js("[...(window.cellstrata.selected() ?? [])]")
    return np.sort(rows[np.flatnonzero(mask)])


def clean(browser: Browser, path: Path) -> None:
    """Check that the page complained of nothing and asked for nothing but itself."""
    assert browser.problems == []
    assert set(browser.requests) == {path.resolve().as_uri()}


def colors(browser: Browser) -> np.ndarray:
    """Count the cells of the first plot that show their own color where they stand."""
    image = imread(io.BytesIO(browser.screenshot()))[..., :3]
    places = browser.js(
        """(() => { const box = document.querySelector('.plot').getBoundingClientRect();
        const plot = window.cellstrata.plots()[0]; const found = [];
        for (let cell = 0; cell < plot.method.x.length; cell++) {
          const [x, y] = plot.positionOf(cell); found.push([box.x + x, box.y + y]); }
        return found; })()"""
    )
    x, y = np.rint(np.array(places)).astype(int).T
    return image[y, x]


@pytest.mark.parametrize(("options", "renderer"), [((), "webgl"), (("--disable-3d-apis",), "2d")])
def test_it_draws_every_cell_in_its_color(tmp_path, made, options, renderer):
    path, rows, clusters = made
    browser = Browser(tmp_path / "profile", *options)
    try:
        browser.open(path)
        assert browser.js("document.documentElement.dataset.renderer") == renderer
        browser.js("document.querySelectorAll('.labels').forEach((c) => (c.style.opacity = 0))")
        seen = colors(browser)
        clean(browser, path)
    finally:
        browser.close()
    own = palette(3)[clusters["leiden_0.5_1"].astype(int).to_numpy()[rows]]
    assert (np.abs(seen - own).max(axis=1) < 0.12).mean() > 0.97


def test_a_click_on_a_tree_node_selects_its_cells(browser, made):
    path, rows, clusters = made
    browser.open(path)
    browser.click("#level button:nth-child(2)")
    labels = browser.js("window.cellstrata.atlas.methods[1].trees[0].labels")
    assert labels == ["0", "1", "2", "0_0", "0_1", "1_0", "1_1", "2_0", "2_1"]
    for node, label in enumerate(labels):
        browser.click(f"#nodes [data-node='{node}']")
        column = clusters[f"leiden_0.5_{len(label.split('_'))}"]
        np.testing.assert_array_equal(chosen(browser, rows), np.flatnonzero(column == label))
        row = browser.js(
            f"document.querySelector(\"#nodes [data-node='{node}']\").ariaSelected"
            " + document.querySelector('.tiles b').textContent"
        )
        assert row == f"true{(column == label).sum()}"
    details = browser.js("document.getElementById('details').innerText")
    for words in ("Cluster 2_1", "jaccard", "0.873", "gradual", "keep", "INS", "0.988", "<b>GCG"):
        assert words in details
    marked = "[...document.querySelectorAll('#nodes .name.gradual')].map((e) => e.textContent)"
    assert browser.js(marked) == ["2_0", "2_1"]
    browser.click("#nodes [data-node='-1']")
    assert len(chosen(browser, rows)) == 0
    clean(browser, path)


def test_a_click_on_a_cell_selects_its_cluster_in_both_plots(browser, made):
    path, rows, clusters = made
    browser.open(path)
    assert browser.js("document.querySelectorAll('.plot').length") == 2
    cell = int(np.flatnonzero(rows == 120)[0])
    for plot in (1, 2):
        x, y = browser.js(
            f"""(() => {{ const plot = window.cellstrata.plots()[{plot - 1}];
            const box = document.querySelectorAll('.plot')[{plot - 1}].getBoundingClientRect();
            const [x, y] = plot.positionOf({cell}); return [box.x + x, box.y + y]; }})()"""
        )
        browser.key("Escape")
        assert len(chosen(browser, rows)) == 0
        browser.click_at(x, y)
        same = clusters["leiden_0.5_1"] == clusters["leiden_0.5_1"][120]
        np.testing.assert_array_equal(chosen(browser, rows), np.flatnonzero(same))
    clean(browser, path)


def test_names_are_text_whatever_they_hold(browser, made):
    path, _, _ = made
    browser.open(path)
    assert browser.js("document.title") == f"{HOSTILE[1]} · cellstrata explorer"
    browser.js(
        "(() => { const s = document.getElementById('color'); s.value = '0';"
        "s.dispatchEvent(new Event('change')); })()"
    )
    found = browser.js("[...document.querySelectorAll('#legend .name')].map((e) => e.textContent)")
    assert sorted(found) == sorted(name or "(empty)" for name in HOSTILE)
    browser.key("/")
    browser.type("window.hacked")
    assert browser.js("document.querySelectorAll('#matches [role=option]').length") >= 3
    assert browser.js("window.hacked") is None
    assert browser.js("document.querySelectorAll('main img, main script, main b i').length") == 0
    browser.key("Escape")
    clean(browser, path)
    # Even a script that finds its way onto the page is refused, and nothing can be fetched.
    browser.js(
        "document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'window.hacked = 1'}), Object.assign(document.createElement('img'),"
        " {src: 'http://127.0.0.1:9/x.png'}))"
    )
    browser.painted()
    assert browser.js("window.hacked") is None
    assert any("Content Security Policy" in problem for problem in browser.problems)


def test_everything_by_keyboard(browser, made):
    path, rows, clusters = made
    browser.open(path)
    browser.js("document.querySelector('#nodes [tabindex=\"0\"]').focus()")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "Enter"):
        browser.key(key)
    expected = np.flatnonzero(clusters["leiden_0.5_2"] == "1_0")
    np.testing.assert_array_equal(chosen(browser, rows), expected)
    assert browser.js("document.activeElement.ariaLabel") == "cluster 1_0, 50 cells"
    assert browser.js("document.getElementById('status').textContent").startswith("Cluster 1_0")
    for key in ("ArrowLeft", "ArrowLeft"):
        browser.key(key)
    assert browser.js("document.activeElement.ariaExpanded") == "false"
    browser.key("]")
    assert browser.js("document.getElementById('color').selectedOptions[0].text") == "leiden_1.0_1"
    browser.key("c")
    assert browser.js("document.querySelectorAll('.plot').length") == 1
    browser.key("/")
    browser.type("ins")
    browser.key("Enter")
    expected = np.flatnonzero(clusters["leiden_0.5_2"] == "2_1")
    np.testing.assert_array_equal(chosen(browser, rows), expected)
    clean(browser, path)


def test_every_control_has_a_name_for_a_screen_reader(browser, made):
    browser.open(made[0])
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in nodes if not node["ignored"]]
    assert roles.count("treeitem") == 4
    nameless = [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"]
        and any(p["name"] == "focusable" for p in node.get("properties", []))
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []


def test_numbers_have_a_scale_and_its_range(browser, made):
    path, _, _ = made
    browser.open(path)
    browser.js(
        "(() => { const s = document.getElementById('color'); s.value = '1';"
        "s.dispatchEvent(new Event('change')); })()"
    )
    assert browser.js("document.querySelectorAll('#legend .histogram i').length") == 40
    assert "30 cells without a value" in browser.js("document.getElementById('legend').innerText")
    ends = "[...document.querySelectorAll('.ends span')].map((e) => e.textContent)"
    before = browser.js(ends)
    browser.js(
        "(() => { const i = document.querySelector('#legend input'); i.value = '500';"
        "i.dispatchEvent(new Event('change')); })()"
    )
    assert browser.js(ends) == ["500", before[1]]
    clean(browser, path)


def test_the_picture_is_saved(browser, made, tmp_path):
    path, _, _ = made
    browser.open(path)
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.click("#export")
    browser.wait("document.getElementById('status').textContent.startsWith('Saved')")
    name = browser.js("document.getElementById('status').textContent").removeprefix("Saved ")
    browser.wait_for(tmp_path / name)
    image = imread(tmp_path / name)
    wide, high = browser.js(
        "(() => { const b = document.getElementById('plots').getBoundingClientRect();"
        "return [b.width, b.height]; })()"
    )
    assert image.shape[0] == int(2 * high)
    assert image.shape[1] > 2 * wide
    drawn = image[: int(1.8 * high), : int(2 * wide), :3]
    for color in palette(3):
        assert (np.abs(drawn - color).max(axis=2) < 0.1).sum() > 300
    assert browser.problems == []


def test_cells_alone_make_a_page_too(browser, tmp_path):
    path = tmp_path / "explorer.html"
    layout = np.random.default_rng(0).normal(size=(3000, 2))
    row = {"method": "m", "where": "<b>all</b>", "figure": "0.9, now 0.7", "advice": "correct less"}
    method, warnings = MethodResult("m", layout, {}), pd.DataFrame([row])
    page = explorer_page([method], {}, title="x", max_cells=500, warnings=warnings)
    path.write_text(page.html)
    browser.open(path)
    listed = browser.js("document.querySelector('#warnings li').innerText")
    assert listed == "m <b>all</b>: 0.9, now 0.7. correct less"
    cells = browser.js("document.getElementById('cells').textContent")
    assert cells == "3,000 cells · 500 drawn, with some of every cluster"
    assert browser.js("document.querySelectorAll('#compare:not([hidden])').length") == 0
    for key in ("c", "1", "]", "Escape"):
        browser.key(key)
    x, y = browser.js("window.cellstrata.plots()[0].positionOf(7)")
    left, top = browser.js(
        "(() => { const b = document.querySelector('.plot').getBoundingClientRect();"
        "return [b.x, b.y]; })()"
    )
    browser.click_at(left + x, top + y)
    assert browser.js("window.cellstrata.picture().width") > 0
    clean(browser, path)


def test_another_method_keeps_resolution_and_level(browser, made):
    path, _, _ = made
    browser.open(path)
    browser.click("#level button:nth-child(2)")
    browser.js(
        "(() => { const s = document.getElementById('method'); s.value = '0';"
        "s.dispatchEvent(new Event('change')); })()"
    )
    shown = "[...document.querySelectorAll('.colored-by')].map((e) => e.textContent)"
    assert browser.js(shown) == ["leiden_0.5_2 of before"] * 2
    clean(browser, path)


def test_the_page_of_the_workflow(browser, pancreas):
    path = pancreas / "results/pancreas/explorer.html"
    assert path.stat().st_size < 500_000
    browser.open(path)
    assert browser.js("document.getElementById('cells').textContent") == "766 cells"
    assert browser.js("window.cellstrata.atlas.methods.map((m) => m.name)") == [
        "unintegrated",
        "harmony",
    ]
    obs = read(pancreas / "results/pancreas/harmony/atlas.zarr").obs
    expected = {column: obs[column].value_counts() for column in obs if "louvain" in column}
    assert len(expected) == 3
    found = browser.js(
        "window.cellstrata.atlas.methods[1].trees.find((t) => t.name === 'louvain_1.0')"
    )
    sizes = dict(zip(found["labels"], found["sizes"], strict=True))
    for counts in expected.values():
        assert {label: sizes[label] for label in counts.index} == counts.to_dict()
    options = browser.js("[...document.querySelectorAll('#color option')].map((o) => o.text)")
    assert set(obs.columns) <= set(options), json.dumps(options)
    clean(browser, path)
