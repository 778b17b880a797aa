#define _GNU_SOURCE
#include "interrupt.h"

#include <time.h>

#ifdef CLOCK_MONOTONIC_COARSE
#define CLOCK CLOCK_MONOTONIC_COARSE /* read in nanoseconds, and exact to some milliseconds */
#else
#define CLOCK CLOCK_MONOTONIC
#endif

enum { INTERVAL = 100 /* milliseconds between two questions */ };

static int (*is_interrupted)(void);

static _Thread_local struct {
    atomic_int interrupted;
    const atomic_int *followed; /* by a worker */
    uint64_t next_question;     /* in milliseconds */
} here;

void qk_ask_for_interruption(int (*ask)(void)) { is_interrupted = ask; }
void qk_forget_interruption(void) { atomic_store_explicit(&here.interrupted, 0, memory_order_relaxed); }
const atomic_int *qk_interruption(void) { return &here.interrupted; }
void qk_follow_interruption(const atomic_int *answer) { here.followed = answer; }

static uint64_t milliseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int qk_interrupted(void)
{
    const atomic_int *answer = here.followed ? here.followed : &here.interrupted;
    if (atomic_load_explicit(answer, memory_order_relaxed))
        return 1;
    if (here.followed || !is_interrupted)
        return 0;
    const uint64_t now = milliseconds();
    if (now < here.next_question)
        return 0;
    here.next_question = now + INTERVAL;
    if (!is_interrupted())
        return 0;
    atomic_store_explicit(&here.interrupted, 1, memory_order_relaxed);
    return 1;
}
