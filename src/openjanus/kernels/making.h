// Weights that are made bfloat16, laid out as those are: of int4, and of fewer bytes.

#pragma once

#include "compact.h"
#include "numbers.h"

INLINE FLOATS __m512i byte_of(__m512i lanes, int which) {
    return _mm512_and_si512(_mm512_srli_epi32(lanes, 8 * which), _mm512_set1_epi32(0xff));
}

// Rounded to bfloat16: nothing here is NaN unless a scale is.
INLINE FLOATS __m512i nearest(__m512 x) {
    __m512i bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
}

// What is left to make of a tile.
typedef struct {
    int held;
    Unpacking compact;
    const uint8_t *int4; // the group
    int fours;           // of it that are made
} Making;

static Making making_of(Weights w, long tile) {
    if (w.held == AS_COMPACT)
        return (Making){.held = w.held, .compact = unpacking_of(w, tile)};
    return (Making){.held = w.held, .int4 = (const uint8_t *)w.w + tile * (w.K / GROUP) * GROUP_BYTES};
}

// The next four inputs of int4.
INLINE FLOATS void widen_int4(Making *from, uint16_t *to) {
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000), low_half = _mm512_set1_epi8(0x0f);
    const uint8_t *group = from->int4, *pairs = group + 64 * from->fours;
    const uint16_t *scales = (const uint16_t *)(group + 8 * 64), *zeros = scales + TILE;
    prefetch(pairs);
    for (int half = 0; half < 2; half++) {
        __m512 scale = widened(scales + 16 * half), zero = widened(zeros + 16 * half);
        zero = _mm512_fnmadd_ps(_mm512_set1_ps(8.0f), scale, zero);
        __m512i four = _mm512_and_si512(_mm512_srli_epi16(_mm512_loadu_si512(pairs), 4 * half), low_half);
        for (int pair = 0; pair < 2; pair++) {
            __m512 first = _mm512_fmadd_ps(_mm512_cvtepi32_ps(byte_of(four, 2 * pair)), scale, zero);
            __m512 second = _mm512_fmadd_ps(_mm512_cvtepi32_ps(byte_of(four, 2 * pair + 1)), scale, zero);
            __m512i both = _mm512_or_si512(_mm512_srli_epi32(nearest(first), 16), _mm512_and_si512(nearest(second), upper));
            _mm512_storeu_si512(to + 2 * TILE * pair + 32 * half, both);
        }
    }
    if (++from->fours == GROUP / 4) {
        prefetch(group + 512);
        prefetch(group + 576);
        from->int4 += GROUP_BYTES;
        from->fours = 0;
    }
}

// So many more inputs, a multiple of four.
FLOATS static void make_bf16(Making *from, long inputs, uint16_t *to) {
    if (from->held == AS_COMPACT)
        for (long i = 0; i < inputs; i += 4)
            unpack(&from->compact, to + i * TILE);
    else
        for (long i = 0; i < inputs; i += 4)
            widen_int4(from, to + i * TILE);
}
