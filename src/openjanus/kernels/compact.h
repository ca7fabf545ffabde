// bfloat16 in three quarters of their bytes, every bit kept. Of its sixteen bits eight are an exponent, and nearly all weights of a
// layer are of fifteen neighbouring ones: four bits tell which. The few others stand whole beside.
//
//   planes  tiles x K / 4 times  4 inputs x 32 outputs: 64 bytes of codes, then twice 64 bytes of signs and mantissas
//   heads   tiles                Head
//   rare    as many as there are Rare, in the order of their places

#pragma once

#include "numbers.h"

#define FOUR (4 * TILE) // weights of four inputs of a tile
#define FOUR_BYTES (FOUR * 3 / 2)
#define CODES 15 // exponents that have a code, from 1 on; 0 stands for exponent 0, so for zeros
#define SIGN_MANTISSA 0x807f
#define EXPONENT_AT 7

typedef struct {
    uint32_t below; // the exponent that would have code 0
    uint32_t first; // of the tile's rare weights
    uint32_t count;
} Head;

typedef struct {
    uint32_t place; // in the tile
    uint16_t bits, zeros;
} Rare;

INLINE const Head *heads_of(const uint8_t *compact, long N, long K) { return (const Head *)(compact + N * K * 3 / 2); }
INLINE const Rare *rare_of(const uint8_t *compact, long N, long K) { return (const Rare *)(heads_of(compact, N, K) + N / TILE); }

// The exponents of a tile that have a code: as many of its weights as can be.
static Head head_of(const uint16_t *tile, long K) {
    uint32_t counts[4][256] = {0}; // neighbours mostly have the same exponent, and would wait for each other
    for (long i = 0; i < K * TILE; i += 4)
        for (int j = 0; j < 4; j++)
            counts[j][tile[i + j] >> EXPONENT_AT & 0xff]++;
    uint32_t upto[257] = {0}; // how many weights lie below each exponent
    for (int i = 0; i < 256; i++)
        upto[i + 1] = upto[i] + counts[0][i] + counts[1][i] + counts[2][i] + counts[3][i];
    Head head = {0};
    uint32_t most = 0;
    for (uint32_t below = 0; below + CODES < 256; below++) {
        uint32_t coded = upto[below + CODES + 1] - upto[below + 1];
        if (coded > most)
            most = coded, head.below = below;
    }
    head.count = (uint32_t)(K * TILE) - upto[1] - most;
    return head;
}

// Heads of all tiles; how many weights are rare.
long compact_heads(const uint16_t *tiles, Head *heads, long N, long K) {
#pragma omp parallel for schedule(static)
    for (long tile = 0; tile < N / TILE; tile++)
        heads[tile] = head_of(tiles + tile * K * TILE, K);
    long total = 0;
    for (long tile = 0; tile < N / TILE; total += heads[tile++].count)
        heads[tile].first = (uint32_t)total;
    return total;
}

INLINE FLOATS __m512i swapped(__m512i words) {
    const __m128i order = _mm_set_epi8(14, 15, 12, 13, 10, 11, 8, 9, 6, 7, 4, 5, 2, 3, 0, 1);
    return _mm512_shuffle_epi8(words, _mm512_broadcast_i32x4(order));
}

FLOATS static void compact_tile(const uint16_t *tile, Head head, long K, uint8_t *planes, Rare *rare) {
    const __m512i one = _mm512_set1_epi16(1), below = _mm512_set1_epi16((short)head.below);
    for (long at = 0; at < K * TILE; at += FOUR, planes += FOUR_BYTES) {
        __m512i codes = _mm512_setzero_si512(), rest[4];
        for (int i = 0; i < 4; i++) {
            __m512i weights = _mm512_loadu_si512(tile + at + TILE * i);
            __m512i exponent = _mm512_and_si512(_mm512_srli_epi16(weights, EXPONENT_AT), _mm512_set1_epi16(0xff));
            __m512i code = _mm512_sub_epi16(exponent, below);
            __mmask32 some = _mm512_test_epi16_mask(exponent, exponent);
            __mmask32 coded = _mm512_mask_cmplt_epu16_mask(some, _mm512_sub_epi16(code, one), _mm512_set1_epi16(CODES));
            codes =
                _mm512_or_si512(codes, _mm512_sllv_epi16(_mm512_maskz_mov_epi16(coded, code), _mm512_set1_epi16((short)(4 * i))));
            rest[i] = _mm512_and_si512(weights, _mm512_set1_epi16((short)SIGN_MANTISSA));
            for (__mmask32 left = some & ~coded; left; left &= left - 1) {
                uint32_t place = (uint32_t)at + TILE * (uint32_t)i + (uint32_t)__builtin_ctz(left);
                *rare++ = (Rare){place, tile[place], 0};
            }
        }
        _mm512_storeu_si512(planes, codes);
        for (int i = 0; i < 2; i++)
            _mm512_storeu_si512(planes + 64 * (i + 1), _mm512_or_si512(rest[2 * i], swapped(rest[2 * i + 1])));
    }
}

// All weights, behind whose planes the heads lie already and there is room for what is rare.
void compact_tiles(const uint16_t *tiles, uint8_t *to, long N, long K) {
    const Head *heads = heads_of(to, N, K);
    Rare *rare = (Rare *)rare_of(to, N, K);
#pragma omp parallel for schedule(static)
    for (long tile = 0; tile < N / TILE; tile++)
        compact_tile(tiles + tile * K * TILE, heads[tile], K, to + tile * K * TILE * 3 / 2, rare + heads[tile].first);
}

// 32 weights of codes, of which five bits of each lane choose from a table, and of what has signs and mantissas in their places.
INLINE FLOATS __m512i whole(__m512i codes, __m512i rest, __m512i table) {
    // What of the rest is no sign and no mantissa belongs to its neighbour: (rest & SIGN_MANTISSA) | exponents.
    __m512i exponents = _mm512_permutexvar_epi16(codes, table);
    return _mm512_ternarylogic_epi32(rest, _mm512_set1_epi16((short)SIGN_MANTISSA), exponents, 0xea);
}

// What is left to unpack of a tile.
typedef struct {
    const uint8_t *planes;
    const Rare *rare, *end;
    uint32_t done;      // weights
    uint16_t table[32]; // exponents of codes, in their place; twice, so that a fifth bit makes no difference
} Unpacking;

static Unpacking unpacking_of(Weights w, long tile) {
    Head head = heads_of(w.w, w.N, w.K)[tile];
    const Rare *rare = rare_of(w.w, w.N, w.K) + head.first;
    Unpacking made = {(const uint8_t *)w.w + tile * w.K * TILE * 3 / 2, rare, rare + head.count, 0, {0}};
    for (int i = 0; i < 32; i++)
        made.table[i] = (uint16_t)(i % 16 ? (head.below + i % 16) << EXPONENT_AT : 0);
    return made;
}

// The next four inputs.
INLINE FLOATS void unpack(Unpacking *from, uint16_t *to) {
    const __m512i table = _mm512_loadu_si512(from->table);
    for (int i = 0; i < 3; i++)
        prefetch(from->planes + 64 * i);
    __m512i codes = _mm512_loadu_si512(from->planes);
    __m512i first = _mm512_loadu_si512(from->planes + 64), second = _mm512_loadu_si512(from->planes + 128);
    _mm512_storeu_si512(to, whole(codes, first, table));
    _mm512_storeu_si512(to + TILE, whole(_mm512_srli_epi16(codes, 4), swapped(first), table));
    _mm512_storeu_si512(to + 2 * TILE, whole(_mm512_srli_epi16(codes, 8), second, table));
    _mm512_storeu_si512(to + 3 * TILE, whole(_mm512_srli_epi16(codes, 12), swapped(second), table));
    for (; from->rare < from->end && from->rare->place < from->done + FOUR; from->rare++)
        to[from->rare->place - from->done] = from->rare->bits;
    from->planes += FOUR_BYTES;
    from->done += FOUR;
}
