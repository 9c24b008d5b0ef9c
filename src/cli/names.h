/* --names: what a file calls its tensors. */
#ifndef LS_CLI_NAMES_H
#define LS_CLI_NAMES_H

#include "cli/world.h"
#include "longspan/store.h"

#define CLI_MOST_NAMES 25
#define CLI_NAME_ROOM 64

/* Zeros: every tensor has the name that the manual gives it. */
struct cli_names {
    char given[CLI_MOST_NAMES][CLI_NAME_ROOM];
};

/* "q=query,k=key", added to what was said before. Errors: LS_EVALUE. */
ls_status cli_names_set(struct cli_names *names, const char *text);

/* Whether any was given. */
bool cli_names_given(const struct cli_names *names);

/* What the file calls the tensor. */
const char *cli_names_of(const struct cli_names *names, const char *tensor);

/* Whether the file has it; one whose name was given is to be there, and is said to be. */
bool cli_names_expect(const struct cli_names *names, const char *tensor,
                      const struct ls_tensor_file *file);

/* As ls_input_open and ls_input_open_beside; a message that there is none says what would name it.
 * LS_ETYPE of tensors of 8 bits that are neither k nor v. */
ls_status cli_names_open(struct ls_input *out, const struct cli_names *names, const char *tensor,
                         const struct cli_world *world, const char *path, bool lone);
ls_status cli_names_open_beside(struct ls_input *out, const struct cli_names *names,
                                const char *tensor, const struct ls_input *beside);

#endif
