# How every target of Sluice is built: one place for flags, sanitizers and the shape of a library.

find_package(PkgConfig REQUIRED)

option(SL_JEMALLOC "Shard memory in jemalloc arenas (off under sanitizers)" ON)
option(SL_FUZZ "Build the libFuzzer targets (clang)" OFF)
set(SL_SANITIZE "" CACHE STRING "Sanitizers, as -fsanitize= takes them")

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

add_compile_options(-Wall -Wextra -Wshadow -Wmissing-prototypes -Werror
	-fno-omit-frame-pointer -fno-strict-aliasing)
# GCC clears a small structure with `rep stos`, which takes longer to begin than the whole thing by
# vectors: 7 % of a datagram.
if(CMAKE_C_COMPILER_ID STREQUAL "GNU" AND CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
	add_compile_options(-mmemset-strategy=vector_loop:768:noalign,libcall:-1:noalign)
	# It joins two stores of neighbouring fields into one wider load of both, which waits for them:
	# 4 % of a datagram's cost.
	add_compile_options(-fno-tree-slp-vectorize)
endif()
add_compile_definitions(_GNU_SOURCE SL_VERSION="${PROJECT_VERSION}")
include_directories(${CMAKE_SOURCE_DIR})

# Assertions stand in every build: a broken invariant ends the program, it never forwards bad data.
foreach(flavour RELEASE RELWITHDEBINFO)
	string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_${flavour} "${CMAKE_C_FLAGS_${flavour}}")
endforeach()

if(SL_SANITIZE)
	add_compile_options(-fsanitize=${SL_SANITIZE})
	add_link_options(-fsanitize=${SL_SANITIZE})
	if(SL_SANITIZE MATCHES "undefined")
		add_compile_options(-fno-sanitize-recover=undefined)
	endif()
endif()

find_package(Threads REQUIRED)

# One pkg-config package as an imported target, looked up once: sl_package(nghttp2 libnghttp2).
function(sl_package name module)
	if(NOT TARGET PkgConfig::${name})
		pkg_check_modules(${name} REQUIRED IMPORTED_TARGET GLOBAL ${module})
	endif()
endfunction()

# The library of the current folder, from its own .c files: sl_library(otlp base PkgConfig::x).
function(sl_library name)
	file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c)
	set(scope PUBLIC)
	if(sources)
		add_library(sl_${name} STATIC ${sources})
	else()
		add_library(sl_${name} INTERFACE)
		set(scope INTERFACE)
	endif()
	foreach(dependency ${ARGN})
		if(TARGET sl_${dependency})
			target_link_libraries(sl_${name} ${scope} sl_${dependency})
		else()
			target_link_libraries(sl_${name} ${scope} ${dependency})
		endif()
	endforeach()
endfunction()
