/* Everything but MPI: include longspan/mpi.h as well to compute on several ranks. */
#ifndef LONGSPAN_LONGSPAN_H
#define LONGSPAN_LONGSPAN_H

#include "longspan/attention.h"
#include "longspan/comm.h"
#include "longspan/device.h"
#include "longspan/judge.h"
#include "longspan/layer.h"
#include "longspan/layout.h"
#include "longspan/progress.h"
#include "longspan/quantize.h"
#include "longspan/status.h"
#include "longspan/store.h"
#include "longspan/tensor.h"
#include "longspan/timeline.h"

#endif
