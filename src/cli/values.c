#include "cli/values.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/methods/table.h"
#include "base/nearest.h"
#include "tensor/dtype.h"

#define MOST_NAMES 32

/* Reads a number at *text and moves behind it; false if there is none or it is out of range. */
static bool read_integer(int64_t *out, const char **text, int64_t least, int64_t most)
{
    char *end;

    if (!strchr("0123456789-", **text)) return false; /* strtoll would skip spaces */
    errno = 0;
    *out = strtoll(*text, &end, 10);
    if (end == *text || errno != 0 || *out < least || *out > most) return false;
    *text = end;
    return true;
}

ls_status cli_value_integer(int64_t *out, const char *option, const char *text, int64_t least,
                            int64_t most)
{
    const char *rest = text;

    if (!read_integer(out, &rest, least, most) || *rest != '\0')
        return ls_fail(LS_EVALUE, "%s: '%s' is not a whole number from %" PRId64 " to %" PRId64,
                       option, text, least, most);
    return LS_OK;
}

/* What a unit stands for: K or KiB 1024, KB 1000, and so on; 0: it is none. */
static int64_t unit_bytes(const char *unit)
{
    static const char letters[] = "KMGT";
    const char *letter = *unit ? strchr(letters, *unit) : NULL;
    int64_t bytes = 1;

    if (!letter) return strcmp(unit, "") == 0 || strcmp(unit, "B") == 0;
    const bool binary = strcmp(unit + 1, "") == 0 || strcmp(unit + 1, "iB") == 0;
    if (!binary && strcmp(unit + 1, "B") != 0) return 0;
    for (int i = 0; i <= letter - letters; i++) bytes *= binary ? 1024 : 1000;
    return bytes;
}

ls_status cli_value_bytes(int64_t *out, const char *option, const char *text, int64_t least,
                          int64_t most)
{
    const char *rest = text;
    int64_t number = 0, unit = 0;

    if (read_integer(&number, &rest, 0, most)) unit = unit_bytes(rest);
    if (unit == 0 || number > most / unit || number * unit < least)
        return ls_fail(LS_EVALUE,
                       "%s: '%s' is not a number of bytes from %" PRId64 " to %" PRId64
                       ", such as 8, 64K, 256MiB or 2GB",
                       option, text, least, most);
    *out = number * unit;
    return LS_OK;
}

ls_status cli_value_float(float *out, const char *option, const char *text)
{
    char *end;

    *out = strtof(text, &end);
    if (end == text || *end != '\0' || !isfinite(*out))
        return ls_fail(LS_EVALUE, "%s: '%s' is not a finite number", option, text);
    return LS_OK;
}

ls_status cli_value_list(int64_t *out, int *count, const char *option, const char *text, int fewest,
                         int room, int64_t least, int64_t most)
{
    const char *rest = text;
    int n = 0;

    for (bool more = true; more; n++) {
        if (n == room)
            return ls_fail(LS_EVALUE, "%s: '%s' has more than %d numbers", option, text, room);
        if (!read_integer(&out[n], &rest, least, most) || (*rest != ',' && *rest != '\0'))
            return ls_fail(LS_EVALUE,
                           "%s: number %d of '%s' is not a whole number from %" PRId64
                           " to %" PRId64,
                           option, n + 1, text, least, most);
        more = *rest++ == ',';
    }
    if (n < fewest)
        return ls_fail(LS_EVALUE, "%s: '%s' has %d numbers, %d are needed", option, text, n,
                       fewest);
    *count = n;
    return LS_OK;
}

static void join(char *out, size_t length, const char *const *names, int n)
{
    size_t used = 0;

    out[0] = '\0';
    for (int i = 0; i < n && used < length; i++)
        used += (size_t)snprintf(out + used, length - used, "%s%s", i ? ", " : "", names[i]);
}

ls_status cli_value_name(int *out, const char *option, const char *text, const char *const *names,
                         int n)
{
    char all[256];

    for (int i = 0; i < n; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = i;
            return LS_OK;
        }
    }
    const char *nearest = ls_nearest(text, names, n);
    if (nearest)
        return ls_fail(LS_EVALUE, "%s: unknown name '%s'; is '%s' meant?", option, text, nearest);
    join(all, sizeof(all), names, n);
    return ls_fail(LS_EVALUE, "%s: unknown name '%s'; there are: %s", option, text, all);
}

ls_status cli_value_method(const char **out, const char *option, const char *text)
{
    const char *names[MOST_NAMES] = {"auto"};
    const int methods = ls_method_count();
    int i = 0;

    assert(1 + methods <= MOST_NAMES);
    for (int m = 0; m < methods; m++) names[1 + m] = ls_method_at(m)->name;
    LS_TRY(cli_value_name(&i, option, text, names, 1 + methods));
    *out = i > 0 ? names[i] : NULL;
    return LS_OK;
}

ls_status cli_value_dtype(ls_dtype *out, const char *option, const char *text)
{
    static const char *const names[] = {"bf16", "f16", "f32"};
    int i = 0;

    LS_TRY(cli_value_name(&i, option, text, names, 3));
    return ls_dtype_find(out, names[i]);
}
