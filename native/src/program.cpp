#include "program.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/platform/runtime.h>

#include "log.hpp"

namespace crykit {
namespace {

namespace et = executorch::runtime;
using executorch::aten::Tensor;
using executorch::aten::TensorImpl;

// No model of this kit comes near; a damaged file may ask for anything.
constexpr int64_t kMaxPlanned = int64_t{1} << 31;

[[noreturn]] void fail(const std::string& what, et::Error error, const LogCapture& log) {
  // As in "Error::InvalidProgram".
  std::string name = et::to_string(error);
  const size_t colons = name.rfind("::");
  if (colons != std::string::npos) name.erase(0, colons + 2);
  throw ProgramError(what + ": " + name + (log.reason().empty() ? "" : ": " + log.reason()));
}

TensorSpec spec_of(const et::Result<et::TensorInfo>& info, const std::string& what) {
  if (!info.ok()) throw ProgramError(what + ": expected a tensor");
  const auto sizes = info->sizes();
  const auto order = info->dim_order();
  for (size_t i = 0; i < order.size(); ++i) {
    if (order[i] != i) throw ProgramError(what + ": expected dimensions in memory in their order");
  }
  for (const int32_t size : sizes) {
    if (size < 0) throw ProgramError(what + ": a dimension is negative");
  }
  return {{sizes.begin(), sizes.end()}, info->scalar_type(), info->nbytes(), false};
}

bool is_dynamic(const et::EValue& value) {
  return value.isTensor() && value.toTensor().unsafeGetTensorImpl()->shape_dynamism() !=
      et::TensorShapeDynamism::STATIC;
}

}  // namespace

size_t stride_of(const TensorSpec& spec) { return aligned(spec.bytes); }

size_t memory_of(const std::vector<TensorSpec>& layout) {
  size_t bytes = 0;
  for (const TensorSpec& spec : layout) bytes += stride_of(spec);
  return bytes;
}

Program::Program(
    std::unique_ptr<et::DataLoader> loader,
    std::string where,
    const std::string& method,
    long threads,
    long n_states)
    : where_(std::move(where)), lease_(threads), loader_(std::move(loader)) {
  LogCapture log;
  ThreadScope scope(lease_);
  et::runtime_init();
  auto program = et::Program::load(loader_.get(), et::Program::Verification::InternalConsistency);
  if (!program.ok()) fail(where_ + ": no ExecuTorch program", program.error(), log);
  program_.emplace(std::move(*program));
  auto meta = program_->method_meta(method.c_str());
  if (!meta.ok()) fail(where_ + ": no method '" + method + "'", meta.error(), log);
  plan_memory(*meta);
  auto loaded = program_->load_method(method.c_str(), &*memory_);
  if (!loaded.ok()) fail(where_ + ": cannot be loaded", loaded.error(), log);
  method_.emplace(std::move(*loaded));
  describe(*meta);
  describe_states(n_states);
  prepare_inputs(*meta);
}

Program::~Program() {
  LogCapture log;
  method_.reset();
  program_.reset();
}

void Program::plan_memory(const et::MethodMeta& meta) {
  for (size_t i = 0; i < meta.num_memory_planned_buffers(); ++i) {
    const auto size = meta.memory_planned_buffer_size(i);
    if (!size.ok() || *size < 0 || *size > kMaxPlanned) {
      throw ProgramError(where_ + ": asks for memory of no sensible size");
    }
    planned_.push_back(zero_buffer(static_cast<size_t>(*size)));
    planned_spans_.emplace_back(planned_.back().get(), static_cast<size_t>(*size));
  }
  planned_memory_.emplace(
      et::Span<et::Span<uint8_t>>(planned_spans_.data(), planned_spans_.size()));
  memory_.emplace(&method_memory_, &*planned_memory_, &scratch_memory_);
}

void Program::describe(const et::MethodMeta& meta) {
  for (size_t i = 0; i < meta.num_inputs(); ++i) {
    const std::string what = where_ + ": input " + std::to_string(i);
    inputs_.push_back(spec_of(meta.input_tensor_meta(i), what));
    inputs_.back().dynamic = is_dynamic(method_->mutable_input(i));
  }
  for (size_t i = 0; i < meta.num_outputs(); ++i) {
    const std::string what = where_ + ": output " + std::to_string(i);
    outputs_.push_back(spec_of(meta.output_tensor_meta(i), what));
    outputs_.back().dynamic = is_dynamic(method_->get_output(i));
  }
}

void Program::describe_states(long n_states) {
  const auto most = static_cast<long>(std::min(inputs_.size(), outputs_.size()));
  if (n_states < 0 || n_states > most) {
    throw ProgramError(
        where_ + ": expected " + std::to_string(n_states) + " states, but it has " +
        std::to_string(inputs_.size()) + " inputs and " + std::to_string(outputs_.size()) +
        " outputs");
  }
  std::vector<TensorSpec> states(inputs_.end() - n_states, inputs_.end());
  for (size_t i = 0; i < states.size(); ++i) {
    if (states[i].dynamic || !(states[i] == outputs_[outputs_.size() - states.size() + i])) {
      throw ProgramError(
          where_ + ": state " + std::to_string(i) + " does not leave as it came in");
    }
  }
  states_ = std::make_shared<const std::vector<TensorSpec>>(std::move(states));
}

void Program::prepare_inputs(const et::MethodMeta& meta) {
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const bool planned = meta.input_tensor_meta(i)->is_memory_planned();
    input_memory_.push_back(planned ? nullptr : zero_buffer(inputs_[i].bytes));
  }
}

State Program::initial_state() const { return {states_, zero_buffer(memory_of(*states_))}; }

bool Program::accepts(const State& state) const {
  return state.layout == states_ || *state.layout == *states_;
}

std::vector<Output> Program::run(
    const std::vector<Input>& inputs, const State* before, State* after) {
  std::lock_guard<std::mutex> guard(running_);
  LogCapture log;
  ThreadScope scope(lease_);
  for (size_t i = 0; i < inputs.size(); ++i) set_input(i, inputs[i].data, inputs[i].shape);
  if (before != nullptr) give_states(*before);
  const et::Error error = method_->execute();
  if (error != et::Error::Ok) fail(where_ + ": failed while running", error, log);
  std::vector<Output> results;
  const size_t n_results = outputs_.size() - (before == nullptr ? 0 : n_states());
  results.reserve(n_results);
  for (size_t i = 0; i < n_results; ++i) results.push_back(take(i));
  if (after != nullptr) take_states(*after);
  return results;
}

void Program::set_input(size_t index, const void* data, const std::vector<int32_t>& shape) {
  LogCapture log;
  auto* source = const_cast<void*>(data);  // ExecuTorch only reads it
  if (uint8_t* own = input_memory_[index].get()) {
    size_t bytes = executorch::runtime::elementSize(inputs_[index].dtype);
    for (const int32_t size : shape) bytes *= static_cast<size_t>(size);
    std::memcpy(own, data, bytes);
    source = own;
  }
  auto sizes = shape;
  std::vector<uint8_t> order(shape.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint8_t>(i);
  std::vector<int32_t> strides(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * sizes[i];
  TensorImpl tensor(
      inputs_[index].dtype, sizes.size(), sizes.data(), source, order.data(), strides.data());
  const et::Error error = method_->set_input(et::EValue(Tensor(&tensor)), index);
  if (error != et::Error::Ok) {
    fail(where_ + ": input " + std::to_string(index) + " was not taken", error, log);
  }
}

Tensor Program::output_tensor(size_t index) const {
  const et::EValue& value = method_->get_output(index);
  if (!value.isTensor()) {
    throw ProgramError(where_ + ": output " + std::to_string(index) + " is no tensor");
  }
  const Tensor tensor = value.toTensor();
  if (tensor.nbytes() > 0 && tensor.const_data_ptr() == nullptr) {
    throw ProgramError(where_ + ": output " + std::to_string(index) + " was never written");
  }
  return tensor;
}

Output Program::take(size_t index) {
  const Tensor tensor = output_tensor(index);
  const auto sizes = tensor.sizes();
  return {copy_buffer(tensor.const_data_ptr(), tensor.nbytes()), {sizes.begin(), sizes.end()}};
}

void Program::give_states(const State& before) {
  const uint8_t* memory = before.memory.get();
  const size_t first = inputs_.size() - n_states();
  for (size_t i = 0; i < n_states(); ++i) {
    set_input(first + i, memory, (*states_)[i].shape);
    memory += stride_of((*states_)[i]);
  }
}

void Program::take_states(State& after) {
  after = {states_, make_buffer(memory_of(*states_))};
  uint8_t* memory = after.memory.get();
  const size_t first = outputs_.size() - n_states();
  for (size_t i = 0; i < n_states(); ++i) {
    const Tensor tensor = output_tensor(first + i);
    const TensorSpec& spec = (*states_)[i];
    if (tensor.nbytes() != spec.bytes) {
      throw ProgramError(where_ + ": state " + std::to_string(i) + " changed its size");
    }
    std::memcpy(memory, tensor.const_data_ptr(), spec.bytes);
    memory += stride_of(spec);
  }
}

}  // namespace crykit
