// What a step of few rows is made of, on x86 processors with AVX-512: above all linear layers, y [M, N] = x [M, K] w^T, as fast as
// memory gives the weights.
//
// Weights lie in tiles of 32 outputs, each tile one stream that a thread reads from front to back, once for a few rows:
//
//   bf16   K / 2 times  32 outputs x 2 inputs  bfloat16; or the same in three quarters of the bytes (compact.h)
//   int8   K / 4 times  32 outputs x 4 inputs  uint8
//   int4   K / 32 times 16 outputs x 4 inputs  8 times: a byte holds that of output i in its low half, of i + 16 in its high one;
//                       then 32 scales and 32 zeros, bfloat16
//
// A row's result depends on no other row: every row adds up the same numbers in the same order, however many run together. One
// thing depends on how many: where there are matrix units, int4 takes MANY rows and more as bfloat16, and fewer as bytes; int8
// takes them as bytes, of which then more share a scale.
// All pointers are to contiguous memory; K is a multiple of 32, N of 32. Functions that return a number return 0, or -1 for
// want of memory.

#define _DEFAULT_SOURCE // madvise
#include <stdlib.h>
#ifdef __linux__
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "making.h"
#include "numbers.h"
#include "pairs.h"

#ifdef WITH_PAIRS
#include "attention.h"
#endif
#ifdef WITH_MATRICES
#include "matrices.h"
#endif

// To be raised with any change of what the functions take or mean, here and in decode.py.
int version(void) { return 8; }

// Bits: 2, the processor has AVX-512, so bf16 runs; 1, it also multiplies bytes (VNNI), so all runs. See `matrices` and `pairs` too.
int supported(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("avx512dq"))
        return 0;
    return __builtin_cpu_supports("avx512vnni") ? 3 : 2;
}

// Whether products run on matrix units. A process has to ask its system for them, once.
int matrices(void) {
    static int known = -1;
#ifdef WITH_MATRICES
    if (known < 0) {
        unsigned a = 7, b, c = 0, d;
        __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        int units = (d >> 22 & 1) && (d >> 24 & 1) && (d >> 25 & 1); // AMX-BF16, AMX-TILE, AMX-INT8
        int there = supported() == 3 && __builtin_cpu_supports("avx512bf16") && units;
        known = there && syscall(SYS_arch_prctl, 0x1023, 18) == 0; // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    }
#endif
    return known > 0;
}

// Whether bfloat16 are multiplied in pairs: AMD's processors make two such products in the time of one of float32. Intel's without
// matrix units take longer for them.
int pairs(void) {
#ifdef WITH_PAIRS
    static int known = -1;
    if (known < 0)
        known = supported() == 3 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_is("amd");
    return known;
#else
    return 0;
#endif
}

// Ask for large pages under memory that nothing was written to yet: reading weights through small ones looks up an address every
// few hundred cycles. A system that has none to give leaves all as it is.
void in_large_pages(void *memory, long bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const uintptr_t page = 1 << 21;
    uintptr_t first = ((uintptr_t)memory + page - 1) & ~(page - 1), end = ((uintptr_t)memory + (uintptr_t)bytes) & ~(page - 1);
    if (end > first)
        madvise((void *)first, end - first, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}

// SOME(first, count) for all of M rows, few at a time: MANY as long as there are so many (a constant above 4, as there are registers
// for; or 4), four, and what is left.
#define IN_BLOCKS(MANY, SOME)                                                                                                      \
    do {                                                                                                                           \
        long m = 0;                                                                                                                \
        for (; MANY > 4 && m + MANY <= M; m += MANY)                                                                               \
            SOME(m, MANY);                                                                                                         \
        for (; m + 4 <= M; m += 4)                                                                                                 \
            SOME(m, 4);                                                                                                            \
        if (M - m == 3)                                                                                                            \
            SOME(m, 3);                                                                                                            \
        else if (M - m == 2)                                                                                                       \
            SOME(m, 2);                                                                                                            \
        else if (M - m == 1)                                                                                                       \
            SOME(m, 1);                                                                                                            \
    } while (0)

// -- rows of x as bytes ----------------------------------------------------------------

// Memory for M rows, each GROUP inputs of one scale, in one piece that begins at .scale; .scale is NULL if there is none.
static Grouped grouped(long M, long K) {
    long groups = M * (K / GROUP);
    Grouped rows = {.scale = malloc(M * K + groups * (sizeof(float) + sizeof(int32_t)))};
    rows.sum = (int32_t *)(rows.scale + groups);
    rows.bytes = (int8_t *)(rows.sum + groups);
    return rows;
}

// All rows through the outputs of one tile. The first of them ask for weights that come later, for all others too.
typedef void Rows(Weights w, Grouped x, long tile, long M, void *y, int format);

static int linear_of_bytes(Rows *through, Weights w, const void *x, void *y, long M, int format) {
    const long N = w.N, K = w.K;
    Grouped rows = grouped(M, K);
    if (!rows.scale)
        return -1;
#pragma omp parallel if (N * K >= SMALL)
    {
#pragma omp for schedule(static)
        for (long m = 0; m < M; m++)
            group_row(x, m, K, format, GROUP, further(rows, m * K, m * K / GROUP), 64);
#pragma omp for schedule(static)
        for (long tile = 0; tile < N / TILE; tile++)
            through(w, rows, tile, M, y, format);
    }
    free(rows.scale);
    return 0;
}

// -- int4 ------------------------------------------------------------------------------

// ask: for weights that come later.
INLINE BYTES void int4_tile(const uint8_t *w, Grouped x, long row, long K, int rows, int ask, void *y, long at, long N,
                            int format) {
    const __m512i low_half = _mm512_set1_epi8(0x0f);
    long groups = K / GROUP;
    __m512 out[8][2];
    for (int m = 0; m < rows; m++)
        out[m][0] = out[m][1] = _mm512_setzero_ps();
    for (long g = 0; g < groups; g++, w += GROUP_BYTES) {
        __m512i dot[8][2];
        for (int m = 0; m < rows; m++)
            dot[m][0] = dot[m][1] = _mm512_set1_epi32(-8 * x.sum[(row + m) * groups + g]);
        for (int i = 0; i < 8; i++) {
            if (ask)
                prefetch(w + 64 * i);
            __m512i pairs = _mm512_loadu_si512(w + 64 * i);
            __m512i low = _mm512_and_si512(pairs, low_half), high = _mm512_and_si512(_mm512_srli_epi16(pairs, 4), low_half);
            for (int m = 0; m < rows; m++) {
                __m512i input = four(x.bytes + (row + m) * K + g * GROUP + 4 * i);
                dot[m][0] = _mm512_dpbusd_epi32(dot[m][0], low, input);
                dot[m][1] = _mm512_dpbusd_epi32(dot[m][1], high, input);
            }
        }
        if (ask) {
            prefetch(w + 512);
            prefetch(w + 576);
        }
        const uint16_t *scales = (const uint16_t *)(w + 8 * 64), *zeros = scales + TILE;
        for (int half = 0; half < 2; half++) {
            __m512 scale = widened(scales + 16 * half), zero = widened(zeros + 16 * half);
            for (int m = 0; m < rows; m++) {
                long place = (row + m) * groups + g;
                __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(x.scale[place]));
                out[m][half] = _mm512_fmadd_ps(both, _mm512_cvtepi32_ps(dot[m][half]), out[m][half]);
                __m512 sum = _mm512_set1_ps(x.scale[place] * (float)x.sum[place]);
                out[m][half] = _mm512_fmadd_ps(zero, sum, out[m][half]);
            }
        }
    }
    for (int m = 0; m < rows; m++)
        for (int half = 0; half < 2; half++)
            stored(y, (row + m) * N + at + 16 * half, out[m][half], format);
}

// w = (number - 8) * scale + zero.
BYTES static void int4_rows(Weights w, Grouped x, long tile, long M, void *y, int format) {
    const uint8_t *weights = (const uint8_t *)w.w + tile * (w.K / GROUP) * GROUP_BYTES;
#define INT4(m, count) int4_tile(weights, x, m, w.K, count, m == 0, y, tile * TILE, w.N, format)
    IN_BLOCKS(4, INT4);
}

// -- int8 ------------------------------------------------------------------------------

INLINE BYTES void int8_tile(const uint8_t *w, const float *scales, Grouped x, long row, long K, int rows, int ask, void *y, long at,
                            long N, int format) {
    long groups = K / GROUP;
    __m512 out[8][2];
    for (int m = 0; m < rows; m++)
        out[m][0] = out[m][1] = _mm512_setzero_ps();
    for (long g = 0; g < groups; g++) {
        __m512i dot[8][2];
        for (int m = 0; m < rows; m++)
            // 128 stands for 0 in w, whose bytes have no sign.
            dot[m][0] = dot[m][1] = _mm512_set1_epi32(-128 * x.sum[(row + m) * groups + g]);
        for (int i = 0; i < 8; i++, w += 4 * TILE) {
            if (ask) {
                prefetch(w);
                prefetch(w + 64);
            }
            __m512i first = _mm512_loadu_si512(w), second = _mm512_loadu_si512(w + 64);
            for (int m = 0; m < rows; m++) {
                __m512i input = four(x.bytes + (row + m) * K + g * GROUP + 4 * i);
                dot[m][0] = _mm512_dpbusd_epi32(dot[m][0], first, input);
                dot[m][1] = _mm512_dpbusd_epi32(dot[m][1], second, input);
            }
        }
        for (int m = 0; m < rows; m++) {
            __m512 scale = _mm512_set1_ps(x.scale[(row + m) * groups + g]);
            for (int half = 0; half < 2; half++)
                out[m][half] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(dot[m][half]), out[m][half]);
        }
    }
    for (int m = 0; m < rows; m++)
        for (int half = 0; half < 2; half++) {
            __m512 scale = _mm512_loadu_ps(scales + at + 16 * half);
            stored(y, (row + m) * N + at + 16 * half, _mm512_mul_ps(out[m][half], scale), format);
        }
}

// w = (number - 128) * scale, of which there is one an output.
BYTES static void int8_rows(Weights w, Grouped x, long tile, long M, void *y, int format) {
    const uint8_t *weights = (const uint8_t *)w.w + tile * TILE * w.K;
#define INT8(m, count) int8_tile(weights, w.scales, x, m, w.K, count, m == 0, y, tile * TILE, w.N, format)
    IN_BLOCKS(6, INT8);
}

// -- norm ------------------------------------------------------------------------------

// y [M, K] = weight * (x / root mean square of its row), the quotient rounded to their numbers first.
BYTES void rms_norm(const void *x, const void *weight, void *y, long M, long K, float eps, int format) {
#pragma omp parallel for schedule(static) if (M * K >= SMALL)
    for (long row = 0; row < M; row++) {
        __m512 squares = _mm512_setzero_ps();
        for (long k = 0; k < K; k += 16) {
            __m512 some = loaded(x, row * K + k, format);
            squares = _mm512_fmadd_ps(some, some, squares);
        }
        __m512 by = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)K + eps));
        for (long k = 0; k < K; k += 16) {
            __m512 unit = _mm512_mul_ps(loaded(x, row * K + k, format), by);
            if (format == BF)
                unit = rounded_bf16(unit);
            stored(y, row * K + k, _mm512_mul_ps(unit, loaded(weight, k, format)), format);
        }
    }
}

// -- gate ------------------------------------------------------------------------------

// y [M, N] = silu(left half of x) * right half, x [M, 2 N]; silu is rounded to their numbers first.
BYTES void swiglu(const void *x, void *y, long M, long N, int format) {
    const __m512 one = _mm512_set1_ps(1.0f);
#pragma omp parallel for schedule(static) if (M * N >= SMALL)
    for (long row = 0; row < M; row++)
        for (long k = 0; k < N; k += 16) {
            __m512 gate = loaded(x, 2 * row * N + k, format);
            __m512 silu = _mm512_div_ps(gate, _mm512_add_ps(one, exponential(_mm512_sub_ps(_mm512_setzero_ps(), gate))));
            if (format == BF)
                silu = rounded_bf16(silu);
            stored(y, row * N + k, _mm512_mul_ps(silu, loaded(x, (2 * row + 1) * N + k, format)), format);
        }
}

// -- attention of one position a row ---------------------------------------------------

// Where the keys and values of a row's heads lie: [Hkv, length, Dh] each, of a lane of the cache.
typedef struct {
    void *keys, *values;
    long length;
} Lane;

// y [Dh]: the mean of `count` values, weighted by the softmax of their keys' products with the query. parts = Dh / 16.
INLINE BYTES void attend_head(const __m512 *query, const void *keys, const void *values, long count, int parts, void *y,
                              int format) {
    float weights[(count + 15) / 16 * 16];
    float largest = -INFINITY;
    for (long i = 0; i < count; i++) {
        __m512 sum = _mm512_setzero_ps();
        for (int part = 0; part < parts; part++)
            sum = _mm512_fmadd_ps(query[part], loaded(keys, (i * parts + part) * 16, format), sum);
        weights[i] = _mm512_reduce_add_ps(sum);
        largest = weights[i] > largest ? weights[i] : largest;
    }
    __m512 total = _mm512_setzero_ps(), out[16];
    for (long i = 0; i < count; i += 16) {
        __mmask16 there = first_lanes(count - i);
        __m512 some = exponential(_mm512_sub_ps(_mm512_maskz_loadu_ps(there, weights + i), _mm512_set1_ps(largest)));
        some = _mm512_maskz_mov_ps(there, some);
        _mm512_storeu_ps(weights + i, some);
        total = _mm512_add_ps(total, some);
    }
    for (int part = 0; part < parts; part++)
        out[part] = _mm512_setzero_ps();
    for (long i = 0; i < count; i++) {
        __m512 weight = _mm512_set1_ps(weights[i]);
        for (int part = 0; part < parts; part++)
            out[part] = _mm512_fmadd_ps(weight, loaded(values, (i * parts + part) * 16, format), out[part]);
    }
    __m512 share = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(total));
    for (int part = 0; part < parts; part++)
        stored(y, part * 16, _mm512_mul_ps(out[part], share), format);
}

INLINE BYTES void attend_group(const char *row, const char *cosine, const char *sine, Lane lane, long entry, long upto, long kv,
                               long H, long Hkv, int parts, char *y, int format) {
    long Dh = parts * 16, size = format == BF ? 2 : 4, each = H / Hkv, head = Dh * size;
    char *keys = (char *)lane.keys + kv * lane.length * head, *values = (char *)lane.values + kv * lane.length * head;
    for (int part = 0; part < parts; part++)
        stored(keys + entry * head, part * 16, turned(row + (H + kv) * head, cosine, sine, part * 16, Dh, format), format);
    memcpy(values + entry * head, row + (H + Hkv + kv) * head, head);
    __m512 scale = _mm512_set1_ps(1.0f / sqrtf((float)Dh));
    for (long h = kv * each; h < (kv + 1) * each; h++) {
        __m512 query[16];
        for (int part = 0; part < parts; part++)
            query[part] = _mm512_mul_ps(scale, turned(row + h * head, cosine, sine, part * 16, Dh, format));
        attend_head(query, keys, values, entry < upto ? entry + 1 : upto, parts, y + h * head, format);
    }
}

// y [R, H * Dh] for the queries, keys and values of a new position of each of R rows, [R, (H + 2 Hkv) * Dh], which is turned by
// cosine and sine [R, Dh] and kept at entries [R] of lanes [R, Hkv, length, Dh]; it looks at all entries up to its own, below upto.
BYTES void attend_one(const char *qkv, const char *cosine, const char *sine, const int64_t *entries, char *keys, char *values,
                      char *y, long R, long H, long Hkv, long Dh, long length, long upto, int format) {
    long size = format == BF ? 2 : 4, lane_bytes = Hkv * length * Dh * size;
#pragma omp parallel for schedule(static) if (R * H * Dh >= 1024)
    for (long task = 0; task < R * Hkv; task++) {
        long row = task / Hkv, kv = task % Hkv;
        Lane lane = {keys + row * lane_bytes, values + row * lane_bytes, length};
        const char *input = qkv + row * (H + 2 * Hkv) * Dh * size;
        const char *cos = cosine + row * Dh * size, *sin = sine + row * Dh * size;
        char *output = y + row * H * Dh * size;
        switch (Dh) {
        case 128:
            attend_group(input, cos, sin, lane, entries[row], upto, kv, H, Hkv, 8, output, format);
            break;
        case 64:
            attend_group(input, cos, sin, lane, entries[row], upto, kv, H, Hkv, 4, output, format);
            break;
        default:
            attend_group(input, cos, sin, lane, entries[row], upto, kv, H, Hkv, (int)(Dh / 16), output, format);
        }
    }
}

// -- bf16 ------------------------------------------------------------------------------

#define ROWS 12        // that are added up at a time, if there are so many: two registers each
#define NEAR (1 << 20) // bytes of x that stay in a cache beside a tile
#define PASS 240       // rows through a tile at a time at most, which are added up in memory
#define SOON_MADE 64   // inputs of weights that are made at a time for no more rows than those: reading goes on beside them

// sums [M, 32] += x w^T of `deep` inputs of a tile, or = of the first ones. x: rows, K numbers apart. ask: for weights that come
// later, which the first rows do for all.
typedef void Adding(const uint16_t *w, const void *x, long K, long deep, long M, int first, int ask, float *sums);

INLINE FLOATS void take_up(__m512 out[][2], const float *sums, int rows, int first) {
    for (int m = 0; m < rows; m++)
        for (int half = 0; half < 2; half++)
            out[m][half] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + m * TILE + 16 * half);
}

INLINE FLOATS void put_down(__m512 out[][2], float *sums, int rows) {
    for (int m = 0; m < rows; m++)
        for (int half = 0; half < 2; half++)
            _mm512_storeu_ps(sums + m * TILE + 16 * half, out[m][half]);
}

// Two bfloat16 a lane, the first ones or the second ones, as float32.
INLINE FLOATS __m512 firsts(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
INLINE FLOATS __m512 seconds(__m512i pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000)));
}

INLINE FLOATS void add_some_floats(const uint16_t *w, const float *x, long K, long deep, int rows, int first, int ask,
                                   float *sums) {
    __m512 out[ROWS][2];
    take_up(out, sums, rows, first);
    for (long k = 0; k < deep; k += 2, w += 2 * TILE) {
        if (ask) {
            prefetch(w);
            prefetch((const char *)w + 64);
        }
        __m512i left = _mm512_loadu_si512(w), right = _mm512_loadu_si512(w + 32);
        for (int m = 0; m < rows; m++) {
            __m512 input = _mm512_set1_ps(x[m * K + k]);
            out[m][0] = _mm512_fmadd_ps(firsts(left), input, out[m][0]);
            out[m][1] = _mm512_fmadd_ps(firsts(right), input, out[m][1]);
        }
        for (int m = 0; m < rows; m++) {
            __m512 input = _mm512_set1_ps(x[m * K + k + 1]);
            out[m][0] = _mm512_fmadd_ps(seconds(left), input, out[m][0]);
            out[m][1] = _mm512_fmadd_ps(seconds(right), input, out[m][1]);
        }
    }
    put_down(out, sums, rows);
}

// Multiplied as float32, which is exact.
FLOATS static void add_floats(const uint16_t *w, const void *x, long K, long deep, long M, int first, int ask, float *sums) {
#define ADD_FLOATS(m, count)                                                                                                       \
    add_some_floats(w, (const float *)x + (m) * K, K, deep, count, first, ask && (m) == 0, sums + (m) * TILE)
    IN_BLOCKS(ROWS, ADD_FLOATS);
}

#ifdef WITH_PAIRS
INLINE PAIRS void add_some_pairs(const uint16_t *w, const uint16_t *x, long K, long deep, int rows, int first, int ask,
                                 float *sums) {
    __m512 out[ROWS][2];
    take_up(out, sums, rows, first);
    add_in_pairs(out, x, K, deep, rows, w, w + 2 * SIDE, 2 * TILE, ask);
    put_down(out, sums, rows);
}

// Multiplied in pairs (pairs.h).
PAIRS static void add_pairs(const uint16_t *w, const void *x, long K, long deep, long M, int first, int ask, float *sums) {
#define ADD_PAIRS(m, count)                                                                                                        \
    add_some_pairs(w, (const uint16_t *)x + (m) * K, K, deep, count, first, ask && (m) == 0, sums + (m) * TILE)
    IN_BLOCKS(ROWS, ADD_PAIRS);
}
#endif

// M rows through one tile, a few inputs at a time, whose weights stay in the nearest cache. size: bytes of a number of x.
FLOATS static void bf16_rows(Adding *add, Weights w, long tile, const char *x, long size, long M, uint16_t *y) {
    float sums[PASS * TILE];
    uint16_t made[STAYS * TILE];
    const uint16_t *lie = (const uint16_t *)w.w + tile * w.K * TILE; // if they lie so
    Making making = w.held == AS_BF16 ? (Making){0} : making_of(w, tile);
    const long most = w.held == AS_BF16 || M > ROWS ? STAYS : SOON_MADE;
    for (long k = 0; k < w.K; k += most) {
        long deep = w.K - k < most ? w.K - k : most;
        const uint16_t *weights = w.held == AS_BF16 ? lie + k * TILE : made;
        if (w.held != AS_BF16)
            make_bf16(&making, deep, made);
        add(weights, x + k * size, w.K, deep, M, k == 0, weights != made, sums);
    }
    for (long m = 0; m < M; m++)
        for (int half = 0; half < 2; half++)
            stored(y, m * w.N + tile * TILE + 16 * half, _mm512_loadu_ps(sums + m * TILE + 16 * half), BF);
}

static void bf16_tiles(Adding *add, Weights w, const char *x, long size, uint16_t *y, long rows) {
    // Of many rows, as many at a time through all tiles as stay near.
    long near = NEAR / size / w.K / ROWS * ROWS;
    near = near < ROWS ? ROWS : near < PASS ? near : PASS;
    for (long from = 0; from < rows; from += near) {
        long M = rows - from < near ? rows - from : near;
#pragma omp for schedule(static)
        for (long tile = 0; tile < w.N / TILE; tile++)
            bf16_rows(add, w, tile, x + from * w.K * size, size, M, y + from * w.N);
    }
}

FLOATS static int linear_of_bf16(Weights w, const uint16_t *x, uint16_t *y, long rows) {
    const long N = w.N, K = w.K;
#ifdef WITH_PAIRS
    if (pairs()) {
#pragma omp parallel if (N * K >= SMALL)
        bf16_tiles(add_pairs, w, (const char *)x, sizeof(uint16_t), y, rows);
        return 0;
    }
#endif
    float *wide = malloc((size_t)rows * (size_t)K * sizeof(float));
    if (!wide)
        return -1;
#pragma omp parallel if (N * K >= SMALL)
    {
#pragma omp for schedule(static)
        for (long row = 0; row < rows; row++)
            for (long k = 0; k < K; k += 16)
                _mm512_storeu_ps(wide + row * K + k, widened(x + row * K + k));
        bf16_tiles(add_floats, w, (const char *)wide, sizeof(float), y, rows);
    }
    free(wide);
    return 0;
}

// -- any of them ------------------------------------------------------------------------

// y [M, N] of x [M, K], of that format; weights in bfloat16 want x in bfloat16, sums are float32. Matrix units take a prompt's rows,
// or a flow's, sooner than others do.
int linear(const Weights *w, const void *x, void *y, long M, int format) {
    int bf16 = w->held == AS_BF16 || w->held == AS_COMPACT;
    if (!M)
        return 0;
#ifdef WITH_MATRICES
    if (format == BF && matrices() && (bf16 || M >= MANY)) {
        if (w->held != AS_INT8)
            return linear_of_matrices(*w, x, y, M);
        if (w->K % BYTES_DEEP == 0)
            return linear_of_byte_matrices(*w, x, y, M, format);
    }
#endif
    if (bf16)
        return linear_of_bf16(*w, x, y, M);
    return linear_of_bytes(w->held == AS_INT8 ? int8_rows : int4_rows, *w, x, y, M, format);
}

// -- a new position of each row through all blocks -------------------------------------

typedef struct {
    const void *input_norm, *post_norm;
    Weights qkv, o, gate_up, down;
} Block;

// x [M, K] += y.
BYTES static void add(void *x, const void *y, long M, long K, int format) {
    for (long k = 0; k < M * K; k += 16)
        stored(x, k, _mm512_add_ps(loaded(x, k, format), loaded(y, k, format)), format);
}

// x [R, D] through `count` blocks, in place: what the functions above do one by one. keys and values: [count, lanes, Hkv, length, Dh]
// of a cache, from the first of R neighbouring lanes on; the rest as for attend_one. Weights in bfloat16 want x in bfloat16.
int run_blocks(const Block *blocks, long count, void *x, const char *cosine, const char *sine, const int64_t *entries, char *keys,
               char *values, long R, long D, long H, long Hkv, long Dh, long lanes, long length, long upto, float eps, int format) {
    long size = format == BF ? 2 : 4, layer = lanes * Hkv * length * Dh * size;
    long widest = D;
    for (long i = 0; i < count; i++) {
        widest = blocks[i].qkv.N > widest ? blocks[i].qkv.N : widest;
        widest = blocks[i].gate_up.N > widest ? blocks[i].gate_up.N : widest;
    }
    char *memory = malloc(3 * R * widest * size);
    if (!memory)
        return -1;
    char *narrow = memory, *wide = memory + R * widest * size, *inner = memory + 2 * R * widest * size;
    int failed = 0;
    for (long i = 0; i < count && !failed; i++) {
        const Block *b = blocks + i;
        rms_norm(x, b->input_norm, narrow, R, D, eps, format);
        failed |= linear(&b->qkv, narrow, wide, R, format);
        attend_one(wide, cosine, sine, entries, keys + i * layer, values + i * layer, inner, R, H, Hkv, Dh, length, upto, format);
        failed |= linear(&b->o, inner, narrow, R, format);
        add(x, narrow, R, D, format);
        rms_norm(x, b->post_norm, narrow, R, D, eps, format);
        failed |= linear(&b->gate_up, narrow, wide, R, format);
        swiglu(wide, inner, R, b->gate_up.N / 2, format);
        failed |= linear(&b->down, inner, narrow, R, format);
        add(x, narrow, R, D, format);
    }
    free(memory);
    return failed;
}
