/* Layouts by name, for options, and by position. */
#ifndef LS_TENSOR_LAYOUT_H
#define LS_TENSOR_LAYOUT_H

#include "base/status.h"
#include "longspan/layout.h"

/* "auto" included. Errors: LS_EVALUE for an unknown name; the message lists the names and says
 * which is nearest. */
ls_status ls_layout_find(ls_layout_kind *out, const char *name);

/* How many rows of rank's part stand before a position, 0 to s, of the sequence. */
int64_t ls_layout_rows_before(const struct ls_layout *layout, int rank, int64_t position);

#endif
