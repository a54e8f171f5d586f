#!/bin/sh
# SPDX-License-Identifier: MIT
# create.sh NAME SIZE: makes an area of SIZE zero bytes; a name that exists is refused.
set -eu

fail() {
	printf '%s\n' "create.sh: $1" >&2
	exit 1
}

if [ $# -ne 2 ]; then
	echo "usage: create.sh NAME SIZE" >&2
	exit 1
fi
case $2 in
'' | 0* | *[!0-9]*) fail "$2: not a size (a whole number of bytes, 1 or more)" ;;
esac
path=${MBUFF_DIR:-/mnt/mbuff}/$1

error=$(ls -d "$(dirname "$path")/" 2>&1) ||
	fail "$path: ${error##*: } (is mbufffs mounted? try: mbufffs mount)"
# With -C the redirection opens with O_EXCL: of two who create one name, one is refused.
error=$( (set -C && : >"$path") 2>&1) ||
	fail "$path: ${error##*: } (rm it first, or take another name)"
if ! error=$(truncate -s "$2" "$path" 2>&1); then
	rm -f "$path" # not a page was taken, so the name must go as well
	fail "$path: ${error##*: } (how much is free? try: df -h)"
fi
