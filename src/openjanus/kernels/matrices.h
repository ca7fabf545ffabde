// Linear layers on processors' matrix units (AMX): bfloat16 for any number of rows, int8 and int4 for many.
//
// A thread takes a tile of 32 outputs and two blocks of 16 rows at a time: four matrices of sums, which two matrices of weights
// and two of rows are multiplied into. Rows are laid out before, so that each matrix is one piece of memory.

#pragma once

#include <stdlib.h>

#include "making.h"
#include "numbers.h"
#include "pairs.h"

int omp_get_num_threads(void); // without the header, which some compilers lack

#define BYTES_DEEP 64    // bytes of a row that are multiplied at a time
#define BESIDE (5 << 18) // bytes of rows that stay in the second cache beside them
#define AT_ONCE 4        // matrices of weights that are made before the first is multiplied
#define MOST 32          // blocks of rows through a tile at a time
#define MANY 24          // rows from which on int8 and int4 go this way

// What a thread sets its units to: eight matrices of 64 bytes a row, two of them weights of 16 rows, the others of as many as there are
// rows of x, up to 16. The settings of others come back behind it.
typedef struct {
    uint8_t palette, start, zeros[14];
    uint16_t columns[16];
    uint8_t rows[16];
} Units;

MATRICES static Units units_taken(long rows) {
    Units before, own = {.palette = 1};
    for (int i = 0; i < 8; i++)
        own.columns[i] = 64, own.rows[i] = i > 5 || rows > SIDE ? SIDE : (uint8_t)rows;
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

// What each step does for weights that come later. Where rows are few, it asks for as many lines, AHEAD of it, as it reads: 32. Where
// they are many, the weights of a tile stay near while all blocks pass them, and each step of each pass asks for a few `lines` of
// those that come `next`: all in the first pass would be more than a cache can wait for. Weights that are no bfloat16 are made that,
// a few inputs in each step, while the units multiply.
typedef struct {
    const char *next;
    int lines;
    Making *making;
    uint16_t *to;
    long left; // inputs to make
    long each; // so many in a step
} Later;

#define IN_STEP -1 // lines, where each step asks for its own

INLINE MATRICES void see_to(Later *later, const void *now) {
    if (later->lines == IN_STEP)
        for (int line = 0; line < 32; line++)
            prefetch((const char *)now + 64 * line);
    for (int line = 0; line < later->lines; line++, later->next += 64)
        _mm_prefetch(later->next, _MM_HINT_T1);
    if (later->left) {
        long some = later->left < later->each ? later->left : later->each;
        make_bf16(later->making, some, later->to);
        later->to += some * TILE;
        later->left -= some;
    }
}

// Of weights that are multiplied as they lie, `blocks` of rows at a time.
static Later later_asked(const void *next, long blocks) {
    long passes = (blocks + 1) / 2;
    return (Later){.next = next, .lines = passes == 1 ? IN_STEP : (int)((32 + passes - 1) / passes)};
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

// Compilers are not told that loads of matrices read memory: what was written for them has to be there.
INLINE void all_written(void) { __asm__ volatile("" ::: "memory"); }

// To the sums, `steps` matrices of one tile of weights times those of one or two blocks of rows, `apart` bytes from one to the other;
// bytes, or bfloat16. Rows are read past the nearest cache, in which they would take the place of weights.
INLINE MATRICES void multiply(const void *weights, const void *rows, long apart, long steps, int blocks, int bytes, Later *later) {
    const char *w = weights, *x = rows;
    all_written();
    for (long step = 0; step < steps; step++, w += 2 * 64 * SIDE, x += 64 * SIDE) {
        see_to(later, w);
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
INLINE MATRICES void add_matrices(const uint16_t *w, const uint16_t *x, long K, long deep, int blocks, int first, Later *later,
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
    multiply(w, x, SIDE * K * (long)sizeof(uint16_t), deep / DEEP, blocks, 0, later);
    sums_stored(sums, TILE, blocks);
}

// A Product.
MATRICES static void product_of_matrices(const uint16_t *a, long apart, const uint16_t *b, long step, long beside, long deep,
                                         float *y, long along) {
    sums_cleared();
    all_written();
    for (long k = 0; k < deep; k += DEEP, b += step) {
        _tile_loadd(4, a + k, apart * 2);
        _tile_loadd(5, a + SIDE * apart + k, apart * 2);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + beside, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    sums_stored(y, along, 2);
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

// `add_matrices` of many blocks.
INLINE MATRICES void add_blocks(const uint16_t *w, const uint16_t *x, long K, long deep, long blocks, int first, Later *later,
                                float *sums) {
    for (long b = 0; b < blocks; b += 2, x += 2 * SIDE * K, sums += 2 * SIDE * TILE) {
        if (blocks - b > 1)
            add_matrices(w, x, K, deep, 2, first, later, sums);
        else
            add_matrices(w, x, K, deep, 1, first, later, sums);
    }
}

// sums [blocks, 16, 32] = x w^T of one tile of bfloat16 and all K inputs, a few at a time, so that their weights stay in the nearest
// cache.
MATRICES static void add_lying(const uint16_t *w, const uint16_t *x, long K, long blocks, float *sums) {
    for (long k = 0; k < K; k += STAYS, w += STAYS * TILE) {
        Later later = later_asked(w + STAYS * TILE, blocks);
        add_blocks(w, x + k * SIDE, K, K - k < STAYS ? K - k : STAYS, blocks, k == 0, &later, sums);
    }
}

// The same of weights that are made bfloat16, one part while another is multiplied: both stay near.
MATRICES static void add_made(Making making, const uint16_t *x, long K, long blocks, float *sums) {
    enum { PART = STAYS / 2 };
    uint16_t made[2][PART * TILE] __attribute__((aligned(64)));
    const long passes = (blocks + 1) / 2, each = (DEEP / 4 + passes - 1) / passes * 4;
    make_bf16(&making, K < PART ? K : PART, made[0]);
    for (long k = 0, turn = 0; k < K; k += PART, turn = !turn) {
        long deep = K - k < PART ? K - k : PART, left = K - k - deep;
        Later later = {.making = &making, .to = made[!turn], .left = left < PART ? left : PART, .each = each};
        add_blocks(made[turn], x + k * SIDE, K, deep, blocks, k == 0, &later, sums);
    }
}

// The same of one or two blocks, no pass over which is long enough to make a part beside it: AT_ONCE matrices are made before they
// are multiplied.
INLINE MATRICES void add_few_made(Making making, const uint16_t *x, long K, int blocks, float *sums) {
    uint16_t made[AT_ONCE][DEEP * TILE] __attribute__((aligned(64)));
    Later nothing = {0};
    sums_cleared();
    for (long step = 1 - AT_ONCE; step < K / DEEP; step++) {
        if (step + AT_ONCE <= K / DEEP)
            make_bf16(&making, DEEP, made[(step + AT_ONCE - 1) % AT_ONCE]);
        if (step >= 0)
            multiply(made[step % AT_ONCE], x + step * CELL, SIDE * K * (long)sizeof(uint16_t), 1, blocks, 0, &nothing);
    }
    sums_stored(sums, TILE, blocks);
}

MATRICES static void add_all(Weights w, long tile, const uint16_t *x, long blocks, float *sums) {
    if (w.held == AS_BF16)
        add_lying((const uint16_t *)w.w + tile * w.K * TILE, x, w.K, blocks, sums);
    else if (blocks > 2)
        add_made(making_of(w, tile), x, w.K, blocks, sums);
    else if (blocks == 2)
        add_few_made(making_of(w, tile), x, w.K, 2, sums);
    else
        add_few_made(making_of(w, tile), x, w.K, 1, sums);
}

MATRICES static int linear_of_matrices(Weights w, const uint16_t *x, uint16_t *y, long rows) {
    const long N = w.N, K = w.K, blocks = (rows + SIDE - 1) / SIDE;
    uint16_t *laid = aligned_alloc(64, (size_t)(blocks * SIDE * K) * sizeof(uint16_t));
    if (!laid)
        return -1;
#pragma omp parallel if (N * K >= SMALL)
    {
        long share = tiles_at_a_time(rows, N / TILE, omp_get_num_threads());
#pragma omp for schedule(static)
        for (long b = 0; b < blocks; b++)
            block_of_rows(x + b * SIDE * K, rows - b * SIDE, K, laid + b * SIDE * K);
        Units before = units_taken(rows);
        float sums[MOST * SIDE * TILE] __attribute__((aligned(64)));
        long near = blocks_near(K * (long)sizeof(uint16_t));
        for (long from = 0; from < blocks; from += near) {
            long some = blocks - from < near ? blocks - from : near;
#pragma omp for schedule(dynamic, share)
            for (long tile = 0; tile < N / TILE; tile++) {
                add_all(w, tile, laid + from * SIDE * K, some, sums);
                for (long row = from * SIDE; row < (from + some) * SIDE && row < rows; row++) {
                    const float *sum = sums + (row - from * SIDE) * TILE;
                    __m512bh both = _mm512_cvtne2ps_pbh(_mm512_load_ps(sum + 16), _mm512_load_ps(sum));
                    _mm512_storeu_si512(y + row * N + tile * TILE, (__m512i)both);
                }
            }
        }
        units_given_back(before);
    }
    free(laid);
    return 0;
}

// sums [32, 32] += x w^T of `deep` inputs, which share a scale in each row, of one tile of int8 and one or two blocks of SIDE
// rows. scale: of the rows, `groups` apart.
INLINE MATRICES void add_bytes(const uint8_t *w, const int8_t *x, long K, long deep, int blocks, int first, Later *later,
                               const float *scale, long groups, float *sums) {
    int32_t part[2 * SIDE * TILE] __attribute__((aligned(64)));
    sums_cleared();
    multiply(w, x, SIDE * K, deep / BYTES_DEEP, blocks, 1, later);
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
        Later later = later_asked(w + (k + STAYS) * TILE, blocks);
        for (long b = 0; b < blocks; b += 2) {
            int two = blocks - b > 1;
            long rows = (from + b) * SIDE, place = rows * K + k * SIDE, at = rows * groups + g;
            const uint16_t *out = x.out + (from + b) * groups + g;
            float *to = sums + b * SIDE * TILE;
            if (two)
                add_bytes(w + k * TILE, x.near.bytes + place, K, deep, 2, g == 0, &later, x.near.scale + at, groups, to);
            else
                add_bytes(w + k * TILE, x.near.bytes + place, K, deep, 1, g == 0, &later, x.near.scale + at, groups, to);
            for (int i = 0; i <= two; i++)
                if (out[i * groups])
                    add_bytes(w + k * TILE, x.rest.bytes + place + i * SIDE * K, K, deep, 1, 0, &later,
                              x.rest.scale + at + i * SIDE * groups, groups, to + i * SIDE * TILE);
        }
    }
}

// K is a multiple of BYTES_DEEP.
MATRICES static int linear_of_byte_matrices(Weights w, const void *x, void *y, long M, int format) {
    const long N = w.N, K = w.K;
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
        Units before = units_taken(SIDE);
        float sums[MOST * SIDE * TILE] __attribute__((aligned(64)));
        long near = blocks_near(K);
        for (long from = 0; from < blocks; from += near) {
            long some = blocks - from < near ? blocks - from : near;
#pragma omp for schedule(dynamic, share)
            for (long tile = 0; tile < N / TILE; tile++) {
                add_all_bytes((const uint8_t *)w.w + tile * TILE * K, rows, from, K, some, sums);
                for (long row = from * SIDE; row < (from + some) * SIDE && row < M; row++)
                    for (int half = 0; half < 2; half++) {
                        long at = tile * TILE + 16 * half;
                        __m512 sum = _mm512_load_ps(sums + (row - from * SIDE) * TILE + 16 * half);
                        sum = _mm512_sub_ps(sum, _mm512_set1_ps(rows.excess[row]));
                        stored(y, row * N + at, _mm512_mul_ps(sum, _mm512_loadu_ps(w.scales + at)), format);
                    }
            }
        }
        units_given_back(before);
    }
    free(rows.near.bytes);
    return 0;
}
