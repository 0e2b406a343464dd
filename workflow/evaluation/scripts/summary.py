#!/usr/bin/env python
"""Join the cluster tables of all data sets and methods into one."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
from utils import cli


def make_parser():
    """Define the command line."""
    return cli.script_parser(
        "Join tables {data set}/{method}/clusters.tsv into one.",
        inputs="Tables that merge.py wrote, in {data set}/{method}/",
        several=True,
        output="Output table (.tsv)",
    )


def main(args):
    """Join, with the names of the folders as the first columns."""
    from utils.atomic import atomic_file

    lines = []
    for file in map(Path, args.input_file):
        header, *rows = file.read_text().splitlines()
        if not lines:
            lines.append(f"dataset\tmethod\t{header}")
        method, dataset = file.resolve().parts[-2:-4:-1]
        lines += [f"{dataset}\t{method}\t{row}" for row in rows]
    with atomic_file(args.output_file) as table:
        table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    cli.run(main, make_parser())
