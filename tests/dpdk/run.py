#!/usr/bin/env python3
"""The suites over the DPDK port: run.py PYTHON [pytest's arguments].

Runs pytest in a network namespace without a name: with its last process the kernel takes it back,
veth pairs and all, however the run ends. Where the machine cannot (no root, no veth, no driver) it
says why and ends with 77.
"""

import glob
import os
import shutil
import subprocess
import sys

PROBE = "ip link set lo up && ip link add sla0 type veth peer name slb0 && ip link del sla0"
SUPPRESSIONS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lsan.txt")
DRIVERS = "/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0"


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def main():
    if os.geteuid() != 0:
        skip("needs root, for a network namespace of its own")
    if subprocess.run(["unshare", "--net", "sh", "-c", PROBE], capture_output=True).returncode:
        skip("no network namespaces or no veth here")
    driver = os.environ.get("SLUICE_DRIVER", "net_af_xdp")
    if not os.path.exists(f"{DRIVERS}/librte_{driver}.so"):
        skip(f"DPDK's driver {driver} is not installed (docker/install.sh dpdk)")
    environment = dict(os.environ, SLUICE_IO="dpdk", SLUICE_DRIVER=driver,
                       SLUICE_PREFIX=f"sluice-{os.getpid()}",
                       LSAN_OPTIONS=f"suppressions={SUPPRESSIONS}:print_suppressions=0")
    command = [sys.argv[1], "-m", "pytest", "-q", "-p", "no:cacheprovider", *sys.argv[2:]]
    try:
        code = subprocess.run(["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"',
                               "sh", *command], env=environment).returncode
    finally:  # the EAL leaves its own
        for folder in glob.glob(f"/run/dpdk/{environment['SLUICE_PREFIX']}-*"):
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
