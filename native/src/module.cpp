// The Python side: arrays in, arrays out, and errors that say what was expected and what came.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <new>

#include <executorch/runtime/core/data_loader.h>

#include "loader.hpp"
#include "program.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace crykit {
namespace {

using executorch::aten::ScalarType;
using Array = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

struct Dtype {
  ScalarType type;
  const char* name;
  nb::dlpack::dtype dlpack;
};

nb::dlpack::dtype dlpack(nb::dlpack::dtype_code code, uint8_t bits) {
  return {static_cast<uint8_t>(code), bits, 1};
}

const Dtype kDtypes[] = {
    {ScalarType::Float, "float32", dlpack(nb::dlpack::dtype_code::Float, 32)},
    {ScalarType::Double, "float64", dlpack(nb::dlpack::dtype_code::Float, 64)},
    {ScalarType::Half, "float16", dlpack(nb::dlpack::dtype_code::Float, 16)},
    {ScalarType::Long, "int64", dlpack(nb::dlpack::dtype_code::Int, 64)},
    {ScalarType::Int, "int32", dlpack(nb::dlpack::dtype_code::Int, 32)},
    {ScalarType::Short, "int16", dlpack(nb::dlpack::dtype_code::Int, 16)},
    {ScalarType::Char, "int8", dlpack(nb::dlpack::dtype_code::Int, 8)},
    {ScalarType::Byte, "uint8", dlpack(nb::dlpack::dtype_code::UInt, 8)},
    {ScalarType::Bool, "bool", dlpack(nb::dlpack::dtype_code::Bool, 8)},
};

const Dtype& dtype_of(ScalarType type) {
  for (const Dtype& dtype : kDtypes) {
    if (dtype.type == type) return dtype;
  }
  throw ProgramError("a tensor has a type that numpy does not know");
}

// What came, as in "float64", "ndarray of >f4" or "list".
std::string name_of(nb::handle object, bool with_type) {
  const bool typed = nb::hasattr(object, "dtype");
  const nb::object attribute = typed ? nb::object(object.attr("dtype")) : nb::str("");
  const std::string dtype = nb::str(attribute).c_str();
  if (typed && !with_type) return dtype;
  const auto type = nb::cast<std::string>(object.type().attr("__name__"));
  return typed ? type + " of " + dtype : type;
}

template <typename Sizes>
std::string text_of(const Sizes& sizes) {
  std::string text = "(";
  for (size_t i = 0; i < sizes.size(); ++i) text += (i ? ", " : "") + std::to_string(sizes[i]);
  return text + (sizes.size() == 1 ? ",)" : ")");
}

template <typename Sizes>
nb::tuple tuple_of(const Sizes& sizes) {
  nb::list items;
  for (const auto size : sizes) items.append(size);
  return nb::tuple(items);
}

bool fits(const Array& array, const TensorSpec& spec) {
  if (array.ndim() != spec.shape.size()) return false;
  for (size_t i = 0; i < array.ndim(); ++i) {
    const auto size = static_cast<size_t>(spec.shape[i]);
    if (spec.dynamic ? array.shape(i) > size : array.shape(i) != size) return false;
  }
  return true;
}

std::vector<int32_t> shape_of(const Array& array) {
  std::vector<int32_t> shape;
  for (size_t i = 0; i < array.ndim(); ++i) shape.push_back(static_cast<int32_t>(array.shape(i)));
  return shape;
}

Array checked(nb::handle object, const TensorSpec& spec, size_t index) {
  const std::string what = "input " + std::to_string(index) + ": expected ";
  const Dtype& dtype = dtype_of(spec.dtype);
  Array array;
  if (!nb::try_cast(object, array)) {
    const std::string wanted = std::string("a numpy array of ") + dtype.name + " on the CPU";
    throw nb::type_error((what + wanted + ", got " + name_of(object, true)).c_str());
  }
  if (array.dtype() != dtype.dlpack) {
    throw nb::type_error((what + dtype.name + ", got " + name_of(object, false)).c_str());
  }
  if (!fits(array, spec)) {
    std::vector<size_t> got;
    for (size_t i = 0; i < array.ndim(); ++i) got.push_back(array.shape(i));
    const char* up_to = spec.dynamic ? "the shape up to " : "the shape ";
    throw nb::value_error((what + up_to + text_of(spec.shape) + ", got " + text_of(got)).c_str());
  }
  return array;
}

nb::object array_of(Output output, ScalarType type) {
  uint8_t* data = output.data.release();
  nb::capsule owner(data, [](void* memory) noexcept { std::free(memory); });
  nb::ndarray<nb::numpy> array(
      data, output.shape.size(), output.shape.data(), owner, nullptr, dtype_of(type).dlpack);
  return nb::cast(array, nb::rv_policy::reference);
}

// Runs with `n_inputs` arrays; a state, if any, stands for the inputs after them.
nb::list run(
    Program& program, nb::sequence arrays, size_t n_inputs, const State* before, State* after) {
  const size_t n_arrays = nb::len(arrays);
  if (n_arrays != n_inputs) {
    throw nb::value_error(("expected " + std::to_string(n_inputs) + " inputs, got " +
                           std::to_string(n_arrays))
                              .c_str());
  }
  std::vector<Array> held;
  std::vector<Input> inputs;
  held.reserve(n_inputs);
  inputs.reserve(n_inputs);
  for (size_t i = 0; i < n_inputs; ++i) {
    held.push_back(checked(nb::object(arrays[i]), program.inputs()[i], i));
    inputs.push_back({held.back().data(), shape_of(held.back())});
  }
  std::vector<Output> outputs;
  {
    nb::gil_scoped_release released;
    outputs = program.run(inputs, before, after);
  }
  nb::list results;
  for (size_t i = 0; i < outputs.size(); ++i) {
    results.append(array_of(std::move(outputs[i]), program.outputs()[i].dtype));
  }
  return results;
}

nb::tuple step(Program& program, nb::sequence arrays, const State& before) {
  if (!program.accepts(before)) {
    throw nb::value_error("expected a state of this program, got one of another");
  }
  State after;
  nb::list results =
      run(program, arrays, program.inputs().size() - program.n_states(), &before, &after);
  return nb::make_tuple(results, std::move(after));
}

void make_program(
    Program* self, nb::object source, long threads, long states, const std::string& method) {
  std::unique_ptr<executorch::runtime::DataLoader> loader;
  std::string where = "the given bytes";
  if (nb::isinstance<nb::bytes>(source)) {
    const auto bytes = nb::borrow<nb::bytes>(source);
    loader = load_bytes(bytes.data(), bytes.size());
  } else {
    PyObject* encoded = nullptr;
    if (!PyUnicode_FSConverter(source.ptr(), &encoded)) throw nb::python_error();
    const auto path = nb::steal<nb::bytes>(encoded);
    where = path.c_str();
    loader = load_file(where.c_str());
    if (loader == nullptr) {
      PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, source.ptr());
      throw nb::python_error();
    }
  }
  nb::gil_scoped_release released;
  new (self) Program(std::move(loader), std::move(where), method, threads, states);
}

nb::tuple describe(const std::vector<TensorSpec>& specs) {
  nb::list items;
  for (const TensorSpec& spec : specs) items.append(nb::cast(spec));
  return nb::tuple(items);
}

nb::list arrays_of(const State& state) {
  nb::list arrays;
  const uint8_t* memory = state.memory.get();
  for (const TensorSpec& spec : *state.layout) {
    arrays.append(array_of(
        {copy_buffer(memory, spec.bytes), {spec.shape.begin(), spec.shape.end()}}, spec.dtype));
    memory += stride_of(spec);
  }
  return arrays;
}

}  // namespace
}  // namespace crykit

NB_MODULE(_native, m) {
  using namespace crykit;
  nb::exception<ProgramError>(m, "ProgramError", PyExc_RuntimeError);

  nb::class_<TensorSpec>(m, "TensorSpec")
      .def_prop_ro("shape", [](const TensorSpec& spec) { return tuple_of(spec.shape); })
      .def_prop_ro("dtype", [](const TensorSpec& spec) { return dtype_of(spec.dtype).name; })
      .def_ro("dynamic", &TensorSpec::dynamic)
      .def("__repr__", [](const TensorSpec& spec) {
        return std::string("TensorSpec(shape=") + text_of(spec.shape) + ", dtype='" +
            dtype_of(spec.dtype).name + "', dynamic=" + (spec.dynamic ? "True)" : "False)");
      });

  nb::class_<State>(m, "State")
      .def_prop_ro("nbytes", [](const State& state) {
        size_t bytes = 0;
        for (const TensorSpec& spec : *state.layout) bytes += spec.bytes;
        return bytes;
      })
      .def("arrays", &arrays_of);

  nb::class_<Program>(m, "Program")
      .def(
          "__init__",
          &make_program,
          "source"_a,
          nb::kw_only(),
          "threads"_a = 1,
          "states"_a = 0,
          "method"_a = "forward")
      .def_prop_ro("inputs", [](const Program& program) { return describe(program.inputs()); })
      .def_prop_ro("outputs", [](const Program& program) { return describe(program.outputs()); })
      .def_prop_ro("threads", &Program::threads)
      .def("initial_state", &Program::initial_state)
      .def(
          "run",
          [](Program& program, nb::sequence arrays) {
            return run(program, arrays, program.inputs().size(), nullptr, nullptr);
          },
          "inputs"_a)
      .def("step", &step, "inputs"_a, "state"_a);
  m.attr("EXECUTORCH_VERSION") = CRYKIT_EXECUTORCH_VERSION;
}
