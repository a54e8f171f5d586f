// SPDX-License-Identifier: MIT
// list: prints the size and name of every area, one a line, in the order of the directory.
#include <err.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static size_t prefix; // length of the directory's name, which is no part of an area's

static int show(const char *path, const struct stat *status, int kind, struct FTW *place)
{
	(void)place;
	if (kind == FTW_F && S_ISREG(status->st_mode))
		printf("%lld %s\n", (long long)status->st_size, path + prefix + 1);
	return 0;
}

int main(int argc, char **argv)
{
	const char *directory = getenv("MBUFF_DIR") ? getenv("MBUFF_DIR") : "/mnt/mbuff";

	(void)argv;
	if (argc != 1)
		errx(1, "usage: list");
	prefix = strlen(directory);
	// Names may hold directories (cam0/frame), so all of the tree is walked.
	if (nftw(directory, show, 16, FTW_PHYS))
		errx(1, "%s: %s (is mbufffs mounted? try: mbufffs mount)", directory,
		     strerror(errno));
	return 0;
}
