#!/bin/sh
# SPDX-License-Identifier: MIT
# What can be said of the module without running it: sparse and clang's analyzer with the flags of a
# kernel's build, and checkpatch of that kernel's source. Not a build with warnings; modules.py is that.
#
#     tests/kernel/static.sh HEADERS [SOURCE]
#
# HEADERS: a linux-headers-* directory for which modules can be built; SOURCE: one with
# scripts/checkpatch.pl. Nothing is written into either, nor into the repository.
set -eu

# make calls this file as its checker, with the compiler's flags: clang gets those that say what the
# code means. The others are gcc's own, or of the code that comes out.
if [ "${1-}" = --analyze ]; then
	shift
	count=$#
	while [ "$count" -gt 0 ]; do
		case "$1" in
		-include | -isystem)
			set -- "$@" "$1" "$2"
			shift
			count=$((count - 1))
			;;
		-D__CHECK*) ;; # sparse's own
		-D* | -U* | -I* | -nostdinc | -std=* | -fshort-wchar | -funsigned-char | -m64 | *.c)
			set -- "$@" "$1"
			;;
		esac
		shift
		count=$((count - 1))
	done
	# The one that is off tells to use memcpy_s.
	exec clang --analyze -w -Xclang -analyzer-werror -Xclang -analyzer-output=text \
		-Xclang -analyzer-disable-checker=security.insecureAPI.DeprecatedOrUnsafeBufferHandling \
		"$@"
fi

if [ $# -lt 1 ] || [ ! -f "$1/Makefile" ] || { [ $# -gt 1 ] && [ ! -f "$2/scripts/checkpatch.pl" ]; }
then
	echo "usage: $0 HEADERS [SOURCE]" >&2
	exit 2
fi
here=$(dirname "$(realpath "$0")")
repository=$(realpath "$here/../..")
headers=$(realpath "$1")
if [ $# -gt 1 ]; then
	checkpatch=$(realpath "$2")/scripts/checkpatch.pl
fi
modules="kmod tests/kernel/ktest bench/kernel $(cd "$repository" && echo examples/kernel/*/)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" # checkpatch writes what it found out into the directory that it runs in
failed=

# check MODULE CHECKER [FLAGS]
check()
{
	make -s -C "$headers" M="$work/$1" W=1 C=2 CHECK="$2" ${3+CF="$3"} KBUILD_MODPOST_WARN=1 \
		KCFLAGS="-I$work/kmod/include -I$work/kmod/uapi" modules >"$work/log" 2>&1 &&
		! grep -q 'error:\|warning:' "$work/log" && return
	cat "$work/log"
	failed="$failed $1"
}

for module in $modules; do
	if [ ! -f "$repository/$module/Kbuild" ]; then
		continue
	fi
	mkdir -p "$work/$module"
	(cd "$repository/$module" && tar -cf - --exclude='*.o' --exclude='*.ko' --exclude='*.cmd' .) |
		tar -xf - -C "$work/$module"
	echo "sparse: $module"
	check "$module" sparse -Wsparse-error
	echo "clang --analyze: $module"
	check "$module" "$here/static.sh --analyze"
	if [ $# -gt 1 ]; then
		echo "checkpatch: $module"
		# These are about code inside the kernel's tree, which has one version and makes no
		# copies of an operations table; UNCOMMENTED_DEFINITION looks for a lock's comment
		# only before it, not behind.
		# Programs beside a module are no kernel code, nor are the headers for programs.
		find "$repository/$module" -name '*.[ch]' ! -name '*.mod.c' ! -path '*/include/*' \
			-exec grep -L '^#include <\(std\|unistd\)' {} + |
			xargs perl "$checkpatch" --no-tree --strict --quiet --no-summary \
				--max-line-length=100 --show-types \
				--ignore LINUX_VERSION_CODE,CONSTANT_COMPARISON,CONST_STRUCT \
				--ignore UNCOMMENTED_DEFINITION -f || failed="$failed $module"
	fi
done
if [ -n "$failed" ]; then
	echo "complaints about:$failed" >&2
	exit 1
fi
