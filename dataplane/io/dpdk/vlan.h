#pragma once

#include "dataplane/base/base.h"

// 802.1Q: a frame's tag, off and on. Only lanes see tags, where a frame comes from the device and
// where one goes to it: flows, stack and datagrams know interfaces instead.
//
// Threading: any. Memory: the frame is the caller's.
#define SL_VLAN_TAG_BYTES 4
#define SL_VLAN_MAX       4094

// Takes the tag off a frame of `vlan` (0: frames without one, or with a priority only). Returns the
// bytes that the frame has lost at its front, 0 or SL_VLAN_TAG_BYTES; -1: it is another VLAN's.
int sl_vlan_untag(uint8_t *frame, size_t bytes, uint16_t vlan);

// Puts a tag in: the frame was at SL_VLAN_TAG_BYTES behind `frame` and now begins there.
void sl_vlan_tag(uint8_t *frame, uint16_t vlan);
