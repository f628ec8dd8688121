// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "base/bytes.h"
#include "base/digest.h"
#include "cli/cli_rig.h"
#include "cli/commands.h"
#include "cli/context.h"
#include "http/testing.h"
#include "tls/file.h"

namespace vallum::cli {
namespace {

using http::Method;
using http::Request;
using http::Response;
using testing::HasSubstr;
using testing::Not;

// ---- contexts ----

TEST_F(CliTest, TokenIsKeptApartFromTheContextAndForItsOwnerOnly) {
  Serve({});
  struct stat info = {};
  ASSERT_EQ(::stat(Path("config/test.token").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_EQ(AsText(*tls::ReadSmallFile(Path("config/config.toml"))).find("s3cret"),
            std::string::npos);
}

TEST_F(CliTest, TokenFileOthersCanReadIsRefused) {
  Serve({});
  Write("open", "s3cret", 0644);
  EXPECT_EQ(Vallum({"pool", "list", "--token-file", Path("open")}), 5);
  EXPECT_THAT(err_.str(), HasSubstr("fix: chmod 600"));
}

TEST_F(CliTest, ContextsAreListedChosenAndRemoved) {
  Serve({});
  EXPECT_EQ(Vallum({"context", "add", "other", "--server", "https://h:1", "--ca", Path("ca.pem")}),
            0);
  EXPECT_EQ(Vallum({"context", "use", "other"}), 0);
  EXPECT_EQ(Vallum({"context", "list", "-o", "csv"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("other,https://h:1,true"));
  EXPECT_EQ(Vallum({"context", "remove", "test"}), 0);
  EXPECT_FALSE(std::filesystem::exists(Path("config/test.token")));
  EXPECT_EQ(Vallum({"context", "use", "test"}), 3);
}

TEST_F(CliTest, DamagedConfigurationNamesTheLine) {
  std::filesystem::create_directory(Path("config"));
  Write("config/config.toml", "current = 'a'\n[[[", 0600);
  EXPECT_EQ(Vallum({"context", "list"}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("line 2"));
}

// ---- arguments and exit codes ----

TEST_F(CliTest, ArgumentErrorsAreBadInput) {
  EXPECT_EQ(Vallum({}), 2);
  EXPECT_EQ(Vallum({"nonsense"}), 2);
  EXPECT_EQ(Vallum({"instance", "create", "web1"}), 2);
  EXPECT_EQ(Vallum({"pool", "list", "-o", "xml"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("fix: use -o table"));
  EXPECT_EQ(Vallum({"pool", "list"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("vallum context add"));
}

TEST_F(CliTest, BadArgumentIsAnsweredWithTheHelpOfTheWholeCommand) {
  EXPECT_EQ(Vallum({"snapshot", "create", "web1", "surplus"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("fix: see vallum snapshot create --help"));
}

TEST_F(CliTest, ServersRefusalsBecomeExitCodes) {
  http::Router router;
  router.Add(Method::kGet, "/v1/pools/{name}", [](const Request& request) {
    const std::string name = *request.Param("name");
    if (name == "conflict") return http::ProblemResponse(Conflict("x").WithFix("do\x1b[2J y"));
    if (name == "denied") return http::ProblemResponse(401, Denied("x"));
    if (name == "busy") return http::ProblemResponse(Unavailable("x"));
    if (name == "broken") return http::ProblemResponse(Internal("x"));
    return http::ProblemResponse(NotFound("x"));
  });
  Serve(std::move(router));
  EXPECT_EQ(Vallum({"pool", "show", "missing"}), 3);
  EXPECT_EQ(Vallum({"pool", "show", "conflict"}), 4);
  EXPECT_THAT(err_.str(), HasSubstr("error: x\nfix: do\\x1b"));
  EXPECT_EQ(Vallum({"pool", "show", "denied"}), 5);
  EXPECT_EQ(Vallum({"pool", "show", "busy"}), 6);
  EXPECT_EQ(Vallum({"pool", "show", "broken"}), 1);
}

TEST_F(CliTest, UnreachableControllerIsUnavailable) {
  Serve({});
  server_->server().Stop(std::chrono::milliseconds(0));
  EXPECT_EQ(Vallum({"pool", "list"}), 6);
}

// ---- resources ----

TEST_F(CliTest, ListReadsAllPagesWithTheToken) {
  http::Router router;
  router.Add(Method::kGet, "/v1/instances", [this](const Request& request) {
    last_ = request;
    const bool second = request.Query("page") == "p/2";
    Json answer = {{"items",
                    {{{"metadata", {{"name", second ? "b" : "a"}}},
                      {"status", {{"phase", "INSTANCE_RUNNING"}}}}}}};
    if (!second) answer["nextPage"] = "p/2";
    return Response::Json(200, answer.dump());
  });
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"instance", "list", "--labels", "a=b,c=d"}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("a     running"));
  EXPECT_THAT(out_.str(), HasSubstr("b     running"));
  EXPECT_EQ(last_.headers.Get("Authorization"), "Bearer s3cret");
  EXPECT_EQ(last_.Query("labels"), "a=b,c=d");
}

// What changed while the pages were read is told by a watch from there.
TEST_F(CliTest, RevisionOfAListIsThatOfItsFirstPage) {
  http::Router router;
  router.Add(Method::kGet, "/v1/instances", [](const Request& request) {
    const bool second = request.Query("page") == "2";
    Json answer = {{"items", Json::array()}, {"revision", second ? "9" : "7"}};
    if (!second) answer["nextPage"] = "2";
    return Response::Json(200, answer.dump());
  });
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"instance", "list", "-o", "json"}), 0) << err_.str();
  EXPECT_EQ(Json::parse(out_.str())["revision"], "7");
}

TEST_F(CliTest, SetSendsAMergePatchOfLabels) {
  http::Router router;
  router.Add(Method::kPatch, "/v1/pools/{name}", Canned(200, Json::object()));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"pool", "set", "gold", "tier=1", "old-"}), 0) << err_.str();
  EXPECT_EQ(last_.body, R"({"metadata":{"labels":{"tier":"1","old":null}}})");
  EXPECT_EQ(last_.headers.Get("Content-Type"), "application/merge-patch+json");
}

TEST_F(CliTest, InstanceCreateSendsWhatWasAskedAndWaits) {
  http::Router router;
  const Json operation = {{"metadata", {{"name", "op1"}}}, {"kind", "instance.create"}};
  Json done = operation;
  done["state"] = "OPERATION_DONE";
  Json running = operation;
  running["state"] = "OPERATION_RUNNING";
  router.Add(Method::kPost, "/v1/instances", Canned(202, running));
  router.Add(Method::kGet, "/v1/operations/{name}",
             [done](const Request&) { return Response::Json(200, done.dump()); });
  Serve(std::move(router));
  Write("user-data", "#cloud-config\n", 0644);
  ASSERT_EQ(Vallum({"instance", "create", "web1", "--image", "debian", "--flavor", "small",
                    "--boot-type", "UEFI", "--boot-mode", "secure", "--secure-boot", "required",
                    "--network", "bridge=br0", "--user-data", Path("user-data"), "--wait"}),
            0)
      << err_.str();
  const Json body = LastBody();
  EXPECT_EQ(TextAt(body, "metadata.name"), "web1");
  EXPECT_EQ(TextAt(body, "spec.boot.type"), "BOOT_TYPE_UEFI");
  EXPECT_EQ(TextAt(body, "spec.boot.mode"), "BOOT_MODE_SECURE");
  EXPECT_EQ(TextAt(body, "spec.properties.os_secure_boot"), "required");
  EXPECT_EQ(TextAt(body["spec"]["networks"][0], "bridge"), "br0");
  EXPECT_EQ(TextAt(body, "spec.seed.userData"), "#cloud-config\n");
  EXPECT_EQ(out_.str(), "create instance web1: done\n");
}

TEST_F(CliTest, FailedOperationIsItsError) {
  http::Router router;
  router.Add(Method::kPost, "/v1/instances/{name}/start",
             Canned(202, {{"metadata", {{"name", "op1"}}},
                          {"state", "OPERATION_FAILED"},
                          {"error", {{"code", "denied"}, {"detail", "no"}, {"fix", "do this"}}}}));
  Serve(std::move(router));
  EXPECT_EQ(Vallum({"instance", "start", "web1", "--wait"}), 5);
  EXPECT_EQ(err_.str(), "error: no\nfix: do this\n");
}

TEST_F(CliTest, PrivateSshKeyIsRefusedBeforeAnythingIsSent) {
  Serve({});
  Write("id", "-----BEGIN OPENSSH PRIVATE KEY-----\n", 0600);
  EXPECT_EQ(
      Vallum({"instance", "create", "a", "--image", "i", "--flavor", "f", "--ssh-key", Path("id")}),
      2);
  EXPECT_THAT(err_.str(), HasSubstr("id.pub"));
}

// ---- images, tokens, console ----

class Count final : public http::UploadSink {
 public:
  explicit Count(std::string* out) : out_(out) {}
  Result<void> Write(ByteView chunk) override {
    out_->append(AsText(chunk));
    return Ok();
  }
  Response Finish() override {
    return Response::Json(200, R"({"status":{"state":"IMAGE_READY","facts":["one fact"]}})");
  }

 private:
  std::string* out_;
};

TEST_F(CliTest, ImportGoesOnWhereAnEarlierOneBrokeOff) {
  std::string received;
  std::string offset;
  http::Router router;
  router.Add(Method::kPost, "/v1/images",
             [](const Request&) { return http::ProblemResponse(Conflict("exists")); });
  router.Add(Method::kGet, "/v1/images/{name}",
             Canned(200, {{"spec", {{"expectedSizeBytes", "10"}}},
                          {"status", {{"state", "IMAGE_PENDING"}, {"receivedBytes", "4"}}}}));
  router.AddUpload(
      Method::kPut, "/v1/images/{name}/content",
      [&](const Request& request) -> std::variant<Response, std::unique_ptr<http::UploadSink>> {
        offset = *request.Query("offset") + "/" + *request.Query("total");
        return std::make_unique<Count>(&received);
      });
  Serve(std::move(router));
  Write("a.qcow2", "0123456789", 0644);
  ASSERT_EQ(Vallum({"image", "import", Path("a.qcow2"), "--name", "a", "--disk-format", "qcow2",
                    "--wait"}),
            0)
      << err_.str();
  EXPECT_EQ(received, "456789");
  EXPECT_EQ(offset, "4/10");
  EXPECT_EQ(out_.str(), "image a imported: ready\n  one fact\n");
}

TEST_F(CliTest, ImportOfAnotherFileUnderATakenNameIsAConflict) {
  http::Router router;
  router.Add(Method::kPost, "/v1/images",
             [](const Request&) { return http::ProblemResponse(Conflict("exists")); });
  router.Add(Method::kGet, "/v1/images/{name}",
             Canned(200, {{"spec", {{"expectedSizeBytes", "11"}}},
                          {"status", {{"state", "IMAGE_PENDING"}}}}));
  Serve(std::move(router));
  Write("a.qcow2", "0123456789", 0644);
  EXPECT_EQ(Vallum({"image", "import", Path("a.qcow2"), "--name", "a", "--disk-format", "qcow2"}),
            4);
}

TEST_F(CliTest, ContentOfNoKnownFormatMustBeDeclared) {
  Write("disk.qcow2", "x", 0644);
  EXPECT_EQ(Vallum({"image", "inspect", Path("disk.qcow2")}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("declare raw"));
}

TEST_F(CliTest, RefusalIsOneLineWithFileOffsetReasonAndWhatIsAccepted) {
  Write("disk.img", "QFI\xfb" + std::string(1020, '\0'), 0644);
  EXPECT_EQ(Vallum({"image", "inspect", Path("disk.img")}), 2);
  const std::string line = err_.str();
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1) << line;
  EXPECT_THAT(line, HasSubstr("disk.img: "));
  EXPECT_THAT(line, HasSubstr("offset"));
  EXPECT_THAT(line, HasSubstr("qemu-img"));
}

TEST_F(CliTest, InspectNeedsNoServer) {
  Write("blob", std::string(4096, 'x'), 0644);
  EXPECT_EQ(Vallum({"image", "inspect", Path("blob"), "--disk-format", "raw"}), 0) << err_.str();
  EXPECT_EQ(Vallum({"image", "inspect", Path("blob"), "--disk-format", "qcow2"}), 2);
}

// An event log with one bank, SHA-1: SecureBoot on in PCR 7, and an action in PCR 4.
std::string MakeEventLog() {
  ByteWriter log;
  const auto add = [&log](uint32_t pcr, uint32_t type, ByteView data) {
    log.U32Le(pcr).U32Le(type).Raw(Digest(HashAlgorithm::kSha1, data));
    log.U32Le(static_cast<uint32_t>(data.size())).Raw(data);
  };
  ByteWriter variable;
  variable.Raw(*FromHex("61dfe48bca93d211aa0d00e098032b8c")).U64Le(10).U64Le(1);
  for (const char c : std::string_view("SecureBoot")) {
    variable.U8(static_cast<uint8_t>(c)).U8(0);
  }
  add(7, 0x80000001, variable.U8(1).bytes());
  add(4, 0x80000007, AsBytes("Calling EFI Application from Boot Option"));
  return std::string(AsText(log.bytes()));
}

std::string EventLogPcr4() {
  Bytes value(20);
  const Bytes digest =
      Digest(HashAlgorithm::kSha1, AsBytes("Calling EFI Application from Boot Option"));
  value.insert(value.end(), digest.begin(), digest.end());
  return ToHex(Digest(HashAlgorithm::kSha1, value));
}

TEST_F(CliTest, EventLogIsShownInWordsWithItsPcrsAndSecureBoot) {
  Write("log", MakeEventLog(), 0644);
  EXPECT_EQ(Vallum({"eventlog", "show", Path("log")}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("EV_EFI_ACTION"));
  EXPECT_THAT(out_.str(), HasSubstr("Calling EFI Application"));
  EXPECT_THAT(out_.str(), HasSubstr("PCR 4 (sha1) " + EventLogPcr4()));
  EXPECT_THAT(out_.str(), HasSubstr("Secure Boot: on"));
  EXPECT_THAT(out_.str(), HasSubstr("dbx was not measured"));
  EXPECT_THAT(out_.str(), HasSubstr("proven: nothing"));
}

TEST_F(CliTest, EventLogAsJsonHasEventsAndBanks) {
  Write("log", MakeEventLog(), 0644);
  EXPECT_EQ(Vallum({"eventlog", "show", Path("log"), "-o", "json"}), 0) << err_.str();
  const Json report = Json::parse(out_.str());
  EXPECT_EQ(report["events"].size(), 2U);
  EXPECT_EQ(report["events"][1]["data"], "hashed");
  EXPECT_EQ(report["banks"]["sha1"][0]["value"], EventLogPcr4());
  EXPECT_EQ(TextAt(report, "secureBoot.state"), "on");
}

TEST_F(CliTest, EventLogIsComparedWithKnownRegisters) {
  Write("log", MakeEventLog(), 0644);
  EXPECT_EQ(Vallum({"eventlog", "show", Path("log"), "--register", "4=" + EventLogPcr4()}), 0)
      << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("proven: the digests of PCR 4; not those of PCR 7"));
  EXPECT_EQ(Vallum({"eventlog", "show", Path("log"), "--register", "4=" + std::string(40, '0')}),
            4);
  EXPECT_THAT(err_.str(), HasSubstr("PCR 4 holds 0000"));
}

TEST_F(CliTest, BadEventLogOrRegisterIsRefusedInWords) {
  Write("log", MakeEventLog(), 0644);
  Write("text", "no log at all, but long enough for a header", 0644);
  EXPECT_EQ(Vallum({"eventlog", "show", Path("text")}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("text: "));
  EXPECT_THAT(err_.str(), HasSubstr("first event"));
  for (const std::string word : {"4", "x=00", "4=0", "444=00", "24=00", "4=00"}) {
    EXPECT_EQ(Vallum({"eventlog", "show", Path("log"), "--register", word}), 2) << word;
  }
  EXPECT_EQ(Vallum({"eventlog", "show", Path("log"), "--bank", "sha256"}), 2);
  EXPECT_EQ(Vallum({"eventlog", "show", Path("log"), "--bank", "md5"}), 2);
}

TEST_F(CliTest, TokenSecretGoesToAFileForItsOwnerOnly) {
  // Longer than what a directory of a random name can hold by chance.
  const std::string secret = "vallum-join-v1.never-to-be-printed";
  http::Router router;
  router.Add(Method::kPost, "/v1/tokens",
             Canned(201, {{"metadata", {{"name", "j"}}}, {"status", {{"secret", secret}}}}));
  Serve(std::move(router));
  ASSERT_EQ(Vallum({"token", "create", "j", "--role", "join", "--out", Path("join")}), 0);
  EXPECT_EQ(TextAt(LastBody(), "spec.role"), "ROLE_JOIN");
  EXPECT_EQ(AsText(*tls::ReadSmallFile(Path("join"))), secret + "\n");
  EXPECT_THAT(out_.str() + err_.str(), Not(HasSubstr("never-to-be-printed")));
  struct stat info = {};
  ASSERT_EQ(::stat(Path("join").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_EQ(Vallum({"token", "create", "j", "--role", "king"}), 2);
}

TEST_F(CliTest, ConsoleCarriesBytesUntilDetached) {
  std::promise<std::string> typed;
  std::thread guest;
  http::Router router;
  router.Add(Method::kPost, "/v1/instances/{name}/console",
             Canned(200, {{"token", "once"}, {"protocol", "serial"}}));
  router.Add(Method::kGet, "/v1/consoles/{token}", [&](const Request&) {
    return Response::Upgrade([&](std::shared_ptr<http::WebSocket> socket) {
      guest = std::thread([&, socket] {
        const auto keys = socket->Receive(std::chrono::seconds(20));
        typed.set_value(keys.has_value() && keys->has_value() ? std::string(AsText(**keys)) : "");
        static_cast<void>(socket->Send(AsBytes("login: "), std::chrono::seconds(5)));
        // Until the client is gone.
        while (socket->Receive(std::chrono::seconds(20)).has_value()) {
        }
      });
    });
  });
  Serve(std::move(router));
  int keys[2];
  int screen[2];
  ASSERT_EQ(::pipe(keys), 0);
  ASSERT_EQ(::pipe(screen), 0);
  in_fd_ = keys[0];
  out_fd_ = screen[1];
  ASSERT_EQ(::write(keys[1], "root", 4), 4);
  std::thread user([&] {
    char text[7];
    // The prompt is seen, then the user detaches.
    size_t got = 0;
    while (got < sizeof text) {
      const ssize_t count = ::read(screen[0], text + got, sizeof text - got);
      if (count <= 0) break;
      got += static_cast<size_t>(count);
    }
    EXPECT_EQ(std::string_view(text, got), "login: ");
    EXPECT_EQ(::write(keys[1], "\x1d", 1), 1);
  });
  EXPECT_EQ(Vallum({"console", "web1"}), 0) << err_.str();
  user.join();
  guest.join();
  EXPECT_EQ(typed.get_future().get(), "root");
  EXPECT_THAT(err_.str(), HasSubstr("detached"));
  for (const int fd : {keys[0], keys[1], screen[0], screen[1]}) ::close(fd);
}

TEST_F(CliTest, QuoteIsWrittenAsFilesWithTheCommandThatChecksIt) {
  http::Router router;
  router.Add(Method::kPost, "/v1/instances/{name}/quote",
             Canned(200, {{"instance", "web1"},
                          {"nonce", "00ff"},
                          {"pcrSelection", "sha256:0,7"},
                          {"quoted", "c2lnbmVk"},
                          {"signature", "c2ln"},
                          {"pcrs", "cGNycw=="},
                          {"akPublic", "YWs="},
                          {"akPublicPem", "-----BEGIN PUBLIC KEY-----\n"}}));
  Serve(std::move(router));
  EXPECT_EQ(Vallum({"instance", "quote", "web1", "--nonce", "00ff", "--out", Path("q")}), 0)
      << err_.str();
  EXPECT_EQ(AsText(*tls::ReadSmallFile(Path("q/quote.msg"))), "signed");
  EXPECT_EQ(AsText(*tls::ReadSmallFile(Path("q/quote.sig"))), "sig");
  EXPECT_EQ(AsText(*tls::ReadSmallFile(Path("q/quote.pcrs"))), "pcrs");
  EXPECT_EQ(AsText(*tls::ReadSmallFile(Path("q/ak.pem"))), "-----BEGIN PUBLIC KEY-----\n");
  EXPECT_FALSE(std::filesystem::exists(Path("q/ek.pem")));
  EXPECT_THAT(out_.str(), HasSubstr("tpm2_checkquote -u '" + Path("q/ak.pem") + "'"));
  EXPECT_THAT(out_.str(), HasSubstr("-g sha256 -q 00ff"));
  EXPECT_EQ(Vallum({"instance", "quote", "web1", "--nonce", "00ff"}), 2);
}

// ---- generated pages ----

TEST_F(CliTest, CompletionsKnowEveryCommand) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    ASSERT_EQ(Vallum({"completion", shell}), 0);
    EXPECT_THAT(out_.str(), HasSubstr("import")) << shell;
  }
  EXPECT_EQ(Vallum({"completion", "tcsh"}), 2);
}

TEST_F(CliTest, BashCompletionOffersSubcommandsAndOptions) {
  ASSERT_EQ(Vallum({"completion", "bash"}), 0);
  Write("complete.sh",
        out_.str() +
            "COMP_WORDS=(vallum instance create --wa); COMP_CWORD=3; _vallum\n"
            "echo \"${COMPREPLY[@]}\"\n"
            "COMP_WORDS=(vallum -o json inst); COMP_CWORD=3; _vallum\n"
            "echo \"${COMPREPLY[@]}\"\n",
        0644);
  std::FILE* pipe = ::popen(("bash " + Path("complete.sh")).c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  char text[256] = {};
  const size_t count = std::fread(text, 1, sizeof text - 1, pipe);
  ::pclose(pipe);
  EXPECT_EQ(std::string_view(text, count), "--wait\ninstance\n");
}

TEST_F(CliTest, ManualPageDescribesEveryCommand) {
  ASSERT_EQ(Vallum({"man"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr(".SS vallum instance create"));
  EXPECT_THAT(out_.str(), HasSubstr("vallum policy test gold \\-\\-file gold.toml\n"));
  EXPECT_THAT(out_.str(), HasSubstr("EXIT STATUS"));
}

TEST_F(CliTest, HelpOfAListHasAFieldOfItsKind) {
  EXPECT_EQ(Vallum({"host", "list", "--help"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("status.trust.level=TRUST_UNTRUSTED"));
}

TEST_F(CliTest, HelpIsOfTheCommandThatWasNamed) {
  EXPECT_EQ(Vallum({"instance", "create", "--help"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("--boot-mode"));
}

}  // namespace
}  // namespace vallum::cli
