# Everything a contributor or CI runs. `make help` lists the targets.
#
# Nothing is installed outside this directory: tools, the Kafka of kafka-up and
# binaries live in .build/, which git ignores.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BUILD := $(CURDIR)/.build
BIN := $(BUILD)/bin
BINARY := $(BUILD)/churnstream

# Tools are built once, by version: another version is another file.
GOLANGCI_VERSION := v2.15.0
GOVULNCHECK_VERSION := v1.8.0
GOLANGCI := $(BIN)/golangci-lint-$(GOLANGCI_VERSION)
GOVULNCHECK := $(BIN)/govulncheck-$(GOVULNCHECK_VERSION)

# The packages whose tests talk to a broker; test-kafka repeats them on a real one.
TRANSPORT := ./consumer/... ./producer/... ./internal/kafkawire/... ./internal/testkit/... ./internal/worker/... \
	./internal/deadletters/... ./cmd/churnstream/...

# The race detector needs cgo, which Go switches off where it finds no C compiler.
RACE = $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
IMAGE ?= churnstream:$(VERSION)
KAFKA_VERSION ?= 4.3
SECURED_PORT ?= 19292
FUZZ ?= .
export FUZZTIME ?= 30s
BENCH ?= .
BENCH_COUNT ?= 1
BENCHTIME ?= 1s

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

.PHONY: build
build: ## Build the static binary .build/churnstream
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BINARY) ./cmd/churnstream

.PHONY: test
test: ## Run all tests, with the race detector where there is a C compiler; needs nothing but Go
	$(if $(RACE),,@echo "no C compiler: testing without the race detector" >&2)
	go test $(RACE) ./...

.PHONY: test-kafka
test-kafka: ## Run the transport tests on a real Kafka (KAFKA_VERSION=4.3, 4.1, 3.9); needs Java and Maven
	KAFKA_VERSION=$(KAFKA_VERSION) deploy/kafka/kafka.sh run go test $(RACE) -count=1 -p=1 $(TRANSPORT)

.PHONY: test-counts
test-counts: ## Compare the drift counts with a recount after 100 kills and rebalances, on the embedded broker and a real Kafka; needs Java and Maven
	CHURNSTREAM_TEST_CHAOS=100 go test -count=1 -v -run TestCountsEqualARecount ./internal/worker
	KAFKA_VERSION=$(KAFKA_VERSION) deploy/kafka/kafka.sh run env CHURNSTREAM_TEST_CHAOS=100 \
		go test -count=1 -v -run TestCountsEqualARecount ./internal/worker

.PHONY: test-registry
test-registry: ## Run the tests of schema evolution on a real registry (Apicurio); needs Java and Maven
	deploy/registry/apicurio.sh run go test $(RACE) -count=1 -p=1 -run 'Refer|SchemaCheck|Evolve|RefusesEndsTheStart|RegistryOutage' \
		./schemas ./cmd/churnstream ./internal/worker

.PHONY: test-security
test-security: ## Test logins, certificates, rights and their errors on a real Kafka; needs Java, Maven and openssl
	KAFKA_SECURED=1 KAFKA_PORT=$(SECURED_PORT) KAFKA_VERSION=$(KAFKA_VERSION) deploy/kafka/kafka.sh run \
		go test $(RACE) -count=1 -run Secured ./internal/worker

.PHONY: test-redrive
test-redrive: ## Redrive a million dead letters on a real Kafka with three kills; needs Java and Maven
	KAFKA_VERSION=$(KAFKA_VERSION) deploy/kafka/kafka.sh run env CHURNSTREAM_REDRIVE_RECORDS=1000000 \
		go test -count=1 -v -run TestRedriveThatIsKilled ./cmd/churnstream

.PHONY: test-containers
test-containers: ## Run the transport tests on a Kafka in a container; needs a container engine
	@docker info >/dev/null 2>&1 || { echo "no container engine answers: docker info failed" >&2; exit 1; }
	CHURNSTREAM_TEST_CONTAINERS=1 go test $(RACE) -count=1 -p=1 $(TRANSPORT)

.PHONY: test-rules
test-rules: ## Test the Prometheus rules and the dashboard's queries; needs promtool and amtool
	.ci/rules.sh

.PHONY: test-python
test-python: build $(BUILD)/python ## Test the Python exporter against this build's command, on today's scikit-learn; needs Python and pip
	cd python && CHURNSTREAM=$(BINARY) $(BUILD)/python/bin/python -m pytest -q

.PHONY: test-stream
test-stream: build $(BUILD)/python ## Fit, export, verify and stream both reference systems on a real Kafka; needs Java, Maven, Python and pip
	KAFKA_VERSION=$(KAFKA_VERSION) deploy/kafka/kafka.sh run \
		$(BUILD)/python/bin/python python/examples/stream.py --command $(BINARY)

.PHONY: $(BUILD)/python
$(BUILD)/python:
	python3 -m venv $@
	$@/bin/pip install -q './python[test]'

.PHONY: fuzz
fuzz: ## Run every fuzz target (FUZZ=pattern, FUZZTIME=30s each)
	.ci/fuzz.sh '$(FUZZ)'

.PHONY: bench
bench: ## Run the benchmarks (BENCH=pattern, BENCHTIME=1s, BENCH_COUNT=n)
	go test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime=$(BENCHTIME) -count=$(BENCH_COUNT) ./...

.PHONY: drift-sim
drift-sim: ## Simulate false alarms and delays of the drift rule beside others; minutes (SIM=-long: the table of docs/drift.md, hours)
	go run ./internal/driftsim $(SIM)

.PHONY: bench-peers
bench-peers: ## Compare with franz-go and Kafka Streams (PEERS='--events 1000000 ...'); needs Java and Maven, half an hour
	bench/peers/run.sh $(PEERS)

.PHONY: bench-rebalance
bench-rebalance: ## Measure rebalances and the loss of a group's coordinator on real brokers, beside kafka-go's group; 15 min
	mkdir -p $(BUILD)/rebalance
	go build -o $(BUILD)/rebalance/rebalance ./internal/bench/rebalance
	KAFKA_VERSION=$(KAFKA_VERSION) deploy/kafka/kafka.sh run $(SHELL) -c 'for transactions in partition worker; do \
		$(BUILD)/rebalance/rebalance -brokers $$CHURNSTREAM_TEST_BROKERS -logs $(BUILD)/rebalance -transactions $$transactions; done'
	KAFKA_VERSION=$(KAFKA_VERSION) deploy/kafka/cluster.sh run $(SHELL) -c '$(BUILD)/rebalance/rebalance -brokers $$CHURNSTREAM_TEST_BROKERS \
		-logs $(BUILD)/rebalance -cluster deploy/kafka/cluster.sh -partitions 8 -rate 400 -replication 3 \
		-cases none-coordinator,classic-coordinator,consumer-coordinator,kafka-go-coordinator'

.PHONY: chaos
chaos: ## Let faults happen to real brokers and workers and check every record (CHAOS='--nodes 3 --faults 500 ...'); needs Java and Maven
	mkdir -p $(BUILD)/chaos
	go build -o $(BUILD)/chaos/chaos ./internal/bench/chaos
	KAFKA_VERSION=$(KAFKA_VERSION) $(BUILD)/chaos/chaos -logs $(BUILD)/chaos $(CHAOS)

.PHONY: check
check: ## Check format, lint, vet, module files and known vulnerabilities; names every fault
	@$(MAKE) --no-print-directory --keep-going check-format check-lint check-vet check-tidy check-vulns

.PHONY: fmt
fmt: $(GOLANGCI) ## Format the sources
	$(GOLANGCI) fmt

.PHONY: check-format
check-format: $(GOLANGCI)
	@$(GOLANGCI) fmt --diff || { echo "some files are not formatted: make fmt" >&2; exit 1; }
	@for script in .ci/run $$(git ls-files '*.sh'); do bash -n "$$script"; done
	@echo "format: ok"

.PHONY: check-lint
check-lint: $(GOLANGCI)
	$(GOLANGCI) run

.PHONY: check-vet
check-vet:
	go vet ./...

.PHONY: check-tidy
check-tidy:
	go mod tidy -diff
	go mod verify

.PHONY: check-vulns
check-vulns: $(GOVULNCHECK)
	.ci/vulncheck.sh $(GOVULNCHECK)

.PHONY: kafka-up
kafka-up: ## Start a real Kafka on 127.0.0.1:19092; needs Java and Maven
	@KAFKA_VERSION=$(KAFKA_VERSION) deploy/kafka/kafka.sh up

.PHONY: kafka-down
kafka-down: ## Stop it
	@deploy/kafka/kafka.sh down

.PHONY: image
image: ## Build the container image; needs a container engine
	docker build --file deploy/container/Dockerfile --build-arg VERSION=$(VERSION) --tag $(IMAGE) .

.PHONY: clean
clean: ## Remove everything the targets produced
	-@deploy/kafka/kafka.sh down
	rm -rf $(BUILD)

$(GOLANGCI):
	$(call install,golangci-lint,github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION))

$(GOVULNCHECK):
	$(call install,govulncheck,golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION))

# install builds a command at its version and puts the version into its name.
define install
@echo "building $(2)" >&2
@mkdir -p $(BIN)
@GOBIN=$(BIN) GOFLAGS= go install $(2)
@mv $(BIN)/$(1) $@
endef
