/* A parallel for over the package's own threads. Only csrc/ops/ calls it. */
#ifndef QK_THREADS_H
#define QK_THREADS_H

#include "qkernels.h"

/* Call task(context, i) once for each i in [0, count), in any order, on up to qk_get_num_threads() threads, the
 * caller's among them; returns when all are done. The caller works alone when the threads are at work for another one
 * (which may be the task that it is running itself), or when the system grants none. QK_INTERRUPTED if the call is to end
 * (interrupt.h): no task is begun after that, and a long one asks now and then and returns. All threads compute in the
 * default floating-point mode, which the caller has set (calls.h). */
qk_status qk_parallel_for(void (*task)(void *context, size_t i), void *context, size_t count);

#endif
