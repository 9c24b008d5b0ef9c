/* Numbers as people read them. */
#ifndef LS_CLI_FORMAT_H
#define LS_CLI_FORMAT_H

#include <stdint.h>

/* Long enough for any of them; a value, so that several fit in one printf. */
struct cli_text {
    char s[32];
};

struct cli_text cli_count(int64_t n);        /* 65,536 */
struct cli_text cli_bytes(double bytes);     /* 12.3 MiB */
struct cli_text cli_seconds(double seconds); /* 12.3 ms */
struct cli_text cli_flops(double flops);     /* 12.3 GF; also for rates: GF/s */

#endif
