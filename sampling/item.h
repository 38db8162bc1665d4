#pragma once

#include "dataplane/request/request.h"
#include "sampling/rules.h"

// One item looked at closely: its sampling state is read from the body, and the edits that change
// it are made. The stage comes here for what it cannot decide from the view alone.
//
// Threading: one owner. Memory: edits lie in the request's arena. Time: none.
struct sl_sampled {
	enum sl_verdict verdict;
	enum sl_sample_note note;
	bool unreadable; // its state did not parse
	bool no_memory;  // the budget is spent; nothing else is valid
	double excess;   // what it stands for beyond itself, if it is kept
};

// Decides a kept item of `part` by `rule`, adding edits when its state changes.
struct sl_sampled sl_sampling_item(const struct sl_sampling_rule *rule, struct sl_part *part,
				   uint32_t index);

// What an item that goes on as it came stands for beyond itself, by the threshold it carries.
double sl_sampling_excess(const struct sl_view *view, uint32_t index);
