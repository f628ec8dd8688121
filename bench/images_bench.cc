// SPDX-License-Identifier: Apache-2.0
// Inspection of a tiny qcow2 beside open + pread + close of the same file; the boot chain of a disk
// judged under Microsoft's keys beside SHA-256 of the programs that it reads; conversion of disks
// of 1 GiB to qcow2, confined, beside qemu-img convert of the same files.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "base/units.h"
#include "firmware/key_set.h"
#include "formats/gpt.h"
#include "formats/qcow2.h"
#include "images/boot_chain.h"
#include "images/confined_converter.h"
#include "images/convert.h"
#include "images/esp.h"
#include "images/fd_reader.h"
#include "images/inspection.h"
#include "images/installed_key_sets.h"
#include "median.h"

namespace {

constexpr int kRounds = 20000;
constexpr double kTargetMs = 0.010;
constexpr int kPreflights = 30;
constexpr double kPreflightTarget = 1.2;  // times the SHA-256
constexpr int kConversions = 3;           // of each kind; the best one counts
constexpr size_t kDiskBytes = size_t{1} << 30U;

template <typename Work>
double MedianMs(Work work, int rounds = kRounds) {
  return vallum::bench::MedianMs(rounds, work);
}

// Half of it random, a quarter that compresses well, a quarter of zeroes; in runs of 4 MiB.
void MakeDisk(const std::string& path) {
  std::mt19937_64 random(1);
  std::vector<uint64_t> run(size_t{4} << 17U);
  std::ofstream file(path, std::ios::binary);
  for (size_t i = 0; i < kDiskBytes / (run.size() * 8); ++i) {
    for (size_t j = 0; j < run.size(); ++j) {
      run[j] = i % 4 < 2 ? random() : i % 4 == 2 ? j / 512 : 0;
    }
    file.write(reinterpret_cast<const char*>(run.data()),
               static_cast<std::streamsize>(run.size() * 8));
  }
}

struct Source {
  const char* name;       // as declared
  const char* qemu_name;  // and as qemu-img says
  const char* options;
};
constexpr std::array kSources = {
    Source{"raw", "raw", "-S 0"}, Source{"qcow2", "qcow2", "-c"}, Source{"vmdk", "vmdk", ""},
    Source{"vmdk", "vmdk", "-o subformat=streamOptimized"}, Source{"vhdx", "vhdx", ""}};

double SecondsOf(const std::function<bool()>& work, bool& good) {
  const auto begin = std::chrono::steady_clock::now();
  good = work() && good;
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

bool Convert(const std::string& program, const std::string& source, const char* format,
             const std::string& target) {
  using namespace vallum::images;  // NOLINT(google-build-using-namespace): one function
  const int in = open(source.c_str(), O_RDONLY | O_CLOEXEC);
  const auto reader = FdReader::Open(in);
  const auto declared = ParseDeclaredFormat(format);
  if (!reader.has_value() || !declared.has_value()) return false;
  const auto proof = InspectBound(*reader, *declared, {});
  if (!proof.has_value()) return false;
  std::ofstream out(target, std::ios::binary);
  const ConfinedConverter converter({.program = program, .timeout = {}});
  const auto result =
      converter.Convert(in, *proof, StoreFormat::kQcow2,
                        [&](vallum::ByteView bytes) -> vallum::Result<void> {
                          out.write(reinterpret_cast<const char*>(bytes.data()),
                                    static_cast<std::streamsize>(bytes.size()));
                          return out.good() ? vallum::Ok() : vallum::Internal("write");
                        },
                        {});
  close(in);
  if (!result.has_value()) std::fprintf(stderr, "%s\n", result.error().Describe().c_str());
  return result.has_value();
}

// The disk is read once before, so that both find it in the page cache.
bool ComparePreflight(const std::string& disk) {
  using namespace vallum::images;  // NOLINT(google-build-using-namespace): one function
  const int fd = open(disk.c_str(), O_RDONLY | O_CLOEXEC);
  const auto reader = FdReader::Open(fd);
  if (!reader.has_value()) return false;
  const auto table = vallum::formats::ParseGpt(*reader, 512);
  std::vector<vallum::firmware::KeySet> keys = FindInstalledKeySets().sets;
  std::erase_if(keys, [](const auto& set) { return set.name != "microsoft"; });
  if (!table.has_value() || keys.empty()) return false;
  const auto report = InspectBootChain(*reader, *table, keys);
  const auto esp = Esp::Open(*reader, *table);
  if (!report.has_value() || !esp.has_value()) return false;
  std::vector<vallum::Bytes> programs;
  size_t bytes = 0;
  for (const BootBinary& binary : report->binaries) {
    const EspFile* const file = (*esp)->Find(binary.path);
    if (file == nullptr) return false;
    auto program = (*esp)->Read(*file);
    if (!program.has_value()) return false;
    bytes += program->size();
    programs.push_back(*std::move(program));
  }
  bool good = bytes != 0;
  const double ours = MedianMs(
      [&] { good = InspectBootChain(*reader, *table, keys).has_value() && good; }, kPreflights);
  const double reference = MedianMs(
      [&] {
        for (const vallum::Bytes& program : programs) vallum::Sha256(program);
      },
      kPreflights);
  close(fd);
  std::printf(
      "judge the boot chain of %zu programs, %zu bytes: %.2f ms; SHA-256 of them: %.2f ms; ratio "
      "%.2f; target %.1f\n",
      programs.size(), bytes, ours, reference, ours / reference, kPreflightTarget);
  return good;
}

bool CompareConversions(const std::string& program) {
  std::string directory = (std::filesystem::temp_directory_path() / "vallum-bench-XXXXXX").string();
  if (mkdtemp(directory.data()) == nullptr) return false;
  const std::string disk = directory + "/disk";
  const std::string source = directory + "/source";
  const std::string target = directory + "/target";
  MakeDisk(disk);
  const auto shell = [](const std::string& line) { return std::system(line.c_str()) == 0; };
  bool good = true;
  for (const Source& kind : kSources) {
    const std::string qemu = std::string("qemu-img convert -O ");
    good = good &&
           shell(qemu + kind.qemu_name + " " + kind.options + " -f raw " + disk + " " + source);
    double ours = 1e9;
    double reference = 1e9;
    for (int i = 0; i < kConversions; ++i) {
      std::filesystem::remove(target);
      ours = std::min(ours,
                      SecondsOf([&] { return Convert(program, source, kind.name, target); }, good));
      good = good && shell("qemu-img compare -q -f raw -F qcow2 " + disk + " " + target);
      std::filesystem::remove(target);
      reference = std::min(reference, SecondsOf(
                                          [&] {
                                            return shell(qemu + "qcow2 -f " + kind.qemu_name + " " +
                                                         source + " " + target);
                                          },
                                          good));
    }
    std::printf("convert 1 GiB, %s %s to qcow2: %.2f s; qemu-img: %.2f s; ratio %.2f\n",
                kind.qemu_name, kind.options, ours, reference, ours / reference);
  }
  std::filesystem::remove_all(directory);
  return good;
}

}  // namespace

// argv[1]: vallum-inspect, if it is not in ../bin. argv[2]: a GPT disk that UEFI starts, such as
// scripts/make-debian-guest makes; without it no boot chain is judged.
int main(int argc, char** argv) {
  std::string path = "/tmp/vallum-bench-XXXXXX";
  const int made = mkstemp(path.data());
  const auto image = vallum::formats::MakeQcow2Overlay(vallum::ByteCount::MiB(8));
  if (made < 0 || !image.has_value() ||
      write(made, image->data(), image->size()) != static_cast<ssize_t>(image->size())) {
    return 1;
  }
  close(made);
  bool good = true;
  const double reference = MedianMs([&] {
    std::array<std::byte, 512> buffer{};
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    good = good && pread(fd, buffer.data(), buffer.size(), 0) == 512;
    close(fd);
  });
  const double inspect = MedianMs([&] {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const auto reader = vallum::images::FdReader::Open(fd);
    good = good && reader.has_value() &&
           vallum::images::Inspect(*reader, vallum::images::DeclaredFormat::kQcow2).has_value();
    close(fd);
  });
  unlink(path.c_str());
  if (!good) return 1;
  std::printf(
      "inspect a tiny qcow2: %.4f ms; open+pread+close: %.4f ms; ratio %.1f; target %.3f ms\n",
      inspect, reference, inspect / reference, kTargetMs);
  if (argc > 2 && !ComparePreflight(argv[2])) return 1;
  const std::string program =
      argc > 1 ? argv[1]
               : (std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() /
                  "bin/vallum-inspect")
                     .string();
  return CompareConversions(program) ? 0 : 1;
}
