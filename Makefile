# The two commands of a new user are `make demo` and `make test`; both install what is missing.

# What make demo leaves running is called this.
DEMO ?= demo

# make install, as the GNU coding standards have it: DESTDIR is put before every path. The system's
# own files (units, sysusers.d, tmpfiles.d) go below PREFIX, where systemd looks for them as well.
DESTDIR ?=
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
# What is installed: `make install` builds it; BIN=target/release takes what is there.
PROFILE ?= dist
BIN ?= target/$(PROFILE)

.PHONY: demo demo-down test soak nemesis fuzz build packages lint bench bench-core bench-million bench-failover deny dist install uninstall deb

demo: build
	scripts/demo.sh $(DEMO)

demo-down:
	scripts/demo-down.sh $(DEMO)

test: packages
	scripts/test.sh

build: packages
	cargo build --release --locked --bins

dist: packages
	cargo build --profile $(PROFILE) --locked -p fleetd -p fleetctl --bins

# Named on the command line, BIN has been built already.
BUILT := $(if $(filter command line environment,$(origin BIN)),,dist)

install: $(BUILT)
	@BIN='$(BIN)' PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' SYSCONFDIR='$(SYSCONFDIR)' scripts/install.sh

uninstall:
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' SYSCONFDIR='$(SYSCONFDIR)' scripts/install.sh --uninstall

deb: $(BUILT)
	@BIN='$(BIN)' scripts/deb.sh

packages:
	@scripts/packages.sh

lint: packages
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

# Random histories from fresh seeds, for some minutes.
soak: packages
	scripts/soak.sh

# Real machines on which everything breaks at random, for FLEET_NEMESIS_SECONDS (900).
nemesis: packages
	scripts/nemesis.sh

# Bytes from outside, guided by coverage, a minute a target; needs nightly and cargo-fuzz. Bounded
# mutations of the same corpus are part of make test.
fuzz:
	scripts/fuzz.sh

# Of what make install installs.
bench: dist
	FLEET_BIN_DIR=$(CURDIR)/$(BIN) scripts/bench.sh

# What a decision costs among a million units on 5,000 machines; a minute or two, 3 GB of memory.
# FLEET_BENCH_UNITS and FLEET_BENCH_MACHINES make it another cluster.
bench-core:
	cargo bench --locked -p fleet-core --bench plan

# A million units on 5,000 scripted machines, each placement and state durable in etcd; minutes, and
# 12 GB of memory. FLEET_BENCH_UNITS and FLEET_BENCH_MACHINES make it another cluster.
bench-million: packages
	cargo bench --locked -p fleetd --bench million

# How long it takes until the units of a lost machine are active elsewhere; some minutes.
bench-failover: build
	cargo bench --locked -p fleetd --bench failover

# Licences, duplicate crates and sources; needs cargo-deny (cargo install cargo-deny).
deny:
	cargo deny check licenses bans sources
