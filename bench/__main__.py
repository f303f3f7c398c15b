"""``python -m bench first``: starts private servers, measures, prints a table."""

from __future__ import annotations

import argparse

from bench import first

EXAMPLES = """\
examples:
  python -m bench first                                  all of it, about five minutes
  python -m bench first --rounds 1 --only drain bare     a quick look at the drain
  python -m bench first --data /var/tmp/bench            servers' data on another disk
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    first.add_command(commands)
    args = parser.parse_args()
    args.run(args)


main()
