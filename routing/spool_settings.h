#pragma once

#include "routing/failover.h"
#include "routing/routing.h"
#include "routing/settings.h"

// Settings of `spool`. Threading: control thread only.
extern const struct sl_settings sl_spool_settings;

// What concerns spools of the whole: a folder each, and answers that wait for disks which are
// there.
void sl_spool_check(const struct sl_routing_config *config, struct sl_errors *errors);
