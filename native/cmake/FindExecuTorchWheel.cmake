# Finds the folder of ExecuTorch's Python package, which holds C++ headers and libraries that need
# no torch: the one that was named, the one that is installed for this Python, or the wheel alone,
# fetched without its dependencies (they would bring torch and gigabytes of CUDA).
#
# Sets EXECUTORCH_INCLUDE_DIRS, EXECUTORCH_COMPILE_DEFINITIONS, EXECUTORCH_BUILD_VERSION,
# EXECUTORCH_RUNTIME_LIBRARY_DIR and EXECUTORCH_LICENCE.

function(_fetch_executorch version out)
  set(folder "${CMAKE_BINARY_DIR}/executorch-wheel")
  set(${out} "${folder}/unpacked/executorch" PARENT_SCOPE)
  if(EXISTS "${folder}/unpacked/executorch")
    return()
  endif()
  message(STATUS "Fetching ExecuTorch ${version}, the wheel alone")
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -m pip --disable-pip-version-check download --quiet --no-deps
            --only-binary :all: --dest "${folder}" "executorch==${version}"
    RESULT_VARIABLE failed ERROR_VARIABLE words)
  file(GLOB wheels "${folder}/executorch-*.whl")
  if(failed OR NOT wheels)
    message(FATAL_ERROR
      "ExecuTorch ${version} is neither installed for ${Python_EXECUTABLE} nor could it be fetched. "
      "Fetch it yourself (pip download --no-deps executorch==${version}), unpack it, and name the "
      "folder: pip install ./native -C cmake.define.EXECUTORCH_ROOT=FOLDER/executorch\n${words}")
  endif()
  file(ARCHIVE_EXTRACT INPUT ${wheels} DESTINATION "${folder}/unpacked")
endfunction()

macro(find_executorch named version)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c
            "import sysconfig; print(sysconfig.get_path('platlib'), end='')"
    OUTPUT_VARIABLE _site COMMAND_ERROR_IS_FATAL ANY)
  if(NOT "${named}" STREQUAL "")
    set(_executorch "${named}")
  elseif(EXISTS "${_site}/executorch-${version}.dist-info")
    # Also from an isolated build environment, whose Python has the same site-packages.
    set(_executorch "${_site}/executorch")
  else()
    _fetch_executorch(${version} _executorch)
  endif()
  find_package(executorch ${version} EXACT CONFIG REQUIRED
               PATHS "${_executorch}/share/cmake" NO_DEFAULT_PATH)
  file(GLOB EXECUTORCH_LICENCE
       "${_executorch}/../executorch-${version}.dist-info/licenses/LICENSE"
       "${_executorch}/LICENSE")
  if(NOT EXECUTORCH_LICENCE)
    message(FATAL_ERROR "No licence beside ${_executorch}: name the folder inside an unpacked wheel")
  endif()
  message(STATUS "ExecuTorch ${EXECUTORCH_BUILD_VERSION}: ${_executorch}")
endmacro()
