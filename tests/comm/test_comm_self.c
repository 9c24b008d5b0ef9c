/* A group of one process: whatever it sends to itself within a batch arrives. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "comm/transport.h"

static struct ls_comm *comm;
static struct ls_traffic traffic;
static struct ls_batch batch;

static void up(void)
{
    cr_assert_eq(ls_comm_create_self(&comm), LS_OK);
    const struct ls_transport transport = ls_transport_of(comm, &traffic);

    cr_assert_eq(ls_batch_init_collective(&batch, &transport), LS_OK);
}

static void down(void)
{
    ls_batch_fini(&batch);
    ls_comm_destroy(comm);
}

TestSuite(comm_self, .init = up, .fini = down, .timeout = 10);

Test(comm_self, is_one_rank_of_one)
{
    cr_expect_eq(ls_comm_rank(comm), 0);
    cr_expect_eq(ls_comm_size(comm), 1);
    cr_expect_eq(ls_comm_node_size(comm), 1);
    cr_expect_eq(ls_comm_node_run(comm), 1);
}

Test(comm_self, a_message_arrives_in_its_batch)
{
    static const size_t sizes[] = {0, 1, 7, 4096, 1000003};
    static char in[1000003], into[1000003];

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (int send_first = 0; send_first < 2; send_first++) {
            memset(in, 1 + (int)i, sizes[i]);
            memset(into, 0, sizeof(into));
            if (send_first) ls_batch_send(&batch, in, sizes[i], 0);
            ls_batch_receive(&batch, into, sizes[i], 0);
            if (!send_first) ls_batch_send(&batch, in, sizes[i], 0);
            cr_assert_eq(ls_batch_run(&batch), LS_OK);
            cr_expect_eq(memcmp(in, into, sizes[i]), 0, "%zu bytes, send_first=%d", sizes[i],
                         send_first);
        }
}

Test(comm_self, messages_keep_their_order)
{
    enum { N = 4 };
    const struct ls_transport transport = ls_transport_of(comm, &traffic);
    int in[N] = {1, 2, 3, 4}, into[N];
    struct ls_batch many;

    cr_assert_eq(ls_batch_init(&many, &transport, 2 * N), LS_OK);
    for (int i = 0; i < N; i++) ls_batch_receive(&many, &into[i], sizeof(into[i]), 0);
    for (int i = 0; i < N; i++) ls_batch_send(&many, &in[i], sizeof(in[i]), 0);
    cr_assert_eq(ls_batch_run(&many), LS_OK);
    for (int i = 0; i < N; i++) cr_expect_eq(into[i], in[i], "message %d", i);
    cr_expect_eq(ls_batch_wait(&many), LS_OK, "nothing is under way");
    ls_batch_fini(&many);
}

static void expect_refused(const char *words)
{
    cr_expect_eq(ls_batch_run(&batch), LS_ECOMM);
    cr_expect(strstr(ls_message(), words) != NULL, "%s", ls_message());
    cr_expect_eq(traffic.bytes_sent, 0, "a send that failed is counted");
    down();
    up();
}

Test(comm_self, what_cannot_arrive_is_an_error)
{
    char in[8] = {0}, into[8];

    ls_batch_receive(&batch, into, 8, 0);
    expect_refused("a receive of 8 bytes that has no send");
    ls_batch_receive(&batch, into, 8, 0);
    ls_batch_send(&batch, in, 4, 0);
    expect_refused("4 bytes are sent to a receive of 8");
    ls_batch_send(&batch, in, 4, 1);
    expect_refused("rank 1");
    ls_batch_receive(&batch, into, 4, -1);
    expect_refused("rank -1");
    cr_expect_eq(ls_comm_broadcast(into, comm, 4, 1), LS_ECOMM);
}

Test(comm_self, collectives_leave_what_is_already_there)
{
    double values[2] = {1.5, NAN};
    char text[4] = "abc", gathered[4] = "";

    cr_expect_eq(ls_comm_barrier(comm), LS_OK);
    cr_expect_eq(ls_comm_reduce(values, comm, 2, LS_REDUCE_SUM), LS_OK);
    cr_expect(values[0] == 1.5 && isnan(values[1]));
    cr_expect_eq(ls_comm_broadcast(text, comm, sizeof(text), 0), LS_OK);
    cr_expect_eq(ls_comm_gather(gathered, comm, text, sizeof(text)), LS_OK);
    cr_expect_str_eq(gathered, "abc");
    cr_expect_eq(ls_comm_gather(NULL, comm, NULL, 0), LS_OK);
}

Test(comm_self, bulk_communication_keeps_or_copies_what_is_already_there)
{
    float values[2] = {1.5F, NAN}, out[2] = {0, 0};
    char text[4] = "abc", exchanged[4] = "";

    for (int how = LS_REDUCE_SUM; how <= LS_REDUCE_MIN; how++) {
        ls_batch_all_reduce(&batch, values, LS_F32, 2, (ls_reduction)how);
        cr_expect_eq(ls_batch_run(&batch), LS_OK);
        cr_expect(values[0] == 1.5F && isnan(values[1]), "reduction %d", how);
    }
    ls_batch_reduce_scatter(&batch, out, values, LS_F32, 2);
    cr_expect_eq(ls_batch_run(&batch), LS_OK);
    cr_expect(out[0] == 1.5F && isnan(out[1]));
    ls_batch_all_to_all(&batch, exchanged, text, sizeof(text));
    cr_expect_eq(ls_batch_run(&batch), LS_OK);
    cr_expect_str_eq(exchanged, "abc");
    ls_batch_all_gather(&batch, text, sizeof(text));
    cr_expect_eq(ls_batch_run(&batch), LS_OK);
    ls_batch_broadcast(&batch, text, sizeof(text), 0);
    cr_expect_eq(ls_batch_run(&batch), LS_OK);
    cr_expect_str_eq(text, "abc");
    ls_batch_reduce_scatter(&batch, NULL, NULL, LS_F32, 0);
    cr_expect_eq(ls_batch_run(&batch), LS_OK);
    ls_batch_all_to_all(&batch, NULL, NULL, 0);
    cr_expect_eq(ls_batch_run(&batch), LS_OK);
    cr_expect_eq(traffic.bytes_sent, 0, "nobody to send to");
}

Test(comm_self, a_sub_group_of_one_is_the_group)
{
    struct ls_comm *some;
    const int me = 0, other = 1;

    cr_assert_eq(ls_comm_split(&some, comm, &me, 1), LS_OK);
    cr_expect_eq(ls_comm_size(some), 1);
    ls_comm_destroy(some);
    cr_expect_eq(ls_comm_split(&some, comm, &me, 0), LS_EVALUE);
    cr_expect(strstr(ls_message(), "not among"), "%s", ls_message());
    cr_expect_eq(ls_comm_split(&some, comm, &other, 1), LS_EVALUE);
}

Test(comm_self, agreeing_alone_keeps_status_and_message)
{
    cr_expect_eq(ls_comm_agree(comm, LS_OK), LS_OK);
    cr_expect_eq(ls_comm_agree(comm, ls_fail(LS_ESHAPE, "h is %d", 7)), LS_ESHAPE);
    cr_expect_str_eq(ls_message(), "h is 7");
}

Test(comm_self, traffic_counts_what_was_sent)
{
    char in[10] = {0}, into[10];

    for (int round = 0; round < 2; round++) {
        ls_batch_receive(&batch, into, 10, 0);
        ls_batch_send(&batch, in, 10, 0);
        cr_expect_eq(ls_batch_start(&batch), LS_OK);
        ls_traffic_move(&traffic);
        cr_expect_eq(traffic.bytes_sent, 10 * (round + 1));
        if (round == 0) cr_expect_eq(traffic.exposed_seconds, 0, "nobody waited");
        cr_expect_eq(ls_batch_wait(&batch), LS_OK);
        cr_expect_gt(traffic.exposed_seconds, 0);
    }
}

Test(comm_self, destroying_nothing_is_fine)
{
    ls_comm_destroy(NULL);
}
