# make setup | deb | dist | demo | demo-neutron | test | test-package | bench | bench-check | boot-stress | kill-anywhere
# | long-life | conformance | check | picture | reference | fuzz | clean: each installs what it needs first, if missing.
.POSIX:
.SUFFIXES:

PYTHON = $$(command -v /usr/bin/python3.11 || command -v python3)
RUN = .venv/bin/python3
export DEBIAN_FRONTEND = noninteractive

setup: environment
	@$(RUN) scripts/ensure_images.py default

demo: setup
	@$(RUN) -m demo.demo

demo-neutron: test-environment neutron-environment
	@$(RUN) scripts/ensure_images.py default
	@$(RUN) -m demo.neutron_demo

test: test-environment neutron-environment
	@$(RUN) scripts/ensure_images.py default test
	@$(RUN) -m pytest

# build/kata-runtime_VERSION_amd64.deb
deb: environment
	@$(RUN) -m scripts.debian_package build

# The wheel and the source distribution, in build/dist.
dist: environment
	@[ -d build/dist-tools ] || $(RUN) -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps \
		--target build/dist-tools -r requirements-dist.lock
	@PYTHONPATH="$$PWD/build/dist-tools" $(RUN) -m build --no-isolation --outdir build/dist . >build/dist.log

# Installs the packages into clean systems of Debian 12 and 13, and the wheel into a fresh environment.
test-package: test-environment deb dist
	@$(RUN) -m pytest tests/package

# Of bench (boot, containers, data-path, imports, ports, start, network, carried, ipvs) and of bench-check (boot, data-path,
# start, ipvs); all by default. PARTS=restore prints the restore of ipvs alone.
PARTS =

bench: test-environment neutron-environment
	@$(RUN) scripts/ensure_images.py default test
	@$(RUN) -m bench.bench $(PARTS)

bench-check: test-environment
	@$(RUN) scripts/ensure_images.py default test
	@$(RUN) -m bench.check $(PARTS)

boot-stress: environment
	@$(RUN) scripts/ensure_images.py default test
	@$(RUN) -m bench.boot_stress $(RUNS)

# Each N-th point is tried: all of them take half an hour. Odd numbers not divisible by three meet all signals and moments.
EVERY = 1
EVERY_BOOT = 1

kill-anywhere: environment
	@$(RUN) scripts/ensure_images.py default test
	@$(RUN) -m bench.kill_anywhere --every $(EVERY) --every-boot $(EVERY_BOOT)

# Of each kind.
ROUNDS = 1000

long-life: environment
	@$(RUN) scripts/ensure_images.py default test
	@$(RUN) -m bench.long_life $(ROUNDS)

# One of crun and podman, and tests as FILE or FILE: NAME, separated by commas; without both all run and the page is written.
SUITE =
TESTS =
# The program of another runtime, such as runc, to compare with.
RUNTIME =

conformance: environment
	@PYTHON="$(PYTHON)" sh scripts/setup.sh packages.txt packages-test.txt packages-conformance.txt
	@$(RUN) scripts/ensure_images.py default
	@SUITE="$(SUITE)"; TESTS="$(TESTS)"; RUNTIME="$(RUNTIME)"; DELAY="$(DELAY)"; \
	$(RUN) -m conformance.conformance $${SUITE:+--suite "$$SUITE"} $${TESTS:+--tests "$$TESTS"} \
		$${RUNTIME:+--runtime "$$RUNTIME"} $${DELAY:+--delay "$$DELAY"}

check: environment
	@$(RUN) -m pytest tests/quality

# docs/terminal.svg, the README's picture.
picture: setup
	@$(RUN) -m demo.terminal_picture

# docs/reference.md, from the table of commands and the texts of --help.
reference: environment
	@$(RUN) -m scripts.reference_page

# How often boot-stress starts a sandbox (1,000), or how many inputs fuzz makes in all (1,000,000; ten times as many take
# less than an hour of one core).
RUNS =

fuzz: environment
	@[ -d build/fuzz/packages ] || $(RUN) -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps \
		--target build/fuzz/packages -r requirements-fuzz.lock
	@RUNS=$(RUNS); PYTHONPATH=build/fuzz/packages $(RUN) -m scripts.fuzz --runs $${RUNS:-1000000}

environment:
	@PYTHON="$(PYTHON)" sh scripts/setup.sh packages.txt

neutron-environment:
	@PYTHON="$(PYTHON)" sh scripts/setup_neutron.sh

test-environment:
	@PYTHON="$(PYTHON)" sh scripts/setup.sh packages.txt packages-test.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis build
	find src tests -name __pycache__ -prune -exec rm -rf {} +

.PHONY: setup deb dist demo demo-neutron test test-package bench bench-check boot-stress kill-anywhere long-life conformance check picture reference fuzz environment test-environment neutron-environment clean
