// A primitive that runs a C function on the CPU, with everything it needs kept until it has run.

#include "custom.h"

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

#include "mlx/backend/cpu/encoder.h"
#include "mlx/c/private/mlx.h"
#include "mlx/primitives.h"

namespace {

namespace mx = mlx::core;

using Buffer = std::shared_ptr<mx::array::Data>;
using Run = decltype(semantic_kernel::run);

constexpr size_t MESSAGE_BYTES = 512;

mx::allocator::Buffer allocate(size_t bytes) {
  auto buffer = mx::allocator::malloc(bytes);
  // MLX's allocator on Linux reports exhaustion by a null pointer, which its own operations follow.
  if (bytes > 0 && buffer.ptr() == nullptr) {
    throw std::bad_alloc();
  }
  return buffer;
}

// An input whose items do not lie one after the other, copied so that they do.
struct Gather {
  const char* source;
  char* target;
  size_t item_bytes;
  mx::Shape shape;
  mx::Strides strides;

  void operator()() const {
    // The innermost axes that already lie in order are copied as one block.
    size_t outer = shape.size();
    int64_t block = 1;
    while (outer > 0 && (shape[outer - 1] == 1 || strides[outer - 1] == block)) {
      block *= shape[--outer];
    }
    auto to = target;
    copy(0, outer, source, to, block * item_bytes);
  }

 private:
  void copy(size_t axis, size_t outer, const char* from, char*& to, size_t block_bytes) const {
    if (axis == outer) {
      std::memcpy(to, from, block_bytes);
      to += block_bytes;
      return;
    }
    int64_t step = strides[axis] * static_cast<int64_t>(item_bytes);
    if (axis + 1 == outer) {
      switch (block_bytes) {
        // A copy of a length that the compiler knows is one instruction, not a call.
        case 2: return copy_items<2>(shape[axis], from, step, to);
        case 4: return copy_items<4>(shape[axis], from, step, to);
        case 8: return copy_items<8>(shape[axis], from, step, to);
      }
    }
    for (int i = 0; i < shape[axis]; i++, from += step) {
      copy(axis + 1, outer, from, to, block_bytes);
    }
  }

  template <size_t BYTES>
  static void copy_items(int count, const char* from, int64_t step, char*& to) {
    for (int i = 0; i < count; i++, from += step, to += BYTES) {
      std::memcpy(to, from, BYTES);
    }
  }
};

// One evaluation: all that the task on the stream's thread touches. It holds buffers rather than
// arrays, because the graph that arrays are nodes of belongs to the thread that evaluates.
class Call {
 public:
  Call(
      Run run,
      std::shared_ptr<void> payload,
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs)
      : run_(run), payload_(std::move(payload)), input_count_(inputs.size()) {
    auto count = inputs.size() + outputs.size();
    // Views point into `shapes_`, which therefore must not move.
    shapes_.reserve(count);
    views_.reserve(count);
    buffers_.reserve(count);
    for (auto& input : inputs) {
      add_input(input);
    }
    for (auto& output : outputs) {
      output.set_data(allocate(output.nbytes()));
      // MLX itself does not keep an output that nobody waits for; a task yet to run writes to it.
      buffers_.push_back(output.data_shared_ptr());
      add_view(output, output.data<char>());
    }
  }

  void run() {
    for (auto& gather : gathers_) {
      gather();
    }
    auto outputs = views_.data() + input_count_;
    auto output_count = views_.size() - input_count_;
    for (size_t i = 0; i < output_count; i++) {
      if (outputs[i].bytes > 0) {
        std::memset(outputs[i].data, 0, outputs[i].bytes);
      }
    }
    char message[MESSAGE_BYTES] = "";
    auto status = run_(
        payload_.get(),
        views_.data(),
        input_count_,
        outputs,
        output_count,
        message,
        sizeof(message));
    if (status != 0) {
      // The scheduler catches it and reports it from the evaluation.
      throw std::runtime_error(message);
    }
  }

 private:
  void add_input(const mx::array& input) {
    if (input.size() == 0) {
      return add_view(input, nullptr);
    }
    buffers_.push_back(input.data_shared_ptr());
    auto data = const_cast<char*>(input.data<char>());
    // A view of another dtype, or a file mapped into memory, may begin anywhere.
    auto is_aligned = reinterpret_cast<uintptr_t>(data) % input.itemsize() == 0;
    if (is_aligned && (input.flags().row_contiguous || input.size() == 1)) {
      return add_view(input, data);
    }
    auto copy = std::make_shared<mx::array::Data>(allocate(input.nbytes()));
    auto target = static_cast<char*>(copy->buffer.raw_ptr());
    buffers_.push_back(std::move(copy));
    gathers_.push_back({data, target, input.itemsize(), input.shape(), input.strides()});
    add_view(input, target);
  }

  void add_view(const mx::array& array, char* data) {
    auto& shape = shapes_.emplace_back(array.shape());
    views_.push_back(
        {data, array.nbytes(), shape.data(), shape.size(), mlx_dtype_to_c(array.dtype())});
  }

  Run run_;
  std::shared_ptr<void> payload_;
  size_t input_count_;
  std::vector<mx::Shape> shapes_;
  std::vector<semantic_view> views_;
  std::vector<Gather> gathers_;
  std::vector<Buffer> buffers_;
};

class Custom : public mx::Primitive {
 public:
  Custom(mx::Stream stream, Run run, std::shared_ptr<void> payload)
      : Primitive(stream), run_(run), payload_(std::move(payload)) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    // First, because it throws on a thread that the stream does not belong to.
    auto& encoder = mx::cpu::get_command_encoder(stream());
    for (auto& input : inputs) {
      encoder.set_input_array(input);
    }
    // The primitive itself is detached from its outputs before the task runs, so the task has
    // its own share of the payload.
    auto call = std::make_shared<Call>(run_, payload_, inputs, outputs);
    for (auto& output : outputs) {
      encoder.set_output_array(output);
    }
    encoder.dispatch([call = std::move(call)] { call->run(); });
  }

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("[semantic_custom] has no GPU implementation");
  }

  DEFINE_NAME(SemanticCustom)

 private:
  Run run_;
  std::shared_ptr<void> payload_;
};

} // namespace

extern "C" int semantic_custom(
    mlx_array* outputs,
    const semantic_output* specs,
    size_t output_count,
    const mlx_array* inputs,
    size_t input_count,
    semantic_kernel kernel,
    mlx_stream stream,
    char* message,
    size_t capacity) {
  try {
    // Drops the payload even if its own construction fails.
    std::shared_ptr<void> payload(kernel.payload, kernel.drop);
    auto on = mlx_stream_get_(stream);
    if (on.device != mx::Device::cpu) {
      throw std::invalid_argument("[semantic_custom] the stream is not on the CPU");
    }
    std::vector<mx::array> arguments;
    arguments.reserve(input_count);
    for (size_t i = 0; i < input_count; i++) {
      arguments.push_back(mlx_array_get_(inputs[i]));
    }
    std::vector<mx::Shape> shapes;
    std::vector<mx::Dtype> dtypes;
    for (size_t i = 0; i < output_count; i++) {
      shapes.emplace_back(specs[i].shape, specs[i].shape + specs[i].rank);
      dtypes.push_back(mlx_dtype_to_cpp(specs[i].dtype));
    }
    auto primitive = std::make_shared<Custom>(on, kernel.run, std::move(payload));
    auto made = mx::array::make_arrays(std::move(shapes), dtypes, primitive, arguments);
    for (size_t i = 0; i < output_count; i++) {
      mlx_array_set_(outputs[i], std::move(made[i]));
    }
    return 0;
  } catch (std::exception& error) {
    std::snprintf(message, capacity, "%s", error.what());
  } catch (...) {
    std::snprintf(message, capacity, "an unknown C++ exception");
  }
  return 1;
}
