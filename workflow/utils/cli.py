"""The command line of every script: options, threads, progress, log lines, one-line errors.

A script's options that are also keys of the config are made from the config's models, so a key,
its default, its help and its check stand in one place (``utils/config.py``).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
import warnings
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

from utils.atomic import NO_PLACE
from utils.device import N_CELL_CPU
from utils.messages import bad_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pydantic import BaseModel

T = TypeVar("T")
M = TypeVar("M", bound="BaseModel")


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


def add_model(parser: argparse.ArgumentParser, model: type[BaseModel]) -> None:
    """Add an option for every field of a config model that the parser does not have yet."""
    taken = {action.dest for action in parser._actions}
    for name, field in model.model_fields.items():
        if name in taken or name == "method":
            continue
        text = (field.description or "").replace("`", "").replace("%", "%%")
        default = field.get_default(call_default_factory=True)
        if field.annotation is bool:
            parser.add_argument(
                f"--{name}", action=argparse.BooleanOptionalAction, default=default, help=text
            )
        else:
            shown = "unset" if default is None else json.dumps(default)
            parser.add_argument(
                f"--{name}",
                type=_reader(field.annotation),
                default=default,
                metavar=name.upper(),
                help=f"{text} (default: {shown})".replace("(default: {})", "").strip(),
            )


def _takes_text(annotation: Any) -> bool:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(_takes_text(arg) for arg in args)
    return annotation is str or origin is Literal


def _reader(annotation: Any) -> Callable[[str], Any]:
    """Read an option's text: as it is where the field takes text, else as JSON."""
    plain = _takes_text(annotation)

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


def from_options(model: type[M], args: argparse.Namespace) -> M:
    """Check the options that `add_model` added and return them as the model.

    Raises
    ------
    ValueError
        With one line per option that is wrong.
    """
    values = {name: getattr(args, name) for name in model.model_fields if hasattr(args, name)}
    return check_options(model, values, prefix="--")


def check_options(model: type[M], values: dict[str, Any], *, prefix: str) -> M:
    """Check some values against a config model; `prefix` stands before each name in an error."""
    from pydantic import ValidationError

    from utils.validate import explain

    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [line for item in error.errors() for line in explain(item, model)]
        raise ValueError("\n".join(prefix + line for line in lines)) from None


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
    missing file, a full disk) and with 1 where we are.
    """
    # One line, as for any other error; --help shows the usage.
    parser.error = lambda message: _fail(ValueError(message), parser.prog, 2, debug=False)
    args = parser.parse_args(argv)
    threads = getattr(args, "threads", 1)
    if threads < 1:
        parser.error(f"argument --threads: must be at least 1, found {threads}")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)  # read when NumPy is imported, which is later
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
    # A job that is cancelled cleans up behind itself.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        main(args)
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        _fail(error, parser.prog, 2, debug=getattr(args, "debug", False))
    except KeyboardInterrupt:
        sys.exit(130)
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


def say(text: str) -> None:
    """Write one line to the log."""
    print(text, file=sys.stderr, flush=True)


def progress(
    iterable: Iterable[T], *, desc: str, total: int | None = None, disable: bool = False
) -> Iterator[T]:
    """Iterate with a progress bar on a terminal, with a line every 20 seconds in a log.

    Parameters
    ----------
    iterable
        What to iterate over.
    desc
        The name of the step, shown in front of the bar.
    total
        Number of items; taken from ``len(iterable)`` where it has a length.
    disable
        Show nothing.

    Yields
    ------
    The items of ``iterable``.
    """
    if disable:
        yield from iterable
        return
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(iterable, desc=desc, total=total, leave=False, mininterval=0.2)
        return
    last = time.monotonic()
    for done, item in enumerate(iterable):
        if time.monotonic() - last > 20:
            last = time.monotonic()
            share = f"{done}/{total} ({100 * done // total} %)" if total else f"{done}"
            print(f"{desc}: {share}", file=sys.stderr, flush=True)
        yield item
