// SPDX-License-Identifier: MIT
// A C++ program of its time finds the functions and the request as C programs do.
#include <mbuff.h>

#include <stdlib.h>

struct SharedMem {
	int version;
	volatile double values[1000];
};

class ShmMgr
{
    public:
	ShmMgr() : shm(static_cast<SharedMem *>(mbuff_attach("manager", sizeof(SharedMem))))
	{
	}
	~ShmMgr()
	{
		mbuff_detach("manager", shm);
	}
	SharedMem *shm;
};

static const char *devFileName = MBUFF_DEV_NAME;
static mbuff_request_struct request = { 0, "mybuf", 0, { 0 } };

int main()
{
	{
		ShmMgr one, two;

		if (!one.shm || !two.shm)
			return 1;
		one.shm->values[999] = 1.5;
		if (two.shm->values[999] != 1.5)
			return 2;
	}
	if (mbuff_size("manager") >= 0)
		return 3;
	return devFileName && request.size == 0 && IOCTL_MBUFF_LAST == IOCTL_MBUFF_SELECT ? 0 : 4;
}
