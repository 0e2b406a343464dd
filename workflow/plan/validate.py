"""Check a config as a whole: every problem at once, each with its path and what to write."""

from __future__ import annotations

import copy
import itertools
import re
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from plan.config import Config, DataSet
from plan.plan import BENCHMARKS, LOGS, REPORTS, STORES
from utils.errors import one_line
from utils.validation import explain, path_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def load_config(mapping: dict[str, Any], *, yaml_texts: dict[str, str] | None = None) -> Config:
    """Check a config and fill in the defaults.

    Parameters
    ----------
    mapping
        The config as read from YAML.
    yaml_texts
        File name to text of the files it came from; used to point at values that YAML reads
        otherwise than they look.

    Returns
    -------
    Config
        The checked, immutable config.

    Raises
    ------
    ValueError
        With one line per problem: its path in the config, what was found, what to write.
    """
    config, problems = check_config(mapping, yaml_texts=yaml_texts)
    if problems or config is None:
        raise ValueError("\n".join(problems))
    return config


def check_config(
    mapping: dict[str, Any], *, yaml_texts: dict[str, str] | None = None
) -> tuple[Config | None, list[str]]:
    """As `load_config`, but return the config, where there is one, beside its problems."""
    problems = [
        line for name, text in (yaml_texts or {}).items() for line in text_problems(name, text)
    ]
    config = None
    try:
        config = Config.model_validate(_plain(mapping))
    except ValidationError as error:
        for item in error.errors():
            problems += _explain(item)
    datasets = config.DATASETS if config else readable_data_sets(mapping)
    problems += name_problems({name: tuple(dataset.methods) for name, dataset in datasets.items()})
    return config, list(dict.fromkeys(problems))


def readable_data_sets(mapping: dict[str, Any]) -> dict[str, DataSet]:
    """Return the data sets of a config with errors, each without the keys that have one.

    What else is wrong with them can so be said at once. One whose `input` has an error is left
    out.
    """
    sections = mapping.get("DATASETS") if isinstance(mapping, dict) else None
    datasets = {}
    for name, section in sections.items() if isinstance(sections, dict) else ():
        section = copy.deepcopy(_plain(section))
        for _ in range(100):
            try:
                datasets[str(name)] = DataSet.model_validate(section, context={"alone": True})
                break
            except ValidationError as error:
                # All are looked up before the first is removed.
                keys = [_keys_at(section, item["loc"], item["msg"]) for item in error.errors()]
                if [] in keys:
                    break
                for parent, key in itertools.chain.from_iterable(keys):
                    parent.pop(key, None)
    return datasets


def _keys_at(section: Any, location: tuple[Any, ...], words: str) -> list[tuple[dict, Any]]:
    """Find the keys that an error is about, each with the mapping that it is in.

    Where keys of a section do not go together, these are the ones that the words name.
    """
    last = None
    for part in location:
        if not isinstance(section, dict):
            break
        if part in section:  # else it names the branch of a union
            last = (section, part)
            section = section[part]
    if location[:1] == ("input",) or last is None:
        return []
    if not isinstance(section, dict):
        return [last]
    named = set(re.findall(r"\w+", words))
    return [(section, key) for key in section if key in named] or [last]


# Steps whose logs and benchmarks lie beside those of the methods.
_STEPS = ("prepare", "doublets", "pca", "comparison", "explorer")


def name_problems(datasets: Mapping[str, Iterable[str]]) -> list[str]:
    """Say which names of data sets and methods are those of files of the workflow.

    Parameters
    ----------
    datasets
        Data set to the names of its methods.
    """
    for_sets, for_methods = _names_of_files()
    line = "{}: the workflow has a file or folder of this name; use another name"
    return [line.format(f"DATASETS.{name}") for name in datasets if name in for_sets] + [
        line.format(f"DATASETS.{name}.integration.methods.{method}")
        for name, methods in datasets.items()
        for method in methods
        if method in for_methods
    ]


def _names_of_files() -> tuple[set[str], set[str]]:
    """Return the names that lie beside the folders of data sets, and beside those of methods."""
    paths = [path.split("/") for path in STORES.values()]
    for_sets = {first for first, *_ in paths if first != "{dataset}"}
    for_sets |= {LOGS, BENCHMARKS, *REPORTS, "summary.log", "summary.tsv"}
    for_methods = {rest[0] for _, *rest in paths if rest and rest[0] != "{method}"}
    for_methods |= {f"{step}.{ending}" for step in _STEPS for ending in ("log", "tsv")}
    return for_sets, for_methods


def text_problems(name: str, text: str) -> list[str]:
    """Find what a YAML reader takes otherwise than it looks, without a word.

    Parameters
    ----------
    name
        Name of the file, for the message.
    text
        Its YAML text.

    Returns
    -------
    list of str
        One line per key that is written twice, of which only the last would count, and per
        unquoted cluster id under a ``hierarchy`` key: ``3_0`` is read as the number 30.
    """
    lines: list[str] = []

    def walk(node: yaml.Node | None, inside: bool) -> None:
        if isinstance(node, yaml.MappingNode):
            first: dict[tuple[str, str], yaml.Node] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if inside and re.fullmatch(r"\d+(_\d+)+", str(key.value)) and key.style is None:
                    read = int(key.value.replace("_", ""))
                    lines.append(
                        f"{name}, line {line}: {key.value} without quotes is "
                        f'read as the number {read}; write "{key.value}"'
                    )
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    above = first.setdefault((key.tag, key.value), key)
                    if above is not key:
                        lines.append(
                            f'{name}, line {line}: the key "{one_line(key.value)}" is already in '
                            f"line {above.start_mark.line + 1}, and only the last one would count; "
                            "rename or remove one"
                        )
                walk(value, key.value == "hierarchy")
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                walk(item, False)

    try:
        walk(yaml.compose(text, Loader=yaml.SafeLoader), False)
    except yaml.YAMLError as error:
        lines.append(f"{name}: not valid YAML: {' '.join(str(error).split())}")
    return lines


def _plain(value: Any) -> Any:
    """Turn the mappings of a YAML reader into plain dicts."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


# Keys of scAtlasTb for which there is nothing to set here.
_SCATLASTB = ("images", "env_mode", "resources")


def _explain(item: Any) -> list[str]:
    """Turn one pydantic error into lines, each with its whole path in the config."""
    location = item["loc"]
    if item["type"] == "extra_forbidden" and location[-1] in _SCATLASTB and len(location) < 4:
        return [f"{path_of(location)}: is a key of scAtlasTb that is not needed here; remove it"]
    return explain(item, Config)
