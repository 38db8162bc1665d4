#!/usr/bin/env python3
"""Runs Spin over fleet.pml: the bound has to hold in every state, and each broken rule has to be
found out. Prints the number of states.

    model.py           what a test run has time for
    model.py --full    losses, crashes and restarts too (minutes)
"""

import os
import re
import subprocess
import sys
import tempfile

MODEL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fleet.pml")
# What is run, and whether the bound holds.
BRIEF = [
    ("no fault", ["B=2"], True),
    ("calls that come twice or late", ["B=1", "TWICE=1"], True),
    ("without call ids", ["B=1", "TWICE=1", "NO_IDS"], False),
    ("credit renewed in debt", ["B=1", "RENEW"], False),
    ("waking without room", ["B=1", "NO_ROOM"], False),
    ("waking while owing", ["B=1", "WAKE_OWING"], False),
]
FULL = [
    ("Redis restarts empty", ["B=1", "FAULTS=1", "RESTART=1"], True),
    ("a call is lost, or late", ["B=1", "FAULTS=1", "LOST=1"], True),
    ("an instance crashes", ["B=1", "FAULTS=1", "CRASH=1"], True),
]


def check(name, defines, holds):
    with tempfile.TemporaryDirectory() as folder:
        flags = ["-D" + define for define in defines]
        subprocess.run(["spin", *flags, "-a", MODEL], cwd=folder, check=True,
                       stdout=subprocess.DEVNULL)
        subprocess.run(["gcc", "-O2", "-w", "-DSAFETY", "-DHC4", "-DVECTORSZ=256", "-DMEMLIM=6000",
                        "-o", "pan", "pan.c"], cwd=folder, check=True)
        out = subprocess.run(["./pan", "-m6000000", "-w24"], cwd=folder, check=True, text=True,
                             capture_output=True).stdout
    errors = int(re.search(r"errors: (\d+)", out)[1])
    states = int(re.search(r"(\d+) states, stored", out)[1])
    whole = "too small" not in out and "out of memory" not in out and "reached" in out
    good = whole and (errors == 0 if holds else errors > 0)
    verdict = "holds" if errors == 0 else "is broken"
    print(f"{name:32} {states:9} states, the bound {verdict}{'' if good else '   <- wrong'}",
          flush=True)
    return states, good


def main():
    rows = BRIEF + FULL if "--full" in sys.argv else BRIEF
    results = [check(*row) for row in rows]
    print(f"{sum(states for states, _ in results)} states")
    return 0 if all(good for _, good in results) else 1


if __name__ == "__main__":
    sys.exit(main())
