#include "attention/fingerprint.h"

#include <stdio.h>
#include <string.h>

#include "config.h"
#include "device/gradient.h"

void ls_fingerprint_of_device(char out[LS_FINGERPRINT_LENGTH], const struct ls_device *device)
{
    snprintf(out, LS_FINGERPRINT_LENGTH, "longspan %s, %s, %s, leaf %d", PACKAGE_VERSION,
             device->facts.isa, device->facts.library, LS_LEAF);
}

void ls_fingerprint(char out[LS_FINGERPRINT_LENGTH], const struct ls_device *device,
                    struct ls_kernel_shape shape, bool backward)
{
    ls_fingerprint_of_device(out, device);
    const size_t length = strlen(out);

    snprintf(out + length, LS_FINGERPRINT_LENGTH - length, ", %s%s%s",
             ls_attention_kernel_name(device, shape), backward ? ", backward " : "",
             backward ? ls_gradient_kernel_name(device, shape) : "");
}

ls_status ls_fingerprint_agree(struct ls_comm *comm, const char own[LS_FINGERPRINT_LENGTH])
{
    char first[LS_FINGERPRINT_LENGTH];
    ls_status status = LS_OK;

    memcpy(first, own, sizeof first);
    LS_TRY(ls_comm_broadcast(first, comm, sizeof first, 0));
    if (strcmp(first, own) != 0)
        status = ls_fail(LS_EFIT,
                         "it computes with %s, rank 0 with %s: strict mode needs the same "
                         "on every rank; LONGSPAN_ISA sets the instruction set",
                         own, first);
    return ls_comm_agree(comm, status);
}
