// Where a program's bytes come from.
#pragma once

#include <cstddef>
#include <memory>

#include <executorch/runtime/core/data_loader.h>

namespace crykit {

// Reads the parts of a file as they are asked for; null, with errno set, where it cannot be opened.
std::unique_ptr<executorch::runtime::DataLoader> load_file(const char* path);

// Keeps a copy of its own.
std::unique_ptr<executorch::runtime::DataLoader> load_bytes(const void* data, size_t size);

}  // namespace crykit
