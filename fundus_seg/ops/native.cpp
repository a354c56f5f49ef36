// Translation-variant convolution on the CPU (TVConv, CVPR 2022, Eq. 2): forward and both gradients, one pass each.
//
// Two memory layouts; one instruction works on what is contiguous:
//
//   channels first   x (B, C, H, W), weight (C, k*k, h, w): lanes run along the positions of one channel
//   channels last    x (B, H, W, C), weight (h, w, k*k, C): lanes run along the channels of one position
//
// Sums are taken in float (in double for double), tap by tap or image by image, in an order that depends on neither the
// number of threads nor the layout nor the width of registers; a bfloat16 is rounded once, when it is stored. Where the
// processor multiplies and adds in one instruction (all but plain x86-64), a product is not rounded before it is added.
//
// A value of x is used k*k times. So each thread copies what it works on into a small buffer of sums' own type, where
// it lies close together: a bfloat16 is widened once, and neither the pages nor the sets of the cache run short.
// `native.py` compiles and calls this.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

struct Geometry {
  int64_t batch, channels;
  int64_t in_rows, in_cols, out_rows, out_cols;
  int64_t k, stride, dilation;

  int64_t taps() const { return k * k; }
  int64_t in_size() const { return in_rows * in_cols; }
  int64_t out_size() const { return out_rows * out_cols; }
  int64_t padding() const { return dilation * (k / 2); }
};

struct BFloat16 {
  uint16_t bits;
};

#if defined(__AVX512F__)
constexpr int64_t kRegister = 64;
#elif defined(__AVX__)
constexpr int64_t kRegister = 32;
#else
constexpr int64_t kRegister = 16;
#endif

template <class T> struct Sums {
  typedef T Scalar;
  typedef T Lanes __attribute__((vector_size(kRegister)));
};
template <> struct Sums<BFloat16> : Sums<float> {};
template <class T> using Scalar = typename Sums<T>::Scalar;
template <class T> using Lanes = typename Sums<T>::Lanes;
template <class T> constexpr int64_t lanes = kRegister / sizeof(Scalar<T>);

typedef uint32_t FloatBits __attribute__((vector_size(kRegister)));
typedef uint16_t BFloat16Bits __attribute__((vector_size(kRegister / 2)));

template <class T> inline Lanes<T> load(const T* from) {
  Lanes<T> values;
  std::memcpy(&values, from, sizeof values);
  return values;
}

// A float's upper half is the bfloat16. What the compiler makes of __builtin_convertvector is up to ten instructions
// where x86 has one. (GCC 12 warns of its own header where the one of 512 bits has no mask.)
inline FloatBits widened(const BFloat16Bits& half) {
#if defined(__AVX512F__)
  return (FloatBits)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)half) << 16;
#elif defined(__AVX2__)
  return (FloatBits)_mm256_cvtepu16_epi32((__m128i)half) << 16;
#elif defined(__SSE2__)
  __m128i low;
  std::memcpy(&low, &half, sizeof half);
  return (FloatBits)_mm_unpacklo_epi16(__m128i{}, low);
#else
  return __builtin_convertvector(half, FloatBits) << 16;
#endif
}

inline BFloat16Bits upper_half(const FloatBits& bits) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  const __m256i high = _mm256_srli_epi32((__m256i)bits, 16);
  return (BFloat16Bits)_mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
#elif defined(__SSE2__) && !defined(__AVX512F__)
  const __m128i high = _mm_srai_epi32((__m128i)bits, 16), packed = _mm_packs_epi32(high, high);
  BFloat16Bits half;
  std::memcpy(&half, &packed, sizeof half);
  return half;
#else
  return __builtin_convertvector(bits >> 16, BFloat16Bits);
#endif
}

inline Lanes<float> load(const BFloat16* from) {
  BFloat16Bits half;
  std::memcpy(&half, from, sizeof half);
  return (Lanes<float>)widened(half);
}

template <class T> inline void store(T* to, const Lanes<T>& values) { std::memcpy(to, &values, sizeof values); }

// To nearest, ties to even. A NaN needs no care: what sums of products of bfloat16 give has a lower half of zeros.
inline void store(BFloat16* to, const Lanes<float>& values) {
  const FloatBits bits = (FloatBits)values;
  const BFloat16Bits half = upper_half(bits + 0x7fffu + ((bits >> 16) & 1u));
  std::memcpy(to, &half, sizeof half);
}

// Up to `count` values, `step` apart in memory; the lanes beyond them are zero, or are not stored.
template <class T> inline Lanes<T> load(const T* from, int64_t count, int64_t step = 1) {
  if (count >= lanes<T> && step == 1) return load(from);
  T some[lanes<T>] = {};
  for (int64_t n = 0; n < std::min(count, lanes<T>); n++) some[n] = from[n * step];
  return load(some);
}

template <class T> inline void store(T* to, const Lanes<T>& values, int64_t count, int64_t step = 1) {
  if (count >= lanes<T> && step == 1) return store(to, values);
  T some[lanes<T>];
  store(some, values);
  for (int64_t n = 0; n < std::min(count, lanes<T>); n++) to[n * step] = some[n];
}

// Ask for memory that is read soon, into the second level of the cache: what is in use fills the first.
inline void prefetch(const void* from, int64_t bytes) {
  for (int64_t n = 0; n < bytes; n += 64) __builtin_prefetch(static_cast<const char*>(from) + n, 0, 2);
}

// `count` zeros, aligned for every register.
template <class S> class Buffer {
 public:
  explicit Buffer(int64_t count) : values(count + 64 / sizeof(S)) {}
  S* data() {
    const auto beyond = reinterpret_cast<uintptr_t>(values.data()) % 64;
    return values.data() + (64 - beyond) / sizeof(S);
  }

 private:
  std::vector<S> values;
};

// The arithmetic ------------------------------------------------------------------------------------------------------
//
// The forward pass and the gradient of x are the same sum, and differ in which source each target takes by which tap:
//
//   forward           target: output i    source: input stride*i + dilation*u - padding
//   gradient of x     target: input i     source: output (i - dilation*u + padding) / stride, where that is whole

struct Gather {
  const Geometry& g;
  bool transposed;  // the gradient of x

  int64_t rows() const { return transposed ? g.in_rows : g.out_rows; }
  int64_t cols() const { return transposed ? g.in_cols : g.out_cols; }
  int64_t source_rows() const { return transposed ? g.out_rows : g.in_rows; }
  int64_t source_cols() const { return transposed ? g.out_cols : g.in_cols; }

  // The source of target i by tap u, along an axis with so many sources; -1 if there is none.
  int64_t source(int64_t i, int64_t u, int64_t sources) const {
    const int64_t n = transposed ? i - g.dilation * u + g.padding() : g.stride * i + g.dilation * u - g.padding();
    if (n < 0 || (transposed && n % g.stride)) return -1;
    const int64_t at = transposed ? n / g.stride : n;
    return at < sources ? at : -1;
  }
};

// Two rows of targets that have k-1 rows of sources in common: what the first takes by tap u, the second takes by u-1.
struct Pair {
  int64_t first, second;  // the second is -1 if the first is alone
};

inline std::vector<Pair> pairs_of_rows(const Gather& gather) {
  std::vector<Pair> pairs;
  const int64_t apart = gather.g.dilation, rows = gather.rows();
  for (int64_t row = 0; row < rows; row++) {
    if (gather.g.stride > 1 || (row / apart % 2 == 0 && row + apart >= rows))
      pairs.push_back({row, -1});
    else if (row / apart % 2 == 0)
      pairs.push_back(gather.transposed ? Pair{row + apart, row} : Pair{row, row + apart});
  }
  return pairs;
}

// Offsets of the operands of one product.
struct Term {
  int64_t source, kernel;
};

// The products that a pair sums, in the order of the taps; where both take a source, the second's kernel is `apart`.
struct Terms {
  std::vector<Term> first, both, second;
  int64_t apart;
};

// add(terms, target row, source row, u) appends the terms of one row of taps.
template <class Add> Terms terms_of(const Gather& gather, const Pair& pair, int64_t apart, Add add) {
  Terms terms{{}, {}, {}, apart};
  const int64_t k = gather.g.k;
  for (int64_t u = 0; u < k; u++) {
    const int64_t row = gather.source(pair.first, u, gather.source_rows());
    if (row >= 0) add(u > 0 && pair.second >= 0 ? terms.both : terms.first, pair.first, row, u);
  }
  const int64_t row = pair.second >= 0 ? gather.source(pair.second, k - 1, gather.source_rows()) : -1;
  if (row >= 0) add(terms.second, pair.second, row, k - 1);
  return terms;
}

// Loops that must be unrolled for their sums to stay in registers.
#define EACH(i, n) _Pragma("GCC unroll 16") for (int64_t i = 0; i < n; i++)

// Calls work(n, how many) for every run of `lanes` among the values n = 0 .. count - 1; where it is whole, the compiler
// knows that.
template <class T, class Work> inline void each_run(int64_t count, Work work) {
  int64_t n = 0;
  for (; n + lanes<T> <= count; n += lanes<T>) work(n, lanes<T>);
  if (n < count) work(n, count - n);
}
#define RUN [&](int64_t n, int64_t some) __attribute__((always_inline))

// Targets of `rows` rows and I images, `*_apart` from one image to the next, `count` values that are `step` apart.
template <int64_t rows, int64_t I, class S, class K, class T>
inline void sum_terms(const Terms& terms, const S* source, int64_t source_apart, const K* kernel, T* first, T* second,
                      int64_t target_apart, int64_t count, int64_t step) {
  Lanes<T> a[I], z[I];
  EACH(b, I) a[b] = z[b] = Lanes<T>{};
  for (const Term& term : terms.first) {
    const Lanes<T> w = load(kernel + term.kernel, count);
    EACH(b, I) a[b] += load(source + term.source + b * source_apart) * w;
  }
  if (rows == 2) {
    for (const Term& term : terms.both) {
      const Lanes<T> w = load(kernel + term.kernel, count), v = load(kernel + terms.apart + term.kernel, count);
      EACH(b, I) {
        const Lanes<T> x = load(source + term.source + b * source_apart);
        a[b] += x * w;
        z[b] += x * v;
      }
    }
    for (const Term& term : terms.second) {
      const Lanes<T> w = load(kernel + term.kernel, count);
      EACH(b, I) z[b] += load(source + term.source + b * source_apart) * w;
    }
  }
  EACH(b, I) store(first + b * target_apart, a[b], count, step);
  if (rows == 2) EACH(b, I) store(second + b * target_apart, z[b], count, step);
}

// The same for a pair's rows, which lie `first` and `second` from the target; the second is negative if there is none.
template <int64_t I, class S, class K, class T>
inline void sum_pair(const Terms& terms, const S* source, int64_t source_apart, const K* kernel, T* target,
                     int64_t first, int64_t second, int64_t target_apart, int64_t count, int64_t step = 1) {
  if (second >= 0)
    sum_terms<2, I>(terms, source, source_apart, kernel, target + first, target + second, target_apart, count, step);
  else
    sum_terms<1, I, S, K, T>(terms, source, source_apart, kernel, target + first, nullptr, target_apart, count, step);
}

// The gradient of the kernel: for each term the sum over the images of source * grad.
template <int64_t n, class S, class G, class T>
inline void correlate_terms(const Term* terms, const S* source, int64_t source_apart, const G* grad,
                            int64_t grad_apart, int64_t images, T* kernel, int64_t count) {
  Lanes<T> sum[n];
  const S* from[n];
  EACH(t, n) sum[t] = Lanes<T>{};
  EACH(t, n) from[t] = source + terms[t].source;
  for (int64_t b = 0; b < images; b++) {
    const Lanes<T> by = load(grad + b * grad_apart, count);
    EACH(t, n) sum[t] += load(from[t] + b * source_apart) * by;
  }
  EACH(t, n) store(kernel + terms[t].kernel, sum[t], count);
}

template <class... Rest> inline void correlate(const std::vector<Term>& terms, Rest... rest) {
  const int64_t taps = terms.size();
  int64_t t = 0;
  for (; t + 9 <= taps; t += 9) correlate_terms<9>(&terms[t], rest...);
  for (; t + 6 <= taps; t += 6) correlate_terms<6>(&terms[t], rest...);
  for (; t < taps; t++) correlate_terms<1>(&terms[t], rest...);
}

// Channels last -------------------------------------------------------------------------------------------------------
//
// A thread takes a band of rows of targets and a piece of the channels, for the whole batch. Pieces are the inner loop,
// so that a page of memory is left only when all of its channels are done.

constexpr int64_t kPiece = 128, kImages = 4, kPairs = 2;

// Copies `here` channels of so many images and positions, so that they lie (part of channels, position, image, channel).
template <int64_t part, class T>
inline void pack(const T* from, int64_t from_apart, int64_t images, int64_t positions, int64_t channels, int64_t here,
                 Scalar<T>* to) {
  for (int64_t position = 0; position < positions; position++, from += channels)
    for (int64_t b = 0; b < images; b++, to += part)
      for (int64_t c = 0; c < here; c += part)
        each_run<T>(std::min(part, here - c), RUN {
          store(to + c * positions * images + n, load(from + b * from_apart + c + n, some));
        });
}

template <int64_t I, class T>
void gather_images_last(const T* source, const T* kernel, T* target, const Gather& gather, int64_t batch, int threads) {
  const Geometry& g = gather.g;
  const int64_t cols = gather.cols(), source_cols = gather.source_cols();
  const int64_t source_apart = gather.source_rows() * source_cols * g.channels;
  const int64_t target_apart = gather.rows() * cols * g.channels;
  const int64_t kernel_col = g.taps() * g.channels, kernel_row = g.out_cols * kernel_col;
  const std::vector<Pair> pairs = pairs_of_rows(gather);
  const int64_t count = pairs.size(), bands = (count + kPairs - 1) / kPairs;
  const int64_t pieces = (g.channels + kPiece - 1) / kPiece;

  struct Band {
    int64_t low, high;  // rows of sources
  };
  std::vector<Band> band_of(bands, {gather.source_rows(), 0});
  for (int64_t p = 0; p < count; p++)
    for (int64_t target_row : {pairs[p].first, pairs[p].second})
      for (int64_t u = 0; u < g.k && target_row >= 0; u++) {
        const int64_t row = gather.source(target_row, u, gather.source_rows());
        Band& band = band_of[p / kPairs];
        if (row >= 0) band = {std::min(band.low, row), std::max(band.high, row + 1)};
      }
  int64_t most = 0;
  for (const Band& band : band_of) most = std::max(most, band.high - band.low);

  const int64_t apart = (gather.transposed ? 0 : g.dilation * kernel_row) - g.k * g.channels;
  std::vector<Terms> terms;
  for (int64_t p = 0; p < count; p++)
    for (int64_t col = 0; col < cols; col++)
      terms.push_back(terms_of(gather, pairs[p], apart, [&](auto& into, int64_t target_row, int64_t row, int64_t u) {
        for (int64_t v = 0; v < g.k; v++) {
          const int64_t from = gather.source(col, v, source_cols), t = u * g.k + v;
          if (from < 0) continue;
          const int64_t at = ((row - band_of[p / kPairs].low) * source_cols + from) * I * kPiece;
          const int64_t by = gather.transposed ? row * kernel_row + from * kernel_col
                                               : target_row * kernel_row + col * kernel_col;
          into.push_back({at, by + t * g.channels});
        }
      }));

#pragma omp parallel num_threads(threads)
  {
    Buffer<Scalar<T>> buffer(std::max<int64_t>(most, 0) * source_cols * I * kPiece);
    Scalar<T>* const packed = buffer.data();
#pragma omp for collapse(2) schedule(static)
    for (int64_t band = 0; band < bands; band++)
      for (int64_t piece = 0; piece < pieces; piece++)
        for (int64_t b = 0; b < batch; b += I) {
          const int64_t c0 = piece * kPiece, here = std::min(kPiece, g.channels - c0);
          const int64_t low = band_of[band].low, rows = std::max<int64_t>(0, band_of[band].high - low);
          const int64_t positions = rows * source_cols;
          const T* from = source + low * source_cols * g.channels;
          pack<kPiece>(from + b * source_apart + c0, source_apart, I, positions, g.channels, here, packed);
          // What comes next is fetched meanwhile: other images, or other channels of the first ones.
          const bool more = b + I < batch;
          const int64_t next_c0 = more ? c0 : c0 + kPiece;
          const int64_t next_bytes = std::min(kPiece, g.channels - next_c0) * sizeof(T);
          const T* const next = from + (more ? b + I : 0) * source_apart + next_c0;
          const int64_t share = (positions + kPairs * cols - 1) / (kPairs * cols);
          int64_t fetched = 0;
          for (int64_t p = band * kPairs; p < std::min((band + 1) * kPairs, count); p++)
            for (int64_t col = 0; col < cols; col++) {
              for (int64_t n = 0; n < share && fetched < positions; n++, fetched++)
                EACH(m, I) prefetch(next + m * source_apart + fetched * g.channels, next_bytes);
              if (!more)
                for (int64_t row : {pairs[p].first, pairs[p].second})
                  for (int64_t t = 0; t < g.taps() && row >= 0; t++)
                    prefetch(kernel + next_c0 + row * kernel_row + col * kernel_col + t * g.channels, next_bytes);
              const Terms& sum = terms[p * cols + col];
              const int64_t first = (pairs[p].first * cols + col) * g.channels;
              const int64_t second = pairs[p].second < 0 ? -1 : (pairs[p].second * cols + col) * g.channels;
              T* const to = target + b * target_apart + c0;
              each_run<T>(here, RUN {
                sum_pair<I>(sum, packed + n, kPiece, kernel + c0 + n, to + n, first, second, target_apart, some);
              });
            }
        }
  }
}

template <class T>
void gather_last(const T* source, const T* kernel, T* target, const Gather& gather, int threads) {
  const Geometry& g = gather.g;
  const int64_t fours = g.batch / kImages * kImages;
  if (fours) gather_images_last<kImages>(source, kernel, target, gather, fours, threads);
  if (fours < g.batch)
    gather_images_last<1>(source + fours * gather.source_rows() * gather.source_cols() * g.channels, kernel,
                          target + fours * gather.rows() * gather.cols() * g.channels, gather, g.batch - fours,
                          threads);
}

// Bytes of channels that lie together in the copy; a narrow register's would scatter it over too many places.
constexpr int64_t kLine = kRegister < 32 ? 64 : kRegister;

template <class T> void grad_weight_last(const T* grad, const T* x, T* grad_weight, const Geometry& g, int threads) {
  constexpr int64_t line = kLine / sizeof(Scalar<T>);
  constexpr int64_t piece = 64, rows = 2;  // images and gradients of the whole batch stay in the cache
  const Gather gather{g, false};
  const int64_t pieces = (g.channels + piece - 1) / piece;
  const int64_t x_apart = g.in_size() * g.channels, grad_apart = g.out_size() * g.channels;
  const int64_t spread = g.dilation * (g.k - 1) + 1, bands = (g.out_rows + rows - 1) / rows;
#pragma omp parallel num_threads(threads)
  {
    Buffer<Scalar<T>> maps(std::min(g.in_rows, (rows - 1) * g.stride + spread) * g.in_cols * g.batch * piece);
    Buffer<Scalar<T>> grads(rows * g.out_cols * g.batch * piece);
    std::vector<std::vector<Term>> terms(rows * g.out_cols);
#pragma omp for collapse(2) schedule(static)
    for (int64_t band = 0; band < bands; band++)
      for (int64_t block = 0; block < pieces; block++) {
        const int64_t c0 = block * piece, here = std::min(piece, g.channels - c0);
        const int64_t i0 = band * rows, i1 = std::min(i0 + rows, g.out_rows);
        const int64_t low = std::max<int64_t>(0, g.stride * i0 - g.padding());
        const int64_t high = std::min(g.in_rows, g.stride * (i1 - 1) - g.padding() + spread);
        const int64_t sources = std::max<int64_t>(0, high - low) * g.in_cols, targets = (i1 - i0) * g.out_cols;
        const T* const x_here = x + low * g.in_cols * g.channels + c0;
        const T* const grad_here = grad + i0 * g.out_cols * g.channels + c0;
        T* const to = grad_weight + i0 * g.out_cols * g.taps() * g.channels + c0;
        pack<line>(x_here, x_apart, g.batch, sources, g.channels, here, maps.data());
        pack<line>(grad_here, grad_apart, g.batch, targets, g.channels, here, grads.data());
        for (int64_t at = 0; at < targets; at++) {
          terms[at].clear();
          for (int64_t t = 0; t < g.taps(); t++) {
            const int64_t row = gather.source(i0 + at / g.out_cols, t / g.k, g.in_rows);
            const int64_t col = gather.source(at % g.out_cols, t % g.k, g.in_cols);
            const int64_t by = (at * g.taps() + t) * g.channels;
            if (row < 0 || col < 0)
              std::fill_n(to + by, here, T{});
            else
              terms[at].push_back({((row - low) * g.in_cols + col) * g.batch * line, by});
          }
        }
        const int64_t next_bytes = std::min(piece, g.channels - c0 - piece) * (int64_t)sizeof(T);
        const int64_t steps = targets * ((here + line - 1) / line);
        const int64_t share = (sources + targets + steps - 1) / steps;
        int64_t fetched = 0;
        for (int64_t c = 0; c < here; c += line)
          for (int64_t at = 0; at < targets; at++) {
            for (int64_t m = 0; m < share && fetched < sources + targets && next_bytes > 0; m++, fetched++) {
              const bool source = fetched < sources;
              const T* next = piece + (source ? x_here + fetched * g.channels
                                              : grad_here + (fetched - sources) * g.channels);
              for (int64_t b = 0; b < g.batch; b++, next += source ? x_apart : grad_apart) prefetch(next, next_bytes);
            }
            each_run<T>(std::min(line, here - c), RUN {
              correlate(terms[at], maps.data() + c * sources * g.batch + n, line,
                        grads.data() + (c * targets + at * line) * g.batch + n, line, g.batch, to + c + n, some);
            });
          }
      }
  }
}

// Channels first ------------------------------------------------------------------------------------------------------
//
// A thread takes one channel. Its rows lie with zeros beside them, and cut into stride phases of columns, so that the
// sources of one tap for a row of targets are a run, whatever falls outside of the image.

template <class S> class Planes {
 public:
  Planes(int64_t planes, int64_t rows, int64_t cols, int64_t stride, int64_t padding)
      : left(whole((padding + stride - 1) / stride) * stride),
        pitch(left / stride + whole((cols + stride - 1) / stride)),
        size(rows * stride * pitch),
        rows(rows), cols(cols), stride(stride),
        buffer(planes * size + left + pitch),
        values(buffer.data()) {}

  int64_t place(int64_t row, int64_t col) const {
    return ((col + left) % stride * rows + row) * pitch + (col + left) / stride;
  }

  template <class T> void read(const T* from, int64_t plane) {
    for (int64_t col = 0; col < std::min(stride, cols); col++) {
      S* to = values + plane * size + place(0, col);
      const int64_t count = (cols - col + stride - 1) / stride;
      for (int64_t row = 0; row < rows; row++, to += pitch)
        each_run<S>(count, RUN { store(to + n, load(from + row * cols + col + n * stride, some, stride), some); });
    }
  }

  const int64_t left, pitch, size;  // of the zeros, in columns; of a row of one phase; of a plane

 private:
  static int64_t whole(int64_t count) { return (count + lanes<S> - 1) / lanes<S> * lanes<S>; }
  const int64_t rows, cols, stride;
  Buffer<S> buffer;

 public:
  S* const values;
};

template <class T>
void gather_first(const T* source, const T* kernel, T* target, const Gather& gather, int threads) {
  const Geometry& g = gather.g;
  const bool transposed = gather.transposed;
  const int64_t cols = gather.cols(), source_size = gather.source_rows() * gather.source_cols();
  const int64_t target_size = gather.rows() * cols, step = transposed ? g.stride : 1, phases = std::min(step, cols);
  const std::vector<Pair> pairs = pairs_of_rows(gather);
#pragma omp parallel num_threads(threads)
  {
    const int64_t beside = (g.padding() + step - 1) / step;
    Planes<Scalar<T>> maps(kImages, gather.source_rows(), gather.source_cols(), g.stride / step, beside);
    Planes<Scalar<T>> kernels(1, g.taps() * g.out_rows, g.out_cols, 1, transposed ? beside : 0);
    const int64_t apart = (transposed ? 0 : g.dilation * kernels.pitch) - g.k * g.out_rows * kernels.pitch;
    std::vector<Terms> terms;
    for (const Pair& pair : pairs)
      for (int64_t phase = 0; phase < phases; phase++)
        terms.push_back(terms_of(gather, pair, apart, [&](auto& into, int64_t target_row, int64_t row, int64_t u) {
          for (int64_t v = 0; v < g.k; v++) {
            const int64_t t = u * g.k + v, n = phase + g.padding() - g.dilation * v;
            if (transposed && n % g.stride) continue;
            const int64_t kernel_row = t * g.out_rows + (transposed ? row : target_row);
            const int64_t by = kernels.place(kernel_row, transposed ? n / step : 0);
            into.push_back({maps.place(row, transposed ? n / step : -n), by});
          }
        }));
#pragma omp for schedule(static)
    for (int64_t c = 0; c < g.channels; c++) {
      kernels.read(kernel + c * g.taps() * g.out_size(), 0);
      for (int64_t b = 0, images; b < g.batch; b += images) {
        images = b + kImages <= g.batch ? kImages : 1;
        for (int64_t m = 0; m < images; m++) maps.read(source + ((b + m) * g.channels + c) * source_size, m);
        const bool more = b + images < g.batch;
        const T* const next = source + ((more ? b + images : 0) * g.channels + c + !more) * source_size;
        for (int64_t m = 0; m < images && (more || c + 1 < g.channels); m++)
          prefetch(next + m * g.channels * source_size, source_size * sizeof(T));
        T* const to = target + (b * g.channels + c) * target_size;
        for (size_t p = 0; p < terms.size(); p++) {
          const Pair& pair = pairs[p / phases];
          const int64_t phase = p % phases, count = (cols - phase + step - 1) / step;
          each_run<T>(count, RUN {
            T* const at = to + phase + n * step;
            const int64_t first = pair.first * cols, second = pair.second * cols;
            if (images == 1)
              sum_pair<1>(terms[p], maps.values + n, 0, kernels.values + n, at, first, second, 0, some, step);
            else
              sum_pair<kImages>(terms[p], maps.values + n, maps.size, kernels.values + n, at, first, second,
                                g.channels * target_size, some, step);
          });
        }
      }
    }
  }
}

template <class T> void grad_weight_first(const T* grad, const T* x, T* grad_weight, const Geometry& g, int threads) {
  const Gather gather{g, false};
#pragma omp parallel num_threads(threads)
  {
    Planes<Scalar<T>> maps(g.batch, g.in_rows, g.in_cols, g.stride, g.padding());
    std::vector<std::vector<Term>> terms(g.out_rows);
    for (int64_t i = 0; i < g.out_rows; i++)
      for (int64_t t = 0; t < g.taps(); t++) {
        const int64_t row = gather.source(i, t / g.k, g.in_rows);
        if (row >= 0) terms[i].push_back({maps.place(row, g.dilation * (t % g.k) - g.padding()), t * g.out_size()});
      }
#pragma omp for schedule(static)
    for (int64_t c = 0; c < g.channels; c++) {
      for (int64_t b = 0; b < g.batch; b++) maps.read(x + (b * g.channels + c) * g.in_size(), b);
      const int64_t apart = g.channels * g.out_size();
      for (int64_t i = 0; i < g.out_rows; i++) {
        if (c + 1 < g.channels)
          for (int64_t b = i * g.batch / g.out_rows; b < (i + 1) * g.batch / g.out_rows; b++) {
            prefetch(x + (b * g.channels + c + 1) * g.in_size(), g.in_size() * sizeof(T));
            prefetch(grad + (b * g.channels + c + 1) * g.out_size(), g.out_size() * sizeof(T));
          }
        T* const to = grad_weight + c * g.taps() * g.out_size() + i * g.out_cols;
        const T* const by = grad + c * g.out_size() + i * g.out_cols;
        for (int64_t t = 0; t < g.taps(); t++)
          if (gather.source(i, t / g.k, g.in_rows) < 0) std::fill_n(to + t * g.out_size(), g.out_cols, T{});
        each_run<T>(g.out_cols, RUN {
          correlate(terms[i], maps.values + n, maps.size, by + n, apart, g.batch, to + n, some);
        });
      }
    }
  }
}

template <class T> void forward(const T* x, const T* weight, T* out, const Geometry& g, bool last, int threads) {
  (last ? gather_last<T> : gather_first<T>)(x, weight, out, {g, false}, threads);
}

template <class T> void grad_x(const T* grad, const T* weight, T* grad_x, const Geometry& g, bool last, int threads) {
  (last ? gather_last<T> : gather_first<T>)(grad, weight, grad_x, {g, true}, threads);
}

template <class T>
void grad_weight(const T* grad, const T* x, T* grad_weight, const Geometry& g, bool last, int threads) {
  (last ? grad_weight_last<T> : grad_weight_first<T>)(grad, x, grad_weight, g, threads);
}

}  // namespace

// What `native.py` calls: NAME_TYPE(two operands, result, the nine sizes of `Geometry` in order, channels last?,
// threads).
#define EXPORT(name, type, suffix)                                                                          \
  extern "C" void name##_##suffix(const void* a, const void* b, void* result, const int64_t* s, int last,   \
                                  int threads) {                                                            \
    const Geometry g{s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8]};                                 \
    name(static_cast<const type*>(a), static_cast<const type*>(b), static_cast<type*>(result), g, last != 0, \
         threads);                                                                                          \
  }
#define EXPORT_TYPES(name)      \
  EXPORT(name, float, float32)  \
  EXPORT(name, double, float64) \
  EXPORT(name, BFloat16, bfloat16)

EXPORT_TYPES(forward)
EXPORT_TYPES(grad_x)
EXPORT_TYPES(grad_weight)
