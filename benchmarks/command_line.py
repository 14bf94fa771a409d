"""The command line of a benchmark that is run, and whose table the documentation shows."""

import argparse
from pathlib import Path

from benchmarks.provenance import FIGURES, RESULTS


def run_and_table(name: str, description: str | None) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """
    :param name: of the module in :mod:`benchmarks`, of its folder of results, and of the table
    :param description: what ``--help`` says
    :return: the parser, and that of its command ``run``, to which its own arguments are added
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure")
    table = commands.add_parser(
        "table", help="write what the results say, in Markdown, into the documentation's folder"
    )
    table.add_argument("--output", type=Path, default=FIGURES / f"{name}.md")
    for command in (run, table):
        command.add_argument("--results", type=Path, default=RESULTS / name)
    return parser, run
