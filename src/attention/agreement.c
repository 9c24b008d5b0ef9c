#include "attention/agreement.h"

#include <assert.h>
#include <xxhash.h>

double ls_digest(const void *array, size_t bytes)
{
    return array ? (double)(XXH3_64bits(array, bytes) >> 12) : 0;
}

static ls_status fail_about(const struct ls_topic *topic, double least, double most)
{
    if (!topic->number) return ls_fail(LS_ESHAPE, "ranks disagree about the %s", topic->name);
    return ls_fail(LS_ESHAPE, "ranks disagree about the %s: from %g to %g", topic->name, least,
                   most);
}

ls_status ls_agree_about(struct ls_comm *comm, ls_status status, const struct ls_topic *topics,
                         int count)
{
    double bound[1 + 2 * LS_MOST_TOPICS] = {status ==
                                            LS_OK}; /* of each the least, minus the most */

    assert(count <= LS_MOST_TOPICS);
    for (int i = 0; i < count; i++) {
        bound[1 + 2 * i] = topics[i].value;
        bound[2 + 2 * i] = -topics[i].value;
    }
    LS_TRY(ls_comm_reduce(bound, comm, 1 + 2 * count, LS_REDUCE_MIN));
    if (bound[0] == 0) return ls_comm_agree(comm, status);
    for (int i = 0; i < count; i++) {
        const double least = bound[1 + 2 * i], most = -bound[2 + 2 * i];

        if (least != most) return fail_about(&topics[i], least, most);
    }
    return LS_OK;
}
