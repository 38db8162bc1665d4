#include "dataplane/io/dpdk/vlan.h"

#include <string.h>

#define MACS     12
#define HEAD     (MACS + 2)
#define TAG_TYPE 0x8100
#define S_TYPE   0x88a8 // 802.1ad: some provider's, around another
#define ID_MASK  0x0fff
#define WHOLE    (HEAD + SL_VLAN_TAG_BYTES)

static uint16_t get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

int sl_vlan_untag(uint8_t *frame, size_t bytes, uint16_t vlan)
{
	const uint16_t type = bytes < HEAD ? 0 : get16(frame + MACS);
	uint16_t id = 0;

	if (type == S_TYPE)
		return -1;
	if (type == TAG_TYPE) {
		if (bytes < WHOLE)
			return -1;
		id = get16(frame + HEAD) & ID_MASK;
	}
	if (id != vlan)
		return -1;
	if (type != TAG_TYPE)
		return 0;
	memmove(frame + SL_VLAN_TAG_BYTES, frame, MACS);
	return SL_VLAN_TAG_BYTES;
}

void sl_vlan_tag(uint8_t *frame, uint16_t vlan)
{
	memmove(frame, frame + SL_VLAN_TAG_BYTES, MACS);
	frame[MACS] = TAG_TYPE >> 8;
	frame[MACS + 1] = TAG_TYPE & 255;
	frame[HEAD] = (uint8_t)(vlan >> 8);
	frame[HEAD + 1] = (uint8_t)vlan;
}
