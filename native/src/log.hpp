// ExecuTorch's log lines, kept off stderr and turned into the reason of an exception.
#pragma once

#include <string>

namespace crykit {

// While one lives, errors that ExecuTorch logs on this thread are kept here and not printed. Lines of
// others in this process go where they went before.
class LogCapture {
 public:
  LogCapture();
  ~LogCapture();
  LogCapture(const LogCapture&) = delete;
  LogCapture& operator=(const LogCapture&) = delete;

  // The first error, which is the innermost: those that follow only pass it on.
  const std::string& reason() const { return reason_; }
  void add(char level, const char* message, size_t length);

 private:
  LogCapture* outer_;
  std::string reason_;
};

}  // namespace crykit
