// Translation-variant convolution on the CPU (TVConv, CVPR 2022, Eq. 2): forward and both gradients, one pass each.
//
// Two memory layouts; one instruction works on what is contiguous:
//
//   channels first   x (B, C, H, W), weight (C, k*k, h, w): lanes run along the positions of one channel
//   channels last    x (B, H, W, C), weight (h, w, k*k, C): lanes run along the channels of one position
//
// Sums are taken in float (in double for double), in an order that depends on neither the number of threads nor the
// compiler's choice of registers; a bfloat16 is rounded once, when it is stored. `native.py` compiles and calls this.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

struct Geometry {
  int64_t batch, channels;
  int64_t in_rows, in_cols, out_rows, out_cols;
  int64_t k, stride, dilation;

  int64_t taps() const { return k * k; }
  int64_t in_size() const { return in_rows * in_cols; }
  int64_t out_size() const { return out_rows * out_cols; }
  // Where tap u of output i reads the padded input, whose row 0 is `padding` rows above the image.
  int64_t padded(int64_t i, int64_t u) const { return stride * i + dilation * u; }
  int64_t padding() const { return dilation * (k / 2); }
};

struct BFloat16 {
  uint16_t bits;
};

// `Lanes` is 64 bytes of sums; the compiler maps it to whatever registers the machine has.
template <class T> struct Sums {
  typedef T Scalar;
  typedef T Lanes __attribute__((vector_size(64)));
};
template <> struct Sums<BFloat16> : Sums<float> {};
template <class T> using Scalar = typename Sums<T>::Scalar;
template <class T> using Lanes = typename Sums<T>::Lanes;
template <class T> constexpr int64_t lanes = 64 / sizeof(Scalar<T>);

typedef uint32_t FloatBits __attribute__((vector_size(64)));
typedef uint16_t BFloat16Bits __attribute__((vector_size(32)));

template <class T> inline Lanes<T> load(const T* from) {
  Lanes<T> values;
  std::memcpy(&values, from, sizeof values);
  return values;
}

inline Lanes<float> load(const BFloat16* from) {
  BFloat16Bits half;
  std::memcpy(&half, from, sizeof half);
  const FloatBits bits = __builtin_convertvector(half, FloatBits) << 16;
  Lanes<float> values;
  std::memcpy(&values, &bits, sizeof values);
  return values;
}

template <class T> inline void store(T* to, const Lanes<T>& values) { std::memcpy(to, &values, sizeof values); }

inline void store(BFloat16* to, const Lanes<float>& values) {  // to nearest, ties to even; NaN stays NaN
  FloatBits bits;
  std::memcpy(&bits, &values, sizeof bits);
  const FloatBits nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const FloatBits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const BFloat16Bits half = __builtin_convertvector((nan & 0x7fc0u) | (~nan & rounded), BFloat16Bits);
  std::memcpy(to, &half, sizeof half);
}

// Fewer values than `Lanes` holds, `step` apart in memory; those that are missing are zero.
template <class T> inline Lanes<T> load(const T* from, int64_t count, int64_t step = 1) {
  T some[lanes<T>] = {};
  for (int64_t n = 0; n < count; n++) some[n] = from[n * step];
  return load(some);
}

template <class T> inline void store(T* to, const Lanes<T>& values, int64_t count, int64_t step = 1) {
  T some[lanes<T>];
  store(some, values);
  for (int64_t n = 0; n < count; n++) to[n * step] = some[n];
}

// `count` values, `step` apart in memory, to and from sums that lie side by side.
template <class T> inline void read(const T* from, int64_t step, int64_t count, Scalar<T>* to) {
  int64_t n = 0;
  if (step == 1)
    for (; n + lanes<T> <= count; n += lanes<T>) store(to + n, load(from + n));
  for (; n < count; n += lanes<T>) {
    const int64_t some = std::min(lanes<T>, count - n);
    store(to + n, load(from + n * step, some, step), some);
  }
}

template <class T> inline void write(const Scalar<T>* from, int64_t count, T* to, int64_t step) {
  int64_t n = 0;
  if (step == 1)
    for (; n + lanes<T> <= count; n += lanes<T>) store(to + n, load(from + n));
  for (; n < count; n += lanes<T>) {
    const int64_t some = std::min(lanes<T>, count - n);
    store(to + n * step, load(from + n, some), some, step);
  }
}

// Channels first ------------------------------------------------------------------------------------------------------
//
// One channel of one image lies zero-padded in a buffer that is cut into stride x stride phases (for stride 1, one).
// There the input of tap t at output position p is `image[tap[t] + p]`, with p counted along rows `pitch` long: every
// tap is one long run, whatever the size of the map. The few positions at the ends of rows that are no outputs are
// computed and dropped; their kernels and gradients are zero.

template <class T> class Channel {
 public:
  explicit Channel(const Geometry& g) : g(g) {
    const int64_t reach = g.dilation * (g.k - 1) / g.stride;
    const int64_t rows = g.out_rows + reach;
    pitch = g.out_cols + reach;
    const int64_t used = (g.out_rows - 1) * pitch + g.out_cols;
    size = (used + lanes<T> - 1) / lanes<T> * lanes<T>;
    const auto place = [&](int64_t row, int64_t col) {
      return (row % g.stride * g.stride + col % g.stride) * rows * pitch + row / g.stride * pitch + col / g.stride;
    };
    for (int64_t t = 0; t < g.taps(); t++) tap.push_back(place(g.padded(0, t / g.k), g.padded(0, t % g.k)));
    for (int64_t row = 0; row < g.in_rows; row++)
      for (int64_t col = 0; col < std::min(g.stride, g.in_cols); col++) {
        const int64_t padded_row = row + g.padding(), padded_col = col + g.padding();
        const int64_t fits = std::min((g.in_cols - col + g.stride - 1) / g.stride, pitch - padded_col / g.stride);
        if (padded_row / g.stride < rows && fits > 0)
          runs.push_back({place(padded_row, padded_col), row * g.in_cols + col, fits});
      }
    image.resize(g.stride * g.stride * rows * pitch + lanes<T>);
    kernel.resize(g.taps() * size);
    map.resize(size);
  }

  void read_image(const T* x) {
    for (const Run& run : runs) read(x + run.pixel, g.stride, run.count, image.data() + run.place);
  }
  void write_image(T* x) const {
    std::fill(x, x + g.in_size(), T{});  // a stride passes over pixels
    for (const Run& run : runs) write(image.data() + run.place, run.count, x + run.pixel, g.stride);
  }
  void read_map(const T* values) { read_rows(values, map.data()); }
  void write_map(T* values) const { write_rows(map.data(), values); }
  void read_kernel(const T* weight) {
    for (int64_t t = 0; t < g.taps(); t++) read_rows(weight + t * g.out_size(), kernel.data() + t * size);
  }
  void write_kernel(T* weight) const {
    for (int64_t t = 0; t < g.taps(); t++) write_rows(kernel.data() + t * size, weight + t * g.out_size());
  }

  // map = sum over taps of kernel * image
  void convolve() {
    int64_t p = 0;
    for (; p + 4 * lanes<T> <= size; p += 4 * lanes<T>) convolve_at<4>(p);
    for (; p < size; p += lanes<T>) convolve_at<1>(p);
  }
  // image = its transpose
  void spread() {
    std::fill(image.begin(), image.end(), Scalar<T>(0));
    for (int64_t t = 0; t < g.taps(); t++)
      multiply_add(image.data() + tap[t], kernel.data() + t * size, map.data());
  }
  // kernel += the outer product at every position
  void correlate() {
    for (int64_t t = 0; t < g.taps(); t++)
      multiply_add(kernel.data() + t * size, image.data() + tap[t], map.data());
  }
  void clear_kernel() { std::fill(kernel.begin(), kernel.end(), Scalar<T>(0)); }

 private:
  struct Run {
    int64_t place, pixel, count;  // in the buffer, in the image; pixels are a stride apart
  };

  const Geometry& g;
  int64_t pitch, size;
  std::vector<int64_t> tap;
  std::vector<Run> runs;
  std::vector<Scalar<T>> image, kernel, map;

  void read_rows(const T* from, Scalar<T>* to) const {
    for (int64_t i = 0; i < g.out_rows; i++) read(from + i * g.out_cols, 1, g.out_cols, to + i * pitch);
  }
  void write_rows(const Scalar<T>* from, T* to) const {
    for (int64_t i = 0; i < g.out_rows; i++) write(from + i * pitch, g.out_cols, to + i * g.out_cols, 1);
  }
  template <int64_t n> inline void convolve_at(int64_t p) {
    Lanes<T> sum[n] = {};
    for (int64_t t = 0; t < g.taps(); t++) {
      const Scalar<T>* x = image.data() + tap[t] + p;
      const Scalar<T>* w = kernel.data() + t * size + p;
      for (int64_t m = 0; m < n; m++) sum[m] += load(x + m * lanes<T>) * load(w + m * lanes<T>);
    }
    for (int64_t m = 0; m < n; m++) store<Scalar<T>>(map.data() + p + m * lanes<T>, sum[m]);
  }
  void multiply_add(Scalar<T>* sum, const Scalar<T>* a, const Scalar<T>* b) const {
    for (int64_t p = 0; p < size; p += lanes<T>) store<Scalar<T>>(sum + p, load(sum + p) + load(a + p) * load(b + p));
  }
};

// Calls work(channel's buffers, c) for every channel c: one parallel region, each thread with buffers of its own.
template <class T, class Work> void each_channel(const Geometry& g, int threads, Work work) {
#pragma omp parallel num_threads(threads)
  {
    Channel<T> channel(g);
#pragma omp for schedule(static)
    for (int64_t c = 0; c < g.channels; c++) work(channel, c);
  }
}

template <class T> void forward_first(const T* x, const T* weight, T* out, const Geometry& g, int threads) {
  each_channel<T>(g, threads, [&](Channel<T>& channel, int64_t c) {
    channel.read_kernel(weight + c * g.taps() * g.out_size());
    for (int64_t b = 0; b < g.batch; b++) {
      channel.read_image(x + (b * g.channels + c) * g.in_size());
      channel.convolve();
      channel.write_map(out + (b * g.channels + c) * g.out_size());
    }
  });
}

template <class T> void grad_x_first(const T* grad, const T* weight, T* grad_x, const Geometry& g, int threads) {
  each_channel<T>(g, threads, [&](Channel<T>& channel, int64_t c) {
    channel.read_kernel(weight + c * g.taps() * g.out_size());
    for (int64_t b = 0; b < g.batch; b++) {
      channel.read_map(grad + (b * g.channels + c) * g.out_size());
      channel.spread();
      channel.write_image(grad_x + (b * g.channels + c) * g.in_size());
    }
  });
}

template <class T> void grad_weight_first(const T* grad, const T* x, T* grad_weight, const Geometry& g, int threads) {
  each_channel<T>(g, threads, [&](Channel<T>& channel, int64_t c) {
    channel.clear_kernel();
    for (int64_t b = 0; b < g.batch; b++) {
      channel.read_image(x + (b * g.channels + c) * g.in_size());
      channel.read_map(grad + (b * g.channels + c) * g.out_size());
      channel.correlate();
    }
    channel.write_kernel(grad_weight + c * g.taps() * g.out_size());
  });
}

// Channels last -------------------------------------------------------------------------------------------------------

// For one target position: which source positions it sums, and with which kernels (offsets of their first channels).
struct Terms {
  std::vector<int64_t> source, kernel;
};

// The terms of output position (i, j), whose sources are input positions.
inline Terms terms_of_output(const Geometry& g, int64_t i, int64_t j) {
  Terms terms;
  for (int64_t t = 0; t < g.taps(); t++) {
    const int64_t row = g.padded(i, t / g.k) - g.padding(), col = g.padded(j, t % g.k) - g.padding();
    if (row < 0 || row >= g.in_rows || col < 0 || col >= g.in_cols) continue;
    terms.source.push_back((row * g.in_cols + col) * g.channels);
    terms.kernel.push_back(((i * g.out_cols + j) * g.taps() + t) * g.channels);
  }
  return terms;
}

// The terms of input position (row, col), whose sources are the output positions that read it.
inline Terms terms_of_input(const Geometry& g, int64_t row, int64_t col) {
  Terms terms;
  for (int64_t t = 0; t < g.taps(); t++) {
    const int64_t i = row - g.padded(0, t / g.k) + g.padding(), j = col - g.padded(0, t % g.k) + g.padding();
    if (i < 0 || i % g.stride || i / g.stride >= g.out_rows) continue;
    if (j < 0 || j % g.stride || j / g.stride >= g.out_cols) continue;
    const int64_t position = i / g.stride * g.out_cols + j / g.stride;
    terms.source.push_back(position * g.channels);
    terms.kernel.push_back((position * g.taps() + t) * g.channels);
  }
  return terms;
}

// For I images, `*_apart` elements from each other, and N times `lanes` channels: target = sum of source * kernel.
template <class T, int64_t I, int64_t N>
inline void sum_terms(const Terms& terms, const T* source, int64_t source_apart, const T* kernel, T* target,
                      int64_t target_apart) {
  Lanes<T> sum[I][N] = {};
  for (size_t t = 0; t < terms.source.size(); t++)
    for (int64_t n = 0; n < N; n++) {
      const Lanes<T> weight = load(kernel + terms.kernel[t] + n * lanes<T>);
      for (int64_t b = 0; b < I; b++)
        sum[b][n] += load(source + terms.source[t] + b * source_apart + n * lanes<T>) * weight;
    }
  for (int64_t b = 0; b < I; b++)
    for (int64_t n = 0; n < N; n++) store(target + b * target_apart + n * lanes<T>, sum[b][n]);
}

// The same for one image and the last channels, too few to fill `Lanes`.
template <class T>
inline void sum_last_terms(const Terms& terms, const T* source, const T* kernel, T* target, int64_t count) {
  Lanes<T> sum = {};
  for (size_t t = 0; t < terms.source.size(); t++)
    sum += load(source + terms.source[t], count) * load(kernel + terms.kernel[t], count);
  store(target, sum, count);
}

// target (B, rows, cols, C) from source (B, source_size, C). A thread takes a row of targets and a block of channels:
// long enough for the prefetcher, short enough that the row's kernels stay in its cache for the whole batch.
template <class T, class TermsOf>
void gather_last(const T* source, int64_t source_size, const T* kernel, T* target, int64_t rows, int64_t cols,
                 const Geometry& g, int threads, TermsOf terms_of) {
  constexpr int64_t kBlock = 1024, kImages = 4, kLanes = lanes<T>;
  const int64_t blocks = (g.channels + kBlock - 1) / kBlock;
  const int64_t source_apart = source_size * g.channels, target_apart = rows * cols * g.channels;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t block = 0; block < blocks; block++)
    for (int64_t row = 0; row < rows; row++) {
      std::vector<Terms> terms;
      for (int64_t col = 0; col < cols; col++) terms.push_back(terms_of(g, row, col));
      const int64_t last = std::min((block + 1) * kBlock, g.channels);
      for (int64_t b = 0; b < g.batch; b += kImages) {
        const int64_t images = std::min(kImages, g.batch - b);
        for (int64_t col = 0; col < cols; col++) {
          const T* from = source + b * source_apart;
          T* to = target + b * target_apart + (row * cols + col) * g.channels;
          for (int64_t c = block * kBlock; c < last;) {
            if (images == kImages && c + 2 * kLanes <= last) {
              sum_terms<T, kImages, 2>(terms[col], from + c, source_apart, kernel + c, to + c, target_apart);
              c += 2 * kLanes;
            } else if (c + kLanes <= last) {
              for (int64_t m = 0; m < images; m++)
                sum_terms<T, 1, 1>(terms[col], from + m * source_apart + c, 0, kernel + c, to + m * target_apart + c, 0);
              c += kLanes;
            } else {
              for (int64_t m = 0; m < images; m++)
                sum_last_terms(terms[col], from + m * source_apart + c, kernel + c, to + m * target_apart + c, last - c);
              c = last;
            }
          }
        }
      }
    }
}

template <class T> void forward_last(const T* x, const T* weight, T* out, const Geometry& g, int threads) {
  gather_last(x, g.in_size(), weight, out, g.out_rows, g.out_cols, g, threads, terms_of_output);
}

template <class T> void grad_x_last(const T* grad, const T* weight, T* grad_x, const Geometry& g, int threads) {
  gather_last(grad, g.out_size(), weight, grad_x, g.in_rows, g.in_cols, g, threads, terms_of_input);
}

template <class T> void grad_weight_last(const T* grad, const T* x, T* grad_weight, const Geometry& g, int threads) {
  constexpr int64_t kLanes = lanes<T>, kBlock = 4 * kLanes;  // few: the batch's images of three rows stay in cache
  const int64_t blocks = (g.channels + kBlock - 1) / kBlock;
  const int64_t x_apart = g.in_size() * g.channels, grad_apart = g.out_size() * g.channels;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int64_t block = 0; block < blocks; block++)
    for (int64_t i = 0; i < g.out_rows; i++)
      for (int64_t j = 0; j < g.out_cols; j++)
        for (int64_t t = 0; t < g.taps(); t++) {
          const int64_t row = g.padded(i, t / g.k) - g.padding(), col = g.padded(j, t % g.k) - g.padding();
          const bool inside = row >= 0 && row < g.in_rows && col >= 0 && col < g.in_cols;
          const int64_t images = inside ? g.batch : 0;
          const int64_t first = block * kBlock, last = std::min(first + kBlock, g.channels);
          const T* from = x + (row * g.in_cols + col) * g.channels;
          const T* by = grad + (i * g.out_cols + j) * g.channels;
          T* to = grad_weight + ((i * g.out_cols + j) * g.taps() + t) * g.channels;
          if (last - first == kBlock) {
            Lanes<T> sum[4] = {};
            for (int64_t b = 0; b < images; b++)
              for (int64_t n = 0; n < 4; n++)
                sum[n] += load(from + b * x_apart + first + n * kLanes) * load(by + b * grad_apart + first + n * kLanes);
            for (int64_t n = 0; n < 4; n++) store(to + first + n * kLanes, sum[n]);
          } else {
            for (int64_t c = first; c < last; c += kLanes) {
              const int64_t count = std::min(kLanes, last - c);
              Lanes<T> sum = {};
              for (int64_t b = 0; b < images; b++)
                sum += load(from + b * x_apart + c, count) * load(by + b * grad_apart + c, count);
              store(to + c, sum, count);
            }
          }
        }
}

}  // namespace

// What `native.py` calls: NAME_LAYOUT_TYPE(two operands, result, the nine sizes of `Geometry` in order, threads).
#define EXPORT(name, type, suffix)                                                                            \
  extern "C" void name##_##suffix(const void* a, const void* b, void* result, const int64_t* s, int threads) { \
    const Geometry g{s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8]};                                   \
    name(static_cast<const type*>(a), static_cast<const type*>(b), static_cast<type*>(result), g, threads);   \
  }
#define EXPORT_TYPES(name)      \
  EXPORT(name, float, float32)  \
  EXPORT(name, double, float64) \
  EXPORT(name, BFloat16, bfloat16)

EXPORT_TYPES(forward_first)
EXPORT_TYPES(grad_x_first)
EXPORT_TYPES(grad_weight_first)
EXPORT_TYPES(forward_last)
EXPORT_TYPES(grad_x_last)
EXPORT_TYPES(grad_weight_last)
