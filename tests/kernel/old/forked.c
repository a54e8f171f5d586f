/* SPDX-License-Identifier: MIT */
/* Memory stays under a child when its parent has unmapped it; no count is lost or gained by fork.
 */
#include "fact.h"

int main(void)
{
	char *counted = mbuff_alloc("mybuf", PAGE), *attached;
	int go[2], status;
	char byte = 0;
	pid_t child;

	FACT(counted && !pipe(go));
	attached = mbuff_attach("mybuf", PAGE);
	FACT(attached);
	strcpy(attached, "from the parent");
	child = fork();
	FACT(child >= 0);
	if (!child) {
		FACT(read(go[0], &byte, 1) == 1);
		FACT(!strcmp(attached, "from the parent") && !strcmp(counted, "from the parent"));
		strcpy(counted, "from the child");
		FACT(!strcmp(attached, "from the child"));
		FACT(mbuff_size("mybuf") == PAGE); /* the child is attached, as its parent was */
		mbuff_detach("mybuf", attached);
		FACT(faults(attached) && !munmap(counted, (size_t)PAGE));
		FACT(mbuff_size("mybuf") == -EINVAL);
		return 0;
	}
	mbuff_free("mybuf", counted);
	mbuff_detach("mybuf", attached);
	FACT(faults(counted) && faults(attached));
	FACT(mbuff_size("mybuf") == PAGE);
	FACT(write(go[1], &byte, 1) == 1);
	FACT(waitpid(child, &status, 0) == child && !status);
	FACT(mbuff_size("mybuf") == -EINVAL);
	return 0;
}
