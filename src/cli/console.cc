// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <memory>
#include <ostream>
#include <thread>

#include "base/text.h"
#include "cli/commands.h"

namespace vallum::cli {
namespace {

constexpr std::byte kDetach{0x1d};  // Ctrl-]
constexpr std::chrono::seconds kSendTime{30};
constexpr std::chrono::milliseconds kTurn{100};

// Raw mode while it lives; nothing when the descriptor is no terminal.
class RawTerminal {
 public:
  explicit RawTerminal(int fd) : fd_(fd), active_(::tcgetattr(fd, &before_) == 0) {
    if (!active_) return;
    termios raw = before_;
    ::cfmakeraw(&raw);
    ::tcsetattr(fd_, TCSANOW, &raw);
  }
  ~RawTerminal() {
    if (active_) ::tcsetattr(fd_, TCSANOW, &before_);
  }
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

 private:
  int fd_;
  termios before_ = {};
  bool active_;
};

void WriteAll(int fd, ByteView data) {
  while (!data.empty()) {
    const ssize_t written = ::write(fd, data.data(), data.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    data = data.subspan(static_cast<size_t>(written));
  }
}

// Keyboard to guest until the user detaches, the input ends or the socket closes.
Result<void> SendKeys(int fd, http::WebSocket* socket, const std::atomic<bool>& ended) {
  std::byte buffer[4096];
  while (!ended) {
    pollfd ready = {.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, static_cast<int>(kTurn.count())) <= 0) continue;
    const ssize_t count = ::read(fd, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return Ok();
    const ByteView typed(buffer, static_cast<size_t>(count));
    const auto detach = std::find(typed.begin(), typed.end(), kDetach);
    const auto before = static_cast<size_t>(detach - typed.begin());
    if (before > 0) {
      RETURN_IF_ERROR(socket->Send(typed.first(before), kSendTime));
    }
    if (detach != typed.end()) return Ok();
  }
  return Ok();
}

Result<void> Attach(Tool* tool, const std::string& name) {
  const std::string path = ResourcePath(KindOf("instance"), name);
  ASSIGN_OR_RETURN(const Json grant,
                   tool->Call(http::Method::kPost, path + "/console", Json::object()));
  ASSIGN_OR_RETURN(http::Client* const client, tool->Connect());
  ASSIGN_OR_RETURN(const auto socket,
                   client->OpenWebSocket(
                       {.method = http::Method::kGet,
                        .target = "/v1/consoles/" + http::PercentEncode(TextAt(grant, "token")),
                        .headers = {},
                        .body = {}}));
  const Environment& environment = tool->environment();
  tool->err() << "attached to " << Printable(name) << "; Ctrl-] detaches\n" << std::flush;
  std::atomic<bool> ended = false;
  std::string reason;
  Result<void> sent = Ok();
  {
    const RawTerminal raw(environment.in_fd);
    // A serial console is raw bytes for the terminal by its nature: nothing is made printable here.
    std::thread output([&] {
      while (!ended) {
        const auto message = socket->Receive(kTurn);
        if (!message.has_value()) {
          reason = message.error().message();
          ended = true;
        } else if (message->has_value()) {
          WriteAll(environment.out_fd, **message);
        }
      }
    });
    sent = SendKeys(environment.in_fd, socket.get(), ended);
    ended = true;
    output.join();
  }
  socket->Close("detached");
  tool->err() << "\ndetached" << (reason.empty() ? "" : ": " + Printable(reason)) << "\n";
  return sent;
}

}  // namespace

void AddConsoleCommand(CLI::App* app, Tool* tool) {
  auto name = std::make_shared<std::string>();
  CLI::App* console = app->add_subcommand("console", "Serial console; Ctrl-] detaches");
  console->add_option("NAME", *name, "The instance's name")->required();
  console->callback([=] { tool->action = [=] { return Attach(tool, *name); }; });
}

}  // namespace vallum::cli
