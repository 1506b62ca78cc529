// One method of a .pte file, loaded and ready to run. Knows nothing of Python.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <executorch/extension/memory_allocator/malloc_memory_allocator.h>
#include <executorch/runtime/executor/program.h>

#include "memory.hpp"
#include "threads.hpp"

namespace crykit {

// The file is no program that can run here, or running it failed.
class ProgramError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct TensorSpec {
  std::vector<int32_t> shape;  // the largest, where `dynamic`
  executorch::aten::ScalarType dtype;
  size_t bytes;
  bool dynamic;

  bool operator==(const TensorSpec& other) const {
    return shape == other.shape && dtype == other.dtype && dynamic == other.dynamic;
  }
};

// What a program carries from step to step, in one block of memory that is never written again.
struct State {
  std::shared_ptr<const std::vector<TensorSpec>> layout;
  Buffer memory;
};

struct Input {
  const void* data;
  std::vector<int32_t> shape;
};

struct Output {
  Buffer data;
  std::vector<size_t> shape;
};

class Program {
 public:
  // `loader` brings the file; `where` names it in errors. The last `n_states` inputs come back as
  // the last outputs. Throws ProgramError, or std::invalid_argument for a number of threads.
  Program(
      std::unique_ptr<executorch::runtime::DataLoader> loader,
      std::string where,
      const std::string& method,
      long threads,
      long n_states);
  ~Program();

  const std::vector<TensorSpec>& inputs() const { return inputs_; }
  const std::vector<TensorSpec>& outputs() const { return outputs_; }
  size_t n_states() const { return states_->size(); }
  size_t threads() const { return lease_.count(); }

  // All zeros.
  State initial_state() const;
  // Whether a state is laid out as this program's.
  bool accepts(const State& state) const;

  // Runs once. `inputs` have been checked against inputs(); with `before`, the states are left out
  // of them and `after` takes the next ones. Calls from several threads wait for each other.
  std::vector<Output> run(const std::vector<Input>& inputs, const State* before, State* after);

 private:
  void load(const std::string& method);
  void plan_memory(const executorch::runtime::MethodMeta& meta);
  void describe(const executorch::runtime::MethodMeta& meta);
  void describe_states(long n_states);
  void prepare_inputs(const executorch::runtime::MethodMeta& meta);
  void set_input(size_t index, const void* data, const std::vector<int32_t>& shape);
  Output take(size_t index);
  void give_states(const State& before);
  void take_states(State& after);
  executorch::aten::Tensor output_tensor(size_t index) const;

  const std::string where_;
  ThreadLease lease_;
  std::mutex running_;
  std::unique_ptr<executorch::runtime::DataLoader> loader_;
  std::vector<Buffer> planned_;
  std::vector<executorch::runtime::Span<uint8_t>> planned_spans_;
  std::optional<executorch::runtime::HierarchicalAllocator> planned_memory_;
  executorch::extension::MallocMemoryAllocator method_memory_;
  executorch::extension::MallocMemoryAllocator scratch_memory_;
  std::optional<executorch::runtime::MemoryManager> memory_;
  // Each points into what stands above it, and is destroyed first.
  std::optional<executorch::runtime::Program> program_;
  std::optional<executorch::runtime::Method> method_;

  std::vector<TensorSpec> inputs_;
  std::vector<TensorSpec> outputs_;
  std::shared_ptr<const std::vector<TensorSpec>> states_;
  // For inputs whose memory the program did not plan; empty for the others.
  std::vector<Buffer> input_memory_;
};

// Bytes from one state to the next in a State's memory, and of them all.
size_t stride_of(const TensorSpec& spec);
size_t memory_of(const std::vector<TensorSpec>& layout);

}  // namespace crykit
