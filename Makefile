# A zero-trust security-training lab. `make` prints what there is.
.DEFAULT_GOAL := help
export CGO_ENABLED ?= 0
TOOL := go tool -modfile=tools/go.mod
RELEASE := go tool -modfile=tools/release/go.mod
# Runs tests, writes test-results/<name>.{json,xml}, and counts at the end what was skipped, by reason. What LAB_REQUIRE names fails.
RESULTS := $(CURDIR)/test-results
RUN = mkdir -p $(RESULTS) && $(TOOL) gotestsum --format pkgname --hide-summary=skipped --jsonfile $(RESULTS)/$(1).json --junitfile $(RESULTS)/$(1).xml --post-run-command 'sh -c "go run ./lab/cmd/tally < $(RESULTS)/$(1).json"' --

help: ## Print this
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

build: ## Build every program into bin/
	@echo "compiling into bin/ (about 5 minutes on 2 cores the first time, then seconds)" >&2
	@go build -trimpath -buildvcs=false -ldflags=-s -o bin/ ./services/cmd/... ./synth/cmd/...
	@go build -trimpath -ldflags=-s -o bin/ ./lab/cmd/...

dev: build ## Build a workload and swap it into the running lab on each change of its source: make dev W=lms
	@bin/lab dev $(W) $(ARGS)

lab-up: build ## Bring the lab up, RUNTIME=local|kind|cluster: history seeded, dashboard ready, sign-in link printed
	@bin/lab up $(if $(RUNTIME),--runtime $(RUNTIME)) $(ARGS)

lab-down: build ## Take the lab down and leave nothing behind
	@bin/lab down $(ARGS)

play: build ## Play a scenario: make play S=leaked-secret
	@bin/lab play $(S) $(ARGS)

unit: ## Run the unit tests
	@$(call RUN,unit) $$(go list ./... | grep -v /e2e$$)

e2e: ## Bring a lab of its own up and prove that it behaves
	@$(call RUN,e2e) -count=1 -timeout 20m ./e2e

e2e-kind: ## The same on Kubernetes with SPIRE, and every command of DEPLOYMENT_ARCHITECTURE.md: needs Docker
	@export LAB_RUNTIME=kind; $(call RUN,e2e-kind) -count=1 -p 1 -timeout 40m ./e2e ./e2e/deploy

test: unit e2e ## Run all tests: no Docker, nothing but Go and PostgreSQL's package

release: build ## Make a release's files in dist/, published nowhere: programs, chart, bill of materials, checksums
	@RELEASE_COMMIT=$$(git rev-parse HEAD) RELEASE_TIME=$$(git log -1 --format=%ct) $(RELEASE) goreleaser release --snapshot --clean --config tools/release/goreleaser.yaml $(ARGS)
	@LAB_REQUIRE=release go test -count=1 ./e2e/release

screenshots: ## Photograph every page, light and dark, into screenshots/
	@mkdir -p screenshots && LAB_SCREENSHOTS=$(CURDIR)/screenshots go test -count=1 -run 'Learner|Instructor|Manager|Admin' ./e2e

golden: ## Rewrite the golden files; review them as a diff
	@go test ./services/topology ./synth/routine -run 'Golden|Digest' -update

web-checks: ## Install what tests look at pages and payloads with: axe-core, GitHub's schemas; not shipped
	@if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund --prefix tools/web; else echo "npm is not on PATH: the tests by axe-core and GitHub's schemas are skipped" >&2; fi

lint: ## Check style and the rules of the house
	@$(TOOL) golangci-lint run ./...
	@$(TOOL) golangci-lint fmt --diff # also the files for other systems, which "run" does not read
	@go vet ./... && GOOS=darwin go vet ./...

race: ## Run the unit tests under the race detector, one package after the other
	@CGO_ENABLED=1 go build -race ./... # on all cores, which -p 1 would not
	@CGO_ENABLED=1 go test -p 1 -race -short $$(go list ./... | grep -v /e2e)

check: web-checks lint test race ## Everything that CI runs

.PHONY: help build dev release lab-up lab-down play screenshots unit e2e e2e-kind test golden web-checks lint race check
