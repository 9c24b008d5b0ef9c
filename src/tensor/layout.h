/* Layouts by name, for options. */
#ifndef LS_TENSOR_LAYOUT_H
#define LS_TENSOR_LAYOUT_H

#include "base/status.h"
#include "longspan/layout.h"

/* "auto" included. Errors: LS_EVALUE for an unknown name; the message lists the names and says
 * which is nearest. */
ls_status ls_layout_find(ls_layout_kind *out, const char *name);

#endif
