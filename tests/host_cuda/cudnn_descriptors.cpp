// cuDNN on the CPU, first part: the handle and the descriptors. See cudnn.cpp.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>

#include "host_cuda/cudnn_objects.h"
#include "host_cuda/host_cuda.h"

using namespace host_cuda::dnn;
using host_cuda::call_must_fail;
using host_cuda::object_gone;
using host_cuda::object_lives;
using host_cuda::object_made;

namespace host_cuda::dnn {

namespace {

std::string& last_error() {
  static thread_local std::string text;
  return text;
}

// Between parts of the weight space: odd, so that nothing is aligned to more than its elements.
constexpr std::size_t kGapElements = 5;

}  // namespace

cudnnStatus_t not_supported(const std::string& function, const std::string& text) {
  last_error() = function + ": " + text;
  return CUDNN_STATUS_NOT_SUPPORTED;
}
cudnnStatus_t not_modelled(const std::string& function, const std::string& text) {
  last_error() = function + ": " + text + ": the stand-in has no model of it";
  report("misuse", last_error());
  return CUDNN_STATUS_NOT_SUPPORTED;
}
cudnnStatus_t misuse(const std::string& function, const std::string& text) {
  last_error() = function + ": " + text;
  report("misuse", last_error());
  return CUDNN_STATUS_BAD_PARAM;
}

Element element_of(cudnnDataType_t type) {
  return type == CUDNN_DATA_HALF ? Element::kHalf : type == CUDNN_DATA_BFLOAT16 ? Element::kBfloat16 : Element::kFloat;
}

rnn::Cell cell_of(cudnnRNNMode_t mode) {
  switch (mode) {
    case CUDNN_RNN_RELU: return rnn::Cell::kRelu;
    case CUDNN_RNN_TANH: return rnn::Cell::kTanh;
    case CUDNN_LSTM: return rnn::Cell::kLstm;
    case CUDNN_GRU: return rnn::Cell::kGru;
  }
  return rnn::Cell::kLstm;
}

std::vector<WeightPart> weight_parts(const cudnnRNNStruct& rnn) {
  const std::size_t gates = gates_of(rnn), layers = static_cast<std::size_t>(rnn.layers);
  const std::size_t inputs = static_cast<std::size_t>(rnn.inputs), hidden = static_cast<std::size_t>(rnn.hidden);
  const std::size_t element_bytes = bytes_of(element_of(rnn.type));
  std::vector<WeightPart> parts;
  std::size_t offset = kGapElements;
  const auto add = [&](WeightPart part) {
    part.offset_bytes = offset * element_bytes;
    offset += part.count() + kGapElements;
    parts.push_back(part);
  };
  for (std::size_t layer = layers; layer-- > 0;) {
    for (std::size_t linear = 2 * gates; linear-- > 0;) {
      const bool recurrent = linear >= gates;
      const auto only = recurrent ? CUDNN_RNN_SINGLE_REC_BIAS : CUDNN_RNN_SINGLE_INP_BIAS;
      if (rnn.bias == CUDNN_RNN_DOUBLE_BIAS || rnn.bias == only) add({layer, linear, true, hidden, 1});
      add({layer, linear, false, hidden, recurrent || layer > 0 ? hidden : inputs});
    }
  }
  return parts;
}

std::size_t weight_space_bytes(const cudnnRNNStruct& rnn) {
  const WeightPart last = weight_parts(rnn).back();
  return last.offset_bytes + (last.count() + kGapElements) * bytes_of(element_of(rnn.type));
}

}  // namespace host_cuda::dnn

bool cudnnRNNDataStruct::equal_lengths() const {
  return std::all_of(lengths.begin(), lengths.end(), [&](int length) { return length == steps; });
}

namespace {

template <class Struct>
cudnnStatus_t create(Struct** object, const char* kind, const char* function) {
  if (call_must_fail(function)) return CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
  if (object == nullptr) return misuse(function, "no place for the result");
  *object = new Struct{};
  object_made(kind, *object);
  return CUDNN_STATUS_SUCCESS;
}

template <class Struct>
cudnnStatus_t destroy(Struct* object, const char* kind, const char* function) {
  if (object == nullptr) return CUDNN_STATUS_SUCCESS;
  if (!object_gone(kind, object)) return misuse(function, "not alive: destroyed before, or never made");
  delete object;
  return CUDNN_STATUS_SUCCESS;
}

template <class Value>
void give(Value* place, Value value) {
  if (place != nullptr) *place = value;
}

bool is_modelled(cudnnDataType_t type) {
  return type == CUDNN_DATA_FLOAT || type == CUDNN_DATA_HALF || type == CUDNN_DATA_BFLOAT16;
}

}  // namespace

// The library and its handle.

size_t cudnnGetVersion() { return CUDNN_VERSION; }
size_t cudnnGetCudartVersion() { return CUDART_VERSION; }

cudnnStatus_t cudnnGetProperty(libraryPropertyType type, int* value) {
  switch (type) {
    case MAJOR_VERSION: *value = CUDNN_MAJOR; return CUDNN_STATUS_SUCCESS;
    case MINOR_VERSION: *value = CUDNN_MINOR; return CUDNN_STATUS_SUCCESS;
    case PATCH_LEVEL: *value = CUDNN_PATCHLEVEL; return CUDNN_STATUS_SUCCESS;
  }
  return misuse("cudnnGetProperty", "no such property");
}

const char* cudnnGetErrorString(cudnnStatus_t status) {
  switch (status) {
    case CUDNN_STATUS_SUCCESS: return "CUDNN_STATUS_SUCCESS";
    case CUDNN_STATUS_NOT_INITIALIZED: return "CUDNN_STATUS_NOT_INITIALIZED";
    case CUDNN_STATUS_BAD_PARAM: return "CUDNN_STATUS_BAD_PARAM";
    case CUDNN_STATUS_NOT_SUPPORTED: return "CUDNN_STATUS_NOT_SUPPORTED";
    case CUDNN_STATUS_INTERNAL_ERROR: return "CUDNN_STATUS_INTERNAL_ERROR";
    case CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED:
      return "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED";
    case CUDNN_STATUS_EXECUTION_FAILED: return "CUDNN_STATUS_EXECUTION_FAILED";
    default: return "CUDNN_STATUS_...: one that the stand-in never returns";
  }
}

void cudnnGetLastErrorString(char* message, size_t max_size) {
  if (message != nullptr && max_size > 0) std::snprintf(message, max_size, "%s", last_error().c_str());
}

cudnnStatus_t cudnnAdvVersionCheck() { return CUDNN_STATUS_SUCCESS; }

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) { return create(handle, kHandle, "cudnnCreate"); }
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) { return destroy(handle, kHandle, "cudnnDestroy"); }

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  if (call_must_fail("cudnnSetStream")) return CUDNN_STATUS_INTERNAL_ERROR;
  if (!object_lives(kHandle, handle)) return misuse("cudnnSetStream", "no such handle");
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t* stream) {
  if (!object_lives(kHandle, handle)) return misuse("cudnnGetStream", "no such handle");
  give(stream, handle->stream);
  return CUDNN_STATUS_SUCCESS;
}

// Tensors.

cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t* desc) {
  return create(desc, kTensor, "cudnnCreateTensorDescriptor");
}
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t desc) {
  return destroy(desc, kTensor, "cudnnDestroyTensorDescriptor");
}

cudnnStatus_t cudnnSetTensorNdDescriptor(cudnnTensorDescriptor_t desc, cudnnDataType_t type, int count,
                                         const int dims[], const int strides[]) {
  const char* function = "cudnnSetTensorNdDescriptor";
  if (call_must_fail(function)) return CUDNN_STATUS_INTERNAL_ERROR;
  if (!object_lives(kTensor, desc)) return misuse(function, "no such descriptor");
  if (count < 3 || count > CUDNN_DIM_MAX || dims == nullptr || strides == nullptr) {
    return misuse(function, "needs 3 to " + std::to_string(CUDNN_DIM_MAX) + " dimensions with their strides, given " +
                                std::to_string(count));
  }
  if (std::any_of(dims, dims + count, [](int dim) { return dim < 1; }) ||
      std::any_of(strides, strides + count, [](int stride) { return stride < 1; })) {
    return misuse(function, "a dimension or a stride below 1");
  }
  *desc = {type, {dims, dims + count}, {strides, strides + count}};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetTensorNdDescriptor(const cudnnTensorDescriptor_t desc, int requested, cudnnDataType_t* type,
                                         int* count, int dims[], int strides[]) {
  const char* function = "cudnnGetTensorNdDescriptor";
  if (call_must_fail(function)) return CUDNN_STATUS_INTERNAL_ERROR;
  if (!object_lives(kTensor, desc)) return misuse(function, "no such descriptor");
  give(type, desc->type);
  give(count, static_cast<int>(desc->dims.size()));
  const auto given = std::min(static_cast<std::size_t>(std::max(requested, 0)), desc->dims.size());
  if (dims != nullptr) std::copy_n(desc->dims.begin(), given, dims);
  if (strides != nullptr) std::copy_n(desc->strides.begin(), given, strides);
  return CUDNN_STATUS_SUCCESS;
}

// Dropout: a descriptor is asked for even where there is none.

cudnnStatus_t cudnnCreateDropoutDescriptor(cudnnDropoutDescriptor_t* desc) {
  return create(desc, kDropout, "cudnnCreateDropoutDescriptor");
}
cudnnStatus_t cudnnDestroyDropoutDescriptor(cudnnDropoutDescriptor_t desc) {
  return destroy(desc, kDropout, "cudnnDestroyDropoutDescriptor");
}

namespace {
constexpr std::size_t kDropoutStateBytes = 24 * 1024;
}

cudnnStatus_t cudnnDropoutGetStatesSize(cudnnHandle_t handle, size_t* bytes) {
  const char* function = "cudnnDropoutGetStatesSize";
  if (call_must_fail(function)) return CUDNN_STATUS_INTERNAL_ERROR;
  if (!object_lives(kHandle, handle) || bytes == nullptr) return misuse(function, "no such handle, or no result");
  *bytes = kDropoutStateBytes;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetDropoutDescriptor(cudnnDropoutDescriptor_t desc, cudnnHandle_t handle, float probability,
                                        void* states, size_t bytes, unsigned long long) {
  const char* function = "cudnnSetDropoutDescriptor";
  if (call_must_fail(function)) return CUDNN_STATUS_INTERNAL_ERROR;
  if (!object_lives(kDropout, desc) || !object_lives(kHandle, handle)) {
    return misuse(function, "no such descriptor or handle");
  }
  if (!(probability >= 0 && probability < 1)) return misuse(function, "a probability outside [0, 1)");
  // cuDNN draws its masks from a generator of its own, which nothing here could agree with.
  if (probability > 0) return not_modelled(function, "dropout inside of cuDNN");
  if (states != nullptr) {  // may be null where nothing is drawn
    if (bytes < kDropoutStateBytes) return misuse(function, "states are smaller than cudnnDropoutGetStatesSize said");
    const auto error = host_cuda::enqueue(handle->stream, function, [states] {
      if (touch(states, kDropoutStateBytes, host_cuda::Access::kWrite, "cudnnSetDropoutDescriptor states")) {
        std::memset(states, 0, kDropoutStateBytes);
      }
    });
    if (error != cudaSuccess) return CUDNN_STATUS_EXECUTION_FAILED;
  }
  *desc = {true, probability};
  return CUDNN_STATUS_SUCCESS;
}

// Sequences.

cudnnStatus_t cudnnCreateRNNDataDescriptor(cudnnRNNDataDescriptor_t* desc) {
  return create(desc, kData, "cudnnCreateRNNDataDescriptor");
}
cudnnStatus_t cudnnDestroyRNNDataDescriptor(cudnnRNNDataDescriptor_t desc) {
  return destroy(desc, kData, "cudnnDestroyRNNDataDescriptor");
}

cudnnStatus_t cudnnSetRNNDataDescriptor(cudnnRNNDataDescriptor_t desc, cudnnDataType_t type,
                                        cudnnRNNDataLayout_t layout, int steps, int batch, int width,
                                        const int lengths[], void* padding_fill) {
  const char* function = "cudnnSetRNNDataDescriptor";
  if (call_must_fail(function)) return CUDNN_STATUS_INTERNAL_ERROR;
  if (!object_lives(kData, desc)) return misuse(function, "no such descriptor");
  if (!is_modelled(type)) return not_modelled(function, "data that are not fp32, fp16 or bf16");
  if (layout != CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_UNPACKED && layout != CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED) {
    return not_modelled(function, "a batch-major layout");
  }
  if (steps < 1 || batch < 1 || width < 1 || lengths == nullptr)
    return misuse(function, "sizes below 1, or no lengths");
  if (std::any_of(lengths, lengths + batch, [&](int length) { return length < 0 || length > steps; })) {
    return misuse(function, "the length of a sequence is not in [0, " + std::to_string(steps) + "]");
  }
  if (layout == CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED && !std::is_sorted(lengths, lengths + batch, std::greater<>())) {
    return misuse(function, "packed sequences must be sorted, the longest first");
  }
  *desc = {true, type, layout, steps, batch, width, {lengths, lengths + batch}, {}};
  if (padding_fill != nullptr) {
    const auto* bytes = static_cast<const std::byte*>(padding_fill);
    desc->padding_fill.assign(bytes, bytes + host_cuda::bytes_of(element_of(type)));
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetRNNDataDescriptor(cudnnRNNDataDescriptor_t desc, cudnnDataType_t* type,
                                        cudnnRNNDataLayout_t* layout, int* steps, int* batch, int* width, int requested,
                                        int lengths[], void* padding_fill) {
  const char* function = "cudnnGetRNNDataDescriptor";
  if (!object_lives(kData, desc) || !desc->set) return misuse(function, "no such descriptor, or not set");
  give(type, desc->type);
  give(layout, desc->layout);
  give(steps, desc->steps);
  give(batch, desc->batch);
  give(width, desc->width);
  if (lengths != nullptr) std::copy_n(desc->lengths.begin(), std::min(std::max(requested, 0), desc->batch), lengths);
  if (padding_fill != nullptr) {
    std::copy(desc->padding_fill.begin(), desc->padding_fill.end(), static_cast<std::byte*>(padding_fill));
  }
  return CUDNN_STATUS_SUCCESS;
}

// The network.

cudnnStatus_t cudnnCreateRNNDescriptor(cudnnRNNDescriptor_t* desc) {
  return create(desc, kRnn, "cudnnCreateRNNDescriptor");
}
cudnnStatus_t cudnnDestroyRNNDescriptor(cudnnRNNDescriptor_t desc) {
  return destroy(desc, kRnn, "cudnnDestroyRNNDescriptor");
}

cudnnStatus_t cudnnSetRNNDescriptor_v8(cudnnRNNDescriptor_t desc, cudnnRNNAlgo_t algo, cudnnRNNMode_t cell,
                                       cudnnRNNBiasMode_t bias, cudnnDirectionMode_t direction,
                                       cudnnRNNInputMode_t input, cudnnDataType_t type, cudnnDataType_t precision,
                                       cudnnMathType_t math, int32_t inputs, int32_t hidden, int32_t projection,
                                       int32_t layers, cudnnDropoutDescriptor_t dropout, uint32_t flags) {
  const char* function = "cudnnSetRNNDescriptor_v8";
  if (call_must_fail(function)) return CUDNN_STATUS_INTERNAL_ERROR;
  if (!object_lives(kRnn, desc)) return misuse(function, "no such descriptor");
  if (inputs < 1 || hidden < 1 || layers < 1) return misuse(function, "a size below 1");
  if (!object_lives(kDropout, dropout) || !dropout->set) return misuse(function, "no dropout descriptor, or not set");
  if ((flags & ~CUDNN_RNN_PADDED_IO_ENABLED) != 0) return misuse(function, "unknown flags");

  if (direction != CUDNN_UNIDIRECTIONAL) return not_modelled(function, "a bidirectional network");
  if (input != CUDNN_LINEAR_INPUT) return not_modelled(function, "skipped input");
  if (!is_modelled(type)) return not_modelled(function, "data that are not fp32, fp16 or bf16");
  if (projection > hidden || projection < 1) {
    return misuse(function, "projSize is " + std::to_string(projection) + ", expected hiddenSize, which is " +
                                std::to_string(hidden));
  }
  if (projection != hidden) return not_modelled(function, "a projection");
  if (precision != CUDNN_DATA_FLOAT && (precision != CUDNN_DATA_HALF || type != CUDNN_DATA_HALF)) {
    return not_supported(function, "mathPrec is not FLOAT, nor HALF with data of HALF");
  }

  if (algo == CUDNN_RNN_ALGO_PERSIST_DYNAMIC) return not_supported(function, "no dynamic persistent kernels");
  if (algo != CUDNN_RNN_ALGO_STANDARD) {
    if (bias != CUDNN_RNN_DOUBLE_BIAS)
      return not_supported(function, "biasMode != CUDNN_RNN_DOUBLE_BIAS && algo != STANDARD");
    if (precision == CUDNN_DATA_HALF) return not_supported(function, "mathPrec == HALF && algo != STANDARD");
  }
  *desc = {true, algo,   cell,   bias,       direction, input,   type, precision,
           math, inputs, hidden, projection, layers,    dropout, flags};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetRNNDescriptor_v8(cudnnRNNDescriptor_t desc, cudnnRNNAlgo_t* algo, cudnnRNNMode_t* cell,
                                       cudnnRNNBiasMode_t* bias, cudnnDirectionMode_t* direction,
                                       cudnnRNNInputMode_t* input, cudnnDataType_t* type, cudnnDataType_t* precision,
                                       cudnnMathType_t* math, int32_t* inputs, int32_t* hidden, int32_t* projection,
                                       int32_t* layers, cudnnDropoutDescriptor_t* dropout, uint32_t* flags) {
  if (!object_lives(kRnn, desc) || !desc->set) {
    return misuse("cudnnGetRNNDescriptor_v8", "no such descriptor, or not set");
  }
  give(algo, desc->algo);
  give(cell, desc->cell);
  give(bias, desc->bias);
  give(direction, desc->direction);
  give(input, desc->input);
  give(type, desc->type);
  give(precision, desc->precision);
  give(math, desc->math);
  give(inputs, desc->inputs);
  give(hidden, desc->hidden);
  give(projection, desc->projection);
  give(layers, desc->layers);
  give(dropout, desc->dropout);
  give(flags, desc->flags);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBuildRNNDynamic(cudnnHandle_t, cudnnRNNDescriptor_t, int) {
  if (call_must_fail("cudnnBuildRNNDynamic")) return CUDNN_STATUS_INTERNAL_ERROR;
  return not_supported("cudnnBuildRNNDynamic", "no dynamic persistent kernels");
}
