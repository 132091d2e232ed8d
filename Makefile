# The two commands of a new user are `make demo` and `make test`; both install what is missing.

# What make demo leaves running is called this.
DEMO ?= demo

.PHONY: demo demo-down test build packages lint bench deny

demo: build
	scripts/demo.sh $(DEMO)

demo-down:
	scripts/demo-down.sh $(DEMO)

test: packages
	scripts/test.sh

build: packages
	cargo build --release --locked --bins

packages:
	@scripts/packages.sh

lint: packages
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

bench: build
	scripts/bench.sh

# Licences, duplicate crates and sources; needs cargo-deny (cargo install cargo-deny).
deny:
	cargo deny check licenses bans sources
