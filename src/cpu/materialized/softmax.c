/* What is between the two products of a strip: softmax and dropout of its rows, and the way back.
 * A row's values lie in its panels of 32 keys; sums over it are made leaf by leaf in 32 lanes, and
 * those of leaves in double. */
#include <math.h>
#include <string.h>

#include "cpu/elements.h"
#include "cpu/materialized/materialized.h"
#include "cpu/tanh.h"
#include "tensor/dtype.h"

#define SIDE LINEAR_SIDE
#define PANELS (LS_LEAF / SIDE)

/* ---- 32 keys of a row */

static ALWAYS_INLINE float *panel_of(const struct materialized_rows *t, int row, int64_t panel)
{
    return t->values + (panel * STRIP + row) * SIDE;
}

/* As it is stored; NaN stays NaN, as all of a row are, of no bits in particular. */
static ALWAYS_INLINE float rounded(float x, ls_dtype type)
{
    const uint32_t bits = bits_of_f32(x);

    return type == LS_F32 ? x : f32_of_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000);
}

/* Elements [i, i + n) of a row = x, rounded already; most panels have all, whose number the
 * compiler knows. */
static ALWAYS_INLINE void store_some(void *row, ls_dtype type, int64_t i, const float *x, int n)
{
    if (type == LS_F32) {
        memcpy((float *)row + i, x, (size_t)n * sizeof *x);
        return;
    }
    uint16_t out[SIDE];
#pragma omp simd
    for (int j = 0; j < SIDE; j++) out[j] = (uint16_t)(bits_of_f32(x[j]) >> 16);
    memcpy((uint16_t *)row + i, out, (size_t)n * sizeof *out);
}

static ALWAYS_INLINE void store_panel(void *row, ls_dtype type, int64_t i, const float *x, int n)
{
    if (n == SIDE)
        store_some(row, type, i, x, SIDE);
    else
        store_some(row, type, i, x, n);
}

/* x [SIDE], 0 behind the row's end. */
static ALWAYS_INLINE void load_panel(float *x, const void *row, ls_dtype type, int64_t i, int n)
{
    if (n < SIDE) {
        for (int j = 0; j < SIDE; j++) x[j] = j < n ? load_element(row, type, i + j) : 0;
    } else {
#pragma omp simd
        for (int j = 0; j < SIDE; j++) x[j] = load_element(row, type, i + j);
    }
}

/* out = x of what dropout keeps, else 0. */
static ALWAYS_INLINE void drop_panel(float *out, const float *x, const uint8_t *mask, float keep,
                                     int n)
{
    uint8_t kept[SIDE] = {0};

    if (n == SIDE)
        memcpy(kept, mask, SIDE);
    else
        memcpy(kept, mask, (size_t)n);
#pragma omp simd
    for (int j = 0; j < SIDE; j++)
        out[j] = f32_of_bits(bits_of_f32(x[j] * keep) & -(uint32_t)kept[j]);
}

static ALWAYS_INLINE int keys_of_panel(const struct materialized_rows *t, int64_t panel)
{
    return t->s - panel * SIDE < SIDE ? (int)(t->s - panel * SIDE) : SIDE;
}

static ALWAYS_INLINE double sum_of_lanes(const float lane[SIDE])
{
    double half[SIDE / 2];

    for (int j = 0; j < SIDE / 2; j++) half[j] = (double)lane[j] + (double)lane[j + SIDE / 2];
    for (int n = SIDE / 4; n > 0; n /= 2)
        for (int j = 0; j < n; j++) half[j] += half[j + n];
    return half[0];
}

static ALWAYS_INLINE void *row_at(const struct materialized_rows *t, void *first, int row,
                                  ls_dtype type)
{
    return (char *)first + row * t->s * (type == LS_F32 ? 4 : 2);
}

/* ---- forward */

/* Keys behind those that a row sees are as far below all others as can be. */
static ALWAYS_INLINE void hide(const struct materialized_rows *t, int row, int64_t seen)
{
    for (int64_t j = seen; j % SIDE != 0; j++) panel_of(t, row, j / SIDE)[j % SIDE] = -INFINITY;
}

static ALWAYS_INLINE float largest(const struct materialized_rows *t, int row, int64_t panels)
{
    float top[SIDE], all = -INFINITY;

    for (int j = 0; j < SIDE; j++) top[j] = -INFINITY;
    for (int64_t panel = 0; panel < panels; panel++) {
        const float *x = panel_of(t, row, panel);

#pragma omp simd
        for (int j = 0; j < SIDE; j++) top[j] = x[j] > top[j] ? x[j] : top[j];
    }
    for (int j = 0; j < SIDE; j++) all = top[j] > all ? top[j] : all;
    return all;
}

/* 2^x for x <= 0, 0 below 2^-126; NaN stays. */
static ALWAYS_INLINE float power_of_2(float x)
{
    static const float c[] = EXP2_NEAR;
    const float whole = x + 0x1.8p23f; /* rounds to a whole number, in its last bits */
    const float f = x - (whole - 0x1.8p23f), ff = f * f;
    const float value = (c[0] + c[1] * f) + ff * ((c[2] + c[3] * f) + ff * (c[4] + c[5] * f));
    const float power = f32_of_bits((bits_of_f32(whole) + 127) << 23);

    return f32_of_bits(choose_bits(x < EXP2_LOWEST, 0, bits_of_f32(value * power)));
}

/* Scores become exponentials; returns their sum. Equal factors give equal products: no exponent is
 * above 0. */
static ALWAYS_INLINE double take_exponentials(const struct materialized_rows *t, int row,
                                              int64_t panels)
{
    const float factor = t->scale * LOG2E, origin = factor * largest(t, row, panels);
    double all = 0;

    for (int64_t first = 0; first < panels; first += PANELS) {
        float sum[SIDE] = {0};

        for (int64_t panel = first; panel < panels && panel < first + PANELS; panel++) {
            float *x = panel_of(t, row, panel);

#pragma omp simd
            for (int j = 0; j < SIDE; j++) {
                x[j] = power_of_2(factor * x[j] - origin);
                sum[j] += x[j];
            }
        }
        all += sum_of_lanes(sum);
    }
    return all;
}

/* p [SIDE] becomes what dropout makes of it. */
static ALWAYS_INLINE void keep_dropped(const struct materialized_rows *t, int row, int64_t panel,
                                       float p[SIDE], ls_dtype type)
{
    const int n = keys_of_panel(t, panel);

    drop_panel(p, p, t->kept.mask + row * t->s + panel * SIDE, t->keep, n);
#pragma omp simd
    for (int j = 0; j < SIDE; j++) p[j] = rounded(p[j], type);
    store_panel(row_at(t, t->kept.dropped, row, type), type, panel * SIDE, p, n);
}

static ALWAYS_INLINE void keep_panels(const struct materialized_rows *t, int row, int64_t panels,
                                      float inverse, ls_dtype type)
{
    void *softmax = row_at(t, t->kept.softmax, row, type);

    for (int64_t panel = 0; panel < panels; panel++) {
        const float *x = panel_of(t, row, panel);
        float p[SIDE];

#pragma omp simd
        for (int j = 0; j < SIDE; j++) p[j] = rounded(x[j] * inverse, type);
        store_panel(softmax, type, panel * SIDE, p, keys_of_panel(t, panel));
        if (t->drawing) keep_dropped(t, row, panel, p, type);
    }
}

/* Elements [first, s) of a row become 0. */
static void clear_behind(void *row, size_t size, int64_t first, int64_t s)
{
    if (first < s) memset((char *)row + (size_t)first * size, 0, (size_t)(s - first) * size);
}

static ALWAYS_INLINE void softmax_row(const struct materialized_rows *t, int row, ls_dtype type)
{
    const int64_t seen = t->causal ? t->position + row + 1 : t->s, panels = linear_panels(seen);
    const size_t size = type == LS_F32 ? 4 : 2;

    hide(t, row, seen);
    const float inverse = (float)(1 / take_exponentials(t, row, panels));
    if (t->drawing) {
        uint8_t *mask = t->kept.mask + row * t->s;

        draw(mask, t->drawing, t->position + row, 0, (int)seen);
        clear_behind(mask, 1, seen, t->s);
        clear_behind(row_at(t, t->kept.dropped, row, type), size, panels * SIDE, t->s);
    }
    keep_panels(t, row, panels, inverse, type);
    clear_behind(row_at(t, t->kept.softmax, row, type), size, panels * SIDE, t->s);
}

LS_CLONED static void softmax_f32(const struct materialized_rows *t)
{
    for (int row = 0; row < t->rows; row++) softmax_row(t, row, LS_F32);
}

LS_CLONED static void softmax_bf16(const struct materialized_rows *t)
{
    for (int row = 0; row < t->rows; row++) softmax_row(t, row, LS_BF16);
}

void cpu_materialized_softmax(const struct materialized_rows *rows)
{
    (rows->type == LS_F32 ? softmax_f32 : softmax_bf16)(rows);
}

/* ---- backward */

/* Gradients of what was dropped become those of probabilities; returns the sum of both's products.
 */
static ALWAYS_INLINE double take_gradients(const struct materialized_rows *t, int row,
                                           int64_t panels, ls_dtype type)
{
    const void *softmax = row_at(t, t->kept.softmax, row, type);
    const uint8_t *mask = t->kept.mask ? t->kept.mask + row * t->s : NULL;
    double all = 0;

    for (int64_t first = 0; first < panels; first += PANELS) {
        float sum[SIDE] = {0};

        for (int64_t panel = first; panel < panels && panel < first + PANELS; panel++) {
            const int n = keys_of_panel(t, panel);
            float *x = panel_of(t, row, panel), p[SIDE];

            if (mask) drop_panel(x, x, mask + panel * SIDE, t->keep, n);
            load_panel(p, softmax, type, panel * SIDE, n);
#pragma omp simd
            for (int j = 0; j < SIDE; j++) sum[j] += p[j] * x[j];
        }
        all += sum_of_lanes(sum);
    }
    return all;
}

static ALWAYS_INLINE void slopes_of_row(const struct materialized_rows *t, int row, ls_dtype type)
{
    const int64_t panels = linear_panels(t->keys);
    const void *softmax = row_at(t, t->kept.softmax, row, type);
    void *ds = row_at(t, t->ds, row, type);
    const float delta = (float)take_gradients(t, row, panels, type);

    for (int64_t panel = 0; panel < panels; panel++) {
        const float *x = panel_of(t, row, panel);
        const int n = keys_of_panel(t, panel);
        float p[SIDE];

        load_panel(p, softmax, type, panel * SIDE, n);
#pragma omp simd
        for (int j = 0; j < SIDE; j++) p[j] = rounded(p[j] * (x[j] - delta) * t->scale, type);
        store_panel(ds, type, panel * SIDE, p, n);
    }
}

LS_CLONED static void slopes_f32(const struct materialized_rows *t)
{
    for (int row = 0; row < t->rows; row++) slopes_of_row(t, row, LS_F32);
}

LS_CLONED static void slopes_bf16(const struct materialized_rows *t)
{
    for (int row = 0; row < t->rows; row++) slopes_of_row(t, row, LS_BF16);
}

void cpu_materialized_slopes(const struct materialized_rows *rows)
{
    (rows->type == LS_F32 ? slopes_f32 : slopes_bf16)(rows);
}
