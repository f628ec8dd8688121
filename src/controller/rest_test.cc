// SPDX-License-Identifier: Apache-2.0
#include "controller/rest.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/secret_bytes.h"
#include "controller/rest_rig.h"
#include "controller/test_rig.h"
#include "firmware/guid.h"
#include "firmware/signature_list.h"
#include "formats/pe.h"
#include "formats/test_support.h"
#include "http/client.h"
#include "images/confined_inspector.h"
#include "images/test_disks.h"
#include "measure/event_digest.h"
#include "store/file.h"
#include "tls/authority.h"

namespace vallum::controller {
namespace {

using http::Method;
using nlohmann::json;
using RestTest = RestRigTest;

constexpr std::chrono::seconds kPatience{20};

constexpr const char* kBlob = R"({"metadata":{"name":"blob"},"spec":{"diskFormat":"raw"}})";

TEST_F(RestTest, NoTokenIsA401ThatSaysHowToSendOne) {
  const auto client = NewClient();
  const http::Response response = Send(*client, Method::kGet, "/v1/pools");
  EXPECT_EQ(response.status, 401);
  EXPECT_TRUE(response.headers.Get("www-authenticate").has_value());
  EXPECT_EQ(Body(response)["code"], "denied");
  EXPECT_NE(Body(response)["fix"], "");
}

TEST_F(RestTest, WrongTokenIsA401AndCounted) {
  const auto client = NewClient();
  client->SetBearerToken(SecretBytes(AsBytes("wrong")));
  EXPECT_EQ(Send(*client, Method::kGet, "/v1/pools").status, 401);
  EXPECT_EQ(rig_.controller().metrics().authentication_failures_total, 1U);
}

TEST_F(RestTest, HealthAndOpenApiNeedNoToken) {
  const auto client = NewClient();
  EXPECT_EQ(Send(*client, Method::kGet, "/healthz").status, 200);
  const json document = Body(Send(*client, Method::kGet, "/openapi.json"));
  EXPECT_TRUE(document["paths"].contains("/v1/instances/{name}/start"));
  EXPECT_TRUE(document["paths"].contains("/v1/images/{name}/content"));
}

TEST_F(RestTest, MetricsCountRequestsByRouteNotByPath) {
  Admin(Method::kGet, "/v1/pools/default");
  const std::string text = Admin(Method::kGet, "/metrics").body;
  EXPECT_NE(text.find("route=\"/v1/pools/{name}\""), std::string::npos);
  EXPECT_NE(text.find("vallum_instances"), std::string::npos);
  EXPECT_EQ(text.find("/v1/pools/default"), std::string::npos);
}

TEST_F(RestTest, CreatedResourceIsReadBackWithItsETag) {
  const http::Response created =
      Admin(Method::kPost, "/v1/pools", R"({"metadata":{"name":"gold"}})");
  EXPECT_EQ(created.status, 201);
  const http::Response read = Admin(Method::kGet, "/v1/pools/gold");
  EXPECT_EQ(read.status, 200);
  EXPECT_EQ(read.headers.Get("etag"), created.headers.Get("etag"));
  EXPECT_EQ(*read.headers.Get("etag"),
            "\"" + Body(read)["metadata"]["revision"].get<std::string>() + "\"");
}

TEST_F(RestTest, NameThatExistsIsAConflict) {
  EXPECT_EQ(Admin(Method::kPost, "/v1/pools", R"({"metadata":{"name":"default"}})").status, 409);
}

TEST_F(RestTest, UnknownFieldIsRefusedByName) {
  const http::Response response =
      Admin(Method::kPost, "/v1/pools", R"({"metadata":{"name":"p"},"spec":{"sice":1}})");
  EXPECT_EQ(response.status, 400);
  EXPECT_NE(Body(response)["detail"].get<std::string>().find("sice"), std::string::npos);
}

TEST_F(RestTest, StaleIfMatchChangesNothing) {
  Admin(Method::kPost, "/v1/pools", R"({"metadata":{"name":"gold"}})");
  const std::string etag = *Admin(Method::kGet, "/v1/pools/gold").headers.Get("etag");
  const std::string patch = R"({"spec":{"description":"one"}})";
  EXPECT_EQ(Admin(Method::kPatch, "/v1/pools/gold", patch, etag).status, 200);
  EXPECT_EQ(
      Admin(Method::kPatch, "/v1/pools/gold", R"({"spec":{"description":"two"}})", etag).status,
      409);
  EXPECT_EQ(Body(Admin(Method::kGet, "/v1/pools/gold"))["spec"]["description"], "one");
}

TEST_F(RestTest, IfMatchOfARevisionThatIsNotSeenYetIsAConflictAndItsStatusStays) {
  ASSERT_EQ(Admin(Method::kPost, "/v1/images", kBlob).status, 201);
  // The view stays behind for as long as a listener does not return.
  View& view = rig_.controller().view();
  ResourceStore& resources = rig_.controller().resources();
  std::promise<void> held;
  std::promise<void> go;
  const auto subscription = view.Subscribe(0, [&](const Change& change) {
    if (change.name != "brake") return;
    held.set_value();
    go.get_future().wait();
  });
  v1::Pool brake;
  brake.mutable_metadata()->set_name("brake");
  ASSERT_TRUE(resources.Create(std::move(brake)).has_value());
  held.get_future().wait();
  const auto later =
      resources.Modify<v1::Image>("blob", [](v1::Image& image) -> Result<ResourceStore::Change> {
        image.mutable_status()->set_reason("found later");
        return ResourceStore::Change::kWrite;
      });
  ASSERT_TRUE(later.has_value());
  const http::Response refused =
      Admin(Method::kPatch, "/v1/images/blob", R"({"metadata":{"labels":{"a":"b"}}})",
            "\"" + std::to_string(later->metadata().revision()) + "\"");
  go.set_value();
  view.Unsubscribe(*subscription);
  EXPECT_EQ(refused.status, 409) << refused.body;
  EXPECT_NE(refused.body.find("If-Match names"), std::string::npos);
  EXPECT_EQ(resources.Get<v1::Image>("blob")->status().reason(), "found later");
}

TEST_F(RestTest, StatusThatAClientSendsIsIgnored) {
  const std::string body =
      R"({"metadata":{"name":"blob"},"spec":{"diskFormat":"raw"},"status":{"state":"IMAGE_READY","sha256":"00"}})";
  EXPECT_EQ(Admin(Method::kPost, "/v1/images", body).status, 201);
  const std::string put =
      R"({"metadata":{"name":"blob"},"spec":{"diskFormat":"raw"},"status":{"state":"IMAGE_READY"}})";
  EXPECT_EQ(Admin(Method::kPut, "/v1/images/blob", put).status, 200);
  EXPECT_EQ(Body(Admin(Method::kGet, "/v1/images/blob"))["status"]["state"], "IMAGE_PENDING");
}

TEST_F(RestTest, PagesTogetherGiveEveryItemOnce) {
  for (const char* name : {"a", "b", "c"}) {
    Admin(Method::kPost, "/v1/pools", std::string(R"({"metadata":{"name":")") + name + "\"}}");
  }
  std::string seen;
  std::string page;
  do {
    const json list =
        Body(Admin(Method::kGet, "/v1/pools?limit=1" + (page.empty() ? "" : "&page=" + page)));
    ASSERT_EQ(list["items"].size(), 1U);
    seen += list["items"][0]["metadata"]["name"].get<std::string>() + " ";
    page = list.value("nextPage", "");
  } while (!page.empty());
  EXPECT_EQ(seen, "a b c default ");
}

TEST_F(RestTest, TenantSeesItsOwnInstancesOnlyAndOthersDoNotExistForIt) {
  rig_.MakeReadyImage("debian");
  const auto acme = ClientFor(v1::ROLE_TENANT, "acme");
  const auto other = ClientFor(v1::ROLE_TENANT, "other");
  const std::string body =
      R"({"metadata":{"name":"web1"},"spec":{"image":"debian","flavor":"tiny"}})";
  ASSERT_EQ(Send(*acme, Method::kPost, "/v1/instances", body).status, 202);
  EXPECT_EQ(Send(*acme, Method::kGet, "/v1/instances/web1").status, 200);
  EXPECT_EQ(Send(*other, Method::kGet, "/v1/instances/web1").status, 404);
  EXPECT_EQ(Send(*other, Method::kPost, "/v1/instances/web1/stop").status, 404);
  EXPECT_EQ(Body(Send(*other, Method::kGet, "/v1/instances"))["items"].size(), 0U);
  EXPECT_EQ(Body(Send(*acme, Method::kGet, "/v1/instances"))["items"].size(), 1U);
  EXPECT_EQ(Send(*acme, Method::kGet, "/v1/tokens").status, 403);
}

TEST_F(RestTest, TenantMayNotChooseHostsBridgesOrSizes) {
  rig_.MakeReadyImage("debian");
  const auto acme = ClientFor(v1::ROLE_TENANT, "acme");
  for (const char* extra :
       {R"("host":"node1")", R"("vcpus":64)", R"("networks":[{"type":"bridge","bridge":"br0"}])"}) {
    const std::string body =
        std::string(R"({"metadata":{"name":"x"},"spec":{"image":"debian","flavor":"tiny",)") +
        extra + "}}";
    EXPECT_EQ(Send(*acme, Method::kPost, "/v1/instances", body).status, 403) << extra;
  }
}

TEST_F(RestTest, TenantLearnsWhetherItFitsButNotOfHosts) {
  rig_.MakeReadyImage("debian");
  const auto agent = rig_.ConnectedAgent("node1");
  const auto acme = ClientFor(v1::ROLE_TENANT, "acme");
  const http::Response reply = Send(*acme, Method::kPost, "/v1/schedule/explain",
                                    R"({"spec":{"image":"debian","flavor":"tiny"}})");
  EXPECT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.body.find("node1"), std::string::npos);
}

TEST_F(RestTest, TenantCannotAskForTheHostOfAnotherTenantsInstance) {
  rig_.MakeReadyImage("debian");
  rig_.MakeReadyImage("debian12");
  const auto agent = rig_.ConnectedAgent("node1");
  rig_.Create("secret");
  const std::string spec = R"("spec":{"image":"debian","flavor":"tiny","near":["secret"]}})";
  const std::string body = R"({"metadata":{"name":"x"},)" + spec;
  const auto acme = ClientFor(v1::ROLE_TENANT, "acme");
  EXPECT_EQ(Send(*acme, Method::kPost, "/v1/schedule/explain", "{" + spec).status, 404);
  EXPECT_EQ(Send(*acme, Method::kPost, "/v1/instances", body).status, 404);
  EXPECT_EQ(Admin(Method::kPost, "/v1/instances", body).status, 202);
}

TEST_F(RestTest, ImageThatAsksForNoHypervisorThereCanBeIsRefused) {
  const http::Response reply = Admin(
      Method::kPost, "/v1/images",
      R"({"metadata":{"name":"x"},"spec":{"diskFormat":"qcow2","properties":{"hypervisor_version_requires":"7.2"}}})");
  EXPECT_EQ(reply.status, 400);
  EXPECT_NE(reply.body.find("is not a range of versions"), std::string::npos) << reply.body;
}

TEST_F(RestTest, HugeSeedIsRefused) {
  rig_.MakeReadyImage("debian");
  const std::string body =
      R"({"metadata":{"name":"x"},"spec":{"image":"debian","flavor":"tiny","seed":{"userData":")" +
      std::string(70'000, 'a') + "\"}}}";
  EXPECT_EQ(Admin(Method::kPost, "/v1/instances", body).status, 400);
}

TEST_F(RestTest, WatchEndsWhenItsTokenIsTakenBack) {
  v1::TokenSpec spec;
  spec.set_role(v1::ROLE_AUDITOR);
  const v1::Token token = *rig_.controller().tokens().Create("viewer", spec);
  const auto client = NewClient();
  client->SetBearerToken(SecretBytes(AsBytes(token.status().secret())));
  auto events = client->OpenEvents(
      {.method = Method::kGet, .target = "/v1/pools?watch=0", .headers = {}, .body = {}});
  ASSERT_TRUE(events.has_value());
  EXPECT_EQ(Admin(Method::kDelete, "/v1/tokens/viewer").status, 204);
  Admin(Method::kPost, "/v1/pools", R"({"metadata":{"name":"secret"}})");
  const auto event = (*events)->Next(kPatience);
  EXPECT_FALSE(event.has_value());
}

TEST_F(RestTest, AuditorReadsAndChangesNothing) {
  const auto auditor = ClientFor(v1::ROLE_AUDITOR, "");
  EXPECT_EQ(Send(*auditor, Method::kGet, "/v1/events").status, 200);
  EXPECT_EQ(Send(*auditor, Method::kPost, "/v1/pools", R"({"metadata":{"name":"x"}})").status, 403);
}

TEST_F(RestTest, TokenSecretIsInTheAnswerToItsCreationOnly) {
  const json made = Body(Admin(Method::kPost, "/v1/tokens",
                               R"({"metadata":{"name":"ci"},"spec":{"role":"ROLE_OPERATOR"}})"));
  EXPECT_GE(made["status"]["secret"].get<std::string>().size(), 40U);
  const std::string read = Admin(Method::kGet, "/v1/tokens/ci").body;
  EXPECT_EQ(read.find("secret"), std::string::npos);
}

TEST_F(RestTest, JoinTokenIsTheWholeStringThatAHostNeeds) {
  const json made =
      Body(Admin(Method::kPost, "/v1/tokens",
                 R"({"metadata":{"name":"j"},"spec":{"role":"ROLE_JOIN","pool":"default"}})"));
  EXPECT_TRUE(made["status"]["secret"].get<std::string>().starts_with("vallum-join-v1."));
}

TEST_F(RestTest, WatchDeliversTheChangeThatFollowsAList) {
  const std::string revision = Body(Admin(Method::kGet, "/v1/pools"))["revision"];
  auto events = ClientFor(v1::ROLE_AUDITOR, "")
                    ->OpenEvents({.method = Method::kGet,
                                  .target = "/v1/pools?watch=" + revision,
                                  .headers = {},
                                  .body = {}});
  ASSERT_TRUE(events.has_value()) << events.error().DebugString();
  Admin(Method::kPost, "/v1/pools", R"({"metadata":{"name":"seen"}})");
  const auto event = (*events)->Next(kPatience);
  ASSERT_TRUE(event.has_value() && event->has_value());
  EXPECT_EQ((*event)->event, "put");
  EXPECT_EQ(json::parse((*event)->data)["metadata"]["name"], "seen");
  Admin(Method::kDelete, "/v1/pools/seen");
  EXPECT_EQ((*(*events)->Next(kPatience))->event, "delete");
}

TEST_F(RestTest, UploadedBlobBecomesReadyWithItsDigest) {
  ASSERT_EQ(Admin(Method::kPost, "/v1/images", kBlob).status, 201);
  const Bytes content(4096, std::byte{'x'});
  const http::Response done = Upload("/v1/images/blob/content", content);
  EXPECT_EQ(done.status, 200) << done.body;
  EXPECT_EQ(Body(done)["status"]["state"], "IMAGE_READY");
  EXPECT_EQ(Body(done)["status"]["sha256"], ToHex(Sha256(content)));
  EXPECT_EQ(Upload("/v1/images/blob/content", content).status, 409);
}

TEST_F(RestTest, UploadGoesOnWhereItStopped) {
  Admin(Method::kPost, "/v1/images", kBlob);
  const Bytes first(5000, std::byte{'a'});
  const Bytes second(3000, std::byte{'b'});
  EXPECT_EQ(
      Body(Upload("/v1/images/blob/content?offset=0&total=8000", first))["status"]["receivedBytes"],
      "5000");
  EXPECT_EQ(Upload("/v1/images/blob/content?offset=0&total=8000", second).status, 409);
  const http::Response done = Upload("/v1/images/blob/content?offset=5000&total=8000", second);
  Bytes whole = first;
  whole.insert(whole.end(), second.begin(), second.end());
  EXPECT_EQ(Body(done)["status"]["sha256"], ToHex(Sha256(whole))) << done.body;
}

TEST_F(RestTest, RefusedImageSaysWhyAndNothingOfItIsKept) {
  Admin(Method::kPost, "/v1/images",
        R"({"metadata":{"name":"disk"},"spec":{"diskFormat":"qcow2"}})");
  const http::Response refused = Upload("/v1/images/disk/content", Bytes(4096, std::byte{'x'}));
  EXPECT_EQ(refused.status, 400);
  EXPECT_NE(Body(refused)["fix"], "");
  EXPECT_EQ(Admin(Method::kGet, "/v1/images/disk").status, 404);
  EXPECT_TRUE(rig_.blobs().List()->empty());
}

TEST_F(RestTest, HostileBeginningIsRefusedBeforeTheRestHasCome) {
  ASSERT_EQ(Admin(Method::kPost, "/v1/images",
                  R"({"metadata":{"name":"evil"},"spec":{"diskFormat":"raw"}})")
                .status,
            201);
  Bytes begun(size_t{128} << 10U, std::byte{1});
  std::ranges::copy(AsBytes("KDMV"), begun.begin());
  // A part of what is announced: without a look at the beginning this would wait for the rest.
  const http::Response refused = Upload("/v1/images/evil/content?offset=0&total=1073741824", begun);
  EXPECT_EQ(refused.status, 400) << refused.body;
  EXPECT_NE(Body(refused)["detail"].get<std::string>().find("declared raw, but detected VMDK"),
            std::string::npos);
  EXPECT_EQ(Admin(Method::kGet, "/v1/images/evil").status, 404);
}

TEST_F(RestTest, UploadWithAnotherDigestThanExpectedIsRefused) {
  const std::string expected(64, '0');
  Admin(Method::kPost, "/v1/images",
        R"({"metadata":{"name":"blob"},"spec":{"diskFormat":"raw","expectedSha256":")" + expected +
            "\"}}");
  EXPECT_EQ(Upload("/v1/images/blob/content", Bytes(512, std::byte{1})).status, 400);
  EXPECT_EQ(Admin(Method::kGet, "/v1/images/blob").status, 404);
}

class ConvertedImport : public RestTest {
 protected:
  // A GPT disk with some data, as VMDK by qemu-img.
  static const Bytes& Vmdk() {
    static const Bytes vmdk = [] {
      const formats::testing::TempDir dir;
      Bytes disk = formats::testing::MakeGptDisk(512, 16384, {{2048, 8191}});
      std::fill_n(disk.begin() + (3 << 20), 100'000, std::byte{0x41});
      formats::testing::WriteFile(dir.File("raw"), disk);
      formats::testing::MustRun("qemu-img convert -f raw -O vmdk -o subformat=streamOptimized " +
                                dir.File("raw") + " " + dir.File("vmdk"));
      return formats::testing::ReadFile(dir.File("vmdk"));
    }();
    return vmdk;
  }
  void Create(const std::string& more) {
    const http::Response made =
        Admin(Method::kPost, "/v1/images",
              R"({"metadata":{"name":"disk"},"spec":{"diskFormat":"vmdk")" + more + "}}");
    ASSERT_EQ(made.status, 201) << made.body;
  }
};

TEST_F(ConvertedImport, IsKeptAsQcow2AndTheFileThatCameIsGone) {
  Create("");
  const http::Response done = Upload("/v1/images/disk/content", Vmdk());
  ASSERT_EQ(done.status, 200) << done.body;
  const json status = Body(done)["status"];
  EXPECT_EQ(status["state"], "IMAGE_READY");
  EXPECT_EQ(status["detectedFormat"], "qcow2");
  EXPECT_EQ(status["contentFormat"], "gpt");
  EXPECT_EQ(status["virtualSizeBytes"], "8388608");
  EXPECT_EQ(status["sourceFormat"], "vmdk");
  EXPECT_EQ(status["subformat"], "streamOptimized");
  EXPECT_EQ(status["sourceSha256"], ToHex(Sha256(Vmdk())));
  const auto blobs = rig_.blobs().List();
  ASSERT_EQ(blobs->size(), 1U);
  EXPECT_TRUE(rig_.blobs().Open(status["sha256"].get<std::string>()).has_value());
  EXPECT_FALSE(rig_.blobs().Open(status["sourceSha256"].get<std::string>()).has_value());
}

TEST_F(ConvertedImport, IsKeptRawWhenThatIsWanted) {
  Create(R"(,"storeFormat":"raw")");
  const http::Response done = Upload("/v1/images/disk/content", Vmdk());
  ASSERT_EQ(done.status, 200) << done.body;
  EXPECT_EQ(Body(done)["status"]["detectedFormat"], "gpt");
  EXPECT_EQ(Body(done)["status"]["sizeBytes"], "8388608");
  EXPECT_EQ(Body(done)["status"]["sourceFormat"], "vmdk");
}

TEST_F(ConvertedImport, ThatIsRefusedKeepsNothing) {
  Create("");
  Bytes damaged = Vmdk();
  // The compressed grain at 3 MiB, behind its sector number: no inspection reads that far.
  ByteWriter marker;
  marker.U64Le((3 << 20) / 512);
  size_t grain = 0;
  while (!std::ranges::equal(ByteView(damaged).subspan(grain, 8), marker.bytes())) grain += 512;
  std::fill_n(damaged.begin() + static_cast<ptrdiff_t>(grain) + 14, 32, std::byte{0xff});
  const http::Response refused = Upload("/v1/images/disk/content", damaged);
  EXPECT_EQ(refused.status, 400) << refused.body;
  EXPECT_NE(refused.body.find("while it was converted"), std::string::npos) << refused.body;
  EXPECT_EQ(Admin(Method::kGet, "/v1/images/disk").status, 404);
  EXPECT_TRUE(rig_.blobs().List()->empty());
}

TEST_F(RestTest, StoreFormatOfWhatIsNoDiskOrIsUnknownIsRefused) {
  for (const char* spec : {R"("diskFormat":"kernel","storeFormat":"qcow2")",
                           R"("diskFormat":"vmdk","storeFormat":"vmdk")"}) {
    const http::Response refused =
        Admin(Method::kPost, "/v1/images",
              std::string(R"({"metadata":{"name":"k"},"spec":{)") + spec + "}}");
    EXPECT_EQ(refused.status, 400) << refused.body;
    EXPECT_NE(Body(refused)["fix"], "");
  }
}

TEST_F(RestTest, InstanceOfAnImageThatNothingStartsFromIsRefused) {
  Admin(Method::kPost, "/v1/images", kBlob);
  ASSERT_EQ(Upload("/v1/images/blob/content", Bytes(4096, std::byte{'x'})).status, 200);
  const http::Response refused =
      Admin(Method::kPost, "/v1/instances",
            R"({"metadata":{"name":"web1"},"spec":{"image":"blob","flavor":"tiny"}})");
  EXPECT_EQ(refused.status, 409) << refused.body;
  EXPECT_NE(Body(refused)["detail"].get<std::string>().find("nothing starts from image"),
            std::string::npos);
}

class CheckUpdateTest : public RestTest {
 protected:
  CheckUpdateTest()
      : loader_(formats::testing::MakePe({{".linux", Bytes(16)}})), entry_(DigestOf(loader_)) {}

  static firmware::Signature DigestOf(const Bytes& program) {
    return firmware::MakeSignature(
        firmware::SignatureType::kSha256, firmware::kGlobalVariableGuid,
        *formats::PeImage::Parse(program)->AuthenticodeDigest(HashAlgorithm::kSha256));
  }
  // From now on the API knows keys under which the loader starts.
  void StartWithKeys() {
    firmware::KeySet keys;
    keys.name = "mine";
    keys.pk = keys.kek = keys.db = {entry_};
    StartRest(*authority_->IssueServer({{"localhost"}, {"127.0.0.1"}}), {keys});
    admin_ = ClientFor(v1::ROLE_ADMIN, "");
  }
  void ImportDisk() {
    Admin(Method::kPost, "/v1/images",
          R"({"metadata":{"name":"disk"},"spec":{"diskFormat":"gpt"}})");
    const http::Response done = Upload(
        "/v1/images/disk/content", images::testing::MakeDisk({{"/EFI/BOOT/BOOTX64.EFI", loader_}}));
    ASSERT_EQ(done.status, 200) << done.body;
    const json report = Body(done)["status"]["bootReports"][0];
    EXPECT_EQ(report["keySet"], "mine");
    EXPECT_EQ(report["bootable"], "yes");
    EXPECT_EQ(report["readiness"], "ready_no_dbx");
    EXPECT_EQ(report["chain"][0]["allowed"], true);
  }
  http::Response Check(const Bytes& update) {
    return Admin(Method::kPost, "/v1/keysets/check-update",
                 json{{"update", ToBase64(update)}}.dump());
  }

  const Bytes loader_;
  const firmware::Signature entry_;
};

TEST_F(CheckUpdateTest, DigestOfTheLoaderAffectsTheImageAndItsSecureInstances) {
  StartWithKeys();
  ImportDisk();
  const std::string lists = ToBase64(firmware::EncodeSignatureLists({entry_}));
  const json content = {{"pk", lists}, {"kek", lists}, {"db", lists}};
  const json mine = {{"metadata", {{"name", "mine"}}}, {"spec", {{"content", content}}}};
  ASSERT_EQ(Admin(Method::kPost, "/v1/keysets", mine.dump()).status, 201);
  // `other` has keys under which the image never started.
  const std::pair<std::string, json> specs[] = {
      {"secured", {{"boot", {{"mode", "BOOT_MODE_SECURE"}}}, {"keySet", "mine"}}},
      {"other", {{"boot", {{"mode", "BOOT_MODE_SECURE"}}}, {"keySet", "microsoft"}}},
      {"unsecured", {{"boot", {{"mode", "BOOT_MODE_LEGACY"}}}}}};
  for (const auto& [name, more] : specs) {
    json spec = {{"image", "disk"}, {"flavor", "tiny"}};
    spec.update(more);
    const json body = {{"metadata", {{"name", name}}}, {"spec", spec}};
    const http::Response made = Admin(Method::kPost, "/v1/instances", body.dump());
    ASSERT_EQ(made.status, 202) << made.body;
  }
  const http::Response response = Check(firmware::EncodeSignatureLists({entry_}));
  ASSERT_EQ(response.status, 200) << response.body;
  const json reply = Body(response);
  EXPECT_EQ(reply["imagesChecked"], 1);
  ASSERT_EQ(reply["affected"].size(), 1U) << response.body;
  const json affected = reply["affected"][0];
  EXPECT_EQ(affected["image"], "disk");
  EXPECT_EQ(affected["keySet"], "mine");
  EXPECT_EQ(affected["bootable"], "no");
  EXPECT_FALSE(affected["reasons"].empty());
  EXPECT_EQ(affected["instances"], json::array({"secured"}));
}

TEST_F(CheckUpdateTest, DigestOfNothingHereAffectsNothing) {
  StartWithKeys();
  ImportDisk();
  const json reply =
      Body(Check(firmware::EncodeSignatureLists({DigestOf(formats::testing::MakePe({}))})));
  EXPECT_EQ(reply["imagesChecked"], 1);
  EXPECT_TRUE(!reply.contains("affected") || reply["affected"].empty()) << reply;
}

TEST_F(CheckUpdateTest, ImageWhoseContentIsGoneIsNotKnownRatherThanUnaffected) {
  StartWithKeys();
  ImportDisk();
  const json status = Body(Admin(Method::kGet, "/v1/images/disk"))["status"];
  ASSERT_TRUE(rig_.blobs().Remove(status["sha256"].get<std::string>()).has_value());
  const json reply = Body(Check(firmware::EncodeSignatureLists({entry_})));
  EXPECT_EQ(reply["unknown"].size(), 1U) << reply;
}

TEST_F(CheckUpdateTest, NonsenseIsRefused) {
  StartWithKeys();
  EXPECT_EQ(Check(Bytes(100, std::byte{7})).status, 400);
  EXPECT_EQ(Check({}).status, 400);
}

TEST_F(CheckUpdateTest, WithoutKeySetsItIsUnavailable) {
  const http::Response response = Check(firmware::EncodeSignatureLists({entry_}));
  EXPECT_EQ(response.status, 503);
  EXPECT_NE(Body(response)["fix"], "");
}

TEST_F(CheckUpdateTest, TenantMayNotAsk) {
  StartWithKeys();
  const auto acme = ClientFor(v1::ROLE_TENANT, "acme");
  EXPECT_EQ(Send(*acme, Method::kPost, "/v1/keysets/check-update", R"({"update":""})").status, 403);
}

TEST_F(RestTest, PoolInUseIsNotDeleted) {
  const auto agent = rig_.ConnectedAgent("node1");
  const http::Response response = Admin(Method::kDelete, "/v1/pools/default");
  EXPECT_EQ(response.status, 409);
  EXPECT_NE(Body(response)["detail"].get<std::string>().find("node1"), std::string::npos);
}

// A deletion that read its image before this instance was made compares with the older use, and
// fails.
TEST_F(RestTest, CreationLeavesAUseThatADeletionCanCompare) {
  rig_.MakeReadyImage("debian12");
  const auto use = [&] {
    const auto read = rig_.controller().resources().raw().Read(
        {.range = store::KeyRange::Single(UseKey(Kind::kImage, "debian12"))});
    return read->items.empty() ? 0 : read->items.front().mod_revision;
  };
  EXPECT_EQ(use(), 0);
  const InstanceService::Accepted made = rig_.Create("web1");
  EXPECT_EQ(use(), made.instance.metadata().revision());
  EXPECT_EQ(Admin(Method::kDelete, "/v1/images/debian12").status, 409);
}

TEST_F(RestTest, ImageIsDeletedWithItsUseKeyOnceNothingUsesIt) {
  rig_.MakeReadyImage("debian12");
  rig_.Create("web1");
  Admin(Method::kDelete, "/v1/instances/web1");
  ASSERT_TRUE(rig_.Await([](const View& v) { return v.Get<v1::Instance>("web1") == nullptr; }));
  EXPECT_EQ(Admin(Method::kDelete, "/v1/images/debian12").status, 204);
  const auto left = rig_.controller().resources().raw().Read(
      {.range = store::KeyRange::Prefix(UseKey(Kind::kImage, ""))});
  EXPECT_TRUE(left->items.empty());
}

TEST_F(RestTest, InstanceCreationAnswersWithItsOperation) {
  rig_.MakeReadyImage("debian");
  const http::Response response =
      Admin(Method::kPost, "/v1/instances",
            R"({"metadata":{"name":"web1"},"spec":{"image":"debian","flavor":"tiny"}})");
  EXPECT_EQ(response.status, 202) << response.body;
  const http::Response operation = Admin(Method::kGet, *response.headers.Get("location"));
  EXPECT_EQ(Body(operation)["target"], "instances/web1");
}

TEST_F(RestTest, ConsoleTicketOfAStoppedInstanceIsRefused) {
  rig_.MakeReadyImage("debian");
  Admin(Method::kPost, "/v1/instances",
        R"({"metadata":{"name":"web1"},"spec":{"image":"debian","flavor":"tiny"}})");
  EXPECT_EQ(Admin(Method::kPost, "/v1/instances/web1/console").status, 409);
  EXPECT_EQ(Admin(Method::kGet, "/v1/consoles/made-up").status, 403);
}

// ---- boots ----

// An instance of tenant acme whose first boot was verified and learned.
class RestBootTest : public RestTest {
 protected:
  void SetUp() override {
    rig_.MakeReadyImage("debian");
    agent_ = rig_.ConnectedAgent("node1");
    Send(*acme_, Method::kPost, "/v1/instances",
         R"({"metadata":{"name":"web1"},"spec":{"image":"debian","flavor":"tiny"}})");
    desired_ = *agent_->NextInstance();
    v1::BootEvidenceReport evidence;
    evidence.set_uid(desired_.uid());
    *evidence.mutable_evidence() = FakeAgent::MakeEvidence(1);
    agent_->SendEvidence(evidence);
    v1::InstanceReport report = FakeAgent::MakeReport(desired_, v1::INSTANCE_RUNNING);
    v1::BootMeasured& measured = *report.mutable_status()->mutable_boot()->mutable_measured();
    measured.set_verdict(v1::BOOT_VERIFIED);
    measured.set_tpm_resets(1);
    agent_->Report(report);
    ASSERT_TRUE(rig_.Await([&](const View&) { return Get(*admin_, "/baseline") == 200; }));
  }
  int Get(http::Client& client, const std::string& what) {
    return Send(client, Method::kGet, "/v1/instances/web1" + what).status;
  }
  int Post(http::Client& client, const std::string& what, const std::string& body = "") {
    return Send(client, Method::kPost, "/v1/instances/web1/baseline" + what, body).status;
  }

  std::unique_ptr<http::Client> acme_ = ClientFor(v1::ROLE_TENANT, "acme");
  std::unique_ptr<FakeAgent> agent_;
  v1::DesiredInstance desired_;
};

TEST_F(RestBootTest, EvidenceVerdictAndBaselineAreReadByWhoeverMayReadTheInstance) {
  const auto auditor = ClientFor(v1::ROLE_AUDITOR, "");
  const auto other = ClientFor(v1::ROLE_TENANT, "other");
  for (const char* what : {"/boot", "/baseline", "/baseline/diff"}) {
    EXPECT_EQ(Get(*acme_, what), 200) << what;
    EXPECT_EQ(Get(*auditor, what), 200) << what;
    EXPECT_EQ(Get(*other, what), 404) << what;
  }
  ASSERT_TRUE(rig_.Await([&](const View& view) {
    return view.Get<v1::Instance>("web1")->status().boot().measured().verdict() ==
           v1::BOOT_VERIFIED;
  }));
  const json boot = Body(Admin(Method::kGet, "/v1/instances/web1/boot"));
  EXPECT_EQ(boot["measured"]["verdict"], "BOOT_VERIFIED");
  EXPECT_EQ(boot["spec"]["evidence"]["events"].size(), 1U);
}

TEST_F(RestBootTest, BaselineIsChangedByItsTenantAndOperatorsAndToldWithTheUser) {
  const auto auditor = ClientFor(v1::ROLE_AUDITOR, "");
  const auto other = ClientFor(v1::ROLE_TENANT, "other");
  const auto op = ClientFor(v1::ROLE_OPERATOR, "");
  const std::string baseline = Admin(Method::kGet, "/v1/instances/web1/baseline").body;
  const std::vector<std::pair<std::string, std::string>> changes = {
      {"/accept", ""}, {"/pin", ""}, {"/unpin", ""}, {"", baseline}};
  for (const auto& [what, body] : changes) {
    EXPECT_EQ(Post(*auditor, what, body), 403) << what;
    EXPECT_EQ(Post(*other, what, body), 404) << what;
    EXPECT_EQ(Post(*op, what, body), 200) << what;
    EXPECT_EQ(Post(*acme_, what, body), 200) << what;
  }
  for (const char* kind : {"accepted", "pinned", "unpinned", "set"}) {
    EXPECT_TRUE(rig_.Await([&](const View& view) {
      const auto events = view.All<v1::Event>();
      return std::any_of(events.begin(), events.end(), [&](const auto& event) {
        return event->kind() == std::string("instance.baseline-") + kind && !event->user().empty();
      });
    })) << kind;
  }
}

TEST_F(RestBootTest, AcceptOfAnotherBootIsAConflictAndNonsenseIsBadInput) {
  EXPECT_EQ(Post(*admin_, "/accept", R"({"eventsSha256":"feed"})"), 409);
  EXPECT_EQ(Post(*admin_, "/accept", R"({"events":1})"), 400);
  EXPECT_EQ(Post(*admin_, "", R"({"spec":{}})"), 400);
}

TEST_F(RestBootTest, InstanceThatNeverBootedHasNeither) {
  Admin(Method::kPost, "/v1/instances",
        R"({"metadata":{"name":"web2"},"spec":{"image":"debian","flavor":"tiny"}})");
  EXPECT_EQ(Admin(Method::kGet, "/v1/instances/web2/boot").status, 404);
  EXPECT_EQ(Admin(Method::kGet, "/v1/instances/web2/baseline").status, 404);
  EXPECT_EQ(Admin(Method::kPost, "/v1/instances/web2/baseline/accept").status, 404);
}

TEST_F(RestBootTest, MetricsCountVerdictsByPool) {
  ASSERT_TRUE(rig_.Await([&](const View& view) {
    return view.Get<v1::Instance>("web1")->status().boot().measured().verdict() ==
           v1::BOOT_VERIFIED;
  }));
  const std::string text = Admin(Method::kGet, "/metrics").body;
  EXPECT_NE(text.find(R"(vallum_boot_verdicts{pool="default",state="BOOT_VERIFIED"} 1)"),
            std::string::npos);
  EXPECT_NE(text.find("vallum_instances_isolated 0"), std::string::npos);
}

TEST_F(RestTest, PoolTakesOnlyKnownActions) {
  EXPECT_EQ(Admin(Method::kPost, "/v1/pools",
                  R"({"metadata":{"name":"gold"},"spec":{"onDiverged":"ON_DIVERGED_STOP"}})")
                .status,
            201);
  EXPECT_EQ(
      Admin(Method::kPost, "/v1/pools", R"({"metadata":{"name":"lead"},"spec":{"onDiverged":7}})")
          .status,
      400);
}

TEST_F(RestTest, QuoteOfAStoppedInstanceOrWithABadNonceIsRefused) {
  rig_.MakeReadyImage("debian");
  Admin(Method::kPost, "/v1/instances",
        R"({"metadata":{"name":"web1"},"spec":{"image":"debian","flavor":"tiny"}})");
  const std::string path = "/v1/instances/web1/quote";
  const http::Response stopped = Admin(Method::kPost, path, R"({"nonce":"00ff"})");
  EXPECT_EQ(stopped.status, 409) << stopped.body;
  EXPECT_EQ(Body(stopped)["fix"], "start it first");
  EXPECT_EQ(Admin(Method::kPost, path, R"({"nonce":"xyz"})").status, 400);
  const std::string long_nonce(130, 'a');
  EXPECT_EQ(Admin(Method::kPost, path, R"({"nonce":")" + long_nonce + R"("})").status, 400);
  EXPECT_EQ(Admin(Method::kPost, "/v1/instances/nobody/quote", R"({"nonce":"00"})").status, 404);
}

}  // namespace
}  // namespace vallum::controller
