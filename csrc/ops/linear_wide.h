/* The sums of a product with a packed weight in float64, whose range no product of float32 numbers leaves: for the few
 * outputs, usually none, where float32 overflows on the way, though the result may well be finite.
 *
 *      sum = sum + (acc * block scale of x) * scale of the weight      block by block, for each digit of x
 *
 * acc is exact, as in float32, and each operation is rounded to float64 once.
 */
#ifndef QK_OPS_LINEAR_WIDE_H
#define QK_OPS_LINEAR_WIDE_H

#include "ops/linear_rows.h"

enum { QK_WIDEST_PANEL = 255 }; /* nr is a byte */

/* sums[j], for j below the panel's nr columns: row `row` of x, its digits added up, by one panel, without the row's
 * scale. plain, aligned to 64 bytes, has room for a plain record. */
void qk_wide_sums(const qk_packed_weight *w, const uint8_t *packed, const qk_int8_rows *rows, size_t row, size_t panel,
                  uint8_t *plain, double *sums);

#endif
