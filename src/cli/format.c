#include "cli/format.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

struct cli_text cli_count(int64_t n)
{
    struct cli_text out;
    char digits[24];
    const int length = snprintf(digits, sizeof(digits), "%" PRId64, n);
    int used = 0;

    for (int i = 0; i < length; i++) {
        const int left = length - i;

        if (i > 0 && left % 3 == 0 && digits[i - 1] != '-') out.s[used++] = ',';
        out.s[used++] = digits[i];
    }
    out.s[used] = '\0';
    return out;
}

struct cli_text cli_counted(int64_t n, const char *one, const char *many)
{
    struct cli_text out;

    snprintf(out.s, sizeof(out.s), "%.27s %.32s", cli_count(n).s, n == 1 ? one : many);
    return out;
}

struct cli_text cli_workers(int ranks, int threads)
{
    struct cli_text out;

    snprintf(out.s, sizeof(out.s), "%.40s x %.40s", cli_counted(ranks, "rank", "ranks").s,
             cli_counted(threads, "thread", "threads").s);
    return out;
}

struct cli_text cli_dims(const int64_t *dim, int ndim)
{
    struct cli_text out = {""};
    size_t used = 0;

    for (int i = 0; i < ndim && used < sizeof(out.s); i++)
        used += (size_t)snprintf(out.s + used, sizeof(out.s) - used, "%s%" PRId64, i ? "," : "",
                                 dim[i]);
    return out;
}

struct cli_text cli_number(double value)
{
    struct cli_text out;

    snprintf(out.s, sizeof(out.s), fabs(value) < 9.995 ? "%.3g" : "%.1f", value);
    return out;
}

/* The value in the largest of n units, each `step` times the one before, that leaves it at 1 or
 * more. */
static struct cli_text scaled(double value, double step, const char *const *units, int n)
{
    struct cli_text out;
    int i = 0;

    for (; i < n - 1 && value >= step; i++) value /= step;
    snprintf(out.s, sizeof(out.s),
             value < 9.995   ? "%.2f %s"
             : value < 99.95 ? "%.1f %s"
                             : "%.0f %s",
             value, units[i]);
    return out;
}

struct cli_text cli_bytes(double bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
    struct cli_text out;

    if (bytes >= 1024) return scaled(bytes / 1024, 1024, units, 5);
    snprintf(out.s, sizeof(out.s), "%.0f B", bytes);
    return out;
}

struct cli_text cli_seconds(double seconds)
{
    static const char *const units[] = {"us", "ms", "s"};

    if (seconds < 0.5e-9) return (struct cli_text){"0 s"};
    return scaled(seconds * 1e6, 1000, units, 3);
}

struct cli_text cli_flops(double flops)
{
    static const char *const units[] = {"MF", "GF", "TF", "PF", "EF"};

    return scaled(flops / 1e6, 1000, units, 5);
}
