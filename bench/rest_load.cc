// SPDX-License-Identifier: Apache-2.0
// Sends GET requests at a steady rate over one connection and prints how long the answers took, as
// JSON.
//   rest_load SERVER CA_FILE TOKEN_FILE TARGET RATE SECONDS
// A request that is due while the one before still waits counts from when it was due, so that a
// stall is not hidden.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/secret_bytes.h"
#include "base/text.h"
#include "http/client.h"

namespace {

using Clock = std::chrono::steady_clock;

std::string ReadFile(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

double Percentile(const std::vector<double>& sorted, double fraction) {
  return sorted[static_cast<size_t>(fraction * static_cast<double>(sorted.size() - 1))];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    std::fprintf(stderr, "usage: rest_load SERVER CA_FILE TOKEN_FILE TARGET RATE SECONDS\n");
    return 2;
  }
  vallum::http::ClientOptions options;
  options.server = argv[1];
  options.ca_pem = ReadFile(argv[2]);
  auto client = vallum::http::Client::Create(options);
  if (!client.has_value()) {
    std::fprintf(stderr, "%s\n", client.error().Describe().c_str());
    return 1;
  }
  const std::string token = ReadFile(argv[3]);
  (*client)->SetBearerToken(vallum::SecretBytes(vallum::AsBytes(vallum::Trim(token))));
  const int rate = std::atoi(argv[5]);
  const int total = rate * std::atoi(argv[6]);
  std::vector<double> milliseconds;
  milliseconds.reserve(static_cast<size_t>(total));
  const Clock::time_point start = Clock::now();
  for (int i = 0; i < total; ++i) {
    const Clock::time_point due = start + std::chrono::nanoseconds(1'000'000'000LL * i / rate);
    std::this_thread::sleep_until(due);
    vallum::http::ClientRequest request;
    request.target = argv[4];
    const auto response = (*client)->Send(request);
    if (!response.has_value() || response->status != 200) {
      std::fprintf(
          stderr, "request failed: %s\n",
          response.has_value() ? response->body.c_str() : response.error().Describe().c_str());
      return 1;
    }
    milliseconds.push_back(std::chrono::duration<double, std::milli>(Clock::now() - due).count());
  }
  std::sort(milliseconds.begin(), milliseconds.end());
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  std::printf(R"({"requests":%zu,"per_second":%.0f,"p50_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f})"
              "\n",
              milliseconds.size(), total / seconds, Percentile(milliseconds, 0.5),
              Percentile(milliseconds, 0.99), milliseconds.back());
  return 0;
}
