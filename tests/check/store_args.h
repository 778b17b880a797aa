/* Random arguments of the store kernels. */
#ifndef CHECK_STORE_ARGS_H
#define CHECK_STORE_ARGS_H

#include "harness.h"

/* What an output is made of, indexed by qk_output. */
typedef struct store_output {
    const char *name;
    size_t bytes; /* of an element */
    element_type type;
    int is_float, is_fixed; /* which group of qk_store_args it reads; the other pointers stay NULL */
} store_output;

extern const store_output store_outputs[QK_OUT_COUNT];

/* The arguments that are given; without BIAS it is -0.0. */
enum store_form { ROW_SUMS = 1, A_ZERO_POINT = 2, ROW_SCALES = 4, BIAS = 8, FORM_COUNT = 16 };

/* Arguments of `columns` columns and m rows, in buffers of just that size, which the next call takes again. */
qk_store_args random_store_args(const store_output *output, size_t columns, int form, int32_t largest_term);
qk_store_rows random_store_rows(const store_output *output, size_t m, int form);

/* Scales for timing: no denormals, which take a slow path. */
void set_ordinary_mult(qk_store_args *args, size_t columns);

enum sum_pattern { SUMS_ZERO, SUMS_LOWEST, SUMS_HIGHEST, SUMS_SMALL, SUMS_LARGE, SUMS_ANY, SUM_PATTERN_COUNT };
extern const char *const sum_pattern_names[];
int32_t random_sum(enum sum_pattern pattern);

#endif
