/* See harness.h. POSIX: mmap, mprotect, sigaction. */
#define _GNU_SOURCE
#include "harness.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* --------------------------------------------------------------------------------------------------- cases */

run_options options = {.seed = 1};

enum { SHAPE_CHARS = 256, SMOKE_STRIDE = 13 /* prime, so that it meets every value of every loop */ };

static struct {
    const kernel_row *row;
    size_t begun, run;
    page_side side;
    size_t offset;
    char shape[SHAPE_CHARS], variant[SHAPE_CHARS];
    uint64_t random_state;
    jmp_buf leave_row;
} now;

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

size_t run_row(const kernel_row *row, void (*check)(const kernel_row *row))
{
    now.row = row;
    now.begun = now.run = 0;
    now.shape[0] = now.variant[0] = 0;
    if (setjmp(now.leave_row))
        return 0;
    check(row);
    return now.run;
}

int begin_case(page_side side, size_t offset, const char *shape, ...)
{
    size_t number = now.begun++;
    if (options.skip_side[side] || (options.smoke && number % SMOKE_STRIDE))
        return 0;
    va_list arguments;
    va_start(arguments, shape);
    vsnprintf(now.shape, sizeof now.shape, shape, arguments);
    va_end(arguments);
    now.variant[0] = 0;
    now.run++;
    now.side = side;
    now.offset = offset;
    now.random_state = mix(mix(options.seed) + mix(now.row->slot) + number);
    return 1;
}

void begin_variant(const char *shape, ...)
{
    va_list arguments;
    va_start(arguments, shape);
    vsnprintf(now.variant, sizeof now.variant, shape, arguments);
    va_end(arguments);
    now.run++;
}

page_side case_side(void)
{
    return now.side;
}

size_t case_offset(void)
{
    return now.offset;
}

void begin_timing(const kernel_row *row)
{
    now.row = row;
    now.begun = 0;
    begin_case(AT_START, 0, "timing");
}

enum qk_isa timed_isa(void)
{
    return now.row->isa;
}

/* Written with write(2), which a signal handler may call. */
static void put(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        _exit(1);
}

static void put_case(const char *title)
{
    if (!now.row) {
        put(title);
        put(" outside of any case\n");
        return;
    }
    char seed[21], *digit = seed + sizeof seed - 1;
    *digit = 0;
    uint64_t rest = options.seed;
    do
        *--digit = (char)('0' + rest % 10);
    while (rest /= 10);

    const char *const parts[] = {
        title, " ", qk_isa_name(now.row->isa), " ", qk_slot_name(now.row->slot), ": ", now.shape, " ",
        now.variant, now.side == AT_END ? " (buffers end" : " (buffers start",
        " at a guard page)\n    repeat: --isa ", qk_isa_name(now.row->isa), " --op ",
        qk_slot_name(now.row->slot), " --seed ", digit, options.smoke ? " --smoke" : "",
        options.all ? " --long\n" : "\n",
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        put(parts[i]);
}

void fail(const char *message, ...)
{
    fflush(stdout);
    put_case("FAILED");
    va_list arguments;
    va_start(arguments, message);
    fputs("    ", stderr);
    vfprintf(stderr, message, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    longjmp(now.leave_row, 1);
}

/* ------------------------------------------------------------------------------------------------- crashes */

static void put_access(const void *address)
{
    const char *name, *access = name_access(address, &name);
    if (access) {
        put("    ");
        put(access);
        put(name);
        put("\n");
    }
}

static void on_crash(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    put_case(signal_number == SIGILL   ? "CRASHED (SIGILL)"
             : signal_number == SIGBUS ? "CRASHED (SIGBUS)"
             : signal_number == SIGFPE ? "CRASHED (SIGFPE)"
                                       : "CRASHED (SIGSEGV)");
    put_access(info->si_addr);
    _exit(1);
}

/* The sanitizers, if linked in, call these when they have found something. */
__attribute__((visibility("default"))) void __asan_on_error(void);
__attribute__((visibility("default"))) void __ubsan_on_report(void);

void __asan_on_error(void)
{
    put_case("FAILED (AddressSanitizer)");
}

void __ubsan_on_report(void)
{
    put_case("FAILED (UndefinedBehaviorSanitizer)");
}

void report_crashes(void)
{
    struct sigaction action = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO};
    const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
}

/* ---------------------------------------------------------------------------------------------------- data */

const size_t sizes[] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,  11,  12,  13,  14,  15, 16, 17,
                        23, 24, 25, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 256, 257, 513};
const size_t size_count = sizeof sizes / sizeof *sizes;

uint64_t random_bits(void)
{
    return mix(now.random_state += 0x9e3779b97f4a7c15u);
}

size_t random_below(size_t n)
{
    return (size_t)((random_bits() >> 32) * n >> 32);
}

int32_t random_int(int32_t low, int32_t high)
{
    uint64_t values = (uint64_t)((int64_t)high - low) + 1;
    return (int32_t)(low + (int64_t)((random_bits() >> 32) * values >> 32));
}

float random_float(float low, float high)
{
    return low + (high - low) * ((float)(random_bits() >> 40) * 0x1p-24f);
}

float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

size_t random_place(size_t n)
{
    const size_t places[] = {0, n - 1, random_below(n)};
    return places[random_below(3)];
}

const char *const byte_pattern_names[] = {"00", "80", "7f", "ff", "80 7f", "00 ff", "random"};

uint8_t *fill_bytes(uint8_t *x, size_t n, enum byte_pattern pattern)
{
    static const uint8_t even[] = {0x00, 0x80, 0x7f, 0xff, 0x80, 0x00};
    static const uint8_t odd[] = {0x00, 0x80, 0x7f, 0xff, 0x7f, 0xff};
    for (size_t i = 0; i < n; i++)
        x[i] = pattern == BYTES_RANDOM ? (uint8_t)random_bits() : i % 2 ? odd[pattern] : even[pattern];
    return x;
}

const char *const float_pattern_names[] = {"zero",     "random",   "ties",     "bounds", "huge",
                                           "infinite", "denormal", "any bits", "mixed"};

float pattern_float(enum float_pattern pattern, size_t i, float scale, int32_t low, int32_t high)
{
    const float sign = i % 2 ? -1.0f : 1.0f;
    switch (pattern) {
    case FLOATS_ZERO: return sign * 0.0f;
    case FLOATS_RANDOM: return random_float(1.5f * (float)low - 2, 1.5f * (float)high + 2) * scale;
    case FLOATS_TIES: return ((float)random_int(low - 2, high + 2) + 0.5f) * scale;
    case FLOATS_BOUNDS: {
        float bound = ((float)(random_bits() & 1 ? low : high) + 0.5f * (float)random_int(-2, 2)) * scale;
        int nudge = random_int(-1, 1);
        return nudge ? nextafterf(bound, nudge < 0 ? -INFINITY : INFINITY) : bound;
    }
    case FLOATS_HUGE: return sign * random_float(0x1p126f, 0x1.fffffep127f);
    case FLOATS_INFINITE: return sign * INFINITY;
    case FLOATS_DENORMAL: return sign * float_of_bits(1 + (uint32_t)random_below(0x7fffff));
    case FLOATS_ANY_BITS: {
        float x = float_of_bits((uint32_t)random_bits());
        return isnan(x) ? sign : x;
    }
    default: return pattern_float(random_below(FLOATS_MIXED), random_below(2), scale, low, high);
    }
}

float random_nan(void)
{
    static const uint32_t nans[] = {0x7fc00000, 0xffc00000, 0x7f800001, 0xffffffff};
    return float_of_bits(nans[random_below(4)]);
}

/* -------------------------------------------------------------------------------------------------- timing */

static double nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int keep_timing(stopwatch *w)
{
    const double sample_ns = 2e6; /* long against the clock's resolution, short against a time slice */

    if (w->left > 0) {
        w->left--;
        return 1;
    }
    double elapsed = nanoseconds() - w->start;
    if (w->calls == 0)
        w->calls = 1;
    else if (w->taken == 0 && elapsed < sample_ns)
        w->calls *= 2;
    else
        w->samples[w->taken++] = elapsed / (double)w->calls;
    if (w->taken == TIMING_SAMPLES)
        return 0;
    w->left = w->calls - 1;
    w->start = nanoseconds();
    return 1;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

timing timing_of(stopwatch *w, double work, work_unit unit)
{
    const double *samples = w->samples;
    qsort(w->samples, TIMING_SAMPLES, sizeof *w->samples, ascending);
    double median = samples[TIMING_SAMPLES / 2];
    double spread = (samples[TIMING_SAMPLES * 3 / 4] - samples[TIMING_SAMPLES / 4]) / median;
    return (timing){.ns = median, .spread = spread, .work = work, .unit = unit};
}
