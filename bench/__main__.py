"""``python -m bench``: starts private servers, measures, prints a table. Some things have commands of their own."""

from __future__ import annotations

import argparse

from bench import guard, measure, reads, soak, tabs, versus

EXAMPLES = """\
examples:
  python -m bench                                  every scenario, at most ten minutes (make bench)
  python -m bench --full --json figures.json       with millions of rows, too, at most an hour (make bench-full)
  python -m bench --rounds 1 --only drain bare500  a quick look at the drain
  python -m bench --only drain --peer all          other systems beside it, in the same run
  python -m bench --data /var/tmp                  the servers' data on another disk
  python -m bench guard                            the drain against the bare loop, 40 seconds; exit status 1: it lost
  python -m bench soak --minutes 30                half of the peak, and a kill -9 each minute
  python -m bench tabs                             50 open tabs during a drain, 7 pairs, about four minutes
  python -m bench reads                            pages and API on 1,000,000 finished jobs
  python -m bench versus ../other                  another checkout against this one, 7 pairs of drains
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measure.add_options(parser)
    parser.set_defaults(run=measure.run)
    commands = parser.add_subparsers(metavar="COMMAND", help="none: measure every scenario")
    for command in (guard, soak, tabs, reads, versus):
        command.add_command(commands)
    args = parser.parse_args()
    args.run(args)


main()
