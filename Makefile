# The commands of this repository; `make` lists them.

.DEFAULT_GOAL := help
.PHONY: help run test soak staleness stampede checkpoint-kills drill restore-kills lint bench warm-rate warm-start reload-load checkpoint-load tls-load access-cost tools

# The last commit of main that is not the one being checked.
base = $(shell for branch in origin/main main; do \
	commit=$$(git rev-parse -q --verify "$$branch^{commit}" 2>/dev/null) || continue; \
	[ "$$commit" = "$$(git rev-parse HEAD)" ] && commit=$$(git rev-parse -q --verify HEAD~1); \
	echo "$$commit"; break; done)
buf = $(CURDIR)/target/python/bin/buf
# What the tests need beside cargo.
needed = redis python moto buf node go browser groff deploy

help: ## List these commands.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build and start the server with the embedded store in ./data.
	cargo run --profile quick -- serve

test: ## Run every test; installs what they need, while they are built.
	@tests/tools $(needed) & tools=$$!; cargo test --no-run; built=$$?; \
		wait $$tools && [ $$built -eq 0 ] && cargo test

soak: tools ## Press on limits and kill replicas for minutes, and show the tables (about 8 minutes).
	RIPTIDE_SOAK=1 cargo test --test it money:: -- --nocapture --test-threads=1

staleness: tools ## Hold 10 million reads under faults against what was acknowledged; takes SEED= and READS=.
	RIPTIDE_SOAK=1 RIPTIDE_SEED=$(SEED) RIPTIDE_READS=$(READS) \
		cargo test --release --test it staleness:: -- --nocapture --test-threads=1

stampede: tools ## Let 10,000 callers miss a key at once, at 3 replicas on one Redis; takes SEED=.
	RIPTIDE_SOAK=1 RIPTIDE_SEED=$(SEED) \
		cargo test --test it stampede:: -- --nocapture --test-threads=1

checkpoint-kills: tools ## Kill the service at 100 random moments of a checkpoint (about 5 minutes).
	RIPTIDE_SOAK=1 cargo test --test it checkpoint::killed:: -- --nocapture --test-threads=1

drill: tools ## Lose a store and restore it, with a table; takes SEED= and DRILL_ENTRIES= (about 3 minutes).
	SEED=$(SEED) DRILL_TENANTS=4 DRILL_ENTRIES=$(or $(DRILL_ENTRIES),50000) \
		cargo test --release --test it restore::drill -- --nocapture --test-threads=1

restore-kills: tools ## Kill the service at 100 moments of a restore.
	RESTORE_KILLS=100 cargo test --test it restore::killed -- --nocapture

lint: ## Check form: rustfmt, clippy, rustdoc, and buf for the protos.
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --no-default-features --lib --bins -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	@if tests/tools buf; then $(MAKE) --no-print-directory lint-protos; else \
		echo "WARNING: buf cannot be had, so the protos were NOT linted and NOT checked for breaking changes" >&2; fi

.PHONY: lint-protos
lint-protos:
	cd proto && $(buf) lint
	@if [ -n "$(base)" ] && git cat-file -e $(base):proto/buf.yaml 2>/dev/null; then \
		rm -rf target/base && mkdir -p target/base && git archive $(base) proto | tar -x -C target/base && \
		echo "cd proto && buf breaking --against $(base)" && cd proto && $(buf) breaking --against $(CURDIR)/target/base/proto; \
	else echo "no commit of main to compare the protos with: breaking changes were not looked for" >&2; fi

bench: ## Measure the release build against no-op twins (about 4 minutes).
	@tests/tools redis
	cargo bench --bench rpc

warm-rate: ## Measure how fast a million entries are warmed, and in how much memory (about 3 minutes).
	@tests/tools redis
	cargo bench --bench warm -- rate

SEED ?= 1
warm-start: ## Show hits near and at the origin around a restart; SEED=1 (about 3 minutes).
	@tests/tools redis
	cargo bench --bench warm -- start --seed $(SEED)

reload-load: ## Show a load with and without a reload every second (about 3 minutes).
	@tests/tools redis
	cargo bench --bench rpc -- --part reload --rounds 5

ENTRIES ?= 1000000
checkpoint-load: ## Show a load with and without a checkpoint being taken; takes ENTRIES= (about 4 minutes).
	@tests/tools redis
	cargo bench --bench rpc -- --part checkpoint --rounds 5 --entries $(ENTRIES)

tls-load: ## Show near hits in TLS beside the same in the clear (about 1 minute).
	@tests/tools redis
	cargo bench --bench rpc -- --part tls --rounds 9

access-cost: ## Measure what it costs to tell of calls, and to record them (about 1 minute).
	cargo bench --bench rpc -- --part access --rounds 9

tools:
	@tests/tools $(needed)
