// What cuDNN's opaque types hold in the stand-in, and how it says no.
#pragma once

#include <cudnn.h>

#include <cstddef>
#include <string>
#include <vector>

#include "host_cuda/cudnn_rnn.h"
#include "host_cuda/library_support.h"

struct cudnnContext {
  cudaStream_t stream = nullptr;
};

struct cudnnTensorStruct {
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  std::vector<int> dims{};  // empty: not set, or a tensor that does not exist
  std::vector<int> strides{};
};

struct cudnnDropoutStruct {
  bool set = false;
  float probability = 0;
};

struct cudnnRNNDataStruct {
  bool set = false;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  cudnnRNNDataLayout_t layout = CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_UNPACKED;
  int steps = 0, batch = 0, width = 0;
  std::vector<int> lengths{};
  std::vector<std::byte> padding_fill{};  // one element, or empty: padding stays as it is

  bool packed() const { return layout == CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED; }
  bool equal_lengths() const;
};

struct cudnnRNNStruct {
  bool set = false;
  cudnnRNNAlgo_t algo = CUDNN_RNN_ALGO_STANDARD;
  cudnnRNNMode_t cell = CUDNN_LSTM;
  cudnnRNNBiasMode_t bias = CUDNN_RNN_DOUBLE_BIAS;
  cudnnDirectionMode_t direction = CUDNN_UNIDIRECTIONAL;
  cudnnRNNInputMode_t input = CUDNN_LINEAR_INPUT;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  cudnnDataType_t precision = CUDNN_DATA_FLOAT;
  cudnnMathType_t math = CUDNN_DEFAULT_MATH;
  int inputs = 0, hidden = 0, projection = 0, layers = 0;
  cudnnDropoutDescriptor_t dropout = nullptr;
  std::uint32_t flags = 0;
};

namespace host_cuda::dnn {

constexpr const char* kHandle = "cudnnHandle_t";
constexpr const char* kTensor = "cudnnTensorDescriptor_t";
constexpr const char* kDropout = "cudnnDropoutDescriptor_t";
constexpr const char* kData = "cudnnRNNDataDescriptor_t";
constexpr const char* kRnn = "cudnnRNNDescriptor_t";

/// What the real library refuses too, and a caller may ask in order to learn it: a status, no report.
cudnnStatus_t not_supported(const std::string& function, const std::string& text);
/// What the real library could do and the stand-in cannot: NOT_SUPPORTED and a report.
cudnnStatus_t not_modelled(const std::string& function, const std::string& text);
/// A call that no caller may make: BAD_PARAM and a report.
cudnnStatus_t misuse(const std::string& function, const std::string& text);

Element element_of(cudnnDataType_t type);  // of a type that set functions let pass
rnn::Cell cell_of(cudnnRNNMode_t mode);
inline std::size_t gates_of(const cudnnRNNStruct& rnn) { return rnn::Sizes{cell_of(rnn.cell)}.gates(); }

/// A matrix or a bias in the weight space. Their order and the gaps between them are unlike any other's on purpose:
/// who does not ask cudnnGetRNNWeightParams finds nothing.
struct WeightPart {
  std::size_t layer = 0, linear = 0;  // linear: 0 to G-1 on the input's side, G to 2G-1 on the recurrent one
  bool is_bias = false;
  std::size_t rows = 0, cols = 0;
  std::size_t offset_bytes = 0;
  std::size_t count() const { return rows * cols; }
};
std::vector<WeightPart> weight_parts(const cudnnRNNStruct& rnn);
std::size_t weight_space_bytes(const cudnnRNNStruct& rnn);

}  // namespace host_cuda::dnn
