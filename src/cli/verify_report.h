/* What --verify and check print of a judgement. */
#ifndef LS_CLI_VERIFY_REPORT_H
#define LS_CLI_VERIFY_REPORT_H

#include "cli/report.h"
#include "longspan/judge.h"

/* Errors beside limits, then the last line "verified: ok" or "verified: FAILED"; `verify` in the
 * JSON. */
void cli_verify_report(const struct cli_report *report, const struct ls_judgement *v);

#endif
