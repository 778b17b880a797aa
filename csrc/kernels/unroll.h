/* Loops over the registers of a tile, unrolled by the preprocessor: QK_UNROLL4(i, n, body) is body for i = 0 ... n - 1,
 * n <= 4 (8, 16, 32).
 * Here i is a constant expression, so it may be the lane of an intrinsic; and an array indexed by it becomes
 * registers in every compiler, whereas a loop with an unroll pragma stays in memory where the compiler unrolls it
 * after it has split its arrays into registers (clang). Uses may be nested.
 */
#ifndef QK_UNROLL_H
#define QK_UNROLL_H

#define QK_UNROLL_ONE(i, value, n, ...)                                                                      \
    {                                                                                                        \
        enum { i = value };                                                                                  \
        if ((size_t)i < (size_t)(n)) {                                                                       \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }

#define QK_UNROLL4(i, n, ...)                                                                                \
    QK_UNROLL_ONE(i, 0, n, __VA_ARGS__)                                                                      \
    QK_UNROLL_ONE(i, 1, n, __VA_ARGS__)                                                                      \
    QK_UNROLL_ONE(i, 2, n, __VA_ARGS__)                                                                      \
    QK_UNROLL_ONE(i, 3, n, __VA_ARGS__)

#define QK_UNROLL8(i, n, ...)                                                                                \
    QK_UNROLL4(i, n, __VA_ARGS__)                                                                            \
    QK_UNROLL_ONE(i, 4, n, __VA_ARGS__)                                                                      \
    QK_UNROLL_ONE(i, 5, n, __VA_ARGS__)                                                                      \
    QK_UNROLL_ONE(i, 6, n, __VA_ARGS__)                                                                      \
    QK_UNROLL_ONE(i, 7, n, __VA_ARGS__)

#define QK_UNROLL16(i, n, ...)                                                                               \
    QK_UNROLL8(i, n, __VA_ARGS__)                                                                            \
    QK_UNROLL_ONE(i, 8, n, __VA_ARGS__)                                                                      \
    QK_UNROLL_ONE(i, 9, n, __VA_ARGS__)                                                                      \
    QK_UNROLL_ONE(i, 10, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 11, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 12, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 13, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 14, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 15, n, __VA_ARGS__)

#define QK_UNROLL32(i, n, ...)                                                                               \
    QK_UNROLL16(i, n, __VA_ARGS__)                                                                           \
    QK_UNROLL_ONE(i, 16, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 17, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 18, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 19, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 20, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 21, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 22, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 23, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 24, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 25, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 26, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 27, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 28, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 29, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 30, n, __VA_ARGS__)                                                                     \
    QK_UNROLL_ONE(i, 31, n, __VA_ARGS__)

#endif
