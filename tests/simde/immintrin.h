/* Stands in for <immintrin.h> where csrc/build.py compiles the AVX-512 and AVX-VNNI kernels for CPUs without these
 * instructions: SIMDe's versions for AVX2 under their names, and those that SIMDe lacks. Each gives the bits that the
 * instruction gives, and touches the same memory. */
#ifndef QK_SIMDE_IMMINTRIN_H
#define QK_SIMDE_IMMINTRIN_H

#include_next <immintrin.h>
#include <stdint.h>
#include <string.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/f16c.h>
#include <simde/x86/avx512.h>

/* What the kernels look for to see that they are compiled with the right flags. */
#define __AVX512VNNI__ 1
#define __AVX512VBMI__ 1

#define QK_OPAQUE(x) __asm__ volatile("" : "+m"(x)) /* of kernels.h */

#include "simde_lacks.h"

#endif
