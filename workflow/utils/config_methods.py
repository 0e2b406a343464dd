"""The integration methods of the config: one model each, and what a name stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union

from pydantic import Field, model_validator

from utils.config_values import NAME, Columns, Model, Normalization, Numbers
from utils.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Iterable


class AnyMethod(Model):
    """What the plan has to know of every method."""

    needs_batch: ClassVar[bool] = True
    has_gpu: ClassVar[bool] = False


class Unintegrated(AnyMethod):
    """No correction: the basis goes on as it is, to compare with."""

    needs_batch: ClassVar[bool] = False

    method: Literal["unintegrated"] = "unintegrated"


class Latent(AnyMethod):
    """A method that starts from an embedding."""

    basis: str | None = Field(
        None,
        description="The obsm key to start from; `X_{name}` is the result of another method. "
        "Unset: `integration.basis`.",
    )


class Counts(AnyMethod):
    """A method that starts from the raw counts: `X`, or the layer that `preprocessing` names."""


def _refuse_idle(section: AnyMethod, names: Iterable[str], choice: str) -> None:
    """Refuse options that were given and that another option keeps from having an effect."""
    for name in names:
        if getattr(section, name) != type(section).model_fields[name].default:
            raise ValueError(f"{name} has no effect with {choice}; remove it")


class Harmony(Latent):
    """Parameters of Harmony (``harmony.py``); `integration/harmony` documents each formula."""

    has_gpu: ClassVar[bool] = True

    method: Literal["harmony"] = Field("harmony", description="The method behind the name.")
    flavor: Literal["harmony2", "harmony1"] = Field("harmony2", description="Harmony 2 or 1.")
    n_clusters: int | None = Field(
        None, ge=1, description="Soft clusters. Unset: min(100, cells / 30), at least 1."
    )
    max_iter_harmony: int | None = Field(
        10, ge=1, description="Outer iterations at most. `null`: until convergence."
    )
    max_iter_clustering: int = Field(5, ge=1, description="Clustering passes per outer iteration.")
    early_stopping: bool = Field(
        False,
        description="Stop the clustering passes at `tol_clustering` (needs 4 passes or more).",
    )
    tol_harmony: float | None = Field(
        1e-2, ge=0, description="Stop at this relative fall of the objective. `null`: never early."
    )
    tol_clustering: float = Field(1e-3, ge=0, description="Relative tolerance of `early_stopping`.")
    sigma: Numbers = Field(0.1, description="Width of the soft clusters.")
    theta: Numbers = Field(
        2.0,
        description="Weight of the diversity penalty, one number or one per batch column. "
        "0 drops the penalty, not the correction.",
    )
    tau: float = Field(0.0, ge=0, description="Protects small batches: discount on `theta`.")
    alpha: float = Field(
        0.2, gt=0, lt=1, description="Harmony 2: ridge penalty as a share of the expected cells."
    )
    ridge_lambda: Numbers | None = Field(
        1.0, description="Harmony 1: fixed ridge penalty. `null` or -1: dynamic, as in Harmony 2."
    )
    batch_prune_threshold: float | None = Field(
        1e-5,
        ge=0,
        lt=1,
        description="Harmony 2: a batch with a smaller share of its cells in a cluster is not "
        "corrected there. `null`: off. One that leaves nothing to correct is refused.",
    )
    block_proportion: float = Field(
        0.05, gt=0, le=1, description="Share of the cells updated together."
    )
    combine_keys: bool = Field(
        False, description="Join several batch columns into one instead of stacking them."
    )
    na_batch: Literal["error", "drop", "own"] = Field(
        "error",
        description="Cells without a batch: stop, leave out (NaN), or a batch of their own.",
    )
    kmeans_init: Literal["random", "k-means++", "k-means||"] = Field(
        "k-means++", description="How the first clusters are found."
    )
    kmeans_iterations: int = Field(25, ge=1, description="k-means iterations at most.")
    kmeans_tolerance: float = Field(0.01, ge=0, description="Relative tolerance of k-means.")
    kmeans_cells: int | None = Field(
        None, ge=1, description="Cells that k-means sees at most. Unset: 256 a cluster."
    )
    num_init_iterations: int = Field(5, ge=1, description="Rounds of `k-means||`.")
    oversampling_factor: float = Field(1.0, gt=0, description="Candidates a round of `k-means||`.")
    chunk_size: int | None = Field(None, ge=1, description="Cells worked on at a time.")
    chunk_size_kmeans: int | None = Field(
        None, ge=1, description="Cells that k-means works on at a time."
    )
    dtype: Literal["float32", "float64"] = Field("float32", description="Working precision.")
    lean: bool | None = Field(
        None, description="Less memory for more time. Unset: by the memory that is there."
    )
    original: bool = Field(
        False, description="The published block update on one thread, to compare with."
    )

    @model_validator(mode="after")
    def _window(self) -> Harmony:
        if self.early_stopping and self.max_iter_clustering < 4:
            raise ValueError(
                "early_stopping needs max_iter_clustering of 4 or more, "
                f"found {self.max_iter_clustering}"
            )
        return self

    @model_validator(mode="after")
    def _one_flavor(self) -> Harmony:
        dynamic = self.ridge_lambda in (None, -1, [-1])
        if self.flavor == "harmony2":
            idle = [] if dynamic else ["ridge_lambda"]
        else:
            idle = ["batch_prune_threshold"] if self.batch_prune_threshold is not None else []
            idle += [] if dynamic else ["alpha"]
        _refuse_idle(self, idle, f"flavor: {self.flavor}")
        return self


class PVAE(Counts):
    """Parameters of the Poisson variational autoencoder (``vae.py``); needs torch."""

    has_gpu: ClassVar[bool] = True

    method: Literal["pvae"] = Field("pvae", description="The method behind the name.")
    latent_dim: int = Field(10, ge=1, description="Dimensions of the embedding.")
    hidden_dim: int = Field(128, ge=1, description="Width of the two layers of every network.")
    covariates: Columns | None = Field(
        None,
        description="obs columns that the decoder is given, so that the embedding need not explain "
        "them: categories, or numbers where a column holds floats. Unset: `batch`.",
    )
    max_epochs: int | None = Field(
        None,
        ge=1,
        description="Passes over the cells at most. Unset: 10, and as many as make "
        "4,000 minibatches.",
    )
    batch_size: int = Field(64, ge=2, description="Cells per minibatch.")
    lr: float = Field(1e-3, gt=0, description="Learning rate (RMSprop).")
    n_samples: int = Field(1, ge=1, description="Draws of the latent variables per cell and step.")
    kl_warmup: float = Field(
        0.25,
        ge=0,
        lt=1,
        description="Share of the epochs during which the weight of the KL terms grows from 0 "
        "to 1.",
    )
    held_out: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the cells that is not trained on and whose ELBO ends the training.",
    )
    patience: int = Field(
        10, ge=1, description="Epochs without a better held-out ELBO before training ends."
    )


class GMVAE(PVAE):
    """Parameters of the VAE with a mixture of Gaussians as its prior (``vae.py``); needs torch."""

    method: Literal["gmvae"] = Field("gmvae", description="The method behind the name.")
    label_dim: int = Field(
        10,
        ge=2,
        description="Components of the mixture; the likeliest of each cell is the obs column "
        "`{name}_label`. Time grows in proportion.",
    )


class Pairing(AnyMethod):
    """How mutual nearest neighbors are found, whatever they are found in."""

    k: int = Field(20, ge=1, description="Neighbors of a cell in the other batch.")
    prop_k: float | None = Field(
        None, gt=0, le=1, description="The same as a share of the batch, where that is more."
    )
    merge_order: list[Any] | None = Field(
        None,
        description="Batches in the order of their merging, or a nested list of twos: "
        "`[[a, b], [c, d]]`. Unset: as sorted.",
    )
    auto_merge: bool = Field(
        False, description="Merge those with most pairs first, whatever `merge_order`."
    )
    restrict: str | None = Field(
        None, description="obs column of true and false: only true cells are paired."
    )
    clusters: str | None = Field(
        None,
        description="obs column of preliminary clusters, for the diagnostics only. "
        "Unset: k-means within each batch.",
    )


class Smoothing(Pairing):
    """How cells in pairs correct all others, in an embedding."""

    ndist: float = Field(
        3.0, gt=0, description="Bandwidth, in distances to the middle one of the `k` nearest."
    )
    min_batch_skip: float = Field(
        0.0,
        ge=0,
        description="Do not correct where the batch vectors agree less than this: 0 not at all, "
        "1 entirely.",
    )


class MNN(Smoothing, Latent):
    """Mutual nearest neighbors in an embedding (``mnn.py --method mnn``)."""

    method: Literal["mnn"] = Field("mnn", description="The method behind the name.")
    cos_norm: bool = Field(False, description="Give every cell length 1 first.")
    project_simplex: bool = Field(
        False,
        description="Bring each result back to proportions, which correction makes negative; "
        "for an embedding of proportions such as `X_topics`.",
    )


class Expression(Normalization, Counts):
    """A method that starts from the counts and takes logarithms itself."""


class FastMNN(Expression, Smoothing):
    """Mutual nearest neighbors in components of all batches alike (``mnn.py``).

    Starts from the counts of the genes in `var/highly_variable`, or of all genes.
    """

    method: Literal["fast_mnn"] = Field("fast_mnn", description="The method behind the name.")
    n_comps: int = Field(50, ge=1, description="Number of components.")
    cos_norm: bool = Field(True, description="Give every cell length 1 first.")
    weights: dict[str, float] | None = Field(
        None,
        description="`{batch: weight}`: how much each counts in the components. Unset: alike.",
    )


class MNNCorrect(Expression, Pairing):
    """The first MNN algorithm, on expression values (``mnn.py``); for up to 10,000 cells.

    Starts from the counts of the genes in `var/highly_variable`, or of all genes.
    """

    method: Literal["mnn_correct"] = Field("mnn_correct", description="The method behind the name.")
    sigma: float = Field(0.1, gt=0, description="Width of the kernel, a squared distance.")
    cos_norm_in: bool = Field(True, description="Find pairs among cells of length 1.")
    cos_norm_out: bool = Field(True, description="Correct cells of length 1.")
    svd_dim: int = Field(
        0, ge=0, description="Directions of the biology of each batch that are kept as they are."
    )
    var_adj: bool = Field(True, description="Stretch corrections so that batches spread alike.")
    n_comps: int = Field(
        50, ge=1, description="Principal components of the corrected values: the embedding."
    )
    layer_added: str | None = Field(
        None, description="Also correct all genes, and write them as this layer (dense)."
    )


class Topics(Counts):
    """Parameters of the topic model (``topics.py``); `integration/topics` documents each."""

    needs_batch: ClassVar[bool] = False

    method: Literal["topics"] = Field("topics", description="The method behind the name.")
    model: Literal["poisson_nmf", "lda"] = Field(
        "poisson_nmf",
        description="Maximum likelihood (`poisson_nmf`), or Dirichlet priors (`lda`, slower).",
    )
    highly_variable: bool = Field(
        True, description="Only the genes of `var/highly_variable`, where that is there."
    )
    n_topics: int = Field(10, ge=1, description="Number of topics.")
    n_restarts: int = Field(
        1, ge=1, description="Random starts; that with the lowest deviance is kept. Not for `lda`."
    )
    max_iter: int | None = Field(
        None, ge=1, description="Iterations at most. Unset: 100, of `lda` 20."
    )
    tol: float = Field(
        1e-3,
        gt=0,
        description="Stop when less than this share of the counts is in the wrong topic.",
    )
    dtype: Literal["float32", "float64"] = Field("float32", description="Working precision.")
    weight_prior: float | None = Field(
        None, gt=0, description="`lda`: concentration of a cell's weights. Unset: 1 / n_topics."
    )
    topic_prior: float | None = Field(
        None, gt=0, description="`lda`: concentration of a topic's genes. Unset: 1 / n_topics."
    )
    groups: str | None = Field(
        None, description="The obs column that groups the cells in the structure plot."
    )

    @model_validator(mode="after")
    def _one_model(self) -> Topics:
        if self.model == "lda":
            names = ("n_restarts", "tol", "dtype")
        else:
            names = ("weight_prior", "topic_prior")
        _refuse_idle(self, names, f"model: {self.model}")
        return self


METHODS: dict[str, type[AnyMethod]] = {
    "unintegrated": Unintegrated,
    "harmony": Harmony,
    "topics": Topics,
    "pvae": PVAE,
    "gmvae": GMVAE,
    "mnn": MNN,
    "fast_mnn": FastMNN,
    "mnn_correct": MNNCorrect,
}
Method = Annotated[Union[tuple(METHODS.values())], Field(discriminator="method")]  # noqa: UP007


def by_name(value: Any) -> Any:
    """Fill in what ``method`` a name stands for; a list of names takes every default."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = dict.fromkeys(value)
    if not isinstance(value, dict) or not value:
        raise ValueError(
            f"must map a method to its parameters, such as {{harmony: {{theta: 2}}}}, "
            f"found {value!r}"
        )
    filled = {}
    for name, params in value.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a folder; use letters, digits, '_', '-', '.'")
        if params is not None and not isinstance(params, dict):
            raise ValueError(f"{name}: must map parameters to values, found {params!r}")
        method = (params or {}).get("method", name)
        if not isinstance(method, str) or method not in METHODS:
            hint = (
                ""
                if "method" in (params or {})
                else f"; for a name of your own write {{{name}: {{method: harmony}}}}"
            )
            raise ValueError(unknown("method", method, METHODS) + hint)
        if (name == "unintegrated") != (method == "unintegrated"):
            raise ValueError(f'{name}: the name "unintegrated" and its method belong together')
        filled[name] = {**(params or {}), "method": method}
    return filled


def start(name: str, methods: dict[str, Any], basis: str) -> tuple[str, str | None]:
    """Return the obsm key that a method starts from, and the method whose result that is."""
    key = getattr(methods[name], "basis", None) or basis
    before = key.removeprefix("X_") if key.startswith("X_") else ""
    return key, before if before in methods and before != "unintegrated" else None


def chain_problems(methods: dict[str, Any], basis: str, *, computed: bool) -> list[str]:
    """Say what is wrong with the methods that start from another's result.

    Parameters
    ----------
    methods
        The methods by name.
    basis
        The obsm key that a method without a `basis` of its own starts from.
    computed
        Whether `basis` is all there is; else the input may bring other keys.

    Returns
    -------
    list of str
        One line per method that starts from itself, by way of others or not, or from nothing.
    """
    problems = []
    for name, params in methods.items():
        if not isinstance(params, Latent):
            continue
        key, before = start(name, methods, basis)
        chain = [name]
        while before is not None and before not in chain:
            chain.append(before)
            before = start(before, methods, basis)[1]
        if before == name:
            problems.append(f"{name}.basis: starts from itself ({' <- '.join([*chain, name])})")
        elif computed and len(chain) == 1 and key != basis:
            known = [basis, *(f"X_{n}" for n in methods if n not in (name, "unintegrated"))]
            problems.append(f"{name}.basis: {unknown('embedding', key, known)}")
    return problems
