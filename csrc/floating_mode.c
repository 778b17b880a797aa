/* The floating-point mode of a thread: how results are rounded, whether subnormal numbers are flushed to zero, and which
 * exceptions trap. Other libraries of the process may have set another one; results here are those of the default. A
 * register is written only where it differs, which is slow. */
#include "qkernels.h"

#if defined(__x86_64__)
#include <xmmintrin.h>

enum { DEFAULT = 0x1f80 /* to nearest, no flushing, all exceptions masked */, RAISED = 0x3f /* exceptions, no mode */ };

static uint64_t current(void) { return _mm_getcsr(); }
static void set(uint64_t mode) { _mm_setcsr((unsigned)mode); }
static int differs(uint64_t a, uint64_t b) { return ((a ^ b) & ~(uint64_t)RAISED) != 0; }

#elif defined(__aarch64__)

enum { DEFAULT = 0 };

static uint64_t current(void)
{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}

static void set(uint64_t mode) { __asm__ volatile("msr fpcr, %0" ::"r"(mode)); }
static int differs(uint64_t a, uint64_t b) { return a != b; }

#else /* what C can say */
#include <fenv.h>

enum { DEFAULT = FE_TONEAREST };

static uint64_t current(void) { return (uint64_t)fegetround(); }
static void set(uint64_t mode) { fesetround((int)mode); }
static int differs(uint64_t a, uint64_t b) { return a != b; }

#endif

/* What is computed from memory stays on its side of a change of the mode. */
#define KEEP_ORDER __asm__ volatile("" ::: "memory")

uint64_t qk_set_default_floating_mode(void)
{
    const uint64_t before = current();
    if (differs(before, DEFAULT))
        set(DEFAULT);
    KEEP_ORDER;
    return before;
}

void qk_restore_floating_mode(uint64_t mode)
{
    KEEP_ORDER;
    if (differs(mode, DEFAULT))
        set(mode);
}
