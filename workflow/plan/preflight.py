"""What the config names and the input files lack, found before anything runs.

Of each file the names in it are read; where splits are tested also a sample of the counts. The
values of a column are not looked at: a script says later which of them are missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clustering.cluster_names import ClusterColumn
from clustering.options import AUTO
from evaluation.steps import scored_methods
from integration.method_chains import start
from integration.options import CountsMethodOptions, EmbeddingMethodOptions, IntegrationOptions
from plan.contents import read_contents
from utils.errors import missing
from utils.options import options_of
from utils.paths import is_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from plan.config import DataSet
    from plan.contents import Contents


def input_problems(datasets: Mapping[str, tuple[DataSet, bool]]) -> list[str]:
    """Say what is wrong with the input files, and what of the config they lack.

    Parameters
    ----------
    datasets
        Name to data set, and whether all of it is as the user wrote it. Where keys with errors of
        their own were left out, defaults that stand in for them are not held against the files.

    Returns
    -------
    list of str
        One line per problem: the path of the key, the file, what it lacks, what was probably
        meant.
    """
    problems: list[str] = []
    opened: dict[str, Contents | str] = {}
    for name, (dataset, as_written) in datasets.items():
        where, complete = f"DATASETS.{name}", True
        names = []
        for file in dataset.input[dataset.stage]:
            if file not in opened:
                opened[file] = read_contents(file)
            if isinstance(opened[file], str):
                problems.append(f"{where}.input.{dataset.stage}: {opened[file]}")
                complete = False
            elif is_store(file):
                names.append(opened[file])
            else:  # a matrix of counts, whose names are not known before it is read
                complete = False
        check = _Check(where, dataset, names, complete, as_written)
        problems += check.problems()
    return problems


@dataclass
class _Check:
    """One data set: what its keys name, against what its files hold."""

    where: str
    dataset: DataSet
    files: list[Contents]
    complete: bool  # whether all files are there, readable and have names
    as_written: bool  # whether no key with an error was left out
    lines: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        if self.files:
            self._cells_and_genes()
            self._matrices()
            self._counts_of_the_test()
            self._embeddings()
            self._columns()
        return list(dict.fromkeys(self.lines))

    def _need(
        self, key: str, names: Contents, slot: str, wanted: str, *, also: Iterable[str] = ()
    ) -> None:
        available = [*dict.fromkeys([*names[slot], *also])]
        if wanted not in available:
            what = " column" if slot in ("obs", "var") else ""
            text = missing(f"adata.{slot} has no{what}", wanted, available)
            self.lines.append(f"{self.where}.{key}: {names.file}: {text}")

    def _cells_and_genes(self) -> None:
        """Check what is chosen in every file by itself."""
        section = self.dataset.preprocessing
        chosen = {
            "preprocessing.subset": ("obs", section.subset),
            "preprocessing.keep_cells": ("obs", section.keep_cells),
            "preprocessing.keep_genes": ("var", section.keep_genes),
            "preprocessing.var_names": ("var", section.var_names),
        }
        quality = _quality_columns(self.dataset)
        for names in self.files:
            also = {"obs": quality, "var": names["raw/var"] if section.layer == "raw" else []}
            for key, (slot, value) in chosen.items():
                for wanted in _texts(value):
                    if not Path(wanted).is_file():
                        self._need(key, names, slot, wanted, also=also[slot])
            columns = [*names["var"], *also["var"]]
            for wanted in _texts(getattr(getattr(section, "hvg", None), "use", None)):
                if wanted not in columns and not Path(wanted).is_file():
                    text = missing("is no file, and adata.var has no column", wanted, columns)
                    self.lines.append(f"{self.where}.preprocessing.hvg.use: {names.file}: {text}")

    def _matrices(self) -> None:
        dataset = self.dataset
        layer = dataset.preprocessing.layer
        counts = dataset.clustering.reads_counts or any(
            isinstance(params, CountsMethodOptions) for params in dataset.methods.values()
        )
        needed = dataset.stage == "preprocessing" or counts or dataset.preprocessing.doublets
        for names in self.files:
            self._layer("preprocessing.layer", names, layer)
            if needed and self.as_written and not layer and not names.has_x:
                self.lines.append(
                    f"{self.where}.preprocessing.layer: {names.file}: has no X; name the layer "
                    f"with the counts, of {', '.join(names['layers']) or 'which there is none'}"
                )
            if dataset.evaluation.n_markers:
                self._layer("evaluation.markers_layer", names, dataset.evaluation.markers_layer)

    def _counts_of_the_test(self) -> None:
        """Check that splits can be tested: only counts say what is noise."""
        clustering, section = self.dataset.clustering, self.dataset.preprocessing
        if not (clustering.tests_splits and self.as_written):
            return
        from preprocessing.stores import counts_of
        from utils.opening import open_store

        key, without = "significance", "leave out significance"
        if clustering.significance is None:
            key, without = "hierarchy", f"write a depth (hierarchy: 3) in place of {AUTO}"
        for names in self.files:
            layers = [*names["layers"], *(["raw"] if names.has_raw else [])]
            if section.layer not in layers if section.layer else not names.has_x:
                continue  # the problem of `_matrices`
            try:
                root = open_store(names.file)
                counts_of(root, section.layer, needed_by="the test of splits",
                          values=section.values, own_genes=True, quiet=True)  # fmt: skip
                if hasattr(root, "close"):
                    root.close()
            except (ValueError, OSError) as error:
                text = f"{error}; to cluster without a test, {without}"
                self.lines.append(f"{self.where}.clustering.{key}: {text}")

    def _layer(self, key: str, names: Contents, layer: str | None) -> None:
        if layer and not (layer == "raw" and names.has_raw):
            self._need(key, names, "layers", layer, also=["raw"] if names.has_raw else [])

    def _embeddings(self) -> None:
        """Check the obsm keys that the files must bring."""
        wanted = self._basis_wanted() if self.dataset.stage == "integration" else {}
        if self.dataset.stage == "clustering" and (key := self._representation_wanted()):
            wanted["clustering.neighbors.use_rep"] = key
        made = [f"X_{name}" for name in self.dataset.methods if name != "unintegrated"]
        made += ["X_pca"] if self.dataset.stage == "preprocessing" else []
        for level, sub in enumerate(self.dataset.clustering.levels):
            if sub.use_rep is not None and sub.use_rep not in made:
                wanted[f"clustering.hierarchy[{level}].use_rep"] = sub.use_rep
        for path, key in wanted.items():
            for names in self.files:
                self._need(path, names, "obsm", key)

    def _basis_wanted(self) -> dict[str, str]:
        """Return the obsm keys that methods start from, each by the key that names it."""
        dataset = self.dataset
        basis = dataset.integration.basis
        given = self.as_written or "basis" in dataset.integration.given
        wanted = {}
        if given and "unintegrated" in {*dataset.methods, *scored_methods(dataset)}:
            wanted["integration.basis"] = basis
        for name, params in dataset.methods.items():
            key, before = start(name, dataset.methods, basis)
            if not isinstance(params, EmbeddingMethodOptions) or before is not None:
                continue
            if params.basis is not None:
                wanted[f"integration.methods.{name}.basis"] = key
            elif given:
                wanted["integration.basis"] = key
        return wanted

    def _representation_wanted(self) -> str | None:
        """Return the obsm key that neighbors are searched in, where they are."""
        clustering = self.dataset.clustering
        recomputed = self.as_written and (
            clustering.recompute_neighbors
            or any(clustering.neighbors_key not in names["uns"] for names in self.files)
        )
        return clustering.neighbors.use_rep or (IntegrationOptions.basis if recomputed else None)

    def _columns(self) -> None:
        """Check the obs columns that are used after the files were joined."""
        dataset = self.dataset
        made = [*self._file_column(), *_quality_columns(dataset)]
        self._batch(made)
        if dataset.stage == "preprocessing":
            self._joined("preprocessing.batch_key", dataset.preprocessing.batch_key, made)
        self._joined("preprocessing.sample_key", dataset.preprocessing.sample_key, made)
        if dataset.preprocessing.doublets:
            made += ["doublet_score", "doublet_like", "relative_counts"]
        for name, params in dataset.methods.items():
            for key, option in options_of(type(params)).items():
                if option.names_obs:
                    self._joined(f"integration.methods.{name}.{key}", getattr(params, key), made)
            made += params.new_obs(name)
        self._joined("evaluation.label", dataset.evaluation.label, made)
        made += _cluster_columns(dataset)
        self._joined("clustering.umap_colors", dataset.clustering.umap_colors, made)

    def _batch(self, made: list[str]) -> None:
        """Check the columns of the batch, which every file must have or none."""
        for key in _texts(self.dataset.integration.batch):
            with_it = [names for names in self.files if key in names["obs"]]
            without = [names for names in self.files if key not in names["obs"]]
            if not with_it and self.complete:
                self._need("integration.batch", without[0], "obs", key, also=made)
            elif with_it and without and key not in made:
                self.lines.append(
                    f"{self.where}.integration.batch: {without[0].file}: adata.obs has no column "
                    f'"{key}", other files of the data set do'
                )

    def _joined(self, key: str, value: Any, made: list[str]) -> None:
        """Check columns of which one file at least must have each, or a step must make it."""
        held = [column for names in self.files for column in names["obs"]]
        for wanted in _texts(value) if self.complete else []:
            self._need(key, self.files[0], "obs", wanted, also=[*held, *made])

    def _file_column(self) -> Iterator[str]:
        """Name the column in which several files are told apart, as `prepare` writes it."""
        if len(self.dataset.input[self.dataset.stage]) > 1:
            held = {column for names in self.files for column in names["obs"]}
            new = [key for key in _texts(self.dataset.integration.batch) if key not in held]
            yield new[0] if new else "file"


def _quality_columns(dataset: DataSet) -> list[str]:
    """Name the obs columns of quality control that `prepare` adds."""
    groups = dataset.preprocessing.qc
    if not groups:
        return []
    columns = ["n_genes_by_counts", "total_counts"]
    for group in groups:
        columns += [f"total_counts_{group}", f"pct_counts_{group}"]
    return columns


def _cluster_columns(dataset: DataSet) -> list[str]:
    """Name the cluster columns that the run makes; with `AUTO` only level 1 is certain."""
    clustering = dataset.clustering
    levels = [1] if clustering.hierarchy == AUTO else clustering.stored_levels
    return [
        str(ClusterColumn(algorithm, resolution, level))
        for algorithm in clustering.algorithm
        for resolution in clustering.resolutions
        for level in levels
    ]


def _texts(value: Any) -> list[str]:
    """Return the text, the texts of a list or the keys of a mapping; nothing for the rest."""
    items = [value] if isinstance(value, str) else value if isinstance(value, list | dict) else []
    return [item for item in items if isinstance(item, str)]
