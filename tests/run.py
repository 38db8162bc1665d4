#!/usr/bin/env python3
"""Runs the suites and closes with one line: N passed, N failed, N skipped.

    run.py              everything, as CI does
    run.py SUITE ...    some of them (run.py --list)

Each suite says what it builds and runs; results are read from JUnit files, so the last line counts
tests, not suites. Output of a suite goes to build/logs/SUITE.log and is shown when it fails.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
LOGS = BUILD / "logs"
VENV = BUILD / "venv"
JOBS = str(os.cpu_count() or 2)


def sh(log, *command, env=None, check=True):
    """Runs a command; output goes to the suite's log."""
    log.write("$ " + " ".join(map(str, command)) + "\n")
    log.flush()
    merged = dict(os.environ, **(env or {}))
    done = subprocess.run([str(c) for c in command], cwd=ROOT, stdout=log, stderr=log, env=merged)
    if check and done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}")
    return done.returncode


def build(log, preset, *targets):
    sh(log, "cmake", "--preset", preset)
    sh(log, "ninja", "-C", BUILD / preset, "-j", JOBS, *targets)


def venv(log):
    """Python's packages for the tests, once; again when the pinned list changes."""
    stamp = VENV / "requirements.txt"
    wanted = (ROOT / "tests/requirements.txt").read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    sh(log, "/usr/bin/python3", "-m", "venv", "--clear", VENV)
    sh(log, VENV / "bin/pip", "install", "-q", "-r", ROOT / "tests/requirements.txt")
    stamp.write_text(wanted)


def junit(path):
    """(passed, failed, skipped) of a JUnit file."""
    counts = [0, 0, 0]
    for case in xml.etree.ElementTree.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            counts[1] += 1
        elif case.find("skipped") is not None or case.get("status") in ("disabled", "notrun"):
            counts[2] += 1
        else:
            counts[0] += 1
    return counts


def ctest(log, preset, *arguments, env=None):
    report = LOGS / f"ctest-{preset}.xml"
    report.unlink(missing_ok=True)
    sh(log, "ctest", "--test-dir", BUILD / preset, "--output-on-failure", "-j", JOBS,
       "--no-tests=error", "--output-junit", report, *arguments, env=env, check=False)
    return junit(report)


def pytest(log, name, preset, *arguments, env=None):
    venv(log)
    report = LOGS / f"pytest-{name}.xml"
    report.unlink(missing_ok=True)
    settings = {"SLUICE": str(BUILD / preset / "sluice"), "SLUICE_PRESET": preset, **(env or {})}
    sh(log, VENV / "bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider",
       "--junitxml", report, *arguments, env=settings, check=False)
    return junit(report)


def suite_tidy(log, _):
    build(log, "dev")
    return ctest(log, "dev", "-R", "^tidy")


def suite_dev(log, _):
    build(log, "dev")
    return ctest(log, "dev", "-E", "^tidy")


def suite_clang(log, _):
    build(log, "clang")
    return ctest(log, "clang", "-E", "^tidy|^model")


# clang's runtimes look for `llvm-symbolizer`, which Debian has under this name only.
SYMBOLS = "external_symbolizer_path=/usr/bin/llvm-symbolizer-14"
ASAN = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
TSAN = {"TSAN_OPTIONS": f"halt_on_error=1:second_deadlock_stack=1:{SYMBOLS}:"
                        f"suppressions={ROOT}/tests/tsan.txt"}


def suite_asan(log, _):
    build(log, "asan")
    return ctest(log, "asan", "-E", "^tidy|^model", env=ASAN)


def suite_tsan(log, _):
    build(log, "tsan")
    return ctest(log, "tsan", "-E", "^tidy|^fuzz|^model", env=TSAN)


def suite_conform(log, _):
    build(log, "asan", "sluice", "json_oracle", "scan_oracle")
    return pytest(log, "conform", "asan", "tests/conform", env=ASAN)


def suite_e2e(log, _):
    build(log, "release", "sluice", "sluice-load")
    return pytest(log, "e2e", "release", "tests/e2e")


def suite_e2e_tsan(log, _):
    build(log, "tsan", "sluice")
    return pytest(log, "e2e-tsan", "tsan", "tests/e2e", "-m", "shards", env=TSAN)


def suite_dpdk(log, _):
    """Over a port of DPDK, in a network namespace; skipped where DPDK is not installed."""
    sh(log, "cmake", "--preset", "asan")
    if "SL_HAS_DPDK:INTERNAL=TRUE" not in (BUILD / "asan/CMakeCache.txt").read_text():
        log.write("\nlibdpdk-dev or lwIP's sources are missing (docker/install.sh dpdk)\n")
        return [0, 0, 1]
    units = (f"unit_dpdk_{one.stem}" for one in (ROOT / "tests/unit/dpdk").glob("test_*.c"))
    build(log, "asan", "sluice", *units)
    counts = ctest(log, "asan", "-R", "^unit/dpdk", env=ASAN)
    build(log, "dev", "sluice", "sluice-pktgen")
    venv(log)
    for driver in ("net_af_xdp", "net_af_packet"):
        report = LOGS / f"pytest-dpdk-{driver}.xml"
        report.unlink(missing_ok=True)
        code = sh(log, ROOT / "tests/dpdk/run.py", VENV / "bin/python", "--junitxml", report, "-k",
                  "not oracle", "tests/dpdk", "tests/conform", "tests/e2e/test_sdk.py",
                  "tests/e2e/test_datagrams.py",
                  "tests/e2e/test_front.py::"
                  "test_open_calls_outlive_the_end_of_their_connection", check=False,
                  env={"SLUICE": str(BUILD / "dev/sluice"), "SLUICE_DRIVER": driver})
        more = [0, 0, 1] if code == 77 else junit(report)
        counts = [a + b for a, b in zip(counts, more)]
    return counts


def suite_simulate(log, _):
    """Delivery in virtual time, as `make simulate`: every seed of the ten thousand."""
    build(log, "dev", "sim_delivery")
    failed = sh(log, BUILD / "dev/bin/sim_delivery", "--seeds", "10000", check=False)
    return [0, 1, 0] if failed else [1, 0, 0]


def fuzz_command(target, name, options):
    """With a seed a run repeats itself, input for input: the corpus in one order, nothing found
    by earlier runs, no addresses drawn by the kernel. A longer run begins with the shorter one's."""
    found = BUILD / "fuzz/found" / name
    corpus = ROOT / "tests/fuzz/corpus" / name
    command = [target, f"-max_total_time={options.seconds}", f"-seed={options.seed}", "-timeout=20",
               "-rss_limit_mb=4096", f"-artifact_prefix={LOGS}/fuzz-{name}-"]
    if not options.seed:
        found.mkdir(parents=True, exist_ok=True)
        return [*command, found, corpus]
    seeds = LOGS / f"fuzz-{name}.seeds"
    seeds.write_text("\n".join(sorted(map(str, corpus.iterdir()))))
    fixed = ["setarch", "-R"]
    if subprocess.run([*fixed, "true"], capture_output=True).returncode:
        fixed = []  # some containers do not let it: the run is as good, but not the same
    return [*fixed, *command, f"-seed_inputs=@{seeds}"]


def suite_fuzz(log, options):
    """Each target for options.seconds, as many at a time as there are cores."""
    build(log, "fuzz")
    targets = sorted(p for p in (BUILD / "fuzz/bin").glob("fuzz_*"))
    counts = [0, 0, 0]
    waiting, running = list(targets), {}
    while waiting or running:
        while waiting and len(running) < int(JOBS):
            target = waiting.pop(0)
            name = target.name.removeprefix("fuzz_")
            out = open(LOGS / f"fuzz-{name}.log", "w")
            running[name] = (subprocess.Popen(fuzz_command(target, name, options), stdout=out,
                                              stderr=out), out)
        time.sleep(0.5)
        for name, (process, out) in list(running.items()):
            if process.poll() is None:
                continue
            out.close()
            del running[name]
            counts[1 if process.returncode else 0] += 1
            if process.returncode:
                log.write(f"fuzz {name} failed:\n" + open(out.name).read()[-6000:] + "\n")
    if not targets:
        raise RuntimeError("no fuzz target was built")
    return counts


SUITES = {
    "tidy": suite_tidy,
    "dev": suite_dev,
    "clang": suite_clang,
    "asan": suite_asan,
    "tsan": suite_tsan,
    "conform": suite_conform,
    "e2e": suite_e2e,
    "e2e-tsan": suite_e2e_tsan,
    "dpdk": suite_dpdk,
    "simulate": suite_simulate,
    "fuzz": suite_fuzz,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []], help="which (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each fuzz target")
    parser.add_argument("--seed", type=int, default=1,
                        help="of fuzzing; 0: a new one (a run of all suites repeats itself)")
    parser.add_argument("--list", action="store_true", help="name the suites")
    parser.add_argument("--venv", action="store_true", help="only make Python's packages")
    options = parser.parse_args()
    if options.venv:
        LOGS.mkdir(parents=True, exist_ok=True)
        with open(LOGS / "venv.log", "w") as log:
            venv(log)
        return 0
    if options.list:
        print("\n".join(SUITES))
        return 0
    LOGS.mkdir(parents=True, exist_ok=True)
    total = [0, 0, 0]
    for name in options.suites or SUITES:
        began = time.monotonic()
        print(f"{name:10} ...", flush=True)
        path = LOGS / f"{name}.log"
        with open(path, "w") as log:
            try:
                counts = SUITES[name](log, options)
            except Exception as error:  # a suite that cannot run is a failure, and says why
                log.write(f"\n{error}\n")
                counts = [0, 1, 0]
        total = [a + b for a, b in zip(total, counts)]
        print(f"{name:10} {counts[0]} passed, {counts[1]} failed, {counts[2]} skipped"
              f" in {time.monotonic() - began:.0f} s", flush=True)
        if counts[1]:
            print(f"--- the end of {path.relative_to(ROOT)}")
            print("".join(open(path, errors="replace").readlines()[-120:]), flush=True)
    print(f"{total[0]} passed, {total[1]} failed, {total[2]} skipped")
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main())
