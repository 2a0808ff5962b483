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
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Checks for swift, pkg-config, liburing and libev; installs the missing packages where apt is at hand
	@.ci/deps.sh

.PHONY: tools
tools: ## The same, with the tools that only lint, format and check need
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
	@.ci/test.sh "test: the suite, debug"

.PHONY: check
check: lint warnings test asan tsan tiny bench counts consume ## What a pull request is held to: test and the parts from lint to consume
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
	UBSAN_OPTIONS="$${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}" \
	.ci/test.sh "asan: the suite, address and undefined behaviour" --scratch-path .build-asan $(ASAN_FLAGS)

.PHONY: tsan
tsan: deps ## Runs the suite under ThreadSanitizer
	@TSAN_OPTIONS="$${TSAN_OPTIONS:-halt_on_error=1}" \
	.ci/test.sh "tsan: the suite, data races" --scratch-path .build-tsan --sanitize=thread

.PHONY: tiny
tiny: deps ## Runs the suite with tiny rings, buffer groups and batches
	@LOOP_TINY=1 .ci/test.sh "tiny: the suite, LOOP_TINY=1"

.PHONY: bench
bench: deps ## Runs the tests of the benchmarks, which load servers from outside
	@.ci/test.sh "bench: loopbench and its floors" --package-path $(BENCHMARKS)

.PHONY: counts
counts: tools ## Holds both loops to their floors: mallocs and system calls per echo
	@echo "==> counts: building $(BENCHMARKS), release"
	@swift build -c release --package-path $(BENCHMARKS)
	@echo "==> counts: loopbench counts --check"
	@$(BENCHMARKS)/.build/release/loopbench counts --check

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
