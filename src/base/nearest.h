/* The name somebody probably meant. */
#ifndef LS_BASE_NEAREST_H
#define LS_BASE_NEAREST_H

/* The one of n names with the smallest edit distance to `wrong`; NULL if none is near (more than
 * half of the longer name would have to change). */
const char *ls_nearest(const char *wrong, const char *const *names, int n);

#endif
