#include "cpu/matmul.h"

namespace charrnn::cpu {

namespace {

using Tag = dnnl::memory::format_tag;
constexpr auto kF32 = dnnl::memory::data_type::f32;

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

dnnl::stream& stream() {
  static thread_local dnnl::stream s(engine());
  return s;
}

void* writable(const void* p) { return const_cast<void*>(p); }  // oneDNN's handles are not const; sources are only read

dnnl::memory::data_type type_of(Element e) {
  return e == Element::kF32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

}  // namespace

const dnnl::memory& PackedWeights::in(const dnnl::memory::desc& layout) {
  const std::lock_guard lock(mutex_);
  for (const auto& copy : copies_) {
    if (copy->layout == layout) return copy->packed;
  }
  auto copy = std::make_unique<Copy>();
  copy->layout = layout;
  copy->storage = HostArray<std::byte>(layout.get_size());
  const dnnl::memory::desc plain({view_.k, view_.n}, kF32, dnnl::memory::dims{view_.k_stride, view_.n_stride});
  copy->source = dnnl::memory(plain, engine(), writable(view_.data));
  copy->packed = dnnl::memory(layout, engine(), copy->storage.data());
  copy->reorder = dnnl::reorder(copy->source, copy->packed);
  copies_.push_back(std::move(copy));
  repack_copy(static_cast<int>(copies_.size()) - 1);
  return copies_.back()->packed;
}

void PackedWeights::repack_copy(int copy) {
  Copy& c = *copies_[static_cast<std::size_t>(copy)];
  c.reorder.execute(stream(), c.source, c.packed);
  stream().wait();
}

Product::Product(const ProductShape& s) : shape_(s) {
  const auto operand = type_of(s.operand);
  const dnnl::memory::desc a({s.m, s.k}, operand, dnnl::memory::dims{s.a_row, s.a_column});
  const dnnl::memory::desc b = s.b_row == 0 ? dnnl::memory::desc({s.k, s.n}, operand, Tag::any)
                                            : dnnl::memory::desc({s.k, s.n}, operand, dnnl::memory::dims{s.b_row, 1});
  const dnnl::memory::desc c({s.m, s.n}, type_of(s.result), dnnl::memory::dims{s.c_row, 1});
  const dnnl::memory::desc bias({1, s.n}, kF32, Tag::ab);
  dnnl::primitive_attr attributes;
  if (s.into == Into::kAccumulate) {
    dnnl::post_ops ops;
    ops.append_sum(1.0F);
    attributes.set_post_ops(ops);
  }
  if (s.into == Into::kAddBias) {
    description_ = dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, bias, c), attributes, engine());
    bias_ = dnnl::memory(bias, engine(), nullptr);
    arguments_.emplace(DNNL_ARG_BIAS, bias_);
  } else {
    description_ = dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, c), attributes, engine());
  }
  primitive_ = dnnl::matmul(description_);
  a_ = dnnl::memory(a, engine(), nullptr);
  c_ = dnnl::memory(c, engine(), nullptr);
  arguments_.emplace(DNNL_ARG_SRC, a_);
  arguments_.emplace(DNNL_ARG_DST, c_);
  if (s.b_row != 0) {
    b_ = dnnl::memory(b, engine(), nullptr);
    arguments_.emplace(DNNL_ARG_WEIGHTS, b_);
  }
}

void Product::run(const void* a, PackedWeights& b, void* c, const float* bias) {
  if (packed_from_ != &b) {
    arguments_.insert_or_assign(DNNL_ARG_WEIGHTS, b.in(description_.weights_desc()));
    packed_from_ = &b;
  }
  if (shape_.into == Into::kAddBias) bias_.set_data_handle(writable(bias));
  execute(a, c);
}

void Product::run(const void* a, const void* b, void* c) {
  b_.set_data_handle(writable(b));
  execute(a, c);
}

void Product::execute(const void* a, void* c) {
  a_.set_data_handle(writable(a));
  c_.set_data_handle(c);
  primitive_.execute(stream(), arguments_);
}

std::size_t ProductCache::Hash::operator()(const ProductShape& s) const {
  std::size_t h = 0;
  for (const std::int64_t v : {s.m, s.n, s.k, s.a_row, s.a_column, s.b_row, s.c_row, static_cast<std::int64_t>(s.into),
                               static_cast<std::int64_t>(s.operand), static_cast<std::int64_t>(s.result)}) {
    h = h * 1000003 + static_cast<std::size_t>(v);
  }
  return h;
}

Product& ProductCache::get(const ProductShape& shape) {
  auto& product = products_[shape];
  if (!product) product = std::make_unique<Product>(shape);
  return *product;
}

}  // namespace charrnn::cpu
