#!/usr/bin/env python3
"""Breaks things under load and counts: whatever was acknowledged must be found, to the item.

Prints a row for each fault and writes build/fault.txt; ends with 1 when anything was lost, or a row
did not show what it claims.

    run.py [--short] [--rows 1,2,5a] [--seed N]
"""

import argparse
import pathlib
import random
import shutil
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT.parent))

from fault import rows  # noqa: E402

HEAD = (f"{'':4} {'fault':31} {'sent':>8} {'acked':>8} {'found':>8} {'twice':>7} {'lost':>5} "
        f"{'s':>5}")


def run_row(number, name, function, arguments, options, folder):
    """The row's line, and whether it held."""
    world = rows.World(folder / number, long=not options.short, seed=options.seed)
    world.folder.mkdir()
    began, held = time.monotonic(), False
    try:
        account = function(world, **arguments)
        world.close()
        held = account.lost == 0
    except Exception:
        traceback.print_exc()
        return (f"{number:4} {name:31} failed with seed {options.seed}; "
                f"logs: {[str(one) for one in world.logs]}"), False
    finally:
        world.remove(held)
    return (f"{number:4} {name:31} {account.sent:8} {account.acknowledged:8} {account.found:8} "
            f"{account.duplicates:7} {account.lost:5} {time.monotonic() - began:5.0f}" +
            ("" if held else f"  <- lost; logs: {[str(one) for one in world.logs]}")), held


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="as make test does")
    parser.add_argument("--rows", default="", help="some of them")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    wanted = [row for row in rows.ROWS if not options.rows or row[0] in options.rows.split(",")]
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sluice-fault-"))
    lines, good = [f"seed {options.seed}", HEAD], True
    print("\n".join(lines), flush=True)
    for row in wanted:
        line, held = run_row(*row, options, folder)
        lines.append(line)
        print(lines[-1], flush=True)
        good &= held
    if good:
        shutil.rmtree(folder, ignore_errors=True)
    (ROOT.parent.parent / "build/fault.txt").write_text("\n".join(lines) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
