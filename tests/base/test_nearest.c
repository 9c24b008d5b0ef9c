#include "base/nearest.h"

#include <criterion/criterion.h>
#include <string.h>

static const char *const methods[] = {"local", "allgather", "ring", "f32", "bf16", ""};
enum { METHODS = sizeof methods / sizeof *methods };

Test(nearest, the_name_with_the_fewest_changes_is_found)
{
    static const struct {
        const char *wrong, *right; /* NULL: none is near */
    } cases[] = {
        {"ring", "ring"},
        {"rnig", "ring"},
        {"rin", "ring"},
        {"rings", "ring"},
        {"wring", "ring"},
        {"all-gather", "allgather"},
        {"algather", "allgather"},
        {"allgathr", "allgather"},
        {"lokal", "local"},
        {"locals", "local"},
        {"bf32", "f32"},
        {"b16", "bf16"},
        {"f16", "bf16"},
        {"ulysses", NULL},
        {"all", NULL},
        {"Q", NULL},
        {"rixx", "ring"},
        {"rxxx", NULL},
        {"", ""},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const found = ls_nearest(cases[i].wrong, methods, METHODS);

        if (cases[i].right == NULL)
            cr_expect_eq(found, NULL, "'%s' found '%s'", cases[i].wrong, found);
        else
            cr_expect(found != NULL && strcmp(found, cases[i].right) == 0, "'%s' found '%s'",
                      cases[i].wrong, found != NULL ? found : "none");
    }
}

Test(nearest, of_equally_near_names_the_first_is_taken)
{
    static const char *const names[] = {"ab1", "ab2", "ab3"};

    cr_expect_str_eq(ls_nearest("ab", names, 3), "ab1");
    cr_expect_str_eq(ls_nearest("ab", names + 1, 2), "ab2");
}

Test(nearest, names_of_any_length_are_safe)
{
    char longer[300];
    const char *const names[] = {longer, "ring"};

    for (size_t length = 0; length < sizeof longer; length++) {
        memset(longer, 'x', length);
        longer[length] = '\0';
        const char *const found = ls_nearest(longer, names, 2);

        cr_expect(found == NULL || found == longer, "%zu letters", length);
        cr_expect_str_eq(ls_nearest("rinq", names, 2), "ring", "%zu letters", length);
    }
    cr_expect_eq(ls_nearest("ring", names, 0), NULL);
}
