# Names for what CMake and the test runner do. `make help` lists them.

PRESET ?= release
BUILD = build/$(PRESET)
JOBS ?= $(shell nproc)
CONFIG ?= config/examples/embedded.yaml

.PHONY: bench-routes fault simulate help run build test quick tidy fuzz bench bench-dpdk soak-dpdk flood ledger reference format clean install-build install-test install-bench

help:
	@echo "make run        build and start sluice on $(CONFIG)"
	@echo "make test       every suite, as CI runs it (root, about 20 minutes)"
	@echo "make test-dpdk  the suites over a port of DPDK, in a network namespace (root, 2 minutes)"
	@echo "make quick      unit tests of the dev build only"
	@echo "make bench      CPU per million spans beside the bare sink (about 10 minutes); writes perf/RESULTS.md"
	@echo "make soak-dpdk  an hour of the TCP/IP stack in its own time, over a bad wire (seconds)"
	@echo "make bench-dpdk CPU a call and a datagram over a port of DPDK (root, about 6 minutes); into perf/RESULTS.md"
	@echo "make simulate   delivery in virtual time, 10,000 seeds (SEEDS)"
	@echo "make bench-routes  what a span costs on its way to Kafka and OTLP (about 4 minutes)"
	@echo "make fault      breaks brokers, upstreams, networks and gateways under load and counts (about 10 minutes)"
	@echo "make flood      a tenant's latency with and without another's flood (about 2 minutes)"
	@echo "make fleet      four instances and one Redis hold 20 tenants' quotas (about 3 minutes); prints a table"
	@echo "make ledger     a minute of everything over a real Kafka, every item accounted for"
	@echo "make model      Spin over the model of the fleet's quota, with its number of states"
	@echo "make fuzz       fuzz every target for SECONDS (default 600) each"
	@echo "make reference  write config/REFERENCE.md from the tables in the code"
	@echo "make format     clang-format all sources"

install-build:
	@docker/install.sh build

install-test:
	@docker/install.sh build test

install-dpdk:
	@docker/install.sh build test dpdk

install-bench:
	@docker/install.sh build test bench

$(BUILD)/build.ninja: CMakeLists.txt CMakePresets.json | install-build
	@cmake --preset $(PRESET) >/dev/null

# DPDK's packages may have come, or gone, since.
HAD_DPDK = sed -n 's/^SL_HAS_DPDK:INTERNAL=//p' $(BUILD)/CMakeCache.txt
HAS_DPDK = pkg-config --exists 'libdpdk >= 22.11' && echo TRUE || echo FALSE

build: install-build $(BUILD)/build.ninja
	@[ "$$($(HAD_DPDK))" = "$$($(HAS_DPDK))" ] || cmake --preset $(PRESET) >/dev/null
	@ninja -C $(BUILD) --quiet -j $(JOBS) sluice

run: build
	@docker/run.sh $(BUILD)/sluice $(CONFIG)

test: install-dpdk
	@tests/run.py

test-dpdk: install-dpdk
	@tests/run.py dpdk

quick: install-test
	@tests/run.py dev

tidy: install-test
	@tests/run.py tidy

simulate: install-test
	@cmake --preset dev > /dev/null
	@ninja -C build/dev --quiet -j $(JOBS) sim_delivery
	@build/dev/bin/sim_delivery --seeds $(or $(SEEDS),10000)

fuzz: install-test
	@tests/run.py fuzz --seed 0 --seconds $(or $(SECONDS),600)

bench: install-bench
	@perf/bench.py

soak-dpdk: install-dpdk
	@cmake --preset dev > /dev/null
	@ninja -C build/dev --quiet -j $(JOBS) unit_dpdk_test_soak
	@SOAK_SECONDS=$(or $(SECONDS),3600) build/dev/bin/unit_dpdk_test_soak

bench-dpdk: install-dpdk install-bench
	@cmake --preset release >/dev/null
	@ninja -C build/release --quiet -j $(JOBS) sluice sluice-load sluice-pktgen
	@perf/bench_dpdk.py

bench-routes: install-test install-bench
	@tests/run.py --venv
	@build/venv/bin/python perf/routes.py

flood: install-bench
	@perf/flood.py

fleet: install-test build
	@tests/run.py --venv
	@SLUICE=$(BUILD)/sluice build/venv/bin/python tests/fleet.py

fault: install-test build
	@tests/run.py --venv
	@SLUICE=$(BUILD)/sluice build/venv/bin/python tests/fault/run.py

ledger: install-test build
	@tests/run.py --venv
	@SLUICE=$(BUILD)/sluice build/venv/bin/python tests/ledger.py $(SECONDS)

model: install-test
	@tests/sim/fleet/model.py

reference: build
	@$(BUILD)/sluice --reference > config/REFERENCE.md

format: install-test
	@git ls-files '*.c' '*.h' | xargs clang-format-14 -i

clean:
	@rm -rf build
