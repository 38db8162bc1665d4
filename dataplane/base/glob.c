#include "dataplane/base/glob.h"

bool sl_glob_match(struct sl_bytes pattern, struct sl_bytes text)
{
	size_t p = 0, t = 0;
	size_t star = SIZE_MAX, star_text = 0; // where to fall back to

	while (t < text.size) {
		const bool quoted = p + 1 < pattern.size && pattern.data[p] == '\\';

		if (p < pattern.size && pattern.data[p] == '*') {
			star = p++;
			star_text = t;
		} else if (quoted && pattern.data[p + 1] == text.data[t]) {
			p += 2;
			t++;
		} else if (!quoted && p < pattern.size &&
			   (pattern.data[p] == '?' || pattern.data[p] == text.data[t])) {
			p++;
			t++;
		} else if (star != SIZE_MAX) {
			p = star + 1;
			t = ++star_text;
		} else {
			return false;
		}
	}
	while (p < pattern.size && pattern.data[p] == '*')
		p++;
	return p == pattern.size;
}
