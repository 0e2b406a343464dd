"""The command line of every script: shared options, threads, errors in one line each."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, Any

from utils.atomic import NO_PLACE
from utils.device import N_CELL_CPU
from utils.log import say
from utils.option_checks import element_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

THREADS, SEED = 1, 0


def script_parser(
    description: str,
    *,
    inputs: str = "Input anndata file (.h5ad or .zarr)",
    several: bool = False,
    output: str = "Output anndata file (.zarr)",
) -> argparse.ArgumentParser:
    """Make a parser with what all scripts share.

    Parameters
    ----------
    description
        What the script does.
    inputs, output
        Help of the input and the output.
    several
        Whether there may be several inputs.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input_file", nargs="+" if several else None, help=inputs)
    parser.add_argument("output_file", help=output)
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error")
    return parser


def add_clusters(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the cluster columns a table or picture is about."""
    parser.add_argument(
        "--clusters",
        nargs="+",
        required=True,
        metavar="COLUMN",
        help="cluster columns, or patterns such as 'leiden_0.5_*'",
    )


def add_run_options(
    parser: argparse.ArgumentParser,
    *,
    threads: bool = True,
    seed: bool = True,
    overwrite: str | None = None,
) -> None:
    """Add the options on how to run, the same in every script."""
    if threads:
        text = "Number of threads (default: %(default)s)"
        parser.add_argument("--threads", type=int, default=THREADS, help=text)
    if seed:
        text = "Random seed (default: %(default)s)"
        parser.add_argument("--seed", type=int, default=SEED, help=text)
    if overwrite:
        parser.add_argument("--overwrite", action="store_true", help=overwrite)


def add_device_options(parser: Any) -> None:
    """Add the options on where to run."""
    parser.add_argument(
        "--use_gpu",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="Use a GPU where one is visible, or never (default: where it pays)",
    )
    parser.add_argument(
        "--n_cell_cpu",
        type=int,
        default=N_CELL_CPU,
        help="Force CPU when dataset has fewer than this many cells (default: %(default)s)",
    )


def json_option(text: str) -> dict[str, Any]:
    """Read an option that is a JSON mapping."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(
            f"is no JSON: {error.msg} at character {error.pos} of {text!r}; "
            "write '{\"key\": value}'"
        ) from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON mapping, found {text!r}")
    return value


def new_element(text: str) -> str:
    """Read the name of something new in a store."""
    try:
        return element_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(
    main: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the options, limit the threads, run a script and turn its errors into one line.

    Leaves with exit code 0, with 2 where the input is wrong (a ValueError, KeyError, TypeError or
    missing file, a full disk), with 130 on Ctrl-C and with 1 where we are wrong.
    """
    # One line, as for any other error; --help shows the usage.
    parser.error = lambda message: _fail(ValueError(message), parser.prog, 2, debug=False)
    args = parser.parse_args(argv)
    threads = getattr(args, "threads", 1)
    if threads < 1:
        parser.error(f"argument --threads: must be at least 1, found {threads}")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        # Read when NumPy is imported, which is later. Each algorithm has threads of its own, and
        # products on one: more would change bits, and starting them takes time in every job.
        os.environ[name] = "1"
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
    # A job that is cancelled cleans up behind itself.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        main(args)
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        _fail(error, parser.prog, 2, debug=getattr(args, "debug", False))
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted (Ctrl-C)", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:  # the last resort: one line, exit code 1
        place = isinstance(error, OSError) and error.errno in NO_PLACE
        _fail(error, parser.prog, 2 if place else 1, debug=getattr(args, "debug", False))


def _fail(error: BaseException, prog: str, code: int, *, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}"
    if code == 1:
        text = f"{type(error).__name__}: {text} (--debug shows where)"
    for line in text.strip().split("\n"):
        print(f"{prog}: error: {line}", file=sys.stderr)
    sys.exit(code)
