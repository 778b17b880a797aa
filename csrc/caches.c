/* The system is asked once, when the library is loaded: where CPUID traps, as in virtual machines, that takes a
 * while. */
#include "caches.h"

#include <unistd.h>

#if defined(__APPLE__)
#include <stdint.h>
#include <sys/sysctl.h>
#endif

/* What is assumed where the system does not tell: small enough for every CPU that the kernels are made for. */
qk_cache_sizes qk_caches = {.l1d = 32 * 1024, .l2 = 512 * 1024};

#if defined(__APPLE__)
static void ask(const char *name, size_t *size)
{
    int64_t value = 0;
    size_t bytes = sizeof value;
    if (sysctlbyname(name, &value, &bytes, NULL, 0) == 0 && value > 0)
        *size = (size_t)value;
}

__attribute__((constructor)) static void probe_caches(void)
{
    ask("hw.l1dcachesize", &qk_caches.l1d);
    ask("hw.l2cachesize", &qk_caches.l2);
}
#elif defined(_SC_LEVEL2_CACHE_SIZE)
static void ask(int name, size_t *size)
{
    long value = sysconf(name);
    if (value > 0)
        *size = (size_t)value;
}

__attribute__((constructor)) static void probe_caches(void)
{
    ask(_SC_LEVEL1_DCACHE_SIZE, &qk_caches.l1d);
    ask(_SC_LEVEL2_CACHE_SIZE, &qk_caches.l2);
}
#endif
