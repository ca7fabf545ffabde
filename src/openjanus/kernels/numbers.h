// What all kernels share: sizes of tiles, processors, numbers as they are read, rounded and written.

#pragma once

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define TILE 32
#define GROUP 32
#define GROUP_BYTES (8 * 64 + 4 * TILE)
#define STAYS 512       // inputs of a tile whose weights stay in the nearest cache: 32 KiB of bfloat16
#define SMALL (1 << 17) // weights below which threads cost more than they bring
// Bytes to ask memory for before they are wanted: left to itself, it does not keep up with two rows. Asked for twice, since the
// nearest cache alone cannot wait for as much at a time as memory can be fetching.
#define AHEAD 16384 // into the second cache
#define NEXT 4096   // into the first

#define FLOATS __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma")))
#define BYTES __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma")))
#if __GNUC__ >= 10 && !defined(WITHOUT_PAIRS)
#define WITH_PAIRS // the compiler knows products of bfloat16 that are made two at a time
#define PAIRS __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni,fma")))
#endif
#if defined(__linux__) && defined(__x86_64__) && __GNUC__ >= 11 && !defined(__clang__) && !defined(WITHOUT_MATRICES) &&            \
    defined(WITH_PAIRS)
#define WITH_MATRICES // the compiler knows processors' matrix units (AMX), and the system how to ask for them
#define MATRICES __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni,fma,amx-tile,amx-bf16,amx-int8")))
#endif
#define INLINE static inline __attribute__((always_inline))

// Numbers of x and y: 0 is float32, 1 is bfloat16.
enum { F32, BF };

// How weights are held: bfloat16 as they are, and in fewer bytes (compact.h); int8; int4.
enum { AS_BF16, AS_COMPACT, AS_INT8, AS_INT4 };

// A linear layer.
typedef struct {
    const void *w;       // in tiles
    const float *scales; // int8's
    long N, K;
    int held;
} Weights;

INLINE void prefetch(const void *weights) {
    _mm_prefetch((const char *)weights + AHEAD, _MM_HINT_T1);
    _mm_prefetch((const char *)weights + NEXT, _MM_HINT_T0);
}

// Four bytes of a row, for every output.
INLINE FLOATS __m512i four(const void *bytes) {
    int32_t some;
    memcpy(&some, bytes, 4);
    return _mm512_set1_epi32(some);
}

INLINE FLOATS __m512 widened(const uint16_t *from) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)), 16));
}

INLINE FLOATS __m512 loaded(const void *x, long at, int format) {
    return format == BF ? widened((const uint16_t *)x + at) : _mm512_loadu_ps((const float *)x + at);
}

// To the nearest bfloat16, ties to even.
INLINE FLOATS __m256i narrowed(__m512 x) {
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32(rounded, 16), nan, _mm512_set1_epi32(0x7fc0)));
}

INLINE FLOATS __m512 rounded_bf16(__m512 x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrowed(x)), 16));
}

INLINE FLOATS void stored(void *y, long at, __m512 value, int format) {
    if (format == BF)
        _mm256_storeu_si256((__m256i *)((uint16_t *)y + at), narrowed(value));
    else
        _mm512_storeu_ps((float *)y + at, value);
}

INLINE BYTES __m512i rounded(__m512 x) { return _mm512_cvtps_epi32(x); } // ties to even, the mode of the thread

// The first `count` of sixteen lanes, or none or all of them.
INLINE __mmask16 first_lanes(long count) { return count < 1 ? 0 : count < 16 ? (__mmask16)((1 << count) - 1) : 0xffff; }

// Rows as bytes, a few inputs of a row with a scale of their own, so that a large one spoils no others.
typedef struct {
    int8_t *bytes;
    float *scale; // of each few
    int32_t *sum; // of their bytes
} Grouped;

INLINE Grouped further(Grouped rows, long bytes, long groups) {
    return (Grouped){rows.bytes + bytes, rows.scale + groups, rows.sum + groups};
}

// A row as bytes, `each` inputs of one scale; behind 64 bytes the next ones lie `apart` on.
BYTES static void group_row(const void *x, long row, long K, int format, long each, Grouped to, long apart) {
    for (long from = 0; from < K; from += each, to.scale++, to.sum++) {
        long upto = from + each < K ? from + each : K;
        __m512 most = _mm512_setzero_ps();
        __mmask16 broken = 0;
        for (long k = from; k < upto; k += 16) {
            __m512 some = loaded(x, row * K + k, format);
            most = _mm512_max_ps(most, _mm512_abs_ps(some));
            broken |= _mm512_cmp_ps_mask(some, some, _CMP_UNORD_Q);
        }
        float largest = _mm512_reduce_max_ps(most);
        // What is no number, or has no bound, has no bytes: such a group is NaN as a whole.
        broken |= largest == INFINITY;
        float by = (largest > 1e-30f ? largest : 1e-30f) / 127.0f;
        __m512i total = _mm512_setzero_si512();
        for (long k = from; k < upto; k += 16) {
            __m512 some = _mm512_div_ps(loaded(x, row * K + k, format), _mm512_set1_ps(by));
            __m512i numbers = broken ? _mm512_setzero_si512() : rounded(some);
            _mm_storeu_si128((__m128i *)(to.bytes + k / 64 * apart + k % 64), _mm512_cvtepi32_epi8(numbers));
            total = _mm512_add_epi32(total, numbers);
        }
        *to.scale = broken ? NAN : by;
        *to.sum = _mm512_reduce_add_epi32(total);
    }
}

// e^x: 2^n times a polynomial of what is left, to about 1e-7 of it. The order of arguments keeps NaN as it is.
INLINE BYTES __m512 exponential(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-104.0f), _mm512_min_ps(_mm512_set1_ps(104.0f), x));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 left = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    left = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), left);
    const float powers[] = {1.9875691e-4f, 1.3981999e-3f, 8.3334519e-3f, 4.1665795e-2f, 1.6666665e-1f, 0.5f, 1.0f, 1.0f};
    __m512 sum = _mm512_set1_ps(powers[0]);
    for (int i = 1; i < 8; i++)
        sum = _mm512_fmadd_ps(sum, left, _mm512_set1_ps(powers[i]));
    return _mm512_scalef_ps(sum, n);
}

// Sixteen numbers of a head turned to their position: of its left half by their partners on the right, and the other way round.
INLINE BYTES __m512 turned(const void *head, const void *cosine, const void *sine, long at, long Dh, int format) {
    long partner = at < Dh / 2 ? at + Dh / 2 : at - Dh / 2;
    __m512 own = _mm512_mul_ps(loaded(head, at, format), loaded(cosine, at, format));
    __m512 other = _mm512_mul_ps(loaded(head, partner, format), loaded(sine, at, format));
    if (format == BF)
        return rounded_bf16(_mm512_add_ps(rounded_bf16(own), rounded_bf16(other)));
    return _mm512_add_ps(own, other);
}
