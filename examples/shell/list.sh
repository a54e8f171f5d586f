#!/bin/sh
# SPDX-License-Identifier: MIT
# list.sh: prints the size and name of every area, one a line, in the order of the directory.
set -eu

if [ $# -ne 0 ]; then
	echo "usage: list.sh" >&2
	exit 1
fi
directory=${MBUFF_DIR:-/mnt/mbuff}
if ! error=$(ls -d "$directory/" 2>&1); then
	echo "list.sh: $directory: ${error##*: } (is mbufffs mounted? try: mbufffs mount)" >&2
	exit 1
fi
cd "$directory"
# Names may hold directories (cam0/frame), so all of the tree is walked.
find . -type f -exec stat -c '%s %n' {} + | sed 's| \./| |'
