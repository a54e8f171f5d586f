// SPDX-License-Identifier: MIT
/*
 * Staying awake for a moment after a message, as the next one mostly follows at once: to be woken
 * costs more than most of what is answered here. Whoever else wants the processor gets it.
 */
#include <sched.h>

#include "internal.h"

/*
 * Who yields to one that keeps the processor gets it back some milliseconds later, where one that
 * sleeps is woken at once. So after that it sleeps for a while, and for longer if it is so again.
 */
#define PAUSE_FIRST_US 1000
#define PAUSE_MAX_US 128000
#define AGAIN 16 /* pauses within which it is "again" */

static void pause_from(struct lingering *lingering, uint64_t now)
{
	const uint64_t again = lingering->resume + AGAIN * lingering->pause;

	lingering->pause = now >= again			       ? PAUSE_FIRST_US :
			   lingering->pause < PAUSE_MAX_US / 2 ? lingering->pause * 2 :
								 PAUSE_MAX_US;
	lingering->resume = now + lingering->pause;
}

bool linger(struct lingering *lingering, bool (*look)(void *), void *context)
{
	uint64_t now = now_us(), before;
	const uint64_t end = now + lingering->us;

	while (now < end && now >= lingering->resume) {
		before = now;
		sched_yield();
		now = now_us();
		if (lingering->kept_us && now > before + lingering->kept_us)
			pause_from(lingering, now);
		if (look(context))
			return true;
	}
	return false;
}
