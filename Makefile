# What each target needs it installs itself on Debian 12: see scripts/setup.sh.
SHELL := /bin/bash
export PATH := $(CURDIR)/.build/go/bin:$(PATH)

.PHONY: build demo test check bench fuzz clean

build:
	CGO_ENABLED=0 go build -o dupfs ./cmd/dupfs

# back up a real directory twice, mount it, copy a file out of the older point
demo:
	scripts/setup.sh demo
	$(MAKE) build
	scripts/demo.sh

# everything: formatting, vet, linters, and all tests against real servers
test:
	scripts/setup.sh test
	scripts/check.sh
	$(MAKE) build
	scripts/test.sh

check:
	scripts/check.sh

bench:
	go test -run '^$$' -bench . -benchmem ./...

# every fuzz target for a minute; scripts/fuzz.sh says how to make it longer
fuzz:
	scripts/fuzz.sh

clean:
	rm -rf dupfs .build
