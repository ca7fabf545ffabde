// Linear layers on processors' matrix units (AMX): bfloat16 for any number of rows, int8 and int4 for many.
//
// A thread takes a tile of 32 outputs and two blocks of 16 rows at a time: four matrices of sums, which two matrices of weights
// and two of rows are multiplied into. Rows are laid out before, so that each matrix is one piece of memory.

#pragma once

#include <stdlib.h>

#include "numbers.h"

int omp_get_num_threads(void); // without the header, which some compilers lack

#define SIDE 16            // rows of a matrix, of 64 bytes: 32 bfloat16, 64 bytes, or 16 sums
#define DEEP 32            // bfloat16 that are multiplied at a time
#define BYTES_DEEP 64      // and bytes
#define CELL (SIDE * DEEP) // bfloat16 in a matrix
#define STAYS 512          // inputs of a tile whose weights stay in the nearest cache: 32 KiB of bfloat16
#define BESIDE (3 << 18)   // bytes of rows that stay in the second cache beside them
#define MOST 32            // blocks of rows through a tile at a time
#define MANY 24            // rows from which on int8 and int4 go this way

// What a thread sets its units to: eight matrices of 16 rows of 64 bytes. The settings of others come back behind it.
typedef struct {
    uint8_t palette, start, zeros[14];
    uint16_t columns[16];
    uint8_t rows[16];
} Units;

MATRICES static Units units_taken(void) {
    Units before, own = {.palette = 1};
    for (int i = 0; i < 8; i++)
        own.columns[i] = 64, own.rows[i] = SIDE;
    _tile_storeconfig(&before);
    _tile_loadconfig(&own);
    return before;
}

MATRICES static void units_given_back(Units before) { _tile_loadconfig(&before); }

// What this thread's units are set to: 0 is nothing. For those who want to know that they were given back.
MATRICES int palette(void) {
    Units now;
    _tile_storeconfig(&now);
    return now.palette;
}

// How weights that are wanted soon are asked for. Where rows are few, each step asks for as many lines, AHEAD of it, as it reads:
// 32. Where they are many, the weights of a tile stay near while all blocks pass them, and each step of each pass asks for a few
// `lines` of those that come `next`: all in the first pass would be more than a cache can wait for.
typedef struct {
    const char *next;
    int lines;
} Wanted;

static Wanted wanted(const void *next, long blocks) {
    long passes = (blocks + 1) / 2;
    return (Wanted){next, passes == 1 ? 0 : (int)((32 + passes - 1) / passes)};
}

INLINE void ask_for(Wanted *weights, const void *now) {
    if (!weights->lines)
        for (int line = 0; line < 32; line++)
            prefetch((const char *)now + 64 * line);
    for (int line = 0; line < weights->lines; line++, weights->next += 64)
        _mm_prefetch(weights->next, _MM_HINT_T1);
}

// The units hold sums [32, 32] of 32 bits: 16 x 16 left and right of one block of rows, and of another.
INLINE MATRICES void sums_cleared(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

// Rows lie `along` numbers apart.
INLINE MATRICES void sums_stored(void *to, long along, int blocks) {
    _tile_stored(0, to, along * 4);
    _tile_stored(1, (char *)to + 64, along * 4);
    if (blocks == 2) {
        _tile_stored(2, (char *)to + SIDE * along * 4, along * 4);
        _tile_stored(3, (char *)to + SIDE * along * 4 + 64, along * 4);
    }
}

// To the sums, `steps` matrices of one tile of weights times those of one or two blocks of rows, `apart` bytes from one to the other;
// bytes, or bfloat16. Rows are read past the nearest cache, in which they would take the place of weights.
INLINE MATRICES void multiply(const void *weights, const void *rows, long apart, long steps, int blocks, int bytes, Wanted *soon) {
    const char *w = weights, *x = rows;
    for (long step = 0; step < steps; step++, w += 2 * 64 * SIDE, x += 64 * SIDE) {
        ask_for(soon, w);
        _tile_loadd(6, w, 128);
        _tile_loadd(7, w + 64, 128);
        _tile_stream_loadd(4, x, 64);
        if (bytes) {
            _tile_dpbsud(0, 4, 6);
            _tile_dpbsud(1, 4, 7);
        } else {
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (blocks == 2) {
            _tile_stream_loadd(5, x + apart, 64);
            if (bytes) {
                _tile_dpbsud(2, 5, 6);
                _tile_dpbsud(3, 5, 7);
            } else {
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
    }
}

// sums [32, 32] += x w^T of `deep` inputs of one tile of weights and one or two blocks of SIDE rows, K inputs apart. first: they
// are the first inputs, so sums begin at 0.
INLINE MATRICES void add_matrices(const uint16_t *w, const uint16_t *x, long K, long deep, int blocks, int first, Wanted *soon,
                                  float *sums) {
    if (first) {
        sums_cleared();
    } else {
        _tile_loadd(0, sums, 128);
        _tile_loadd(1, sums + 16, 128);
        if (blocks == 2) {
            _tile_loadd(2, sums + SIDE * TILE, 128);
            _tile_loadd(3, sums + SIDE * TILE + 16, 128);
        }
    }
    multiply(w, x, SIDE * K * (long)sizeof(uint16_t), deep / DEEP, blocks, 0, soon);
    sums_stored(sums, TILE, blocks);
}

// The same of all K inputs and many blocks, a few inputs at a time, so that their weights stay in the nearest cache.
MATRICES static void add_all(const uint16_t *w, const uint16_t *x, long K, long blocks, float *sums) {
    for (long k = 0; k < K; k += STAYS) {
        long deep = K - k < STAYS ? K - k : STAYS;
        Wanted soon = wanted(w + (k + STAYS) * TILE, blocks);
        for (long b = 0; b < blocks; b += 2) {
            const uint16_t *rows = x + b * SIDE * K + k * SIDE;
            float *to = sums + b * SIDE * TILE;
            if (blocks - b > 1)
                add_matrices(w + k * TILE, rows, K, deep, 2, k == 0, &soon, to);
            else
                add_matrices(w + k * TILE, rows, K, deep, 1, k == 0, &soon, to);
        }
    }
}

// How many blocks of rows of so many bytes go through all tiles at a time, to stay near.
static long blocks_near(long bytes) {
    long near = BESIDE / bytes / SIDE;
    return near < 1 ? 1 : near < MOST ? near : MOST;
}

// How many tiles a thread takes at a time. Few rows are a matter of memory, which each thread reads best in one stream; many go
// to whoever is free, a few tiles at a time, since those that come next were asked for.
static long tiles_at_a_time(long rows, long tiles, long threads) {
    if (rows < MANY)
        return (tiles + threads - 1) / threads;
    long share = tiles / threads / 16;
    return share < 1 ? 1 : share < 8 ? share : 8;
}

// Sixteen rows of x as matrices that lie one behind the other; rows that are not there are zeros.
MATRICES static void block_of_rows(const uint16_t *x, long rows, long K, uint16_t *to) {
    for (long k = 0; k < K; k += DEEP)
        for (long row = 0; row < SIDE; row++, to += DEEP)
            _mm512_storeu_si512(to, row < rows ? _mm512_loadu_si512(x + row * K + k) : _mm512_setzero_si512());
}

INLINE MATRICES __m512i byte_of(__m512i lanes, int which) {
    return _mm512_and_si512(_mm512_srli_epi32(lanes, 8 * which), _mm512_set1_epi32(0xff));
}

// Rounded to bfloat16: nothing here is NaN unless a scale is.
INLINE MATRICES __m512i nearest(__m512 x) {
    __m512i bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
}

// The weights of a tile as bfloat16, laid out as those are.
MATRICES static void widen_int4(const uint8_t *w, long tile, long K, uint16_t *to) {
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000), low_half = _mm512_set1_epi8(0x0f);
    w += tile * (K / GROUP) * GROUP_BYTES;
    for (long g = 0; g < K / GROUP; g++, w += GROUP_BYTES) {
        const uint16_t *scales = (const uint16_t *)(w + 8 * 64), *zeros = scales + TILE;
        for (int half = 0; half < 2; half++) {
            __m512 scale = widened(scales + 16 * half), zero = widened(zeros + 16 * half);
            zero = _mm512_fnmadd_ps(_mm512_set1_ps(8.0f), scale, zero);
            for (int i = 0; i < 8; i++) {
                __m512i four = _mm512_and_si512(_mm512_srli_epi16(_mm512_loadu_si512(w + 64 * i), 4 * half), low_half);
                for (int pair = 0; pair < 2; pair++) {
                    __m512 first = _mm512_fmadd_ps(_mm512_cvtepi32_ps(byte_of(four, 2 * pair)), scale, zero);
                    __m512 second = _mm512_fmadd_ps(_mm512_cvtepi32_ps(byte_of(four, 2 * pair + 1)), scale, zero);
                    __m512i both = _mm512_or_si512(_mm512_srli_epi32(nearest(first), 16), _mm512_and_si512(nearest(second), upper));
                    _mm512_storeu_si512(to + 4 * TILE * i + 2 * TILE * pair + 32 * half, both);
                }
            }
        }
        to += GROUP * TILE;
    }
}

// widen: w is int4, else bfloat16.
MATRICES static int linear_of_matrices(int widen, const uint16_t *x, const void *w, uint16_t *y, long rows, long N, long K) {
    long blocks = (rows + SIDE - 1) / SIDE, failed = 0;
    uint16_t *laid = aligned_alloc(64, (size_t)(blocks * SIDE * K) * sizeof(uint16_t));
    if (!laid)
        return -1;
#pragma omp parallel if (N * K >= SMALL)
    {
        long share = tiles_at_a_time(rows, N / TILE, omp_get_num_threads());
        uint16_t *wide = widen ? aligned_alloc(64, (size_t)(TILE * K) * sizeof(uint16_t)) : NULL;
        if (widen && !wide) {
#pragma omp atomic write
            failed = -1;
        }
#pragma omp for schedule(static)
        for (long b = 0; b < blocks; b++)
            block_of_rows(x + b * SIDE * K, rows - b * SIDE, K, laid + b * SIDE * K);
        if (!failed) {
            Units before = units_taken();
            float sums[MOST * SIDE * TILE] __attribute__((aligned(64)));
            long near = blocks_near(K * (long)sizeof(uint16_t));
            for (long from = 0; from < blocks; from += near) {
                long some = blocks - from < near ? blocks - from : near;
#pragma omp for schedule(dynamic, share)
                for (long tile = 0; tile < N / TILE; tile++) {
                    const uint16_t *weights = widen ? wide : (const uint16_t *)w + tile * TILE * K;
                    if (widen)
                        widen_int4(w, tile, K, wide);
                    add_all(weights, laid + from * SIDE * K, K, some, sums);
                    for (long row = from * SIDE; row < (from + some) * SIDE && row < rows; row++) {
                        const float *sum = sums + (row - from * SIDE) * TILE;
                        __m512bh both = _mm512_cvtne2ps_pbh(_mm512_load_ps(sum + 16), _mm512_load_ps(sum));
                        _mm512_storeu_si512(y + row * N + tile * TILE, (__m512i)both);
                    }
                }
            }
            units_given_back(before);
        }
        free(wide);
    }
    free(laid);
    return (int)failed;
}

// sums [32, 32] += x w^T of `deep` inputs, which share a scale in each row, of one tile of int8 and one or two blocks of SIDE
// rows. scale: of the rows, `groups` apart.
INLINE MATRICES void add_bytes(const uint8_t *w, const int8_t *x, long K, long deep, int blocks, int first, Wanted *soon,
                               const float *scale, long groups, float *sums) {
    int32_t part[2 * SIDE * TILE] __attribute__((aligned(64)));
    sums_cleared();
    multiply(w, x, SIDE * K, deep / BYTES_DEEP, blocks, 1, soon);
    sums_stored(part, TILE, blocks);
    for (int row = 0; row < blocks * SIDE; row++) {
        __m512 by = _mm512_set1_ps(scale[row * groups]);
        for (int at = row * TILE; at < (row + 1) * TILE; at += 16) {
            __m512 sum = first ? _mm512_setzero_ps() : _mm512_load_ps(sums + at);
            _mm512_store_ps(sums + at, _mm512_fmadd_ps(by, _mm512_cvtepi32_ps(_mm512_load_si512(part + at)), sum));
        }
    }
}

// x as matrices of bytes that lie one behind the other, STAYS inputs of a row of one scale, and what these miss of rows in which an
// input lies so far OUT that the others would be lost beside it. Rows that are not there are zeros.
typedef struct {
    Grouped near, rest;
    uint16_t *out; // [blocks, groups]: a bit for each row of a block that has a rest
    float *excess; // [rows]: what 128, which stands for 0 in w, whose bytes have no sign, adds to each output
} Rounded;

// An input of more than so many times the mean size of those that share its scale. Below it, rounding is within OUT / 127 / sqrt(12)
// of that mean: 2.3 %. The mean, since several large inputs hide each other in a root mean square.
#define OUT 10.0f

// Memory in one piece that begins at .near.bytes, which is NULL if there is none. rows: a multiple of SIDE.
static Rounded room_for_rounded(long rows, long K, long groups) {
    size_t bytes = (size_t)(rows * K), numbers = (size_t)(rows * groups);
    size_t size = 2 * bytes + (4 * numbers + rows) * sizeof(float) + numbers;
    Rounded made = {.near.bytes = aligned_alloc(64, (size + 63) / 64 * 64)};
    made.rest.bytes = made.near.bytes + bytes;
    made.near.scale = (float *)(made.rest.bytes + bytes);
    made.rest.scale = made.near.scale + numbers;
    made.excess = made.rest.scale + numbers;
    made.near.sum = (int32_t *)(made.excess + rows);
    made.rest.sum = made.near.sum + numbers;
    made.out = (uint16_t *)(made.rest.sum + numbers);
    return made;
}

// Whether one of some numbers lies OUT.
MATRICES static int one_lies_out(const void *x, long at, long count, int format) {
    __m512 most = _mm512_setzero_ps(), sum = _mm512_setzero_ps();
    for (long k = at; k < at + count; k += 16) {
        __m512 some = _mm512_abs_ps(loaded(x, k, format));
        most = _mm512_max_ps(most, some);
        sum = _mm512_add_ps(sum, some);
    }
    return _mm512_reduce_max_ps(most) > OUT * _mm512_reduce_add_ps(sum) / (float)count;
}

// What `count` inputs of a row miss as bytes, as bytes; 0 if `none`.
MATRICES static void lay_rest(const void *x, long at, long count, int format, int none, Grouped near, Grouped rest) {
    float missed[STAYS];
    for (long k = 0; k < count; k += 16) {
        __m128i some = _mm_loadu_si128((const __m128i *)(near.bytes + k / BYTES_DEEP * BYTES_DEEP * SIDE + k % BYTES_DEEP));
        __m512 had = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(some)), _mm512_set1_ps(*near.scale));
        _mm512_storeu_ps(missed + k, none ? _mm512_setzero_ps() : _mm512_sub_ps(loaded(x, at + k, format), had));
    }
    group_row(missed, 0, count, F32, STAYS, rest, BYTES_DEEP * SIDE);
}

MATRICES static void lay_block(const void *x, long block, long M, long K, long groups, int format, Rounded to) {
    uint16_t *out = to.out + block * groups;
    memset(out, 0, groups * sizeof(*out));
    for (int i = 0; i < SIDE; i++) {
        long row = block * SIDE + i;
        Grouped own = further(to.near, block * SIDE * K + i * BYTES_DEEP, row * groups);
        if (row < M) {
            group_row(x, row, K, format, STAYS, own, BYTES_DEEP * SIDE);
            for (long g = 0; g < groups; g++)
                out[g] |= one_lies_out(x, row * K + g * STAYS, K - g * STAYS < STAYS ? K - g * STAYS : STAYS, format) << i;
        } else {
            for (long k = 0; k < K; k += BYTES_DEEP)
                memset(own.bytes + k * SIDE, 0, BYTES_DEEP);
            memset(own.scale, 0, groups * sizeof(*own.scale));
            memset(own.sum, 0, groups * sizeof(*own.sum));
        }
        to.excess[row] = 0;
        for (long g = 0; g < groups; g++)
            to.excess[row] += 128.0f * own.scale[g] * (float)own.sum[g];
    }
    for (long g = 0; g < groups; g++)
        for (int i = 0; out[g] && i < SIDE; i++) {
            long row = block * SIDE + i, k = g * STAYS, count = K - k < STAYS ? K - k : STAYS;
            long place = block * SIDE * K + i * BYTES_DEEP + k * SIDE, at = row * groups + g;
            Grouped rest = further(to.rest, place, at);
            lay_rest(x, row * K + k, count, format, !(out[g] >> i & 1), further(to.near, place, at), rest);
            to.excess[row] += 128.0f * *rest.scale * (float)*rest.sum;
        }
}

// `add_all` of int8: all K inputs and `blocks` from one on.
MATRICES static void add_all_bytes(const uint8_t *w, Rounded x, long from, long K, long blocks, float *sums) {
    long groups = (K + STAYS - 1) / STAYS;
    for (long g = 0; g < groups; g++) {
        long k = g * STAYS, deep = K - k < STAYS ? K - k : STAYS;
        Wanted soon = wanted(w + (k + STAYS) * TILE, blocks);
        for (long b = 0; b < blocks; b += 2) {
            int two = blocks - b > 1;
            long rows = (from + b) * SIDE, place = rows * K + k * SIDE, at = rows * groups + g;
            const uint16_t *out = x.out + (from + b) * groups + g;
            float *to = sums + b * SIDE * TILE;
            if (two)
                add_bytes(w + k * TILE, x.near.bytes + place, K, deep, 2, g == 0, &soon, x.near.scale + at, groups, to);
            else
                add_bytes(w + k * TILE, x.near.bytes + place, K, deep, 1, g == 0, &soon, x.near.scale + at, groups, to);
            for (int i = 0; i <= two; i++)
                if (out[i * groups])
                    add_bytes(w + k * TILE, x.rest.bytes + place + i * SIDE * K, K, deep, 1, 0, &soon,
                              x.rest.scale + at + i * SIDE * groups, groups, to + i * SIDE * TILE);
        }
    }
}

// K is a multiple of BYTES_DEEP.
MATRICES static int linear_of_byte_matrices(const void *x, const uint8_t *w, const float *scales, void *y, long M, long N, long K,
                                            int format) {
    long blocks = (M + SIDE - 1) / SIDE, groups = (K + STAYS - 1) / STAYS;
    Rounded rows = room_for_rounded(blocks * SIDE, K, groups);
    if (!rows.near.bytes)
        return -1;
#pragma omp parallel if (N * K >= SMALL)
    {
        long share = tiles_at_a_time(M, N / TILE, omp_get_num_threads());
#pragma omp for schedule(static)
        for (long block = 0; block < blocks; block++)
            lay_block(x, block, M, K, groups, format, rows);
        Units before = units_taken();
        float sums[MOST * SIDE * TILE] __attribute__((aligned(64)));
        long near = blocks_near(K);
        for (long from = 0; from < blocks; from += near) {
            long some = blocks - from < near ? blocks - from : near;
#pragma omp for schedule(dynamic, share)
            for (long tile = 0; tile < N / TILE; tile++) {
                add_all_bytes(w + tile * TILE * K, rows, from, K, some, sums);
                for (long row = from * SIDE; row < (from + some) * SIDE && row < M; row++)
                    for (int half = 0; half < 2; half++) {
                        long at = tile * TILE + 16 * half;
                        __m512 sum = _mm512_load_ps(sums + (row - from * SIDE) * TILE + 16 * half);
                        sum = _mm512_sub_ps(sum, _mm512_set1_ps(rows.excess[row]));
                        stored(y, row * N + at, _mm512_mul_ps(sum, _mm512_loadu_ps(scales + at)), format);
                    }
            }
        }
        units_given_back(before);
    }
    free(rows.near.bytes);
    return 0;
}
