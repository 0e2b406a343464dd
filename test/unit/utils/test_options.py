"""From a dataclass field follow the check, the options of a script and its command line."""

import argparse
import shlex
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.options import NeighborsOptions
from integration.options import HarmonyOptions
from preprocessing.options import PrepareOptions
from utils.option_checks import as_list
from utils.option_values import read_mapping, read_options
from utils.options import (
    Options,
    add_options,
    as_arguments,
    key,
    option_words,
    options_of,
    script_options,
)
from utils.validation import check_options

WORKFLOW = Path(__file__).resolve().parents[3] / "workflow"
STAGES = sorted(path.parent.name for path in WORKFLOW.glob("*/options.py"))
ALL = sorted(
    {
        cls
        for stage in STAGES
        for cls in vars(import_module(f"{stage}.options")).values()
        if isinstance(cls, type) and issubclass(cls, Options) and cls is not Options
    },
    key=lambda cls: cls.__name__,
)


def read(cls, *argv):
    parser = argparse.ArgumentParser()
    add_options(parser, cls)
    return read_options(cls, parser.parse_args(argv))


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_defaults_are_what_the_check_makes_of_them(cls):
    made = check_options(cls, {})
    assert made == cls() == read(cls)
    assert made.given == frozenset()
    for name, option in options_of(cls).items():
        # 1 where the check makes 1.0 would show.
        if option.default is None or isinstance(option.default, Options):
            continue
        checked = getattr(check_options(cls, {name: option.default}), name)
        assert repr(checked) == repr(option.default)
    assert option_words(cls, made) == []


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_option_has_help_that_is_a_sentence(cls):
    for option in options_of(cls).values():
        assert option.description.endswith("."), option.name


@dataclass(frozen=True, kw_only=True)
class Deep(Options):
    share: float = key(0.5, "A share.", ge=0, le=1)


@dataclass(frozen=True, kw_only=True)
class Every(Options):
    """One option of each kind."""

    flag: bool = key(True, "A flag.")
    count: int = key(3, "A count.", ge=1)
    share: float | None = key(0.5, "A share.", ge=0)
    word: Literal["a", "b"] = key("a", "A word.")
    text: str | None = key(None, "A text.")
    names: list[str] = key([], "Names.", before=as_list)
    weights: float | list[float] = key(1.0, "Weights.")
    mapping: dict[str, Any] = key({}, "A mapping.")
    deep: Deep | None = key(None, "A section.")


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
NUMBER = st.floats(0, 1e300, allow_subnormal=False)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "flag": st.booleans(),
        "count": st.integers(1, 10**15),
        "share": st.none() | NUMBER,
        "word": st.sampled_from(["a", "b"]),
        "text": TEXT.filter(lambda text: text not in ("null", "None")),
        "names": st.lists(TEXT, min_size=1),
        "weights": NUMBER | st.lists(NUMBER, min_size=1),
        "mapping": st.dictionaries(TEXT, st.none() | st.booleans() | NUMBER | TEXT, min_size=1),
        "deep": st.builds(dict, share=st.floats(0, 1)),
    },
)


@given(VALUES)
def test_a_command_line_gives_back_the_options_that_it_was_written_from(values):
    options = check_options(Every, values)
    assert options.given == set(values)
    argv = []
    for word in option_words(Every, options):
        argv += shlex.split(word)
    # What begins with a dash has to be joined to its option: a person writes --text=-x.
    joined = []
    for word in argv:
        if joined and joined[-1].startswith("--") and "=" not in joined[-1] and word[:2] != "--":
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    if not any(isinstance(v, str) and v.startswith("--") for v in values.values()):
        assert read(Every, *joined) == options


def test_only_options_that_differ_are_checked(monkeypatch):
    def check(*_, **__):
        raise AssertionError

    monkeypatch.setattr("utils.validation.check_options", check)
    assert read(NeighborsOptions).n_neighbors == 15
    assert read(NeighborsOptions, "--n_neighbors", "15").n_neighbors == 15
    assert read(NeighborsOptions, "--use_rep", "X_pca").use_rep == "X_pca"
    for other in ("15.0", "true", "16"):
        with pytest.raises(AssertionError):
            read(NeighborsOptions, "--n_neighbors", other)


def test_options_of_a_script():
    words = "--n_clusters 7 --tol_harmony null --combine_keys"
    options = read(HarmonyOptions, "--theta", "[1, 2]", *words.split())
    assert (options.theta, options.n_clusters, options.tol_harmony) == ([1, 2], 7, None)
    assert options.combine_keys
    options = read(PrepareOptions, "--subset", '{"a": ["b", 1]}', "--layer", "3")
    assert (options.subset, options.layer) == ({"a": ["b", 1]}, "3")


def test_the_name_of_a_method_is_an_option_of_the_config_alone():
    hidden = set(options_of(HarmonyOptions)) - set(script_options(HarmonyOptions))
    assert hidden == {"method", "basis"}
    assert not hidden & set(as_arguments(HarmonyOptions()))


def test_a_wrong_option_is_named():
    with pytest.raises(ValueError, match="--alpha: must be less than 1, found 2"):
        read(HarmonyOptions, "--alpha", "2")
    with pytest.raises(ValueError, match='--flavor: unknown value "harmony3"; did you mean'):
        read(HarmonyOptions, "--flavor", "harmony3")
    with pytest.raises(ValueError, match=r'--x: n_neighbours: unknown key .* "n_neighbors"'):
        read_mapping(NeighborsOptions, {"n_neighbours": 3}, "--x")
