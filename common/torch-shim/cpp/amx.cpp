// The weight is the first factor, so that its rows are read as they are stored, once; the second one are the few rows of
// inputs, transposed in pairs. Products are exact and sums are float32; the units take denormal numbers for zero.
#include "amx.h"

#include <cstdlib>
#include <cstring>

#include "low_rank.h"

#if defined(__x86_64__) && defined(__linux__) && !defined(__clang__) && __GNUC__ >= 12
#define PODIUM_TILES __attribute__((target("amx-tile,amx-bf16")))

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

// Numbers of a row of a tile of the weight, and rows of a tile.
constexpr int64_t kDepth = 32;
constexpr int64_t kTile = 16;

// What `ldtilecfg` reads.
struct alignas(64) Configuration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};

// The variable by which oneDNN, whose products these replace, is limited to other instructions.
bool is_excluded() {
  const char* limit = std::getenv("ONEDNN_MAX_CPU_ISA");
  return limit != nullptr && std::strstr(limit, "AMX") == nullptr && std::strcmp(limit, "DEFAULT") != 0;
}

bool ask_for_tiles() {
  constexpr long kRequest = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return !is_excluded() && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
      syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

// The tiles 0 and 1 are sums, 2 is of the weight, 3 and 4 of the inputs.
template <bool kTwo>
PODIUM_TILES void product(
    const uint32_t* pairs, int64_t padded, const c10::BFloat16* weight, int64_t stride, int64_t inputs, float* block) {
  // The compiler does not know that the instructions read these numbers.
  asm volatile("" : : : "memory");
  _tile_zero(0);
  if (kTwo) {
    _tile_zero(1);
  }
  for (int64_t input = 0; input < inputs; input += kDepth) {
    _tile_loadd(2, weight + input, stride * sizeof(c10::BFloat16));
    const uint32_t* of_inputs = pairs + input / 2 * padded;
    _tile_loadd(3, of_inputs, padded * sizeof(uint32_t));
    _tile_dpbf16ps(0, 2, 3);
    if (kTwo) {
      _tile_loadd(4, of_inputs + kTile, padded * sizeof(uint32_t));
      _tile_dpbf16ps(1, 2, 4);
    }
  }
  _tile_stored(0, block, padded * sizeof(float));
  if (kTwo) {
    _tile_stored(1, block + kTile, padded * sizeof(float));
  }
}

PODIUM_TILES void configure() {
  Configuration configuration;
  for (int tile = 0; tile < 5; ++tile) {
    configuration.bytes[tile] = kTile * sizeof(float);
    configuration.rows[tile] = kTile;
  }
  // The compiler does not know that the instruction reads the whole structure.
  asm volatile("" : : "r"(&configuration) : "memory");
  _tile_loadconfig(&configuration);
}

PODIUM_TILES void release() { _tile_release(); }

}  // namespace

bool podium_has_tiles() {
  static const bool has = ask_for_tiles();
  return has;
}

void podium_tile_product(const TileRows& x, const c10::BFloat16* weight, int64_t stride, float* block) {
  int64_t row = 0;
  for (; row + 2 * kTile <= x.padded; row += 2 * kTile) {
    product<true>(x.pairs.data() + row, x.padded, weight, stride, x.inputs, block + row);
  }
  if (row < x.padded) {
    product<false>(x.pairs.data() + row, x.padded, weight, stride, x.inputs, block + row);
  }
}

Tiles::Tiles() { configure(); }

Tiles::~Tiles() { release(); }

#else

bool podium_has_tiles() { return false; }
void podium_tile_product(const TileRows&, const c10::BFloat16*, int64_t, float*) {}
Tiles::Tiles() {}
Tiles::~Tiles() {}

#endif

bool podium_fits_tiles(const at::Tensor& x, const at::Tensor& weight) {
  return x.scalar_type() == at::kBFloat16 && weight.scalar_type() == at::kBFloat16 && weight.stride(1) == 1 &&
      weight.size(0) % 16 == 0 && weight.size(1) % 32 == 0 && podium_has_tiles();
}

TileRows podium_tile_rows(const at::Tensor& x) {
  const auto rows = x.size(0), inputs = x.size(1), padded = padded_rows(rows);
  TileRows tiles{std::vector<uint32_t>(inputs / 2 * padded), inputs, padded};
  for (int64_t row = 0; row < rows; ++row) {
    const auto* numbers = x.const_data_ptr<at::BFloat16>() + row * x.stride(0);
    for (int64_t pair = 0; pair < inputs / 2; ++pair) {
      std::memcpy(&tiles.pairs[pair * padded + row], numbers + 2 * pair, sizeof(uint32_t));
    }
  }
  return tiles;
}
