/* The processes that run this command together. */
#ifndef LS_CLI_WORLD_H
#define LS_CLI_WORLD_H

#include "base/status.h"
#include "longspan/comm.h"

struct cli_world {
    struct ls_comm *comm;
    int rank, size;
    char program[64]; /* "longspan attend": heads every message */
};

/* Starts MPI if a launcher (mpirun, srun) started this process; a process on its own, or one that
 * LONGSPAN_SINGLE=1 makes so, does without, which saves half a second. */
ls_status cli_world_init(struct cli_world *world, int *argc, char ***argv);

/* Collective: every rank was started by the same program, of the same version and size, with the
 * same arguments. Errors: LS_EVALUE; the message names a rank and both. */
ls_status cli_world_agree(const struct cli_world *world, int argc, char **argv);

/* Lets the other ranks hear of this one, if there is a timeout. Where a rank does something by
 * itself for longer than a second or so, it calls this in between. */
void cli_world_beat(const struct cli_world *world);

/* To be asked before anything is computed: that a launcher did not start several processes of which
 * MPI knows only this one. Errors: LS_EVALUE, with the way out. */
ls_status cli_world_complete(const struct cli_world *world);

/* Collective after a status that all ranks share. After LS_ECOMM nobody can be waited for, and
 * the other ranks are ended with this exit status. */
void cli_world_fini(struct cli_world *world, ls_status status, int exit_status);

#endif
