#include "base/nearest.h"

#include <stddef.h>
#include <string.h>

enum { LONGEST = 63 }; /* longer names are never near */

static int min2(int a, int b)
{
    return a < b ? a : b;
}

/* Fewest insertions, deletions and replacements of a letter that turn a into b, which has at
 * most LONGEST. row[j] is the distance of the first i letters of a to the first j of b.
 * Source: Wagner, Fischer 1974. */
static int edit_distance(const char *a, const char *b)
{
    const int a_length = (int)strlen(a), b_length = (int)strlen(b);
    int row[LONGEST + 1];

    for (int j = 0; j <= b_length; j++) row[j] = j;
    for (int i = 1; i <= a_length; i++) {
        int diagonal = row[0];

        row[0] = i;
        for (int j = 1; j <= b_length; j++) {
            const int replaced = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            row[j] = min2(replaced, 1 + min2(row[j], row[j - 1]));
        }
    }
    return row[b_length];
}

const char *ls_nearest(const char *wrong, const char *const *names, int n)
{
    const size_t length = strlen(wrong);
    const char *nearest = NULL;
    int best = LONGEST + 1;

    for (int i = 0; i < n; i++) {
        const size_t name_length = strlen(names[i]);

        if (name_length > LONGEST) continue;
        const int distance = edit_distance(wrong, names[i]);
        const size_t longer = length > name_length ? length : name_length;

        if (2 * (size_t)distance <= longer && distance < best) {
            best = distance;
            nearest = names[i];
        }
    }
    return nearest;
}
