# SPDX-License-Identifier: Apache-2.0
# The only way targets are made in this tree; scripts/check-structure refuses the raw commands.

option(VALLUM_WERROR "Treat warnings as errors" ON)
set(VALLUM_SANITIZE "" CACHE STRING "Value of -fsanitize=, empty for none")
option(VALLUM_FUZZ "Build libFuzzer targets (clang only)" OFF)
option(VALLUM_COVERAGE "Instrument for line coverage" OFF)

add_library(vallum_warnings INTERFACE)
add_library(vallum::warnings ALIAS vallum_warnings)
target_compile_options(vallum_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wtype-limits
  -Wnon-virtual-dtor -Woverloaded-virtual -Wold-style-cast -Wnull-dereference
  -Wimplicit-fallthrough -Wformat=2
  $<$<CXX_COMPILER_ID:GNU>:-Wduplicated-cond -Wlogical-op>
  # gcc 12 reports coroutine-free library templates as maybe-uninitialised or dangling at -O1 and up;
  # clang and the sanitizers cover the same ground without the false positives.
  $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized -Wno-restrict>
  # The same of null dereferences inside std::string once -O2 has inlined it; -O1 and clang keep the check.
  $<$<AND:$<CXX_COMPILER_ID:GNU>,$<CONFIG:Release>>:-Wno-null-dereference>
  # clang 19 reports libstdc++ 12's own std::get_temporary_buffer in each std::stable_sort; gcc warns of ours.
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety -Wno-deprecated-declarations>
  $<$<BOOL:${VALLUM_WERROR}>:-Werror>)

add_library(vallum_hardening INTERFACE)
add_library(vallum::hardening ALIAS vallum_hardening)
target_compile_options(vallum_hardening INTERFACE
  -fstack-protector-strong -fstack-clash-protection -fcf-protection
  $<$<CONFIG:Release>:-D_FORTIFY_SOURCE=2>)
target_compile_definitions(vallum_hardening INTERFACE $<$<NOT:$<CONFIG:Release>>:_GLIBCXX_ASSERTIONS>)
target_link_options(vallum_hardening INTERFACE -Wl,-z,relro,-z,now)

add_library(vallum_sanitize INTERFACE)
add_library(vallum::sanitize ALIAS vallum_sanitize)
if(VALLUM_SANITIZE)
  target_compile_options(vallum_sanitize INTERFACE -fsanitize=${VALLUM_SANITIZE}
    -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(vallum_sanitize INTERFACE -fsanitize=${VALLUM_SANITIZE})
endif()
if(VALLUM_FUZZ)
  # Every library is instrumented so that the fuzzers see its branches.
  target_compile_options(vallum_sanitize INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(VALLUM_COVERAGE)
  target_compile_options(vallum_sanitize INTERFACE --coverage)
  target_link_options(vallum_sanitize INTERFACE --coverage)
endif()

add_library(vallum_flags INTERFACE)
target_link_libraries(vallum_flags INTERFACE vallum_warnings vallum_hardening vallum_sanitize)

# vallum_library(<component> SOURCES ... HEADERS ... [PUBLIC libs...] [PRIVATE libs...])
# Makes the target vallum_<component> (alias vallum::<component>) of the folder src/<component>.
# Includes are written from src/: #include "base/result.h".
function(vallum_library component)
  cmake_parse_arguments(ARG "" "" "SOURCES;HEADERS;PUBLIC;PRIVATE" ${ARGN})
  set(target vallum_${component})
  if(ARG_SOURCES)
    add_library(${target} STATIC ${ARG_SOURCES})
    set(scope PUBLIC)
    target_link_libraries(${target} PRIVATE vallum_flags)
  else()
    add_library(${target} INTERFACE)
    set(scope INTERFACE)
    target_link_libraries(${target} INTERFACE vallum_flags)
  endif()
  add_library(vallum::${component} ALIAS ${target})
  target_include_directories(${target} ${scope} ${PROJECT_SOURCE_DIR}/src)
  if(ARG_HEADERS)
    target_sources(${target} ${scope} FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR}/src
      FILES ${ARG_HEADERS})
  endif()
  if(ARG_PUBLIC)
    target_link_libraries(${target} ${scope} ${ARG_PUBLIC})
  endif()
  if(ARG_PRIVATE)
    target_link_libraries(${target} PRIVATE ${ARG_PRIVATE})
  endif()
endfunction()

# vallum_program(<name> SOURCES main.cc ... LIBS libs...) makes the executable <name> in build/bin.
function(vallum_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE vallum_flags ${ARG_LIBS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/src)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
  install(TARGETS ${name} RUNTIME)
endfunction()

# vallum_test(<component> SOURCES x_test.cc ... [LIBS libs...]) makes one test binary per component;
# ctest sees each test case.
function(vallum_test component)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
  set(target vallum_${component}_test)
  add_executable(${target} ${ARG_SOURCES})
  target_link_libraries(${target} PRIVATE vallum_flags ${ARG_LIBS} GTest::gmock GTest::gtest_main)
  if(TARGET vallum_${component})
    target_link_libraries(${target} PRIVATE vallum_${component})
  endif()
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_compile_definitions(${target} PRIVATE
    VALLUM_TESTDATA="${CMAKE_CURRENT_SOURCE_DIR}/testdata"
    VALLUM_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
  # Tests are compiled far more often than they run, and run as fast.
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
  gtest_discover_tests(${target} TEST_PREFIX "${component}." DISCOVERY_MODE PRE_TEST
    DISCOVERY_TIMEOUT 60 NO_PRETTY_VALUES PROPERTIES TIMEOUT 120
    ENVIRONMENT "TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/cmake/tsan.supp")
endfunction()

# vallum_test_program(<component> <name> SOURCES ... [LIBS libs...]) makes build/bin/test/<name>, a program that only
# the tests of the component run, and builds it before them. Never installed.
function(vallum_test_program component name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE vallum_flags vallum_${component} ${ARG_LIBS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin/test)
  add_dependencies(vallum_${component}_test ${name})
endfunction()

# vallum_fuzzer(<component> x_fuzzer.cc [more.cc...]) makes x_fuzzer with corpus/x beside it; a no-op without VALLUM_FUZZ.
function(vallum_fuzzer component source)
  if(NOT VALLUM_FUZZ)
    return()
  endif()
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source} ${ARGN})
  target_link_libraries(${name} PRIVATE vallum_flags vallum_${component})
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzzers)
endfunction()

# vallum_benchmark(<name> SOURCES ... LIBS ...) makes build/bench/<name>.
function(vallum_benchmark name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE vallum_flags ${ARG_LIBS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
endfunction()

# vallum_proto_library(<component> PROTOS ...) generates C++ and gRPC code for api/ and makes vallum::<component>.
function(vallum_proto_library component)
  cmake_parse_arguments(ARG "" "" "PROTOS" ${ARGN})
  set(out ${CMAKE_BINARY_DIR}/generated)
  file(MAKE_DIRECTORY ${out})
  set(generated)
  foreach(proto ${ARG_PROTOS})
    get_filename_component(dir ${proto} DIRECTORY)
    get_filename_component(stem ${proto} NAME_WE)
    set(base ${out}/${dir}/${stem})
    add_custom_command(
      OUTPUT ${base}.pb.cc ${base}.pb.h ${base}.grpc.pb.cc ${base}.grpc.pb.h
      COMMAND protobuf::protoc --proto_path=${PROJECT_SOURCE_DIR}/api --cpp_out=${out}
        --grpc_out=${out} --plugin=protoc-gen-grpc=${VALLUM_GRPC_CPP_PLUGIN}
        ${PROJECT_SOURCE_DIR}/api/${proto}
      DEPENDS ${PROJECT_SOURCE_DIR}/api/${proto} VERBATIM)
    list(APPEND generated ${base}.pb.cc ${base}.grpc.pb.cc)
  endforeach()
  set(target vallum_${component})
  add_library(${target} STATIC ${generated})
  add_library(vallum::${component} ALIAS ${target})
  target_include_directories(${target} SYSTEM PUBLIC ${out})
  # Generated code is not ours to fix: sanitized, but without our warnings.
  target_link_libraries(${target} PUBLIC protobuf::libprotobuf PkgConfig::GRPCPP PRIVATE vallum_sanitize)
endfunction()
