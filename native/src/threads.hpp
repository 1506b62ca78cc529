// How many threads a program may use.
#pragma once

#include <cstddef>

namespace crykit {

// A program's claim on threads, for as long as it lives.
//
// One thread needs no pool: the caller's own does the work. More come from ExecuTorch's only pool,
// which is the process's; it ignores CPU affinity, so its size is set here. A pool cannot change
// under a program that points into it, so all that live at a time must ask for the same number.
class ThreadLease {
 public:
  // Throws std::invalid_argument for a number that cannot be had.
  explicit ThreadLease(long count);
  ~ThreadLease();
  ThreadLease(const ThreadLease&) = delete;
  ThreadLease& operator=(const ThreadLease&) = delete;

  size_t count() const { return count_; }

 private:
  size_t count_;
};

// Holds the calling thread to its lease while ExecuTorch loads or runs.
class ThreadScope {
 public:
  explicit ThreadScope(const ThreadLease& lease);
  ~ThreadScope();
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;

 private:
  bool before_;
};

}  // namespace crykit
