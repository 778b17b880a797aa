/* What each function that Python calls, and that computes, does first and last. */
#ifndef QK_CALLS_H
#define QK_CALLS_H

#include "interrupt.h"

static inline uint64_t qk_begin_call(void)
{
    qk_forget_interruption();
    return qk_set_default_floating_mode();
}

static inline void qk_end_call(const uint64_t *callers_mode) { qk_restore_floating_mode(*callers_mode); }

/* The first line of its body: what follows is computed in the default floating-point mode, and wherever it returns the
 * caller's is back. */
#define QK_CALL const uint64_t callers_mode __attribute__((unused, cleanup(qk_end_call))) = qk_begin_call()

#endif
