#include "attention/travelling/travel.h"

bool ls_travels_forward(enum ls_traveller which)
{
    return which == LS_LIKE_Q || which == LS_LIKE_K || which == LS_LIKE_V;
}

bool ls_returns_forward(enum ls_traveller which, bool residual)
{
    return which == LS_LSE || which == LS_LIKE_O || (which == LS_O_LO && residual);
}

bool ls_travels_backward(enum ls_traveller which)
{
    return which != LS_O_LO;
}

bool ls_returns_backward(enum ls_traveller which)
{
    return ls_travels_forward(which);
}

bool ls_traveller_is_keys(enum ls_traveller which)
{
    return which == LS_LIKE_K || which == LS_LIKE_V;
}

bool ls_traveller_is_number(enum ls_traveller which)
{
    return which == LS_LSE || which == LS_DELTA;
}

int64_t ls_traveller_dim(const struct ls_attention_shape *shape, enum ls_traveller which)
{
    if (ls_traveller_is_number(which)) return 1;
    if (which == LS_LIKE_Q) return shape->d;
    if (which == LS_LIKE_K) return ls_key_width(shape);
    return which == LS_LIKE_V ? ls_value_width(shape) : ls_value_dim(shape);
}

static ls_dtype type_of(const struct ls_attention_shape *shape, enum ls_traveller which)
{
    if (ls_traveller_is_number(which)) return LS_F32;
    return ls_traveller_is_keys(which) ? ls_key_type(shape) : shape->type;
}

size_t ls_traveller_head_bytes(const struct ls_attention_shape *shape, enum ls_traveller which)
{
    return (size_t)ls_traveller_dim(shape, which) * (size_t)ls_dtype_size(type_of(shape, which));
}

struct ls_tensor ls_travel_carve(char **free_bytes, const struct ls_problem *problem,
                                 enum ls_traveller which, int64_t rows, int64_t heads)
{
    const int64_t b = problem->shape.b, d = ls_traveller_dim(&problem->shape, which);
    const struct ls_tensor view = {.type = type_of(&problem->shape, which),
                                   .ndim = 4,
                                   .dim = {b, rows, heads, d},
                                   .stride = {heads * d, b * heads * d, d, 1},
                                   .data = *free_bytes};

    *free_bytes += ls_travel_bytes(&view);
    return view;
}

size_t ls_travel_bytes(const struct ls_tensor *t)
{
    return (size_t)(t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3]) * (size_t)ls_dtype_size(t->type);
}

struct ls_tensor ls_travel_transposed(const struct ls_tensor *t)
{
    return (struct ls_tensor){
        .type = t->type,
        .ndim = t->ndim == 3 ? 4 : 3,
        .dim = {t->dim[0], t->dim[2], t->dim[1], 1},
        .stride = {t->stride[0], t->stride[2], t->stride[1], 1},
        .data = t->data,
    };
}

struct ls_tensor ls_travel_numbers(const struct ls_attention_shape *shape, int64_t rows,
                                   const float *numbers)
{
    const int64_t dim[] = {shape->b, shape->h, rows};
    const struct ls_tensor view = ls_tensor_view((void *)numbers, LS_F32, 3, dim);

    return ls_travel_transposed(&view);
}

void ls_travel_take_numbers(float *out, const struct ls_problem *problem,
                            const struct ls_tensor *numbers)
{
    const int64_t dim[] = {numbers->dim[0], numbers->dim[2], numbers->dim[1]};
    const struct ls_tensor whole = ls_tensor_view(out, LS_F32, 3, dim);
    struct ls_tensor to = ls_travel_transposed(&whole);

    if (numbers->data != out) ls_problem_copy(problem, &to, numbers);
}
