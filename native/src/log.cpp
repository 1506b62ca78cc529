#include "log.hpp"

#include <algorithm>
#include <atomic>

#include <executorch/runtime/platform/platform.h>

namespace crykit {
namespace {

constexpr size_t kMaxReason = 300;

thread_local LogCapture* current = nullptr;
std::atomic<int> capturing{0};
pal_emit_log_message_method previous = nullptr;

void emit(
    et_timestamp_t timestamp,
    et_pal_log_level_t level,
    const char* filename,
    const char* function,
    size_t line,
    const char* message,
    size_t length) {
  if (level == et_pal_log_level_t::kFatal) {
    // The process is about to end: these are the last words that anybody can read.
    if (previous) previous(timestamp, level, filename, function, line, message, length);
  } else if (current) {
    current->add(static_cast<char>(level), message, length);
  } else if (previous && capturing == 0) {
    // A line without a capture while others run comes from one of their pool's threads.
    previous(timestamp, level, filename, function, line, message, length);
  }
}

// Puts `emit` into the table of platform functions. Not by register_pal, which prints an error where
// ExecuTorch's own Python bindings have registered theirs, or come to it later.
void take_over() {
  auto* table = const_cast<executorch::runtime::PalImpl*>(executorch::runtime::get_pal_impl());
  if (table->emit_log_message == emit) return;
  previous = table->emit_log_message;
  table->emit_log_message = emit;
}

}  // namespace

LogCapture::LogCapture() : outer_(current) {
  take_over();
  current = this;
  ++capturing;
}

LogCapture::~LogCapture() {
  current = outer_;
  --capturing;
}

void LogCapture::add(char level, const char* message, size_t length) {
  if (level != et_pal_log_level_t::kError || !reason_.empty()) return;
  reason_.assign(message, std::min(length, kMaxReason));
  std::replace_if(
      reason_.begin(), reason_.end(), [](unsigned char c) { return c < 32 || c > 126; }, ' ');
}

}  // namespace crykit
