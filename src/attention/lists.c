#include "attention/lists.h"

#include <stdlib.h>
#include <string.h>

static ls_status keep(struct ls_lists *lists, enum ls_list which, const void *list, size_t bytes)
{
    if (!list) return LS_OK;
    lists->bytes[which] = bytes;
    lists->list[which] = malloc(bytes + 1);
    if (!lists->list[which]) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    memcpy(lists->list[which], list, bytes);
    return LS_OK;
}

ls_status ls_lists_keep(struct ls_lists *out, const struct ls_attention_shape *shape,
                        struct ls_attention_options *o)
{
    const size_t entries = (size_t)shape->b * sizeof(int64_t);
    const size_t documents =
        (size_t)(o->document_count + 1) * (o->documents_per_entry ? entries : sizeof(int64_t));

    out->pad_left = o->pad_left;
    LS_TRY(keep(out, LS_LIST_DOCUMENTS, o->documents, documents));
    LS_TRY(keep(out, LS_LIST_Q_DOCUMENTS, o->q_documents, documents));
    LS_TRY(keep(out, LS_LIST_Q_LENGTHS, o->q_lengths, entries));
    LS_TRY(keep(out, LS_LIST_K_LENGTHS, o->k_lengths, entries));
    LS_TRY(keep(out, LS_LIST_SLICES, o->slices, (size_t)o->slice_count * sizeof *o->slices));
    o->documents = out->list[LS_LIST_DOCUMENTS];
    o->q_documents = out->list[LS_LIST_Q_DOCUMENTS];
    o->q_lengths = out->list[LS_LIST_Q_LENGTHS];
    o->k_lengths = out->list[LS_LIST_K_LENGTHS];
    o->slices = out->list[LS_LIST_SLICES];
    return LS_OK;
}

void ls_lists_free(struct ls_lists *lists)
{
    for (int i = 0; i < LS_LISTS; i++) free(lists->list[i]);
}
