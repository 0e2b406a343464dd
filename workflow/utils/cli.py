"""The command line of every script: options, threads, progress, log lines, one-line errors.

A script's options that are also keys of the config are made from the config's models, so a key,
its default, its help and its check stand in one place (``utils/config.py``; ``make docs`` writes
what the parsers need of it to ``options.json``).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from utils.atomic import NO_PLACE
from utils.device import N_CELL_CPU
from utils.errors import bad_name
from utils.log import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")

OPTIONS = Path(__file__).with_name("options.json")


def script_parser(
    description: str, *, output: str = "Output anndata file (.zarr)"
) -> argparse.ArgumentParser:
    """Make a parser with what all scripts share: input, output and how to run."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input_file", help="Input anndata file (.h5ad or .zarr)")
    parser.add_argument("output_file", help=output)
    return parser


def add_run_options(parser: argparse.ArgumentParser, *, overwrite: str) -> None:
    """Add the options on how to run, the same in every script."""
    parser.add_argument(
        "--threads", type=int, default=1, help="Number of threads (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="Random seed (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help=overwrite)
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error")


def add_device_options(parser: argparse.ArgumentParser) -> None:
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


def model_options(model: str) -> dict[str, dict[str, Any]]:
    """Return the options of a config model by its name: help, default, and how text is read.

    Importing the models themselves takes longer than reading most columns, and most jobs need no
    check: their options are the defaults.
    """
    return json.loads(OPTIONS.read_text(encoding="utf-8"))[model]["options"]


def add_model(parser: argparse.ArgumentParser, model: str) -> None:
    """Add an option for every field of a config model that the parser does not have yet."""
    taken = {action.dest for action in parser._actions}
    for name, option in model_options(model).items():
        if name in taken:
            continue
        text, default = option["help"].replace("`", "").replace("%", "%%"), option["default"]
        if option["kind"] == "flag":
            parser.add_argument(
                f"--{name}", action=argparse.BooleanOptionalAction, default=default, help=text
            )
        else:
            shown = "unset" if default is None else json.dumps(default)
            parser.add_argument(
                f"--{name}",
                type=_reader(option["kind"] in ("text", "word")),
                default=default,
                metavar=name.upper(),
                help=f"{text} (default: {shown})".replace("(default: {})", "").strip(),
            )


def _reader(plain: bool) -> Callable[[str], Any]:
    """Read an option's text: as it is where the field takes text, else as JSON."""

    def read(text: str) -> Any:
        if text in ("null", "None"):
            return None
        if plain or not (text[:1] in '[{"-0123456789.' or text in ("true", "false")):
            return text
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text

    return read


def from_options(model: str, args: argparse.Namespace) -> argparse.Namespace:
    """Check the options that `add_model` added and return them.

    Raises
    ------
    ValueError
        With one line per option that is wrong.
    """
    options = model_options(model)
    values = {name: getattr(args, name) for name in options}
    # As JSON: 1, 1.0 and true are equal in Python. Any text is right where any text may stand.
    if any(
        option["kind"] != "text" and json.dumps(values[name]) != json.dumps(option["default"])
        for name, option in options.items()
    ):
        values = dict(check_options(_model(model), values, prefix="--"))
    return argparse.Namespace(**{name: values[name] for name in options})


def _model(name: str) -> type[BaseModel]:
    from importlib import import_module

    module = json.loads(OPTIONS.read_text(encoding="utf-8"))[name]["module"]
    return getattr(import_module(module), name)


def check_options(model: type[M], values: dict[str, Any], *, prefix: str) -> M:
    """Check some values against a config model; `prefix` stands before each name in an error."""
    from pydantic import ValidationError

    from utils.validate import explain

    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [line for item in error.errors() for line in explain(item, model)]
        # A line about several options names them itself.
        whole = "the config: "
        lines = [
            line.removeprefix(whole) if line.startswith(whole) else prefix + line for line in lines
        ]
        raise ValueError("\n".join(lines)) from None


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


def element_name(text: str) -> str:
    """Read the name of something new in a store: it becomes the name of a folder."""
    if problem := bad_name(text):
        raise argparse.ArgumentTypeError(problem)
    return text


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
