/* A group of one process: whatever it sends to itself arrives, in either order of posting. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "comm/comm.h"

static struct ls_comm *comm;

static void up(void)
{
    cr_assert_eq(ls_comm_create_self(&comm), LS_OK);
}

static void down(void)
{
    ls_comm_destroy(comm);
}

TestSuite(comm_self, .init = up, .fini = down, .timeout = 10);

static bool is_done(struct ls_request *request)
{
    bool done;

    cr_assert_eq(ls_comm_progress(&done, comm, request, 1), LS_OK);
    return done;
}

Test(comm_self, is_one_rank_of_one)
{
    cr_expect_eq(ls_comm_rank(comm), 0);
    cr_expect_eq(ls_comm_size(comm), 1);
    cr_expect_eq(ls_comm_node_size(comm), 1);
    cr_expect_eq(ls_comm_node_run(comm), 1);
}

Test(comm_self, messages_arrive_in_either_order_of_posting)
{
    static const size_t sizes[] = {0, 1, 7, 4096, 1000003};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (int send_first = 0; send_first < 2; send_first++) {
            static char in[1000003], into[1000003];
            struct ls_request send, receive;

            memset(in, 1 + (int)i, sizes[i]);
            memset(into, 0, sizeof(into));
            if (send_first) {
                cr_assert_eq(ls_comm_send(&send, comm, in, sizes[i], 0, 3), LS_OK);
                cr_expect_not(is_done(&send), "done before its receive was posted");
            }
            cr_assert_eq(ls_comm_receive(&receive, comm, into, sizes[i], 0, 3), LS_OK);
            if (!send_first) {
                cr_expect_not(is_done(&receive), "done before its send was posted");
                cr_assert_eq(ls_comm_send(&send, comm, in, sizes[i], 0, 3), LS_OK);
            }
            cr_assert_eq(ls_comm_wait(comm, (struct ls_request[]){send, receive}, 2), LS_OK);
            cr_expect_eq(memcmp(in, into, sizes[i]), 0, "%zu bytes, send_first=%d", sizes[i],
                         send_first);
        }
}

Test(comm_self, a_message_meets_the_receive_of_its_tag)
{
    enum { N = 50 };
    int in[N], into[N];
    struct ls_request requests[2 * N];

    for (int i = 0; i < N; i++) {
        in[i] = 100 + i;
        cr_assert_eq(ls_comm_send(&requests[i], comm, &in[i], sizeof(in[i]), 0, i), LS_OK);
    }
    for (int i = N - 1; i >= 0; i--)
        cr_assert_eq(ls_comm_receive(&requests[N + i], comm, &into[i], sizeof(into[i]), 0, i),
                     LS_OK);
    cr_assert_eq(ls_comm_wait(comm, requests, 2 * N), LS_OK);
    for (int i = 0; i < N; i++) cr_expect_eq(into[i], 100 + i, "tag %d", i);
    for (int i = 0; i < 2 * N; i++)
        cr_expect_eq(requests[i].handle, 0, "request %d is unmarked", i);
    cr_expect_eq(ls_comm_wait(comm, requests, 2 * N), LS_OK, "completed requests again");
}

Test(comm_self, messages_of_one_tag_keep_their_order)
{
    enum { N = 4 };
    int in[N] = {1, 2, 3, 4}, into[N];
    struct ls_request requests[2 * N];

    for (int i = 0; i < N; i++)
        cr_assert_eq(ls_comm_receive(&requests[i], comm, &into[i], sizeof(into[i]), 0, 0), LS_OK);
    for (int i = 0; i < N; i++)
        cr_assert_eq(ls_comm_send(&requests[N + i], comm, &in[i], sizeof(in[i]), 0, 0), LS_OK);
    cr_assert_eq(ls_comm_wait(comm, requests, 2 * N), LS_OK);
    for (int i = 0; i < N; i++) cr_expect_eq(into[i], in[i], "message %d", i);
}

Test(comm_self, a_duplicate_keeps_its_messages_apart)
{
    int one = 1, two = 2, from_copy = 0, from_comm = 0;
    struct ls_comm *copy;
    struct ls_request of_copy[2], of_comm[2];

    cr_assert_eq(ls_comm_duplicate(&copy, comm), LS_OK);
    cr_assert_eq(ls_comm_send(&of_copy[0], copy, &two, sizeof(two), 0, 0), LS_OK);
    cr_assert_eq(ls_comm_send(&of_comm[0], comm, &one, sizeof(one), 0, 0), LS_OK);
    cr_assert_eq(ls_comm_receive(&of_comm[1], comm, &from_comm, sizeof(one), 0, 0), LS_OK);
    cr_assert_eq(ls_comm_receive(&of_copy[1], copy, &from_copy, sizeof(two), 0, 0), LS_OK);
    cr_assert_eq(ls_comm_wait(comm, of_comm, 2), LS_OK);
    cr_assert_eq(ls_comm_wait(copy, of_copy, 2), LS_OK);
    cr_expect_eq(from_comm, 1);
    cr_expect_eq(from_copy, 2);
    ls_comm_destroy(copy);
}

Test(comm_self, what_cannot_arrive_is_an_error)
{
    char in[8] = {0}, into[8];
    struct ls_request request;

    cr_assert_eq(ls_comm_receive(&request, comm, into, 8, 0, 5), LS_OK);
    cr_expect_eq(ls_comm_wait(comm, &request, 1), LS_ECOMM);
    cr_expect(strstr(ls_message(), "tag 5") != NULL, "%s", ls_message());
    cr_expect_eq(ls_comm_send(&request, comm, in, 4, 0, 5), LS_ECOMM);
    cr_expect(strstr(ls_message(), "4 bytes") != NULL, "%s", ls_message());
    cr_expect_eq(ls_comm_send(&request, comm, in, 4, 1, 5), LS_ECOMM);
    cr_expect(strstr(ls_message(), "rank 1") != NULL, "%s", ls_message());
    cr_expect_eq(ls_comm_receive(&request, comm, into, 4, -1, 5), LS_ECOMM);
    cr_expect_eq(ls_comm_broadcast(into, comm, 4, 1), LS_ECOMM);
    cr_expect_eq(ls_comm_bytes_sent(comm), 0, "a send that failed is counted");
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
        cr_expect_eq(ls_comm_all_reduce(values, comm, 2, (ls_reduction)how), LS_OK);
        cr_expect(values[0] == 1.5F && isnan(values[1]), "reduction %d", how);
    }
    cr_expect_eq(ls_comm_reduce_scatter(out, comm, values, 2), LS_OK);
    cr_expect(out[0] == 1.5F && isnan(out[1]));
    cr_expect_eq(ls_comm_all_to_all(exchanged, comm, text, sizeof(text)), LS_OK);
    cr_expect_str_eq(exchanged, "abc");
    cr_expect_eq(ls_comm_all_reduce(NULL, comm, 0, LS_REDUCE_SUM), LS_OK);
    cr_expect_eq(ls_comm_reduce_scatter(NULL, comm, NULL, 0), LS_OK);
    cr_expect_eq(ls_comm_all_to_all(NULL, comm, NULL, 0), LS_OK);
    cr_expect_eq(ls_comm_bytes_sent(comm), 0, "nobody to send to");
}

Test(comm_self, agreeing_alone_keeps_status_and_message)
{
    cr_expect_eq(ls_comm_agree(comm, LS_OK), LS_OK);
    cr_expect_eq(ls_comm_agree(comm, ls_fail(LS_ESHAPE, "h is %d", 7)), LS_ESHAPE);
    cr_expect_str_eq(ls_message(), "h is 7");
}

Test(comm_self, counters_count_what_was_sent_since_the_reset)
{
    char in[10] = {0}, into[10];
    struct ls_request requests[2];

    for (int round = 0; round < 2; round++) {
        cr_assert_eq(ls_comm_receive(&requests[0], comm, into, 10, 0, 0), LS_OK);
        cr_assert_eq(ls_comm_send(&requests[1], comm, in, 10, 0, 0), LS_OK);
        cr_expect_eq(ls_comm_progress(NULL, comm, requests, 2), LS_OK);
        cr_expect_eq(ls_comm_bytes_sent(comm), 10 * (round + 1));
    }
    cr_expect_eq(ls_comm_exposed_seconds(comm), 0, "nobody waited");
    cr_expect_eq(ls_comm_wait(comm, requests, 2), LS_OK);
    cr_expect_gt(ls_comm_exposed_seconds(comm), 0);
    ls_comm_reset_counters(comm);
    cr_expect_eq(ls_comm_bytes_sent(comm), 0);
    cr_expect_eq(ls_comm_exposed_seconds(comm), 0);
}

Test(comm_self, destroying_nothing_is_fine)
{
    ls_comm_destroy(NULL);
}
