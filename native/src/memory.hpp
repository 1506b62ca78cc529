// Memory as kernels like it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace crykit {

constexpr size_t kAlignment = 64;
// XNNPACK may read a little past the end of what it is given.
constexpr size_t kSlack = 128;

struct FreeMemory {
  void operator()(uint8_t* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<uint8_t[], FreeMemory>;

inline size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

inline Buffer make_buffer(size_t bytes) {
  auto* memory = static_cast<uint8_t*>(std::aligned_alloc(kAlignment, aligned(bytes) + kSlack));
  if (memory == nullptr) throw std::bad_alloc();
  return Buffer(memory);
}

inline Buffer zero_buffer(size_t bytes) {
  Buffer buffer = make_buffer(bytes);
  std::memset(buffer.get(), 0, aligned(bytes) + kSlack);
  return buffer;
}

inline Buffer copy_buffer(const void* data, size_t bytes) {
  Buffer buffer = make_buffer(bytes);
  if (bytes > 0) std::memcpy(buffer.get(), data, bytes);
  return buffer;
}

}  // namespace crykit
