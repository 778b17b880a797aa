/* What all checks share: rows of kernels.def, reproducible data, buffers between guard pages, comparison, timing.
 *
 * A check is a function check_<slot>(row). It walks over shapes; for each it calls begin_case, places its buffers,
 * runs the kernel and an oracle, and compares. The first difference ends the row. The oracle of a SIMD row is the
 * scalar kernel; that of a scalar row is a plain definition written in the check file, in wider arithmetic.
 */
#ifndef CHECK_HARNESS_H
#define CHECK_HARNESS_H

#include "kernels.h"

/* ---------------------------------------------------------------------------------------------------- rows */

typedef union kernel_pointer {
#define X(slot) qk_##slot##_type *slot;
    QK_SLOTS(X)
#undef X
} kernel_pointer;

typedef struct kernel_row {
    enum qk_slot slot;
    enum qk_isa isa;
    kernel_pointer kernel;
} kernel_row;

/* The row of a slot and an ISA, or NULL. */
const kernel_row *row_of(enum qk_slot slot, enum qk_isa isa);

#define ORACLE(row, slot, plain) ((row)->isa == QK_ISA_scalar ? (plain) : qk_##slot##_scalar)

/* --------------------------------------------------------------------------------------------------- cases */

/* Where buffers lie: their last byte before a guard page, or their first byte after one. */
typedef enum page_side { AT_END, AT_START, SIDE_COUNT } page_side;

typedef struct run_options {
    uint64_t seed;
    int smoke;              /* take only some of the cases */
    int all;                /* each shape with all data, where otherwise the data take turns */
    int skip_side[SIDE_COUNT]; /* take no cases with buffers there */
} run_options;

extern run_options options;

/* Run all cases of a row; returns how many ran, or 0 after printing what went wrong. */
size_t run_row(const kernel_row *row, void (*check)(const kernel_row *row));

/* Start a case: printf arguments describe its shape, for messages. Restarts the random numbers, so that a case has
 * the same data whichever others run. `offset` elements are left between a placed buffer and its guard page.
 * Returns 0 when the case is to be skipped. */
int begin_case(page_side side, size_t offset, const char *shape, ...) __attribute__((format(printf, 3, 4)));

page_side case_side(void);
size_t case_offset(void);

/* A further case on the data of the one begun. */
void begin_variant(const char *shape, ...) __attribute__((format(printf, 1, 2)));

/* The same for timing a row: messages and data are as at its first case. */
void begin_timing(const kernel_row *row);
enum qk_isa timed_isa(void);

/* Print the case with a message and leave the row. */
_Noreturn void fail(const char *message, ...) __attribute__((format(printf, 1, 2)));

/* Print where a crash happens, and exit. */
void report_crashes(void);

/* ------------------------------------------------------------------------------------------------- buffers */

/* Bytes between two unmapped pages; the slack between the data and those pages holds canaries. */
typedef struct buffer {
    const char *name;
    uint8_t *pages;
    size_t capacity;
    uint8_t *data;
    size_t size;
    int frozen;
    struct buffer *next; /* list of all buffers */
} buffer;

/* Place an array as the case asks (side and offset), filled with canaries. */
void *place(buffer *b, size_t count, size_t element_size);
/* Place bytes at the case's side, as near to the guard page as the alignment lets. */
void *place_aligned(buffer *b, size_t bytes, size_t alignment);
/* Room for what the kernel should write to `b`. */
void *place_expected(buffer *expected, const buffer *b);
/* Make an input read-only until it is placed again. */
void freeze(buffer *b);

/* What a faulting access did to which buffer, or NULL when it hit none. */
const char *name_access(const void *address, const char **buffer_name);

typedef enum element_type {
    U8,
    S32,
    F32,       /* the same bits */
    F32_VALUE, /* equal: -0.0 is +0.0 */
    F64        /* the same bits */
} element_type;

/* Fail unless both hold the same elements and the canaries around `got` are whole. */
void expect_same(const buffer *got, const buffer *expected, element_type type);
void expect_intact(const buffer *b);
void expect_equal(const char *what, long long got, long long expected);

/* ---------------------------------------------------------------------------------------------------- data */

/* Around every vector length and unroll factor: 0, 1, t - 1, t, t + 1, 2 t + 1 for t = 4 to 64. */
extern const size_t sizes[];
extern const size_t size_count;

uint64_t random_bits(void);
size_t random_below(size_t n);
size_t random_place(size_t n); /* below n, often the first or the last */
int32_t random_int(int32_t low, int32_t high); /* both included */
float random_float(float low, float high);
float float_of_bits(uint32_t bits);

enum byte_pattern {
    BYTES_ZERO,
    BYTES_80, /* -128, or 128 */
    BYTES_7F,
    BYTES_FF, /* -1, or 255 */
    BYTES_80_7F,
    BYTES_00_FF,
    BYTES_RANDOM,
    BYTE_PATTERN_COUNT
};
extern const char *const byte_pattern_names[];
uint8_t *fill_bytes(uint8_t *x, size_t n, enum byte_pattern pattern); /* returns x */

enum float_pattern {
    FLOATS_ZERO, /* of both signs */
    FLOATS_RANDOM,
    FLOATS_TIES,
    FLOATS_BOUNDS, /* where quantization saturates, and the next floats on both sides */
    FLOATS_HUGE,
    FLOATS_INFINITE,
    FLOATS_DENORMAL,
    FLOATS_ANY_BITS,
    FLOATS_MIXED,
    FLOAT_PATTERN_COUNT
};
extern const char *const float_pattern_names[];
/* A float of the pattern, never NaN; i chooses the sign where signs alternate; the quantized range is
 * [low, high] * scale. */
float pattern_float(enum float_pattern pattern, size_t i, float scale, int32_t low, int32_t high);
/* A NaN: quiet or signaling, of either sign. */
float random_nan(void);

/* -------------------------------------------------------------------------------------------------- timing */

enum { TIMING_SAMPLES = 15 };

/* for (stopwatch w = {0}; keep_timing(&w);) call();  then timing_of(&w, ...). */
typedef struct stopwatch {
    int taken;
    size_t calls, left;
    double start, samples[TIMING_SAMPLES];
} stopwatch;

typedef enum work_unit { ELEMENTS, OPERATIONS } work_unit;

typedef struct timing {
    double ns, spread; /* of a call: median; distance of the quartiles, relative to it */
    double work;       /* of a call */
    work_unit unit;
    double peak;  /* work a ns of the instruction behind it, or 0 where that says nothing */
    double other; /* work a ns of another entry of the kernel's descriptor, or 0 */
    const char *other_name;
    double memcpy_ns; /* of copying what a call reads, or 0 where that says nothing */
} timing;

int keep_timing(stopwatch *w);
timing timing_of(stopwatch *w, double work, work_unit unit);

/* --------------------------------------------------------------------------------------------------- slots */

#define X(slot)                                                                                    \
    void check_##slot(const kernel_row *row);                                                      \
    timing bench_##slot(kernel_pointer kernel);
QK_SLOTS(X)
#undef X

#endif
