/* The AArch64 probe. Linux: the kernel's hwcaps (user code must not read ID registers, which may trap and which
 * differ between the clusters of one chip). Elsewhere, Advanced SIMD alone, which AArch64 always has. */
#if defined(__aarch64__)

#include "cpu.h"

#if defined(__linux__)
#include <sys/auxv.h>
/* From <asm/hwcap.h>, written out because old kernel headers lack the newer ones. */
#define HWCAP_ASIMDDP_BIT (1UL << 20)
#define HWCAP2_I8MM_BIT (1UL << 13)
#elif defined(__APPLE__)
#include <sys/sysctl.h>

static int sysctl_flag(const char *name)
{
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value != 0;
}
#endif

uint32_t qk_cpu_probe(void)
{
    uint32_t features = QK_CPU_NEON;
#if defined(__linux__)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP_BIT)
        features |= QK_CPU_DOTPROD;
    if (getauxval(AT_HWCAP2) & HWCAP2_I8MM_BIT)
        features |= QK_CPU_I8MM;
#elif defined(__APPLE__)
    if (sysctl_flag("hw.optional.arm.FEAT_DotProd"))
        features |= QK_CPU_DOTPROD;
    if (sysctl_flag("hw.optional.arm.FEAT_I8MM"))
        features |= QK_CPU_I8MM;
#endif
    return features;
}

#else
typedef int qk_no_arm; /* ISO C forbids an empty translation unit */
#endif
