/* A group of this process alone. What a batch sends to itself is copied when the batch is started:
 * its first send goes to its first receive. */
#include <stdlib.h>
#include <string.h>

#include "comm/transport.h"
#include "tensor/dtype.h"

/* ---- control: everything is there already */

static char nothing; /* a group has no state */

static ls_status duplicate(void **out, void *self)
{
    *out = self;
    return LS_OK;
}

static ls_status split(void **out, void *self, const int *ranks, int n)
{
    (void)ranks, (void)n;
    return duplicate(out, self);
}

static void destroy(void *self)
{
    (void)self;
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

static ls_status be_alone(void *self)
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

static int alone(void *self)
{
    (void)self;
    return 1;
}

/* ---- transport */

/* The n-th message of one side, counting from 0; NULL: there are not so many. */
static const struct ls_message *find(const struct ls_message *message, int count, bool is_send,
                                     int n)
{
    for (int i = 0; i < count; i++)
        if (message[i].is_send == is_send && n-- == 0) return &message[i];
    return NULL;
}

static ls_status start(void *self, struct ls_message *message, int n)
{
    for (int i = 0;; i++) {
        const struct ls_message *send = find(message, n, true, i);
        const struct ls_message *receive = find(message, n, false, i);

        if (!send && !receive) return LS_OK;
        if (!send || !receive)
            return ls_fail(LS_ECOMM, "a batch of one rank has a %s of %zu bytes that has no %s",
                           send ? "send" : "receive", (send ? send : receive)->bytes,
                           send ? "receive" : "send");
        if (send->bytes != receive->bytes)
            return ls_fail(LS_ECOMM, "%zu bytes are sent to a receive of %zu", send->bytes,
                           receive->bytes);
        gather(receive->data, self, send->data, send->bytes);
    }
}

static ls_status test(bool *done, void *self, struct ls_message *message, int n)
{
    (void)self, (void)message, (void)n;
    *done = true;
    return LS_OK;
}

static ls_status wait(void *self, struct ls_message *message, int n)
{
    (void)self, (void)message, (void)n;
    return LS_OK;
}

static const struct ls_transport_ops transport = {.name = "self",
                                                  .start = start,
                                                  .test = test,
                                                  .wait = wait,
                                                  .fold = ls_fold_on_host,
                                                  .copy = ls_copy_on_host,
                                                  .alloc = ls_alloc_on_host,
                                                  .free = ls_free_on_host};

static const struct ls_control_ops control = {
    .name = "self",
    .duplicate = duplicate,
    .split = split,
    .destroy = destroy,
    .set_timeout = set_timeout,
    .place = place,
    .beat = be_alone,
    .barrier = be_alone,
    .reduce = reduce,
    .broadcast = broadcast,
    .gather = gather,
    .node_size = alone,
    .node_run = alone,
    .transport = &transport,
};

ls_status ls_comm_create_self(struct ls_comm **out)
{
    return ls_comm_create(out, &control, &nothing, 0, 1);
}
