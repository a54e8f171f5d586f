#!/bin/sh
# SPDX-License-Identifier: MIT
# write_counter.sh NAME COUNT [INTERVAL_MS]: adds 1 to the counter of an area COUNT times.
# A shell cannot map; what it writes into the file is in everybody's mapping all the same.
set -eu

usage() {
	echo "usage: write_counter.sh NAME COUNT [INTERVAL_MS]" >&2
	exit 1
}

fail() {
	printf '%s\n' "write_counter.sh: $1" >&2
	exit 1
}

[ $# -eq 2 ] || [ $# -eq 3 ] || usage
for number in "$2" "${3:-0}"; do
	case $number in '' | 0?* | *[!0-9]*) usage ;; esac
done
[ "$2" -gt 0 ] || usage
path=${MBUFF_DIR:-/mnt/mbuff}/$1
count=$2
interval=${3:-0}

bytes=$(od -A n -t u1 -N 8 "$path" 2>&1) ||
	fail "$path: ${bytes##*: } (try: mbufffs mount; create $1 4096)"
read -r a b c d e f g h <<END
$bytes
END
[ -n "$h" ] || fail "$path: too small (the counter takes 8 bytes)"
value=$((a | b << 8 | c << 16 | d << 24 | e << 32 | f << 40 | g << 48 | h << 56))

while [ "$count" -gt 0 ]; do
	value=$((value + 1))
	octal=$(printf '\\0%03o' $((value & 255)) $((value >> 8 & 255)) $((value >> 16 & 255)) \
		$((value >> 24 & 255)) $((value >> 32 & 255)) $((value >> 40 & 255)) \
		$((value >> 48 & 255)) $((value >> 56 & 255)))
	# obs=8 makes one write of what may come through the pipe in pieces, as it does from a
	# shell whose printf writes line by line when a byte of the counter is a newline (10).
	printf %b "$octal" | dd obs=8 conv=notrunc of="$path" status=none
	[ "$interval" -eq 0 ] || sleep "$((interval / 1000)).$(printf %03d $((interval % 1000)))"
	count=$((count - 1))
done
echo "$value"
