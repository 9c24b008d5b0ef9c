/* 2^x, the same on every instruction set: 2^floor(x) times a minimax polynomial of the fraction in
 * [0, 1). The relative error is that of the degree; below 2^-126 the result is +0. */
#ifndef LS_CPU_EXP2_H
#define LS_CPU_EXP2_H

/* clang-format off */
#define EXP2_DEGREE_4 {0x1.00002cp+0f, 0x1.62d166p-1f, 0x1.ee798ap-3f, 0x1.aa13fp-5f, \
                       0x1.bb7cd4p-7f}                                   /* 2.6e-6: 16-bit types */
#define EXP2_DEGREE_5 {0x1.fffffep-1f, 0x1.62e4f6p-1f, 0x1.ebd5a8p-3f, 0x1.c95446p-5f, \
                       0x1.26900cp-7f, 0x1.ec320ap-10f}                          /* 7.5e-8: f32 */
#define EXP2_DEGREE_6 {0x1p+0f, 0x1.62e42ap-1f, 0x1.ebfd9ep-3f, 0x1.c685p-5f, 0x1.3d28p-7f, \
                       0x1.461954p-10f, 0x1.c72118p-13f}      /* 2e-9, 2^0 = 1: weights of merges */
/* clang-format on */

/* 2^fraction, |fraction| <= 1/2, to 1.2e-7; 2^0 = 1 */
#define EXP2_NEAR                                                                                  \
    {                                                                                              \
        1, 0x1.62e428p-1f, 0x1.ebf95ap-3f, 0x1.c6b76ap-5f, 0x1.3d1084p-7f, 0x1.5c18f6p-10f         \
    }

#define LOG2E 1.44269504088896341f
#define EXP2_LOWEST (-126.0f)

/* tanh x = x (sum of these x^2n) to 2e-8, where 1 - e^-2x would cancel */
#define TANH_SERIES                                                                                \
    {                                                                                              \
        1.0f, -1 / 3.0f, 2 / 15.0f, -17 / 315.0f, 62 / 2835.0f, -1382 / 155925.0f                  \
    }
#define TANH_TERMS 6
#define TANH_SERIES_END 0.35f

#endif
