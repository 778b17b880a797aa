/* Sizes of this machine's data caches, which drivers cut their work to. */
#ifndef QK_CACHES_H
#define QK_CACHES_H

#include <stddef.h>

typedef struct qk_cache_sizes {
    size_t l1d, l2; /* bytes, of one core */
} qk_cache_sizes;

extern qk_cache_sizes qk_caches;

#endif
