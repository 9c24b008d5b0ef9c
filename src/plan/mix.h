/* Many that are alike choose an option each, so that all together take few bytes and cost least:
 * how many of them take which. */
#ifndef LS_PLAN_MIX_H
#define LS_PLAN_MIX_H

#include <stdint.h>

#include "base/status.h"

enum { LS_MIX_OPTIONS = 256 };

struct ls_mix_problem {
    struct {
        int64_t bytes, cost; /* neither below 0 */
    } option[LS_MIX_OPTIONS];
    int n;
    int64_t many;   /* how many choose, at least 1 */
    int64_t budget; /* bytes, of all together */
};

struct ls_mix {
    int64_t count[LS_MIX_OPTIONS]; /* that take each option */
    int64_t bytes, cost;           /* of all together */
};

/* No mix that fits costs less; infinite if none fits. */
double ls_mix_bound(const struct ls_mix_problem *problem);

/* The cheapest mix that fits, exactly, and among those of equal cost one of the fewest bytes.
 * If there is none that costs at most `most`, *out is not written and *found false. Errors:
 * LS_ENOMEM. */
ls_status ls_mix_find(struct ls_mix *out, bool *found, const struct ls_mix_problem *problem,
                      int64_t most);

#endif
