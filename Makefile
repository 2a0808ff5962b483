# SPDX-License-Identifier: Apache-2.0
#
# One door to everything a contributor runs. Each target says what it does before it does it; anything longer
# than a line lives in .ci/. `make check` is what a pull request is held to.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

BENCHMARKS := Benchmarks

# Not in Package.swift: whoever depends on this package should not trip over a warning of a newer compiler.
WARNING_FLAGS := -Xswiftc -warnings-as-errors -Xcc -Werror -Xcc -Wall -Xcc -Wextra

# swiftc knows no UBSan on Linux, so the C code gets it straight from clang; ASan's runtime already contains it.
ASAN_FLAGS := --sanitize=address -Xcc -fsanitize=undefined -Xcc -fno-sanitize-recover=undefined
# `make asan LEAKS=0` where ptrace is forbidden: LeakSanitizer cannot look around there and says so.
LEAKS ?= 1

.PHONY: help
help: ## Lists these targets
	@echo "==> help: the targets of this Makefile"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Checks for swift, pkg-config, liburing and libev; installs the missing packages where apt is at hand
	@.ci/deps.sh

.PHONY: tools
tools: ## The same, with the tools that only lint, format and check need, and the programs that tests talk to
	@.ci/deps.sh --with-tools

.PHONY: build
build: deps ## Builds the library (debug)
	@echo "==> build: the library, debug"
	@swift build

.PHONY: run
run: deps ## Builds the benchmarks (release) and runs the quick set
	@echo "==> run: building $(BENCHMARKS), release"
	@swift build -c release --package-path $(BENCHMARKS)
	@echo "==> run: loopbench run --quick"
	@$(BENCHMARKS)/.build/release/loopbench run --quick

.PHONY: test
test: deps ## Runs the test suite
	@TEST_RESULTS=.build/test-results/kernel.jsonl .ci/test.sh "test: the suite, debug"

.PHONY: check
check: lint warnings test simulated conforms names asan tsan tiny simulate model bench counts consume ## What a pull request is held to: test and the parts from lint to consume
	@echo "==> check: all passed"

.PHONY: lint
lint: tools ## Checks the formatting of Swift and C, and the Swift lint rules
	@.ci/format.sh lint

.PHONY: warnings
warnings: deps ## Builds library and tests with every warning an error
	@echo "==> warnings: library and tests, warnings as errors"
	@swift build --build-tests --scratch-path .build-werror $(WARNING_FLAGS)

.PHONY: asan
asan: deps ## Runs the suite under AddressSanitizer, LeakSanitizer, and (C code) UndefinedBehaviorSanitizer
	@ASAN_OPTIONS="$${ASAN_OPTIONS:-detect_leaks=$(LEAKS)}" \
	LSAN_OPTIONS="$${LSAN_OPTIONS:-suppressions=$(CURDIR)/.ci/leaks.supp:print_suppressions=0}" \
	UBSAN_OPTIONS="$${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}" \
	.ci/test.sh "asan: the suite, address and undefined behaviour" --scratch-path .build-asan $(ASAN_FLAGS)

.PHONY: tsan
tsan: deps ## Runs the suite under ThreadSanitizer
	@TSAN_OPTIONS="$${TSAN_OPTIONS:-halt_on_error=1}" \
	.ci/test.sh "tsan: the suite, data races" --scratch-path .build-tsan --sanitize=thread

.PHONY: tiny
tiny: deps ## Runs the suite with tiny rings, buffer groups and batches
	@LOOP_TINY=1 .ci/test.sh "tiny: the suite, LOOP_TINY=1"

.PHONY: simulated
simulated: deps ## Runs the behaviour suites on the simulated kernel, LOOP_SEED=n for another course of events
	@LOOP_KERNEL=simulated TEST_RESULTS=.build/test-results/simulated.jsonl \
	.ci/test.sh "simulated: the behaviour suites, LOOP_KERNEL=simulated" --filter 'EventLoopsTests|LoopCoreTests'

.PHONY: conformance
conformance: deps ## Writes docs/conformance.md from the results of the last `make test`
	@.ci/conformance.sh write

.PHONY: conforms
conforms: deps ## Fails where docs/conformance.md is out of date, or a row of it passes no longer
	@.ci/conformance.sh check

.PHONY: names
names: ## Fails where docs/asyncio.md leaves out a name of the asyncio at hand
	@.ci/names.sh

.PHONY: coverage
coverage: deps ## Runs the suite with coverage, lists uncovered lines, holds core and library to their floors
	@.ci/coverage.sh

# SECONDS is a variable of bash itself, so the script knows it by another name.
.PHONY: fuzz
fuzz: ## Plays random operations against a model of the core: make fuzz SECONDS=30 [SEED=n] [STEPS=n] [BACKEND=...]
	@SECONDS_MAX="$(or $(SECONDS),30)" SEED="$(SEED)" STEPS="$(STEPS)" BACKEND="$(BACKEND)" KERNEL="$(KERNEL)" \
	FOCUS="$(FOCUS)" TINY="$(TINY)" CALM="$(CALM)" TRACE="$(TRACE)" .ci/fuzz.sh

.PHONY: simulate
simulate: ## Plays fresh seeds of the model on the simulated kernel for a minute
	@SECONDS_MAX=60 KERNEL=simulated .ci/fuzz.sh

.PHONY: fuzzers
fuzzers: ## Runs the coverage-guided fuzzers for SECONDS each: make fuzzers SECONDS=20 [NAMES="options address"]
	@SECONDS_MAX="$(or $(SECONDS),20)" LEAKS="$(LEAKS)" .ci/fuzzers.sh $(NAMES)

.PHONY: bench
bench: deps ## Runs the tests of the benchmarks, which load servers from outside
	@.ci/test.sh "bench: loopbench and its floors" --package-path $(BENCHMARKS)

.PHONY: counts
counts: tools ## Holds both loops to their thresholds: mallocs, system calls, instructions per echo
	@echo "==> counts: building $(BENCHMARKS), release"
	@swift build -c release --package-path $(BENCHMARKS)
	@echo "==> counts: loopbench counts --check"
	@$(BENCHMARKS)/.build/release/loopbench counts --check

.PHONY: model
model: tools ## Model-checks the wake-up protocol, and shows that each of its parts is needed
	@.ci/model.sh

.PHONY: planted
planted: deps ## Plants known bugs one at a time and shows that the simulated kernel finds each
	@.ci/planted.sh

.PHONY: mutants
mutants: deps ## Small changes in the core that no scenario and no seed notices: make mutants FILES="stream.c:750-766"
	@.ci/mutants.sh $(or $(FILES),$(error FILES names files of the core, such as stream.c or stream.c:750-766))

.PHONY: consume
consume: deps ## Builds and runs a scratch package that depends on this one by URL and version
	@.ci/check-consumer.sh

.PHONY: format
format: tools ## Formats Swift and C in place
	@.ci/format.sh write

.PHONY: docs
docs: deps ## Builds the API reference into .docs-out
	@.ci/docs.sh

.PHONY: clean
clean: ## Removes everything the other targets made
	@echo "==> clean: build folders and .docs-out"
	@rm -rf .build .build-* .docs-out $(BENCHMARKS)/.build $(BENCHMARKS)/.build-*
