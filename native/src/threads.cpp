#include "threads.hpp"

#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <string>

#include <executorch/extension/threadpool/threadpool_guard.h>

#include "log.hpp"

// The library exports these; the wheel leaves out the header that declares them.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(uint32_t num_threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace crykit {
namespace {

using executorch::extension::threadpool::get_threadpool;
using executorch::extension::threadpool::NoThreadPoolGuard;

constexpr long kMaxThreads = 256;

std::mutex pool_lock;
size_t pool_users = 0;

}  // namespace

ThreadLease::ThreadLease(long count) : count_(static_cast<size_t>(count)) {
  if (count < 1 || count > kMaxThreads) {
    throw std::invalid_argument(
        "threads: expected 1 to " + std::to_string(kMaxThreads) + ", got " + std::to_string(count));
  }
  if (count == 1) return;
  LogCapture log;  // it tells of its making
  std::lock_guard<std::mutex> guard(pool_lock);
  auto* pool = get_threadpool();
  if (pool == nullptr) throw std::invalid_argument("threads: there is no thread pool here");
  if (pool->get_thread_count() != count_) {
    if (pool_users > 0) {
      throw std::invalid_argument(
          "threads: other programs of this process share a pool of " +
          std::to_string(pool->get_thread_count()) + ": expected that many or 1, got " +
          std::to_string(count));
    }
    pool->_unsafe_reset_threadpool(static_cast<uint32_t>(count));
  }
  ++pool_users;
}

ThreadLease::~ThreadLease() {
  if (count_ == 1) return;
  std::lock_guard<std::mutex> guard(pool_lock);
  --pool_users;
}

ThreadScope::ThreadScope(const ThreadLease& lease) : before_(NoThreadPoolGuard::is_enabled()) {
  NoThreadPoolGuard::set_enabled(lease.count() == 1);
}

ThreadScope::~ThreadScope() { NoThreadPoolGuard::set_enabled(before_); }

}  // namespace crykit
