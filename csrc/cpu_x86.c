/* The x86-64 probe: CPUID tells what the CPU has, XGETBV what the operating system saves and restores. Both
 * must agree: a hypervisor or kernel may hide the wide registers while CPUID still lists their instructions. */
#if defined(__x86_64__)

#include "cpu.h"

#include <cpuid.h>

enum { XCR0_SSE_AVX = 0x06, XCR0_AVX512 = 0xe6 /* SSE, AVX, opmask, zmm0-15 high halves, zmm16-31 */ };

static uint64_t xgetbv0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

#define BIT(reg, n) ((reg) >> (n) & 1)

uint32_t qk_cpu_probe(void)
{
    uint32_t a, b, c, d, features = 0;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !BIT(c, 27) /* OSXSAVE: xgetbv may be used */)
        return 0;
    uint64_t xcr0 = xgetbv0();
    if ((xcr0 & XCR0_SSE_AVX) != XCR0_SSE_AVX || !BIT(c, 28) /* AVX */)
        return 0;
    if (BIT(c, 12))
        features |= QK_CPU_FMA;
    if (BIT(c, 29))
        features |= QK_CPU_F16C;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    uint32_t max_subleaf = a;

    if (BIT(b, 5))
        features |= QK_CPU_AVX2;
    int zmm_enabled = (xcr0 & XCR0_AVX512) == XCR0_AVX512;
    if (zmm_enabled && BIT(b, 16) /* F */ && BIT(b, 17) /* DQ */ && BIT(b, 30) /* BW */ && BIT(b, 31) /* VL */) {
        features |= QK_CPU_AVX512;
        if (BIT(c, 11))
            features |= QK_CPU_AVX512VNNI;
        if (BIT(c, 1) /* VBMI */ && BIT(c, 6) /* VBMI2 */ && BIT(c, 12) /* BITALG */ && BIT(c, 14) /* VPOPCNTDQ */)
            features |= QK_CPU_AVX512VBMI;
    }
    if (max_subleaf >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && BIT(a, 4))
        features |= QK_CPU_AVXVNNI;
    return features;
}

#else
typedef int qk_no_x86; /* ISO C forbids an empty translation unit */
#endif
