/* 1, 2 and 4-bit fields in AVX2. Layouts: kernels/scalar/pack_scalar.c, which also does the tails here.
 *
 * Packing shifts neighbors together by multiply-adds: vpmaddubsw makes e0 * 1 + e1 * 2**bits of each pair of bytes
 * (pairs of nibbles are done then), vpmaddwd the same of each pair of pairs (2 bits). high_first swaps the weights.
 * One bit: the field is moved to the top of its byte and vpmovmskb gathers 32 of them.
 * Unpacking copies each byte as often as it has fields, moves every copy so that its own field lies lowest, masks, and
 * extends the sign by xor and subtract.
 */
#include "kernels.h"
#include "kernels/avx2/simd_avx2.h"

static inline __m256i load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline void store(uint8_t *p, __m256i x) { _mm256_storeu_si256((__m256i *)p, x); }

/* The or of 32 bytes. */
static inline uint8_t or_bytes(__m256i x)
{
    uint64_t words[4];
    _mm256_storeu_si256((__m256i *)words, x);
    uint64_t word = words[0] | words[1] | words[2] | words[3];
    word |= word >> 32;
    word |= word >> 16;
    return (uint8_t)(word | word >> 8);
}

/* Two bytes as the repeated weights of a multiply-add: `first` for the even element. */
static inline __m256i byte_weights(int first, int second) { return _mm256_set1_epi16((short)(second << 8 | first)); }

/* The low bytes of 16 + 16 int16 lanes, in order. */
static inline __m256i narrow_u16(__m256i low, __m256i high)
{
    return _mm256_permute4x64_epi64(_mm256_packus_epi16(low, high), 0xd8);
}

uint8_t qk_pack_u4_avx2(const uint8_t *q, size_t n, uint8_t bias, int high_first, uint8_t *p)
{
    const __m256i mask = _mm256_set1_epi8(0x0f), bias_u8x32 = _mm256_set1_epi8((char)bias);
    const __m256i weights = high_first ? byte_weights(16, 1) : byte_weights(1, 16);
    __m256i seen = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m256i a = load(q + i), b = load(q + i + 32);
        seen = _mm256_or_si256(
            seen, _mm256_or_si256(_mm256_add_epi8(a, bias_u8x32), _mm256_add_epi8(b, bias_u8x32)));
        a = _mm256_maddubs_epi16(_mm256_and_si256(a, mask), weights);
        b = _mm256_maddubs_epi16(_mm256_and_si256(b, mask), weights);
        store(p + i / 2, narrow_u16(a, b));
    }
    return or_bytes(seen) | qk_pack_u4_scalar(q + i, n - i, bias, high_first, p + i / 2);
}

uint8_t qk_pack_u2_avx2(const uint8_t *q, size_t n, uint8_t bias, int high_first, uint8_t *p)
{
    const __m256i mask = _mm256_set1_epi8(0x03), bias_u8x32 = _mm256_set1_epi8((char)bias);
    const __m256i pair_weights = high_first ? byte_weights(4, 1) : byte_weights(1, 4);
    const __m256i quad_weights = _mm256_set1_epi32(high_first ? 1 << 16 | 16 : 16 << 16 | 1);
    __m256i seen = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i a = load(q + i);
        seen = _mm256_or_si256(seen, _mm256_add_epi8(a, bias_u8x32));
        a = _mm256_maddubs_epi16(_mm256_and_si256(a, mask), pair_weights);
        vi_store_bytes(p + i / 4, _mm256_madd_epi16(a, quad_weights));
    }
    return or_bytes(seen) | qk_pack_u2_scalar(q + i, n - i, bias, high_first, p + i / 4);
}

/* Shuffle control that reverses each group of eight bytes. */
static inline __m256i reverse_eights(void)
{
    return _mm256_setr_epi8(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13,
                            12, 11, 10, 9, 8);
}

uint8_t qk_pack_u1_avx2(const uint8_t *q, size_t n, uint8_t bias, int high_first, uint8_t *p)
{
    const __m256i bias_u8x32 = _mm256_set1_epi8((char)bias), reverse = reverse_eights();
    __m256i seen = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i a = load(q + i);
        seen = _mm256_or_si256(seen, _mm256_add_epi8(a, bias_u8x32));
        if (high_first)
            a = _mm256_shuffle_epi8(a, reverse);
        uint32_t bits = (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(a, 7));
        memcpy(p + i / 8, &bits, sizeof bits);
    }
    return or_bytes(seen) | qk_pack_u1_scalar(q + i, n - i, bias, high_first, p + i / 8);
}

/* Fields of `mask` bits to signed or unsigned bytes. */
static inline __m256i extend(__m256i fields, __m256i sign)
{
    return _mm256_sub_epi8(_mm256_xor_si256(fields, sign), sign);
}

static inline __m256i sign_bit(int is_signed, int bits)
{
    return _mm256_set1_epi8(is_signed ? (char)(1 << (bits - 1)) : 0);
}

void qk_unpack_u4_avx2(const uint8_t *p, size_t n, int is_signed, int high_first, uint8_t *q)
{
    const __m256i mask = _mm256_set1_epi8(0x0f), sign = sign_bit(is_signed, 4);
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m256i bytes = _mm256_permute4x64_epi64(load(p + i / 2), 0xd8);
        __m256i low = _mm256_and_si256(bytes, mask);
        __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
        __m256i even = high_first ? high : low, odd = high_first ? low : high;
        store(q + i, extend(_mm256_unpacklo_epi8(even, odd), sign));
        store(q + i + 32, extend(_mm256_unpackhi_epi8(even, odd), sign));
    }
    qk_unpack_u4_scalar(p + i / 2, n - i, is_signed, high_first, q + i);
}

void qk_unpack_u2_avx2(const uint8_t *p, size_t n, int is_signed, int high_first, uint8_t *q)
{
    const __m256i mask = _mm256_set1_epi8(0x03), sign = sign_bit(is_signed, 2);
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        /* Byte b of eight in 32-bit lane b; a copy shifted up by 6 * f has field f at bit 8 * f, where the mask keeps
         * it and nothing else. */
        __m256i lanes = vi_load_bytes(p + i / 4);
        if (high_first) /* swap the fields within the byte first */
            lanes = _mm256_or_si256(
                _mm256_or_si256(_mm256_srli_epi32(lanes, 6),
                                _mm256_and_si256(_mm256_srli_epi32(lanes, 2), _mm256_set1_epi32(0x0c))),
                _mm256_or_si256(_mm256_and_si256(_mm256_slli_epi32(lanes, 2), _mm256_set1_epi32(0x30)),
                                _mm256_and_si256(_mm256_slli_epi32(lanes, 6), _mm256_set1_epi32(0xc0))));
        __m256i fields = _mm256_or_si256(
            _mm256_or_si256(lanes, _mm256_slli_epi32(lanes, 6)),
            _mm256_or_si256(_mm256_slli_epi32(lanes, 12), _mm256_slli_epi32(lanes, 18)));
        store(q + i, extend(_mm256_and_si256(fields, mask), sign));
    }
    qk_unpack_u2_scalar(p + i / 4, n - i, is_signed, high_first, q + i);
}

void qk_unpack_u1_avx2(const uint8_t *p, size_t n, int is_signed, int high_first, uint8_t *q)
{
    /* Each of four bytes eight times, then one bit tested in each copy. */
    const __m256i copies = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3,
                                            3, 3, 3, 3, 3, 3, 3);
    const __m256i places = _mm256_set1_epi64x(high_first ? 0x0102040810204080 : (long long)0x8040201008040201);
    const __m256i one = _mm256_set1_epi8(is_signed ? -1 : 1);
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        int32_t bits;
        memcpy(&bits, p + i / 8, sizeof bits);
        __m256i bytes = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), copies), places);
        store(q + i, _mm256_and_si256(_mm256_cmpeq_epi8(bytes, places), one));
    }
    qk_unpack_u1_scalar(p + i / 8, n - i, is_signed, high_first, q + i);
}
