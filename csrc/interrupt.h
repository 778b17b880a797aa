/* Whether the call in progress is to end before it is done. Only csrc/ops/ and the thread pool ask.
 *
 * The thread that makes a call asks the program, which may want to deliver a signal to it; rarely, by a coarse clock.
 * Workers follow the answer that it got. */
#ifndef QK_INTERRUPT_H
#define QK_INTERRUPT_H

#include <stdatomic.h>

#include "qkernels.h"

/* In multiply-adds, or values that are moved: a millisecond at most. */
enum { QK_WORK_BETWEEN_QUESTIONS = 1 << 20 };

/* qk_interrupted, for loops over pieces that may be short: `more` work was done, *work since it was last asked. */
static inline int qk_interrupted_after(size_t *work, size_t more)
{
    *work += more;
    if (*work < QK_WORK_BETWEEN_QUESTIONS)
        return 0;
    *work = 0;
    return qk_interrupted();
}

/* A call begins: it has not been interrupted. */
void qk_forget_interruption(void);

/* The answer of the calling thread, and for a worker which one it follows. */
const atomic_int *qk_interruption(void);
void qk_follow_interruption(const atomic_int *answer);

#endif
