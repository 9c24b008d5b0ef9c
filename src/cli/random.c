#include "cli/random.h"

#include <string.h>

#include "base/status.h"
#include "cli/values.h"

#define OPTION "--random (B,H,HKV,SQ,SK,D[/DV][,SEED])"

/* A size beyond this is a slip of the finger. */
#define MOST_SIZE (INT64_C(1) << 32)

/* Where /DV begins, which can stand behind the sixth number; else the end of the text. */
static size_t find_value_dim(const char *text)
{
    int commas = 0;
    size_t i = 0;

    for (; text[i] && (text[i] != '/' || commas != 5); i++) commas += text[i] == ',';
    return i;
}

ls_status cli_random_set(struct cli_random *out, const char *text)
{
    const size_t slash = find_value_dim(text);
    const int fewest = text[slash] ? 7 : 6;
    int64_t n[8] = {0};
    char list[256];
    int count;

    if (strlen(text) >= sizeof(list))
        return ls_fail(LS_EVALUE, OPTION ": longer than %zu characters", sizeof(list) - 1);
    strcpy(list, text);
    if (text[slash]) list[slash] = ',';
    LS_TRY(cli_value_list(n, &count, OPTION, list, fewest, fewest + 1, 0, MOST_SIZE));
    *out = (struct cli_random){.given = true,
                               .shape = {.b = n[0],
                                         .h = n[1],
                                         .h_kv = n[2],
                                         .s_q = n[3],
                                         .s_k = n[4],
                                         .d = n[5],
                                         .type = LS_BF16,
                                         .d_v = n[fewest - 1]},
                               .seed = (uint64_t)n[fewest]};
    return LS_OK;
}
