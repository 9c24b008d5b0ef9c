/* Everything but MPI: include longspan/mpi.h as well to compute on several ranks. */
#ifndef LONGSPAN_LONGSPAN_H
#define LONGSPAN_LONGSPAN_H

#include "longspan/attention.h"
#include "longspan/comm.h"
#include "longspan/layout.h"
#include "longspan/status.h"
#include "longspan/tensor.h"

#endif
