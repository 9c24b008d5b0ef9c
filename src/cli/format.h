/* Numbers as people read them. */
#ifndef LS_CLI_FORMAT_H
#define LS_CLI_FORMAT_H

#include <stdint.h>

/* Long enough for any of them; a value, so that several fit in one printf. */
struct cli_text {
    char s[96];
};

struct cli_text cli_count(int64_t n);                                      /* 65,536 */
struct cli_text cli_counted(int64_t n, const char *one, const char *many); /* 1 rank, 2 ranks */
struct cli_text cli_workers(int ranks, int threads);                       /* 2 ranks x 1 thread */
struct cli_text cli_dims(const int64_t *dim, int ndim);                    /* 1,4096,8,64 */
struct cli_text cli_number(double value);    /* 1287.7, but three digits below 10: 0.00123 */
struct cli_text cli_bytes(double bytes);     /* 12.3 MiB */
struct cli_text cli_seconds(double seconds); /* 12.3 ms */
struct cli_text cli_flops(double flops);     /* 12.3 GF; also for rates: GF/s */

#endif
