#pragma once

#include "config/module.h"
#include "dataplane/base/metrics.h"

// The thread that looks whether a control plane has written other tenants to tenants.redis, and
// fetches them: it waits for Redis, which nobody else has to. What it has fetched the control
// thread takes at its next turn, by a reload.
//
//   source thread: version is new -> fetch -> text --> control thread: reload --verdict--> cache
//
// Threading: made, asked and destroyed by the control thread. Memory: one text under way.
struct sl_source_thread;
struct sl_source_text;
struct sl_tenants_redis_config;

// NULL with errno set, after a log line. `first`: the text in force, for the cache; NULL: none.
struct sl_source_thread *sl_source_thread_create(const struct sl_tenants_redis_config *config,
						 const struct sl_source_text *first,
						 struct sl_metrics *metrics);
void sl_source_thread_destroy(struct sl_source_thread *self); // NULL is fine

// A text to try, or NULL; then its verdict is told, once. The text is the thread's.
struct sl_source_text *sl_source_thread_take(struct sl_source_thread *self);
// `errors`: why not, if it is not good.
void sl_source_thread_judge(struct sl_source_thread *self, const struct sl_source_text *text,
			    bool good, const struct sl_errors *errors);
