#!/bin/sh
# SPDX-License-Identifier: MIT
# A tour of a mount: ordinary commands on named areas, each shown before it runs; leaves nothing.
set -eu
MBUFF_DIR=${MBUFF_DIR:-/mnt/mbuff}
export MBUFF_DIR
cd "$MBUFF_DIR"

bold='' plain=''
if [ -t 1 ]; then
	bold=$(printf '\033[1m') plain=$(printf '\033[0m')
fi

step() {
	printf '\n%s$ %s%s\n' "$bold" "$*" "$plain"
	sh -c "$*"
}

explain() {
	printf '\n# %s\n' "$*"
}

trap 'rm -rf tour' EXIT
mkdir -p tour
cd tour

explain 'An area is a file: truncate gives it its memory, every page, now.'
step 'truncate -s 1M frame'
step 'ls -ls frame'
explain 'Bytes go straight to that memory, by any program.'
step 'dd if=/dev/urandom of=frame bs=64k count=16 conv=notrunc status=none && cp frame copy'
step 'cmp frame copy && echo the same bytes'
step 'mv copy other && ls'
explain 'Two programs that map one path share its pages.'
cat >map.py <<'PYTHON'
import mmap, os, subprocess, sys
fd = os.open("frame", os.O_RDWR)
memory = mmap.mmap(fd, 0)
memory[:5] = b"hello"
print("another process reads:", subprocess.check_output(["head", "-c", "5", "frame"]).decode())
PYTHON
step 'python3 map.py'
explain 'No byte of it crosses the daemon: the kernel sent it no READ and no WRITE.'
step "mbufffs info -m $MBUFF_DIR --json | grep -E -A2 '\"(READ|WRITE)\"'"
step "mbufffs info -m $MBUFF_DIR tour/frame"
explain 'rm gives the memory back.'
step 'df -h . && rm frame other && df -h .'
cd ..
