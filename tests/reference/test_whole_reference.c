#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/random.h"
#include "base/status.h"
#include "reference/attention.h"
#include "tensor/dtype.h"

/* A whole small problem: 2 batches, 4 heads over 2 key/value heads, in the given type and order. */
enum { B = 2, H = 4, H_KV = 2, S_Q = 5, S_K = 7, HEAD = 6 };

struct whole {
    struct ls_tensor q, k, v, o, lse;
    double q_data[B * S_Q * H * HEAD], k_data[B * S_K * H_KV * HEAD], v_data[B * S_K * H_KV * HEAD];
    double o_data[B * S_Q * H * HEAD], lse_data[B * H * S_Q];
};

/* [B, s, h, HEAD] random numbers of the given type; stored as [B, h, s, HEAD] if swapped. */
static struct ls_tensor random_tensor(double *data, ls_dtype type, int64_t s, int64_t h,
                                      bool swapped, uint32_t stream)
{
    struct ls_tensor t = ls_tensor_view(data, type, 4, (const int64_t[]){B, s, h, HEAD});

    if (swapped) {
        t.stride[1] = HEAD;
        t.stride[2] = s * HEAD;
    }
    for (int64_t i = 0; i < B * s * h * HEAD; i++) {
        const int64_t b = i / (s * h * HEAD), at_s = i / (h * HEAD) % s, at_h = i / HEAD % h;
        const int64_t to = b * t.stride[0] + at_s * t.stride[1] + at_h * t.stride[2] + i % HEAD;
        float x;

        ls_random_normal(&x, 3, stream, (uint64_t)i, 1);
        ls_dtype_store(type, (char *)data + to * ls_dtype_size(type), x);
    }
    return t;
}

static void setup(struct whole *w, ls_dtype type, bool swapped)
{
    w->q = random_tensor(w->q_data, type, S_Q, H, swapped, 0);
    w->k = random_tensor(w->k_data, type, S_K, H_KV, swapped, 1);
    w->v = random_tensor(w->v_data, type, S_K, H_KV, swapped, 2);
    w->o = ls_tensor_view(w->o_data, LS_F64, 4, (const int64_t[]){B, S_Q, H, HEAD});
    w->lse = ls_tensor_view(w->lse_data, LS_F64, 3, (const int64_t[]){B, H, S_Q});
}

static double element(const struct ls_tensor *t, int b, int s, int h, int e)
{
    const int64_t at = b * t->stride[0] + s * t->stride[1] + h * t->stride[2] + e * t->stride[3];

    return ls_dtype_load(t->type, (const char *)t->data + at * ls_dtype_size(t->type));
}

static void expect_plain_formula(const struct whole *w, bool causal, double scale, const char *what)
{
    for (int n = 0; n < B * H * S_Q; n++) {
        const int b = n / (H * S_Q), h = n / S_Q % H, i = n % S_Q, kv = h / (H / H_KV);
        const int visible = causal ? i + S_K - S_Q + 1 : S_K;
        double l = 0, o[HEAD] = {0};

        for (int j = 0; j < visible; j++) {
            double dot = 0;

            for (int e = 0; e < HEAD; e++)
                dot += element(&w->q, b, i, h, e) * element(&w->k, b, j, kv, e);
            l += exp(scale * dot);
            for (int e = 0; e < HEAD; e++) o[e] += exp(scale * dot) * element(&w->v, b, j, kv, e);
        }
        for (int e = 0; e < HEAD; e++)
            cr_expect_float_eq(w->o_data[((b * S_Q + i) * H + h) * HEAD + e], o[e] / l, 1e-13,
                               "%s: o of batch %d, query %d, head %d", what, b, i, h);
        cr_expect_float_eq(w->lse_data[n], log(l), 1e-13, "%s: lse %d", what, n);
    }
}

Test(whole_reference, equals_the_plain_formula_for_any_type_order_and_mask)
{
    for (int c = 0; c < 4 * 2 * 2; c++) {
        const ls_dtype type = c / 4;
        const bool swapped = c & 1, causal = c & 2;
        struct whole w;
        char what[64];

        snprintf(what, sizeof what, "%s%s%s", ls_dtype_name(type), swapped ? " swapped" : "",
                 causal ? " causal" : "");
        setup(&w, type, swapped);
        cr_assert_eq(ls_reference_attention(&w.o, &w.lse, &w.q, &w.k, &w.v, causal, 0.4), LS_OK);
        expect_plain_formula(&w, causal, 0.4, what);
    }
}

Test(whole_reference, more_queries_than_keys_leave_the_first_rows_empty)
{
    struct whole w;

    setup(&w, LS_F64, false);
    w.k.dim[1] = w.v.dim[1] = 3;
    cr_assert_eq(ls_reference_attention(&w.o, &w.lse, &w.q, &w.k, &w.v, true, 1), LS_OK);
    for (int i = 0; i < S_Q; i++) {
        cr_expect_eq(w.lse_data[i] == -INFINITY, i < S_Q - 3, "query %d", i);
        cr_expect_eq(w.o_data[i * H * HEAD] == 0, i < S_Q - 3, "query %d", i);
    }
    w.k.dim[1] = w.v.dim[1] = 0;
    cr_assert_eq(ls_reference_attention(&w.o, &w.lse, &w.q, &w.k, &w.v, false, 1), LS_OK);
    for (int n = 0; n < B * H * S_Q; n++) cr_expect_eq(w.lse_data[n], -INFINITY);
}

Test(whole_reference, refuses_what_does_not_fit)
{
    static const struct {
        int64_t q[4], k[4], v[4], lse_rows;
        ls_dtype o_type;
        ls_status status;
        const char *message;
    } cases[] = {
        {{2, 5, 4, 6}, {2, 7, 2, 5}, {2, 7, 2, 5}, 5, LS_F64, LS_ESHAPE, "q has 6, k has 5"},
        {{2, 5, 4, 257}, {2, 7, 2, 257}, {2, 7, 2, 257}, 5, LS_F64, LS_ESHAPE, "1 to 256"},
        {{2, 5, 4, 6}, {2, 7, 3, 6}, {2, 7, 3, 6}, 5, LS_F64, LS_ESHAPE, "q has 4, no multiple"},
        {{2, 5, 4, 6}, {1, 7, 2, 6}, {1, 7, 2, 6}, 5, LS_F64, LS_ESHAPE, "batch: q has 2, k has 1"},
        {{2, 5, 4, 6}, {2, 7, 2, 6}, {2, 6, 2, 6}, 5, LS_F64, LS_ESHAPE, "k and v differ"},
        {{2, 5, 4, 6}, {2, 7, 2, 6}, {2, 7, 2, 6}, 4, LS_F64, LS_ESHAPE, "lse of the reference"},
        {{2, 5, 4, 6},
         {2, 7, 2, 6},
         {2, 7, 2, 6},
         5,
         LS_F32,
         LS_ETYPE,
         "o of the reference is f32"},
    };

    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const int64_t *const n = cases[c].q, lse_dim[] = {n[0], n[2], cases[c].lse_rows};
        const struct ls_tensor q = ls_tensor_view(NULL, LS_F64, 4, n);
        const struct ls_tensor k = ls_tensor_view(NULL, LS_F64, 4, cases[c].k);
        const struct ls_tensor v = ls_tensor_view(NULL, LS_F64, 4, cases[c].v);
        struct ls_tensor o = ls_tensor_view(NULL, cases[c].o_type, 4, n);
        struct ls_tensor lse = ls_tensor_view(NULL, LS_F64, 3, lse_dim);

        cr_expect_eq(ls_reference_attention(&o, &lse, &q, &k, &v, false, 1), cases[c].status,
                     "case %zu", c);
        cr_expect(strstr(ls_message(), cases[c].message), "case %zu: \"%s\"", c, ls_message());
    }
}
