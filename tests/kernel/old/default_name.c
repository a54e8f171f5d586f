/* SPDX-License-Identifier: MIT */
/* A NULL name means "default". */
#include "fact.h"

int main(void)
{
	struct mbuff_request_struct req = { 0, "default", 0, { 0 } };
	char *one = mbuff_alloc(NULL, 10), *two = mbuff_attach("default", 10);

	FACT(one && two);
	strcpy(one, "the same");
	FACT(!strcmp(two, "the same"));
	FACT(mbuff_size(NULL) == PAGE);
	close(mbuff_open_dev(NULL, &req));
	FACT(!strcmp(req.name, "default"));
	mbuff_detach(NULL, two);
	mbuff_free(NULL, one);
	FACT(mbuff_size("default") == -EINVAL);
	return 0;
}
