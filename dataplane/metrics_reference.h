#pragma once

#include <stdio.h>

// What of the reference is not settings: every metric, by the tables that the code counts by, and
// every reason for a refusal.
//
// Threading: none.
void sl_metrics_reference(FILE *out);
