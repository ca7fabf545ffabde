// Products of bfloat16 in pairs, on processors that make two at a time (AVX512_BF16). Numbers below float32's ordinary ones (1e-38) are
// zero to them, in what they are given and in what they add up, as to matrix units.

#pragma once

#include "numbers.h"

#define SIDE 16            // rows and columns of a matrix, whose rows are of 64 bytes: 32 bfloat16, 64 bytes, or 16 sums
#define DEEP 32            // bfloat16 of a row
#define CELL (SIDE * DEEP) // bfloat16 in a matrix

// y [32, 32] = a b, of 32 rows a and b laid out as matrices, 16 times 16 columns x 2 numbers: `deep` numbers, of a `apart` from row
// to row, of b `step` from matrix to matrix and `beside` to those of the other 16 columns; rows of y lie `along` apart.
typedef void Product(const uint16_t *a, long apart, const uint16_t *b, long step, long beside, long deep, float *y, long along);

#ifdef WITH_PAIRS
// out [rows, 32] += x w^T of `deep` inputs. x: rows, K numbers apart. left and right: 16 outputs x 2 inputs each, `next` numbers on
// the next two. ask: for weights that come later.
INLINE PAIRS void add_in_pairs(__m512 out[][2], const uint16_t *x, long K, long deep, int rows, const uint16_t *left,
                               const uint16_t *right, long next, int ask) {
    for (long k = 0; k < deep; k += 2, left += next, right += next) {
        if (ask) {
            prefetch(left);
            prefetch(right);
        }
        __m512bh first = (__m512bh)_mm512_loadu_si512(left), second = (__m512bh)_mm512_loadu_si512(right);
        for (int m = 0; m < rows; m++) {
            __m512bh input = (__m512bh)four(x + m * K + k);
            out[m][0] = _mm512_dpbf16_ps(out[m][0], first, input);
            out[m][1] = _mm512_dpbf16_ps(out[m][1], second, input);
        }
    }
}

// A Product.
PAIRS static void product_of_pairs(const uint16_t *a, long apart, const uint16_t *b, long step, long beside, long deep, float *y,
                                   long along) {
    enum { AT_A_TIME = 8 };
    for (int row = 0; row < 2 * SIDE; row += AT_A_TIME, a += AT_A_TIME * apart, y += AT_A_TIME * along) {
        __m512 out[AT_A_TIME][2];
        for (int m = 0; m < AT_A_TIME; m++)
            out[m][0] = out[m][1] = _mm512_setzero_ps();
        const uint16_t *matrix = b;
        for (long k = 0; k < deep; k += DEEP, matrix += step)
            add_in_pairs(out, a + k, apart, DEEP, AT_A_TIME, matrix, matrix + beside, 2 * SIDE, 0);
        for (int m = 0; m < AT_A_TIME; m++)
            for (int half = 0; half < 2; half++)
                _mm512_storeu_ps(y + m * along + 16 * half, out[m][half]);
    }
}
#endif
