#!/bin/sh
# Builds the vDSO from the sources here; $1 is the output. Run by go generate,
# and by the test that proves the checked-in file to be current. The compiler's
# version is written beside it.
set -e
out=$(realpath "$1")
cd "$(dirname "$0")"
gcc -O2 -fPIC -shared -nostdlib -ffreestanding -fno-stack-protector -fcf-protection=none \
	-fasynchronous-unwind-tables -fomit-frame-pointer \
	-Wall -Wl,-T,vdso.lds -Wl,-soname,linux-vdso.so.1 -Wl,--hash-style=both -Wl,--build-id=none \
	-Wl,-z,max-page-size=4096 -Wl,-z,noexecstack -Wl,--eh-frame-hdr -Wl,-Bsymbolic -Wl,--no-undefined -s \
	-o "$out" vdso.c sigreturn.S note.S
chmod 644 "$out"
gcc -dumpfullversion >"$out.gcc"
