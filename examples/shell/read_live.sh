#!/bin/sh
# SPDX-License-Identifier: MIT
# read_live.sh NAME N [TIMEOUT_S]: prints the counter of an area, and again when it has changed.
# Ends after N values with exit status 0, or with 1 when the time is over (10 s if not given).
set -eu

usage() {
	echo "usage: read_live.sh NAME N [TIMEOUT_S]" >&2
	exit 1
}

fail() {
	printf '%s\n' "read_live.sh: $1" >&2
	exit 1
}

[ $# -eq 2 ] || [ $# -eq 3 ] || usage
for number in "$2" "${3:-0}"; do
	case $number in '' | 0?* | *[!0-9]*) usage ;; esac
done
[ "$2" -gt 0 ] || usage
path=${MBUFF_DIR:-/mnt/mbuff}/$1
wanted=$2
timeout=${3:-10}
end=$(($(date +%s) + timeout))
seen=0
last=

while :; do
	bytes=$(od -A n -t u1 -N 8 "$path" 2>&1) ||
		fail "$path: ${bytes##*: } (try: mbufffs mount; create $1 4096)"
	read -r a b c d e f g h <<END
$bytes
END
	[ -n "$h" ] || fail "$path: too small (the counter takes 8 bytes)"
	value=$((a | b << 8 | c << 16 | d << 24 | e << 32 | f << 40 | g << 48 | h << 56))
	if [ "$value" != "$last" ]; then
		echo "$value"
		last=$value
		seen=$((seen + 1))
	fi
	[ "$seen" -lt "$wanted" ] || exit 0
	[ "$(date +%s)" -lt "$end" ] || fail "$path: $seen of $wanted values after $timeout s"
	sleep 0.01
done
