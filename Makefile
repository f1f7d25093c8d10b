# Everything a contributor or CI runs. `make help` lists the targets.
#
# Nothing is installed outside this directory: tools, the Kafka of kafka-up and
# binaries live in .build/, which git ignores.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BUILD := $(CURDIR)/.build

# The packages whose tests talk to a broker; test-kafka repeats them on a real one.
TRANSPORT := ./consumer/... ./producer/... ./internal/kafkawire/... ./internal/worker/...

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: test
test: ## Run all tests with the race detector; needs nothing but Go
	go test -race ./...

.PHONY: clean
clean: ## Remove everything the targets produced
	rm -rf $(BUILD)
