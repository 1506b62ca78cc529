#include "loader.hpp"

#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <executorch/extension/data_loader/buffer_data_loader.h>
#include <executorch/extension/data_loader/file_data_loader.h>

#include "log.hpp"
#include "memory.hpp"

namespace crykit {
namespace {

namespace et = executorch::runtime;
using executorch::extension::BufferDataLoader;
using executorch::extension::FileDataLoader;

// A BufferDataLoader whose buffer lives as long.
class OwnedDataLoader final : public et::DataLoader {
 public:
  OwnedDataLoader(const void* data, size_t size)
      : memory_(copy_buffer(data, size)), loader_(memory_.get(), size) {}

  et::Result<et::FreeableBuffer> load(
      size_t offset, size_t size, const SegmentInfo& segment) const override {
    return loader_.load(offset, size, segment);
  }
  et::Result<size_t> size() const override { return loader_.size(); }
  et::Error load_into(
      size_t offset, size_t size, const SegmentInfo& segment, void* into) const override {
    return loader_.load_into(offset, size, segment, into);
  }

 private:
  Buffer memory_;
  BufferDataLoader loader_;
};

// 0, or what errno says of a path that cannot be read as a file.
int trouble_with(const char* path) {
  const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return errno;
  struct stat status;
  const int found = fstat(descriptor, &status) == 0 ? 0 : errno;
  close(descriptor);
  if (found != 0) return found;
  return S_ISDIR(status.st_mode) ? EISDIR : S_ISREG(status.st_mode) ? 0 : EINVAL;
}

}  // namespace

std::unique_ptr<et::DataLoader> load_file(const char* path) {
  LogCapture log;
  errno = trouble_with(path);
  if (errno != 0) return nullptr;
  auto loader = FileDataLoader::from(path, kAlignment);
  if (!loader.ok()) {
    if (errno == 0) errno = EIO;
    return nullptr;
  }
  return std::make_unique<FileDataLoader>(std::move(*loader));
}

std::unique_ptr<et::DataLoader> load_bytes(const void* data, size_t size) {
  return std::make_unique<OwnedDataLoader>(data, size);
}

}  // namespace crykit
