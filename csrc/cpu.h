/* CPU features that ISAs ask for (csrc/isa.def). A feature counts only when the CPU has it AND the operating
 * system saves its registers. */
#ifndef QK_CPU_H
#define QK_CPU_H

#include <stdint.h>

/* X(bit, name) */
#define QK_CPU_FEATURES(X)                                                                                   \
    X(QK_CPU_AVX2, "avx2")             /* AVX2, ymm state enabled */                                         \
    X(QK_CPU_FMA, "fma")               /* VEX-encoded fused multiply-add */                                  \
    X(QK_CPU_F16C, "f16c")             /* float16 to float32 and back */                                     \
    X(QK_CPU_AVXVNNI, "avx_vnni")      /* VEX-encoded vpdpbusd */                                            \
    X(QK_CPU_AVX512, "avx512")         /* F, BW, DQ and VL, zmm and mask state enabled */                    \
    X(QK_CPU_AVX512VNNI, "avx512_vnni") /* EVEX-encoded vpdpbusd */                                          \
    X(QK_CPU_AVX512VBMI, "avx512_vbmi") /* VBMI, VBMI2, VPOPCNTDQ and BITALG, which came together */         \
    X(QK_CPU_NEON, "neon")             /* Advanced SIMD */                                                   \
    X(QK_CPU_DOTPROD, "dotprod")       /* SDOT, UDOT */                                                      \
    X(QK_CPU_I8MM, "i8mm")             /* SMMLA, UMMLA, USMMLA, USDOT */

enum qk_cpu_feature_index {
#define X(bit, name) bit##_INDEX,
    QK_CPU_FEATURES(X)
#undef X
    QK_CPU_FEATURE_COUNT
};

enum qk_cpu_feature {
#define X(bit, name) bit = 1 << bit##_INDEX,
    QK_CPU_FEATURES(X)
#undef X
};

/* The avxvnni kernels, built for a test with the EVEX encoding (csrc/build.py), need another feature. */
#ifdef QK_AVXVNNI_EVEX
#define QK_CPU_VPDPBUSD_YMM (QK_CPU_AVX512 | QK_CPU_AVX512VNNI)
#else
#define QK_CPU_VPDPBUSD_YMM QK_CPU_AVXVNNI
#endif

/* What a test build emulates (csrc/build.py): no CPU needs to have it. */
#ifdef QK_EMULATED_AVX512
#define QK_CPU_EMULATED (QK_CPU_AVXVNNI | QK_CPU_AVX512 | QK_CPU_AVX512VNNI | QK_CPU_AVX512VBMI)
#else
#define QK_CPU_EMULATED 0
#endif

/* The features of this CPU, or'ed; cpu_x86.c or cpu_arm.c. */
uint32_t qk_cpu_probe(void);

#endif
