"""``python -m bench COMMAND``: starts private servers, measures, prints a table."""

from __future__ import annotations

import argparse

from bench import first, reads, tabs, versus

EXAMPLES = """\
examples:
  python -m bench first                                  all of it, about five minutes
  python -m bench first --rounds 1 --only drain bare     a quick look at the drain
  python -m bench first --data /var/tmp/bench            servers' data on another disk
  python -m bench tabs                                   50 open tabs during a drain, 7 pairs, about four minutes
  python -m bench tabs --quick                           the same in short
  python -m bench reads                                  pages and API on 1,000,000 finished jobs
  python -m bench versus ../other                        another checkout against this one, 7 pairs of drains
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    first.add_command(commands)
    tabs.add_command(commands)
    reads.add_command(commands)
    versus.add_command(commands)
    args = parser.parse_args()
    args.run(args)


main()
