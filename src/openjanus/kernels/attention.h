// Attention of many new positions a row in bfloat16, on processors' matrix units or in pairs.
//
// A row's keys and values are laid out first, as the right sides of products, so that each matrix of them is one piece of memory:
// of keys, 16 of them and 32 numbers of a head; of values, 32 of them and 16 numbers. Then a thread takes 32 queries of a head at a
// time: all their scores, the softmax, the mean of the values.

#pragma once

#include <stdlib.h>

#include "numbers.h"
#include "pairs.h"
#ifdef WITH_MATRICES
#include "matrices.h"
#endif

#define QUERIES (2 * SIDE)

int omp_get_num_threads(void); // without the header, which some compilers lack
int matrices(void);

// The new positions of one row, and where its keys and values lie.
typedef struct {
    const uint16_t *qkv, *cosine, *sine; // [T, (H + 2 Hkv) * Dh], [T, Dh]
    const int64_t *entries;              // [T]
    uint16_t *keys, *values;             // [Hkv, length, Dh]
    uint16_t *y;                         // [T, H * Dh]
} NewRow;

typedef struct {
    long T, H, Hkv, Dh, length, upto;
} AttentionSizes;

static long up_to_whole(long count) { return (count + TILE - 1) / TILE * TILE; }

// What a thread works in.
typedef struct {
    uint16_t *queries; // [QUERIES, Dh], turned
    uint16_t *weights; // [QUERIES, apart]
    float *scores;     // [QUERIES, apart]
    long apart;
} Desk;

// Memory in one piece that begins at .queries, which is NULL if there is none.
static Desk desk(AttentionSizes n) {
    // So far that rows do not fall onto each other in a cache.
    long apart = up_to_whole(n.upto) + TILE;
    size_t queries = (size_t)(QUERIES * n.Dh), scores = (size_t)(QUERIES * apart);
    Desk made = {.queries = aligned_alloc(64, (queries + scores) * sizeof(uint16_t) + scores * sizeof(float)), .apart = apart};
    made.weights = made.queries + queries;
    made.scores = (float *)(made.weights + scores);
    return made;
}

// Rows and columns of 16 x 16 exchanged: quarters, quarters of quarters, and so on.
INLINE PAIRS void exchanged(__m512i rows[16]) {
    const __m512i place = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (int step = 1; step < 16; step *= 2) {
        __mmask16 right = _mm512_test_epi32_mask(place, _mm512_set1_epi32(step));
        __m512i by = _mm512_set1_epi32(step), other = _mm512_add_epi32(place, _mm512_set1_epi32(16));
        // Of two rows, `other` counts on into the second.
        __m512i upper = _mm512_mask_sub_epi32(place, right, other, by),
                lower = _mm512_mask_mov_epi32(_mm512_add_epi32(place, by), right, other);
        for (int i = 0; i < 16; i++)
            if (!(i & step)) {
                __m512i first = rows[i], second = rows[i + step];
                rows[i] = _mm512_permutex2var_epi32(first, upper, second);
                rows[i + step] = _mm512_permutex2var_epi32(first, lower, second);
            }
    }
}

// The first `count` keys and values of a head as matrices, zeros behind them up to a whole tile.
PAIRS static void lay_out(const uint16_t *keys, const uint16_t *values, long count, long Dh, uint16_t *laid_keys,
                          uint16_t *laid_values) {
    static const uint16_t alternating[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                             8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    const __m512i low = _mm512_loadu_si512(alternating), high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    uint16_t *matrix = laid_keys;
    for (long first = 0; first < up_to_whole(count); first += SIDE)
        for (long part = 0; part < Dh; part += DEEP, matrix += CELL) {
            __m512i rows[16];
            for (int i = 0; i < 16; i++)
                rows[i] = first + i < count ? _mm512_loadu_si512(keys + (first + i) * Dh + part) : _mm512_setzero_si512();
            exchanged(rows);
            for (int i = 0; i < 16; i++)
                _mm512_storeu_si512(matrix + 32 * i, rows[i]);
        }
    for (long first = 0; first < up_to_whole(count); first += 2)
        for (long part = 0; part < Dh; part += 32) {
            __m512i even = _mm512_setzero_si512(), odd = even;
            if (first < count)
                even = _mm512_loadu_si512(values + first * Dh + part);
            if (first + 1 < count)
                odd = _mm512_loadu_si512(values + (first + 1) * Dh + part);
            matrix = laid_values + first / DEEP * DEEP * Dh + part / SIDE * CELL + first % DEEP / 2 * 32;
            _mm512_storeu_si512(matrix, _mm512_permutex2var_epi16(even, low, odd));
            _mm512_storeu_si512(matrix + CELL, _mm512_permutex2var_epi16(even, high, odd));
        }
}

// Scores of a query's first `count` keys as weights, not yet divided by their sum, which is returned; zeros behind them, up to
// `whole`.
INLINE PAIRS float weighed(const float *scores, long count, long whole, float scale, uint16_t *weights) {
    __m512 most = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
    for (long i = 0; i < count; i += 16)
        most = _mm512_mask_max_ps(most, first_lanes(count - i), most, _mm512_loadu_ps(scores + i));
    __m512 largest = _mm512_set1_ps(_mm512_reduce_max_ps(most)), by = _mm512_set1_ps(scale);
    for (long i = 0; i < whole; i += 16) {
        __m512 some = exponential(_mm512_mul_ps(by, _mm512_sub_ps(_mm512_loadu_ps(scores + i), largest)));
        some = _mm512_maskz_mov_ps(first_lanes(count - i), some);
        total = _mm512_add_ps(total, some);
        _mm256_storeu_si256((__m256i *)(weights + i), (__m256i)_mm512_cvtneps_pbh(some));
    }
    return _mm512_reduce_add_ps(total);
}

// A head's numbers at position t of a row, turned. Rows lie pages apart, which a processor does not foresee: those that come SOON
// are asked for.
#define SOON 6
INLINE PAIRS void turn_head(const uint16_t *head, long width, NewRow row, long t, long T, long Dh, uint16_t *to) {
    for (long k = 0; k < Dh && t + SOON < T; k += 32)
        _mm_prefetch((const char *)(head + (t + SOON) * width + k), _MM_HINT_T0);
    for (long k = 0; k < Dh; k += 16)
        stored(to, k, turned(head + t * width, row.cosine + t * Dh, row.sine + t * Dh, k, Dh, BF), BF);
}

// The outputs of one head for QUERIES positions from `from` on, or as many as there are. keys, values: of the head, as matrices.
PAIRS static void attend_queries(NewRow row, long from, long head, const uint16_t *keys, const uint16_t *values, AttentionSizes n,
                                 Desk at, Product *product) {
    long some = n.T - from < QUERIES ? n.T - from : QUERIES, width = (n.H + 2 * n.Hkv) * n.Dh, last = 0;
    for (long i = 0; i < some; i++) {
        turn_head(row.qkv + head * n.Dh, width, row, from + i, n.T, n.Dh, at.queries + i * n.Dh);
        last = row.entries[from + i] > last ? row.entries[from + i] : last;
    }
    memset(at.queries + some * n.Dh, 0, (QUERIES - some) * n.Dh * sizeof(uint16_t));
    long whole = up_to_whole(last + 1 < n.upto ? last + 1 : n.upto);
    for (long key = 0; key < whole; key += TILE)
        product(at.queries, n.Dh, keys + key * n.Dh, CELL, SIDE * n.Dh, n.Dh, at.scores + key, at.apart);
    float sums[QUERIES], means[QUERIES * TILE] __attribute__((aligned(64)));
    for (long i = 0; i < QUERIES; i++) {
        long seen = i < some ? row.entries[from + i] + 1 : 1;
        sums[i] = weighed(at.scores + i * at.apart, seen < n.upto ? seen : n.upto, whole, 1.0f / sqrtf((float)n.Dh),
                          at.weights + i * at.apart);
    }
    for (long part = 0; part < n.Dh; part += TILE) {
        product(at.weights, at.apart, values + part / SIDE * CELL, DEEP * n.Dh, CELL, whole, means, TILE);
        for (long i = 0; i < some; i++) {
            uint16_t *y = row.y + ((from + i) * n.H + head) * n.Dh + part;
            __m512 share = _mm512_set1_ps(1.0f / sums[i]);
            stored(y, 0, _mm512_mul_ps(share, _mm512_load_ps(means + i * TILE)), BF);
            stored(y, 16, _mm512_mul_ps(share, _mm512_load_ps(means + i * TILE + 16)), BF);
        }
    }
}

static NewRow new_row(const uint16_t *qkv, const uint16_t *cosine, const uint16_t *sine, const int64_t *entries, uint16_t *keys,
                      uint16_t *values, uint16_t *y, long row, AttentionSizes n) {
    long first = row * n.T, lane = row * n.Hkv * n.length * n.Dh;
    return (NewRow){qkv + first * (n.H + 2 * n.Hkv) * n.Dh,
                    cosine + first * n.Dh,
                    sine + first * n.Dh,
                    entries + first,
                    keys + lane,
                    values + lane,
                    y + first * n.H * n.Dh};
}

// A row's new keys and values of the heads that share them, kept; then all up to the last entry as matrices.
PAIRS static void keep_and_lay_out(NewRow row, long kv, AttentionSizes n, uint16_t *keys, uint16_t *values) {
    long width = (n.H + 2 * n.Hkv) * n.Dh, lane = kv * n.length * n.Dh, last = 0;
    const uint16_t *key = row.qkv + (n.H + kv) * n.Dh, *value = key + n.Hkv * n.Dh;
    for (long t = 0; t < n.T; t++) {
        long place = lane + row.entries[t] * n.Dh;
        turn_head(key, width, row, t, n.T, n.Dh, row.keys + place);
        memcpy(row.values + place, value + t * width, n.Dh * sizeof(uint16_t));
        last = row.entries[t] > last ? row.entries[t] : last;
    }
    // What lies behind is none of this row's.
    lay_out(row.keys + lane, row.values + lane, last + 1 < n.upto ? last + 1 : n.upto, n.Dh, keys, values);
}

// y [R, T, H * Dh] for the queries, keys and values of T new positions of each of R rows, [R, T, (H + 2 Hkv) * Dh], which are
// turned by cosine and sine [R, T, Dh] and kept at entries [R, T] of lanes [R, Hkv, length, Dh]; each looks at all entries up to
// its own, below upto. Dh is a multiple of 32.
PAIRS int attend_many(const uint16_t *qkv, const uint16_t *cosine, const uint16_t *sine, const int64_t *entries, uint16_t *keys,
                      uint16_t *values, uint16_t *y, long R, long T, long H, long Hkv, long Dh, long length, long upto) {
    AttentionSizes n = {T, H, Hkv, Dh, length, upto};
    Product *product = product_of_pairs;
#ifdef WITH_MATRICES
    if (matrices())
        product = product_of_matrices;
#endif
    long each = up_to_whole(upto) * Dh, blocks = (T + QUERIES - 1) / QUERIES;
    uint16_t *laid = aligned_alloc(64, (size_t)(2 * Hkv * each) * sizeof(uint16_t)); // of one row
    if (!laid)
        return -1;
    int failed = 0;
#pragma omp parallel if (T * H * Dh >= 1024)
    {
        Desk at = desk(n);
        if (!at.queries) {
#pragma omp atomic write
            failed = -1;
        }
#pragma omp barrier
        if (!failed) {
#ifdef WITH_MATRICES
            Units before = {0};
            if (matrices())
                before = units_taken(SIDE);
#endif
            // Neighbouring blocks share keys and values, which then stay in a thread's cache.
            long share = H * blocks / (8 * omp_get_num_threads());
            share = share < 1 ? 1 : share < blocks ? share : blocks;
            for (long r = 0; r < R; r++) {
                NewRow row = new_row(qkv, cosine, sine, entries, keys, values, y, r, n);
#pragma omp for schedule(static)
                for (long kv = 0; kv < Hkv; kv++)
                    keep_and_lay_out(row, kv, n, laid + 2 * kv * each, laid + (2 * kv + 1) * each);
#pragma omp for schedule(dynamic, share)
                for (long task = 0; task < H * blocks; task++) {
                    long head = task / blocks;
                    const uint16_t *own = laid + 2 * (head / (H / Hkv)) * each;
                    attend_queries(row, task % blocks * QUERIES, head, own, own + each, n, at, product);
                }
            }
#ifdef WITH_MATRICES
            if (matrices())
                units_given_back(before);
#endif
        }
        free(at.queries);
    }
    free(laid);
    return failed;
}
