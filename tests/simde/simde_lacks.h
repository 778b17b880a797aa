/* Instructions of AVX-512 that SIMDe (version 0.7.4) lacks, has under its own name alone, or turns into too much code. A
 * vector is two halves, each of which an instruction of AVX2 computes. */
#ifndef QK_SIMDE_LACKS_H
#define QK_SIMDE_LACKS_H

#define QK_SIMDE static inline __attribute__((always_inline))

QK_SIMDE __m256i qk_half(__m512i x, const int half)
{
    __m256i halves[2];
    memcpy(halves, &x, sizeof x);
    return halves[half];
}

QK_SIMDE __m512i qk_whole(__m256i low, __m256i high)
{
    const __m256i halves[2] = {low, high};
    __m512i x;
    memcpy(&x, halves, sizeof x);
    return x;
}

QK_SIMDE __m256 qk_half_ps(__m512 x, const int half)
{
    return _mm256_castsi256_ps(qk_half(simde_mm512_castps_si512(x), half));
}

QK_SIMDE __m512 qk_whole_ps(__m256 low, __m256 high)
{
    return simde_mm512_castsi512_ps(qk_whole(_mm256_castps_si256(low), _mm256_castps_si256(high)));
}

/* ----------------------------------------------------------- memory: lanes that are masked off are not touched */

/* Lanes of a mask as the sign bits that AVX2 masks by. */
QK_SIMDE __m256i qk_half_mask(__mmask16 mask, const int half)
{
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(mask >> 8 * half), bits), bits);
}

QK_SIMDE __m512i qk_maskz_loadu_epi32(__mmask16 mask, const void *p)
{
    return qk_whole(_mm256_maskload_epi32(p, qk_half_mask(mask, 0)),
                    _mm256_maskload_epi32((const int *)p + 8, qk_half_mask(mask, 1)));
}
#undef _mm512_maskz_loadu_epi32
#define _mm512_maskz_loadu_epi32 qk_maskz_loadu_epi32

QK_SIMDE __m512 qk_maskz_loadu_ps(__mmask16 mask, const void *p)
{
    return simde_mm512_castsi512_ps(qk_maskz_loadu_epi32(mask, p));
}
#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_ps qk_maskz_loadu_ps

QK_SIMDE void qk_mask_storeu_ps(void *p, __mmask16 mask, __m512 x)
{
    _mm256_maskstore_ps(p, qk_half_mask(mask, 0), qk_half_ps(x, 0));
    _mm256_maskstore_ps((float *)p + 8, qk_half_mask(mask, 1), qk_half_ps(x, 1));
}
#undef _mm512_mask_storeu_ps
#define _mm512_mask_storeu_ps qk_mask_storeu_ps

QK_SIMDE __m128i qk_maskz_loadu_epi8(__mmask16 mask, const void *p)
{
    uint8_t bytes[16] = {0};
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1)
            bytes[i] = ((const uint8_t *)p)[i];
    return _mm_loadu_si128((const __m128i *)bytes);
}
#undef _mm_maskz_loadu_epi8
#define _mm_maskz_loadu_epi8 qk_maskz_loadu_epi8

QK_SIMDE void qk_mask_storeu_epi8(void *p, __mmask16 mask, __m128i x)
{
    uint8_t bytes[16];
    _mm_storeu_si128((__m128i *)bytes, x);
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1)
            ((uint8_t *)p)[i] = bytes[i];
}
#undef _mm_mask_storeu_epi8
#define _mm_mask_storeu_epi8 qk_mask_storeu_epi8

/* These fault at an address that is not a multiple of 64, as the instructions do. */
QK_SIMDE const void *qk_aligned(const void *p)
{
    if ((uintptr_t)p % 64)
        __builtin_trap();
    return p;
}
#undef _mm512_load_si512
#define _mm512_load_si512(p) simde_mm512_loadu_si512(qk_aligned(p))
#undef _mm512_load_ps
#define _mm512_load_ps(p) simde_mm512_loadu_ps(qk_aligned(p))
#undef _mm512_store_si512
#define _mm512_store_si512(p, x) simde_mm512_storeu_si512((void *)qk_aligned(p), x)

/* ------------------------------------------------------------------------------------------------- conversions */

QK_SIMDE __m512i qk_cvtps_epi32(__m512 x)
{
    return qk_whole(_mm256_cvtps_epi32(qk_half_ps(x, 0)), _mm256_cvtps_epi32(qk_half_ps(x, 1)));
}
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32 qk_cvtps_epi32

QK_SIMDE __m512 qk_cvtepi32_ps(__m512i x)
{
    return qk_whole_ps(_mm256_cvtepi32_ps(qk_half(x, 0)), _mm256_cvtepi32_ps(qk_half(x, 1)));
}
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps qk_cvtepi32_ps

QK_SIMDE __m512 qk_cvtph_ps(__m256i x)
{
    return qk_whole_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(x)), _mm256_cvtph_ps(_mm256_extracti128_si256(x, 1)));
}
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps qk_cvtph_ps

QK_SIMDE __m512i qk_cvtepu8_epi32(__m128i x)
{
    return qk_whole(_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128(x, 8)));
}
#undef _mm512_cvtepu8_epi32
#define _mm512_cvtepu8_epi32 qk_cvtepu8_epi32

/* The low byte of each lane. */
QK_SIMDE __m128i qk_cvtepi32_epi8(__m512i x)
{
    uint32_t lanes[16];
    uint8_t bytes[16];
    memcpy(lanes, &x, sizeof x);
    for (int i = 0; i < 16; i++)
        bytes[i] = (uint8_t)lanes[i];
    return _mm_loadu_si128((const __m128i *)bytes);
}
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8 qk_cvtepi32_epi8

/* -------------------------------------------------------------------------------------------------- arithmetic */

QK_SIMDE __m512i qk_srav_epi32(__m512i x, __m512i n)
{
    return qk_whole(_mm256_srav_epi32(qk_half(x, 0), qk_half(n, 0)), _mm256_srav_epi32(qk_half(x, 1), qk_half(n, 1)));
}
#undef _mm512_srav_epi32
#define _mm512_srav_epi32 qk_srav_epi32

QK_SIMDE int32_t qk_reduce_max_epi32(__m512i x)
{
    int32_t lanes[16];
    memcpy(lanes, &x, sizeof x);
    int32_t most = lanes[0];
    for (int i = 1; i < 16; i++)
        most = lanes[i] > most ? lanes[i] : most;
    return most;
}
#undef _mm512_reduce_max_epi32
#define _mm512_reduce_max_epi32 qk_reduce_max_epi32

/* Sums of four products of an unsigned and a signed byte; those of two at a time are 16-bit products that madd adds. */
QK_SIMDE __m256i qk_mm256_dpbusd_epi32(__m256i sum, __m256i u8, __m256i s8)
{
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(u8, _mm256_set1_epi16(0xff)),
                                           _mm256_srai_epi16(_mm256_slli_epi16(s8, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u8, 8), _mm256_srai_epi16(s8, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
#undef _mm256_dpbusd_epi32
#define _mm256_dpbusd_epi32 qk_mm256_dpbusd_epi32

QK_SIMDE __m512i qk_dpbusd_epi32(__m512i sum, __m512i u8, __m512i s8)
{
    return qk_whole(qk_mm256_dpbusd_epi32(qk_half(sum, 0), qk_half(u8, 0), qk_half(s8, 0)),
                    qk_mm256_dpbusd_epi32(qk_half(sum, 1), qk_half(u8, 1), qk_half(s8, 1)));
}
#undef _mm512_dpbusd_epi32
#define _mm512_dpbusd_epi32 qk_dpbusd_epi32

QK_SIMDE __m512i qk_madd_epi16(__m512i a, __m512i b)
{
    return qk_whole(_mm256_madd_epi16(qk_half(a, 0), qk_half(b, 0)), _mm256_madd_epi16(qk_half(a, 1), qk_half(b, 1)));
}
#undef _mm512_madd_epi16
#define _mm512_madd_epi16 qk_madd_epi16

/* Bit 4 a + 2 b + c of `table` where the operands have the bits a, b, c. */
QK_SIMDE __m512i qk_ternarylogic(__m512i a, __m512i b, __m512i c, const int table)
{
    const __m512i not_a = ~a, not_b = ~b, not_c = ~c;
    __m512i x = simde_mm512_setzero_si512();
#define QK_TERM(bits) \
    if (table >> bits & 1) \
        x |= (bits & 4 ? a : not_a) & (bits & 2 ? b : not_b) & (bits & 1 ? c : not_c);
    QK_TERM(0) QK_TERM(1) QK_TERM(2) QK_TERM(3) QK_TERM(4) QK_TERM(5) QK_TERM(6) QK_TERM(7)
#undef QK_TERM
    return x;
}
#undef _mm512_ternarylogic_epi32
#define _mm512_ternarylogic_epi32(a, b, c, table) qk_ternarylogic(a, b, c, table)

/* ----------------------------------------------------------------------------------------------- masks of bytes */

QK_SIMDE __mmask64 qk_test_epi8_mask(__m512i a, __m512i b)
{
    __mmask64 zeros = 0;
    for (int half = 0; half < 2; half++) {
        const __m256i both = _mm256_and_si256(qk_half(a, half), qk_half(b, half));
        const int found = _mm256_movemask_epi8(_mm256_cmpeq_epi8(both, _mm256_setzero_si256()));
        zeros |= (__mmask64)(uint32_t)found << 32 * half;
    }
    return ~zeros;
}
#undef _mm512_test_epi8_mask
#define _mm512_test_epi8_mask qk_test_epi8_mask

/* All bits of the bytes whose bit in the mask is set. */
QK_SIMDE __m256i qk_byte_mask(uint32_t mask)
{
    const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bits = _mm256_set1_epi64x((long long)0x8040201008040201);
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32((int)mask), spread);
    return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bits), bits);
}

QK_SIMDE __m512i qk_mask_mov_epi8(__m512i otherwise, __mmask64 mask, __m512i x)
{
    const __m512i chosen = qk_whole(qk_byte_mask((uint32_t)mask), qk_byte_mask((uint32_t)(mask >> 32)));
    return (x & chosen) | (otherwise & ~chosen);
}
#undef _mm512_mask_mov_epi8
#define _mm512_mask_mov_epi8 qk_mask_mov_epi8

QK_SIMDE __m512i qk_shuffle_epi8(__m512i x, __m512i places)
{
    return qk_whole(_mm256_shuffle_epi8(qk_half(x, 0), qk_half(places, 0)),
                    _mm256_shuffle_epi8(qk_half(x, 1), qk_half(places, 1)));
}
#undef _mm512_shuffle_epi8
#define _mm512_shuffle_epi8 qk_shuffle_epi8
#undef _mm512_mask_shuffle_epi8
#define _mm512_mask_shuffle_epi8(otherwise, mask, x, places) \
    qk_mask_mov_epi8(otherwise, mask, qk_shuffle_epi8(x, places))
#undef _mm512_maskz_shuffle_epi8
#define _mm512_maskz_shuffle_epi8(mask, x, places) \
    qk_mask_mov_epi8(simde_mm512_setzero_si512(), mask, qk_shuffle_epi8(x, places))

/* ---------------------------------------------------------------------------------------- the order of lanes */

#undef _mm512_permute_ps
#define _mm512_permute_ps(x, order) \
    qk_whole_ps(_mm256_permute_ps(qk_half_ps(x, 0), order), _mm256_permute_ps(qk_half_ps(x, 1), order))

/* A call: inlined as often as the kernel looks up, it would take minutes to compile. */
static __attribute__((noinline)) __m512i qk_permutexvar_epi8(__m512i places, __m512i x)
{
    uint8_t of[64], bytes[64], found[64];
    memcpy(of, &places, sizeof of);
    memcpy(bytes, &x, sizeof bytes);
    for (int i = 0; i < 64; i++)
        found[i] = bytes[of[i] % 64];
    memcpy(&x, found, sizeof x);
    return x;
}
#undef _mm512_permutexvar_epi8
#define _mm512_permutexvar_epi8 qk_permutexvar_epi8

#undef _mm512_shuffle_f32x4
#define _mm512_shuffle_f32x4 simde_mm512_shuffle_f32x4

#endif
