# make            builds bin/runsc
# make run        builds it and runs real programs in a sandbox
# make test       installs what the tests need and runs all of them
# make bench      runs the benchmarks

GO ?= go
export CGO_ENABLED = 0

# What the tests run, natively and in the sandbox: command:package.
TOOLS = gcc:gcc musl-gcc:musl-tools make:make git:git python3:python3 sqlite3:sqlite3 perl:perl xz:xz-utils \
	gawk:gawk bash:bash ps:procps gzip:gzip tar:tar find:findutils file:file strace:strace

.PHONY: all build run test bench tools clean

all: build

build: bin/runsc

.PHONY: bin/runsc
bin/runsc:
	$(GO) build -o $@ ./runsc

run: build
	bin/runsc do -- bash -c 'echo "hello from $$(uname -sr), process $$$$ of $$(ls -d /proc/[0-9]* | wc -l)"; ls / | wc -l'
	bin/runsc do -- python3 -c 'import os, sys; print("python", sys.version.split()[0], "on", os.uname().release, "sees", os.cpu_count(), "CPUs")'

test: tools
	$(GO) vet ./...
	$(GO) test -timeout 20m ./...

bench: tools build
	$(GO) test -run '^$$' -bench . -benchmem ./...
	$(GO) run ./bench -runsc bin/runsc

# Installs only what is missing, as root, with Debian's tools.
tools:
	@missing=; for t in $(TOOLS); do command -v $${t%%:*} >/dev/null || missing="$$missing $${t##*:}"; done; \
	[ -e /usr/include/linux/futex.h ] || missing="$$missing linux-libc-dev libc6-dev"; \
	if [ -n "$$missing" ]; then \
		echo "make test: installing what the tests need:$$missing"; \
		apt-get install -y --no-install-recommends $$missing >/dev/null || \
		{ apt-get update >/dev/null && apt-get install -y --no-install-recommends $$missing >/dev/null; } || \
		{ echo "make test: could not install$$missing; install them by hand and try again" >&2; exit 1; }; \
	fi

clean:
	rm -rf bin
