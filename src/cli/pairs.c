#include "cli/pairs.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "tensor/file.h"

/* The only tensor of a file may be called anything. */
static ls_status find(const struct ls_file_tensor **out, const struct ls_tensor_file *file,
                      const char *name)
{
    *out = ls_tensor_file_count(file) == 1 ? ls_tensor_file_at(file, 0)
                                           : ls_tensor_file_find(file, name);
    if (*out) return LS_OK;
    return ls_fail(LS_EVALUE, "--mask: %s has no tensor \"%s\"; --names mask=NAME says its name",
                   ls_tensor_file_path(file), name);
}

static ls_status fail_shape(const struct cli_pairs *m, const struct ls_attention_shape *s)
{
    char extent[LS_EXTENT_TEXT];

    return ls_fail(LS_ESHAPE,
                   "--mask %s: is %s, must be bool [%" PRId64 ", %" PRId64 "] or [%" PRId64
                   " or 1, %" PRId64 " or 1, %" PRId64 ", %" PRId64 "], or uint8 with %" PRId64
                   " bytes of bits in each row",
                   ls_tensor_file_path(m->file), ls_extent_text(extent, m->tensor), s->s_q, s->s_k,
                   s->b, s->h, s->s_q, s->s_k, m->row_bytes);
}

static ls_status measure(struct cli_pairs *m, const struct ls_attention_shape *s)
{
    const struct ls_file_tensor *t = m->tensor;
    const int64_t columns = t->truth ? s->s_k : m->row_bytes;
    const int64_t *dim = t->ndim == 4 ? t->dim + 2 : t->dim;

    m->entries = t->ndim == 4 ? t->dim[0] : 1;
    m->heads = t->ndim == 4 ? t->dim[1] : 1;
    if (t->integer != 1 || (t->ndim != 2 && t->ndim != 4) || dim[0] != s->s_q ||
        dim[1] != columns || (m->entries != 1 && m->entries != s->b) ||
        (m->heads != 1 && m->heads != s->h))
        return fail_shape(m, s);
    m->rows = m->entries * m->heads * s->s_q;
    return LS_OK;
}

static void pack(uint8_t *bits, const uint8_t *truth, int64_t n)
{
    memset(bits, 0, (size_t)(n + 7) / 8);
    for (int64_t j = 0; j < n; j++) bits[j / 8] |= (uint8_t)((truth[j] != 0) << j % 8);
}

/* One row of truth values after the other. */
static ls_status read_truth(uint8_t *bits, const struct cli_pairs *m)
{
    uint8_t *row = malloc((size_t)m->s_k + 1);
    ls_status status = row ? LS_OK : ls_fail(LS_ENOMEM, "--mask: out of memory");

    for (int64_t i = 0; i < m->rows && status == LS_OK; i++) {
        status = ls_tensor_file_read(row, m->file, m->tensor, i * m->s_k, m->s_k);
        if (status == LS_OK) pack(bits + i * m->row_bytes, row, m->s_k);
    }
    free(row);
    return status;
}

ls_status cli_pairs_measure(struct cli_pairs *pairs, const struct cli_names *names,
                            const struct ls_attention_shape *shape)
{
    pairs->s_k = shape->s_k;
    pairs->row_bytes = (shape->s_k + 7) / 8;
    LS_TRY(find(&pairs->tensor, pairs->file, cli_names_of(names, "mask")));
    return measure(pairs, shape);
}

ls_status cli_pairs_read(uint8_t **bits, struct ls_attention_options *attention,
                         const struct cli_pairs *pairs)
{
    const int64_t bytes = pairs->rows * pairs->row_bytes;

    *bits = malloc((size_t)bytes + 1);
    if (!*bits) return ls_fail(LS_ENOMEM, "--mask: no memory for %" PRId64 " bytes", bytes);
    attention->pair_bits = *bits;
    attention->pairs_per_entry = pairs->entries > 1;
    attention->pairs_per_head = pairs->heads > 1;
    return pairs->tensor->truth ? read_truth(*bits, pairs)
                                : ls_tensor_file_read(*bits, pairs->file, pairs->tensor, 0, bytes);
}
