/* SPDX-License-Identifier: MIT */
/* As programs were written in 1999: all it includes is mbuff.h, and all it declares is implicit. */
/* Nor was it laid out by a program. */
/* clang-format off */
#include "mbuff.h"

struct mbuff_request_struct req={0,"mybuf",0,0};
volatile unsigned short *buf;

usage(program)
char *program;
{
	printf("usage: %s, with names of %d characters\n", program, (int)sizeof(req.name)-2);
	return 1;
}

main (int argc, char **argv)
{
	int i;

	if (argc != 1)
		return usage(argv[0]);
	if((buf=(volatile unsigned short *)mbuff_alloc("mybuf",3*4096)) == NULL) {
		perror("mbuff_alloc failed");
		return 1;
	}
	for(i=0;i<3*4096/sizeof(*buf);i++)
		buf[i]=('a'+('b'<<8));
	if(strncmp((char *)buf,"abab",4) && strncmp((char *)buf,"baba",4))
		return 1;
	mbuff_free("mybuf",(void *)buf);
	return mbuff_size("mybuf") >= 0;
}
