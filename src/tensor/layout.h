/* Layouts by position. */
#ifndef LS_TENSOR_LAYOUT_H
#define LS_TENSOR_LAYOUT_H

#include "longspan/layout.h"

/* How many rows of rank's part stand before a position, 0 to s, of the sequence. */
int64_t ls_layout_rows_before(const struct ls_layout *layout, int rank, int64_t position);

#endif
