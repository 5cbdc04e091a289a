// Draws a token from each row of logits, on a CPU.
//
// Probabilities are summed as integers, so that sums are exact: see `sampler` of podium-model, which does the same by
// operations of libtorch on a GPU.
#include "shim.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "vectorised.h"

namespace {

// A probability of 1.
constexpr double kOne = 4503599627370496.0;

PODIUM_VECTORISED float largest_of(const float* x, int64_t n) {
  float parts[kParts];
  std::fill(parts, parts + kParts, -INFINITY);
  int64_t first = 0;
  for (; first + kParts <= n; first += kParts) {
    for (int64_t part = 0; part < kParts; ++part) {
      parts[part] = x[first + part] > parts[part] ? x[first + part] : parts[part];
    }
  }
  float largest = -INFINITY;
  for (const float part : parts) {
    largest = part > largest ? part : largest;
  }
  for (; first < n; ++first) {
    largest = x[first] > largest ? x[first] : largest;
  }
  return largest;
}

// Writes products, which are at most 1, in units of 1 / kOne, rounded down.
PODIUM_VECTORISED void fixed_point(const float* x, int64_t n, float factor, int64_t* y) {
  int64_t bits_of_one;
  std::memcpy(&bits_of_one, &kOne, sizeof(bits_of_one));
  for (int64_t i = 0; i < n; ++i) {
    // The bits of numbers from kOne to its double count in ones. AVX2 has no other conversion of a vector.
    const double number = std::floor(static_cast<double>(x[i] * factor) * kOne) + kOne;
    int64_t bits;
    std::memcpy(&bits, &number, sizeof(bits));
    y[i] = bits - bits_of_one;
  }
}

// Bins of logits, from the largest down.
constexpr int64_t kBins = 1024;
constexpr float kBinsPerNat = 32.0f;

PODIUM_VECTORISED void bins_of(const float* x, int64_t n, float largest, int32_t* bins) {
  for (int64_t i = 0; i < n; ++i) {
    const float place = (largest - x[i]) * kBinsPerNat;
    bins[i] = static_cast<int32_t>(place < kBins - 1 ? place : kBins - 1);
  }
}

// Sets the masses of logits below `lowest` to 0 and returns the sum of the others.
PODIUM_VECTORISED int64_t truncate(const float* x, int64_t n, float lowest, int64_t* masses) {
  int64_t total = 0;
  for (int64_t i = 0; i < n; ++i) {
    masses[i] = x[i] >= lowest ? masses[i] : 0;
    total += masses[i];
  }
  return total;
}

struct Candidate {
  float logit;
  int64_t mass;
};

// Returns the lowest of the largest logits that are needed so that their mass is at least `least`, or the lowest logit if all
// have less mass. Halves the candidates around a pivot until one remains.
float nucleus_of(std::vector<Candidate>& candidates, int64_t least) {
  const auto above = [](const Candidate& one, const Candidate& other) { return one.logit > other.logit; };
  auto first = candidates.begin();
  auto end = candidates.end();
  while (end - first > 1) {
    const auto middle = first + (end - first) / 2;
    std::nth_element(first, middle, end, above);
    int64_t upper = 0;
    for (auto candidate = first; candidate != middle; ++candidate) {
      upper += candidate->mass;
    }
    if (upper >= least) {
      end = middle;
    } else {
      least -= upper;
      first = middle;
    }
  }
  return first->logit;
}

// The memory of a thread, for rows of one size.
class Sampler {
 public:
  Sampler(int64_t n, const podium_selection& selection)
      : n_(n), selection_(selection), exponentials_(n), masses_(n), bins_(n) {}

  podium_drawn draw(const float* logits, double uniform) {
    const auto largest = largest_of(logits, n_);
    const auto sum = podium_exponentials(logits, n_, largest, exponentials_.data());
    if (!std::isfinite(sum)) {
      return {0, NAN, NAN};
    }
    const auto logprob = [&](int64_t token) { return logits[token] - largest - std::log(sum); };
    if (selection_.greedy) {
      const auto token = std::find(logits, logits + n_, largest) - logits;
      return {token, logprob(token), NAN};
    }
    fixed_point(exponentials_.data(), n_, 1.0f / sum, masses_.data());
    const auto lowest = threshold(logits, largest);
    const auto total = truncate(logits, n_, lowest, masses_.data());
    // Below the total, which a product just below it may round to.
    const auto target = static_cast<int64_t>(std::min(
        std::floor(uniform * static_cast<double>(total)), static_cast<double>(total) - 1.0));
    int64_t token = 0;
    for (int64_t before = masses_[0]; before <= target && token + 1 < n_; before += masses_[token]) {
      token += 1;
    }
    const auto full = logprob(token);
    return {token, full, static_cast<float>(full - std::log(static_cast<double>(total) / kOne))};
  }

 private:
  // The lowest logit that may be drawn.
  float threshold(const float* logits, float largest) {
    if (selection_.top_k > 0) {
      return among_largest(logits, std::min(n_, selection_.top_k));
    }
    return selection_.least > 0 ? nucleus(logits, largest) : -INFINITY;
  }

  float among_largest(const float* logits, int64_t count) {
    std::vector<float> numbers(logits, logits + n_);
    std::partial_sort(numbers.begin(), numbers.begin() + count, numbers.end(), std::greater<>());
    if (selection_.least == 0) {
      return numbers[count - 1];
    }
    // Their probabilities among themselves.
    std::vector<float> powers(count);
    std::vector<int64_t> masses(count);
    const auto sum = podium_exponentials(numbers.data(), count, numbers.front(), powers.data());
    fixed_point(powers.data(), count, 1.0f / sum, masses.data());
    candidates_.clear();
    for (int64_t i = 0; i < count; ++i) {
      candidates_.push_back({numbers[i], masses[i]});
    }
    return nucleus_of(candidates_, selection_.least);
  }

  // Sums the masses of bins of logits, from the largest down, and orders those of one bin alone.
  float nucleus(const float* logits, float largest) {
    bins_of(logits, n_, largest, bins_.data());
    int64_t bins[kBins] = {};
    for (int64_t i = 0; i < n_; ++i) {
      bins[bins_[i]] += masses_[i];
    }
    auto least = selection_.least;
    int64_t last = 0;
    while (last + 1 < kBins && bins[last] < least) {
      least -= bins[last];
      last += 1;
    }
    candidates_.clear();
    for (int64_t i = 0; i < n_; ++i) {
      if (bins_[i] == last) {
        candidates_.push_back({logits[i], masses_[i]});
      }
    }
    return candidates_.empty() ? -INFINITY : nucleus_of(candidates_, least);
  }

  int64_t n_;
  podium_selection selection_;
  std::vector<float> exponentials_;
  std::vector<int64_t> masses_;
  std::vector<int32_t> bins_;
  std::vector<Candidate> candidates_;
};

}  // namespace

char* podium_torch_draw(
    at::Tensor* logits, podium_selection selection, const double* uniform, podium_drawn* drawn) {
  return podium_guarded([=] {
    TORCH_CHECK(
        logits->is_cpu() && logits->dim() == 2 && logits->size(1) > 0 && logits->scalar_type() == at::kFloat,
        "logits of ", logits->sizes(), " in ", logits->scalar_type(), ": expected float32 [rows, vocabulary] on a CPU");
    const auto contiguous = logits->contiguous();
    const auto n = contiguous.size(1);
    const auto* numbers = contiguous.const_data_ptr<float>();
    in_parallel(contiguous.size(0), n, kExponential, [=](int64_t first, int64_t end) {
      Sampler sampler(n, selection);
      for (int64_t row = first; row < end; ++row) {
        drawn[row] = sampler.draw(numbers + row * n, uniform[row]);
      }
    });
  });
}
