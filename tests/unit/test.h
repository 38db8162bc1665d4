#pragma once

// cmocka with the headers it wants before it. Included first by every unit test.
// Threading: none; a test is one thread unless it says otherwise.

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
