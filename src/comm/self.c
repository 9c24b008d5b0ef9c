/* A group of this process alone. What it sends to itself is copied as soon as both sides of a
 * message are posted, whichever comes first; nothing is buffered. */
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"

/* The side of a message that was posted first. It lives until its request is found complete. */
struct half {
    struct half *next;
    bool is_send, matched;
    int tag;
    size_t bytes;
    const void *in; /* of a send */
    void *into;     /* of a receive */
};

struct self_group {
    struct half *first; /* in the order they were posted, as messages of one tag must match */
};

static ls_status group_create(void **out)
{
    *out = calloc(1, sizeof(struct self_group));
    return *out != NULL ? LS_OK : ls_fail(LS_ENOMEM, "no memory for a group of one rank");
}

static ls_status duplicate(void **out, void *self)
{
    (void)self;
    return group_create(out);
}

static void destroy(void *self)
{
    struct self_group *group = self;

    while (group->first != NULL) {
        struct half *half = group->first;

        group->first = half->next;
        free(half);
    }
    free(group);
}

/* Nobody is waited for who could be silent. */
static ls_status set_timeout(void *self, int seconds)
{
    (void)self, (void)seconds;
    return LS_OK;
}

static void place(void *self, const char *what, const char *how)
{
    (void)self, (void)what, (void)how;
}

static const char *side_name(bool is_send)
{
    return is_send ? "send" : "receive";
}

/* The place in the list of the first unmatched half of this side and tag, or of its end. */
static struct half **find_partner(struct self_group *group, const struct half *of)
{
    struct half **place = &group->first;

    while (*place != NULL &&
           ((*place)->matched || (*place)->is_send == of->is_send || (*place)->tag != of->tag))
        place = &(*place)->next;
    return place;
}

static ls_status deliver(const struct half *send, const struct half *receive)
{
    if (send->bytes != receive->bytes)
        return ls_fail(LS_ECOMM, "tag %d: %zu bytes sent to a receive of %zu", send->tag,
                       send->bytes, receive->bytes);
    if (send->bytes > 0) memcpy(receive->into, send->in, send->bytes);
    return LS_OK;
}

static ls_status post(struct ls_request *out, struct self_group *group, const struct half *half)
{
    struct half **place = find_partner(group, half);
    struct half *partner = *place;

    if (partner != NULL) {
        LS_TRY(half->is_send ? deliver(half, partner) : deliver(partner, half));
        partner->matched = true;
        out->handle = 0;
        return LS_OK;
    }
    *place = malloc(sizeof(**place));
    if (*place == NULL)
        return ls_fail(LS_ENOMEM, "no memory for a %s, tag %d", side_name(half->is_send),
                       half->tag);
    **place = *half;
    out->handle = (uintptr_t)*place;
    return LS_OK;
}

static ls_status send(struct ls_request *out, void *self, const void *in, size_t bytes, int to,
                      int tag)
{
    (void)to;
    return post(out, self, &(struct half){.is_send = true, .tag = tag, .bytes = bytes, .in = in});
}

static ls_status receive(struct ls_request *out, void *self, void *into, size_t bytes, int from,
                         int tag)
{
    (void)from;
    return post(out, self,
                &(struct half){.is_send = false, .tag = tag, .bytes = bytes, .into = into});
}

static void forget(struct self_group *group, const struct half *half)
{
    struct half **place = &group->first;
    struct half *found;

    while (*place != half) place = &(*place)->next;
    found = *place;
    *place = found->next;
    free(found);
}

/* Marks the completed requests; the first one that still lacks its partner, or NULL. */
static const struct half *collect(struct self_group *group, struct ls_request *requests, int n)
{
    const struct half *lacking = NULL;

    for (int i = 0; i < n; i++) {
        const struct half *half = (const struct half *)requests[i].handle;

        if (half == NULL) continue;
        if (half->matched) {
            forget(group, half);
            requests[i].handle = 0;
        } else if (lacking == NULL) {
            lacking = half;
        }
    }
    return lacking;
}

static ls_status test(bool *done, void *self, struct ls_request *requests, int n)
{
    *done = collect(self, requests, n) == NULL;
    return LS_OK;
}

/* Nobody else could post the other side while this process waits. */
static ls_status wait(void *self, struct ls_request *requests, int n)
{
    const struct half *lacking = collect(self, requests, n);

    if (lacking == NULL) return LS_OK;
    return ls_fail(LS_ECOMM, "waiting for a %s, tag %d, that has no %s",
                   side_name(lacking->is_send), lacking->tag, side_name(!lacking->is_send));
}

static ls_status barrier(void *self)
{
    (void)self;
    return LS_OK;
}

static ls_status reduce(double *values, void *self, int n, ls_reduction how)
{
    (void)values, (void)self, (void)n, (void)how;
    return LS_OK;
}

static ls_status broadcast(void *bytes, void *self, size_t n, int root)
{
    (void)bytes, (void)self, (void)n, (void)root;
    return LS_OK;
}

static ls_status gather(void *out, void *self, const void *in, size_t bytes)
{
    (void)self;
    if (bytes > 0) memcpy(out, in, bytes);
    return LS_OK;
}

static ls_status all_reduce(float *values, void *self, int64_t n, ls_reduction how)
{
    (void)values, (void)self, (void)n, (void)how;
    return LS_OK;
}

static ls_status reduce_scatter(float *out, void *self, const float *in, int64_t n)
{
    return gather(out, self, in, (size_t)n * sizeof(float));
}

static int alone(void *self)
{
    (void)self;
    return 1;
}

static const struct ls_comm_ops self_ops = {
    .name = "self",
    .duplicate = duplicate,
    .destroy = destroy,
    .set_timeout = set_timeout,
    .place = place,
    .send = send,
    .receive = receive,
    .test = test,
    .wait = wait,
    .barrier = barrier,
    .reduce = reduce,
    .broadcast = broadcast,
    .gather = gather,
    .all_reduce = all_reduce,
    .reduce_scatter = reduce_scatter,
    .all_to_all = gather,
    .node_size = alone,
    .node_run = alone,
};

ls_status ls_comm_create_self(struct ls_comm **out)
{
    void *self;

    LS_TRY(group_create(&self));
    return ls_comm_create(out, &self_ops, self, 0, 1);
}
